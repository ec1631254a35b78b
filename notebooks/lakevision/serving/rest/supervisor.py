"""Starts, watches and ends the REST service's worker processes, and gives them connections.

The listening process accepts each connection and hands it to the worker with the fewest. If workers accepted from one
socket themselves, the kernel would wake the same worker first: of four clients that came one after the other, all four
went to one worker, and the other core was idle.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakevision.serving.rest import loaded_model, protocol, rollout, worker_process

if TYPE_CHECKING:
    from lakevision.serving.rest.main import Plan

# Most connections of a worker; further clients wait. A process may usually have 1024 open files.
MOST_OPEN = 500
# Seconds before a worker that died while loading is replaced. Each pause is twice the last.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
TRIES = 5  # deaths while loading in a row, with no worker serving, before the service gives up
log = logging.getLogger("lakevision.serving.rest.main")


@dataclass
class Worker:
    """A worker as the listening process sees it.

    control: socket; connections go down, reports come up. orders: pipe; versions to load go down, results come up.
    given: connections handed over; got and open: connections received and open, by the worker's last report.
    version: the version it serves or starts with; loading: the version it was ordered to load, or None.
    pause: rollout.Pause after a failed load.
    """

    process: multiprocessing.process.BaseProcess
    control: socket.socket
    orders: multiprocessing.connection.Connection
    version: loaded_model.Version
    ready: bool = False
    given: int = 0
    got: int = 0
    open: int = 0
    loading: loaded_model.Version | None = None
    pause: rollout.Pause = field(default_factory=rollout.Pause)

    def load(self) -> int:
        """Returns the number of connections that the worker has open or has not received yet."""
        return self.open + self.given - self.got


def supervise(plan: Plan, listener: socket.socket, stop: threading.Event, on_ready: Callable[[], None]) -> int:
    """Runs plan.workers workers until the event `stop`. Calls on_ready() once, when all serve. Returns the exit status.

    A worker that ends is replaced: at once if it served, after a growing pause if it died while loading. Memory that
    was short may come back, and the other workers keep serving. The status is 1 if a worker dies before all have
    served once, or if TRIES workers in a row die while none serves.
    """
    listener.setblocking(False)
    supervisor = Supervisor(plan, listener, rollout.start(plan, stop))
    try:
        for _ in range(plan.workers):
            supervisor.start()
        while not stop.is_set():
            if not supervisor.handle_events():
                return 1
            supervisor.start_due()
            rollout.order(supervisor.rolled, supervisor.running)
            rollout.tidy(supervisor.rolled, supervisor.running, plan.cfg.serve.timeout_seconds)
            supervisor.watch_listener()
            if not supervisor.greeted and all(worker.ready for worker in supervisor.running):
                supervisor.greeted = True
                on_ready()
        deal(listener, supervisor.running)  # clients that are already waiting are let in
    finally:
        listener.close()
        late = end(supervisor.running, plan.cfg.serve.stop_seconds)
    return late


class Supervisor:
    """The listening process's workers. failed: deaths while loading in a row; restarts: times to start a worker at."""

    def __init__(self, plan: Plan, listener: socket.socket, rolled: rollout.Rollout) -> None:
        self.plan, self.listener, self.rolled = plan, listener, rolled
        self.selector = selectors.DefaultSelector()
        self.running: list[Worker] = []
        self.restarts: list[float] = []
        self.greeted, self.failed = False, 0

    def start(self) -> None:
        """Starts a worker on the current good version."""
        worker = begin(dataclasses.replace(self.plan, version=self.rolled.good))
        self.running.append(worker)
        for channel in (worker.control, worker.orders):
            self.selector.register(channel, selectors.EVENT_READ, worker)

    def handle_events(self) -> bool:
        """Handles what clients and workers have sent within 0.2 s. Returns False to give up."""
        for key, _ in self.selector.select(0.2):
            worker = key.data
            if key.fileobj is self.listener:
                deal(self.listener, self.running)
            elif worker not in self.running:
                continue  # the other channel has just reported that the worker ended
            elif key.fileobj is worker.orders:
                answered(self.rolled, worker)
            elif heard(worker):
                self.failed = 0 if worker.ready else self.failed
            elif not self.replace(worker):
                return False
        return True

    def replace(self, lost: Worker) -> bool:
        """Removes a worker that has ended and schedules another. Returns False to give up."""
        for channel in (lost.control, lost.orders):
            self.selector.unregister(channel)
        self.running.remove(lost)
        rollout.died(self.rolled, lost)
        end([lost], self.plan.cfg.serve.stop_seconds)
        when = "" if lost.ready else " before it served"
        rollout.tell(f"worker {lost.process.pid} ended with status {lost.process.exitcode}{when}")
        serving = sum(worker.ready for worker in self.running)
        if lost.ready:
            self.restarts.append(time.monotonic())
            return True
        self.failed += 1
        if not self.greeted or (self.failed >= TRIES and not serving):
            in_a_row = f"{self.failed} workers in a row, and none serves"
            reason = in_a_row if self.greeted else "a worker never came to serve"
            rollout.tell(f"gives up: {reason}")
            return False
        wait = min(self.plan.longest_pause, self.plan.first_pause * 2 ** (self.failed - 1))
        self.restarts.append(time.monotonic() + wait)
        rollout.tell(f"starts another in {wait:g} s; {serving} of {self.plan.workers} workers serve")
        return True

    def start_due(self) -> None:
        """Starts the workers whose pause is over."""
        now = time.monotonic()
        due = [when for when in self.restarts if when <= now]
        self.restarts = [when for when in self.restarts if when > now]
        for _ in due:
            self.start()

    def watch_listener(self) -> None:
        """Stops accepting while every ready worker is full, or none is ready. Clients then wait."""
        full = all(worker.load() >= MOST_OPEN for worker in self.running if worker.ready)
        if full != (self.listener in self.selector.get_map()):
            return
        if full:
            self.selector.unregister(self.listener)
        else:
            self.selector.register(self.listener, selectors.EVENT_READ)


def begin(plan: Plan) -> Worker:
    """Starts a worker process on plan.version."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    orders, taken = context.Pipe()
    process = context.Process(target=worker_process.work, args=(plan, theirs, taken))
    process.start()
    theirs.close()
    taken.close()
    ours.settimeout(1)
    return Worker(process, ours, orders, plan.version)


def answered(rolled: rollout.Rollout, worker: Worker) -> None:
    """Receives the result of loading a version from a worker."""
    try:
        reason = worker.orders.recv()
    except (EOFError, OSError):
        return  # the worker has ended; heard() detects the same on `control`
    rollout.loaded(rolled, worker, reason)


def heard(worker: Worker) -> bool:
    """Receives a worker's reports. Returns False if the worker has ended."""
    try:
        data = worker.control.recv(protocol.REPORT.size * 100)
    except OSError:
        return False
    if not data:
        return False
    worker.got, worker.open = protocol.REPORT.unpack(data[-protocol.REPORT.size :])
    worker.ready = True
    return True


def deal(listener: socket.socket, running: list[Worker]) -> None:
    """Accepts all waiting connections and hands each to the worker with the fewest."""
    while ready := [worker for worker in running if worker.ready and worker.load() < MOST_OPEN]:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        least = min(ready, key=Worker.load)
        with connection:  # the worker has its own descriptor
            try:
                socket.send_fds(least.control, [b"c"], [connection.fileno()])
                least.given += 1
            except OSError as error:
                rollout.tell(f"a connection was lost, worker {least.process.pid} takes none: {error}")
                return


def end(ending: list[Worker], seconds: float) -> int:
    """Ends workers. Requests in flight have `seconds` to finish. Returns 0 if no worker had to be killed, else 1."""
    for worker in ending:
        worker.process.terminate()
    deadline, late = time.monotonic() + seconds + 5, 0
    for worker in ending:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            rollout.tell(f"worker {worker.process.pid} did not end within {seconds:g} s and is killed")
            worker.process.kill()
            worker.process.join()
            late = 1
        worker.control.close()
        worker.orders.close()
    return late
