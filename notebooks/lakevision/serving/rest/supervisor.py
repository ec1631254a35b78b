"""The REST service's worker processes: started, watched, given connections and ended by the one process that listens.

The listening process accepts and hands each connection to the worker that has the fewest. Where workers accept from one socket by themselves, the
kernel wakes the same one first: of four clients that came one after the other all four were one worker's, and the other core slept.
"""

import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

from lakevision.serving.rest import loaded_model, protocol, rollout, worker_process

MOST_OPEN = (
    500  # connections of a worker; beyond, clients wait to be accepted. A process may have 1024 files, as a rule
)
PAUSE, LONGEST_PAUSE = (
    1.0,
    60.0,
)  # seconds before a worker that died while it loaded is replaced; each pause is twice the last
TRIES = 5  # of these in a row, while no worker serves, before the service gives up
log = logging.getLogger("lakevision.serving.rest.main")


@dataclass
class Worker:
    """A worker as the listening process sees it. control: socket, connections go down and reports come up; given, got, open: connections handed over,
    arrived there, and open there when it last said. orders: pipe, versions to load go down and how it went comes up; version: what it serves, or
    starts with; loading: what it was told to load, or None; pause: rollout.Pause after it could not."""

    process: multiprocessing.Process
    control: socket.socket
    orders: multiprocessing.connection.Connection
    version: loaded_model.Version
    ready: bool = False
    given: int = 0
    got: int = 0
    open: int = 0
    loading: loaded_model.Version | None = None
    pause: rollout.Pause = field(default_factory=rollout.Pause)

    def load(self):
        return self.open + self.given - self.got


def supervise(plan, listener, stop, on_ready):
    """Runs plan.workers workers until the event `stop`. on_ready() is called once, when all serve. Returns the exit status.

    A worker that ends is replaced: at once if it served, after a growing pause if it died while it loaded, since memory that lacks may come back and
    the others go on. 1 where it never comes to serve: a worker dies before all have served once, or TRIES in a row while none serves.
    """
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    running, greeted, failed, again = [], False, 0, []  # again: times at which to start a worker
    rolled = rollout.start(plan, stop)

    def start():
        running.append(begin(dataclasses.replace(plan, version=rolled.good)))
        for channel in (running[-1].control, running[-1].orders):
            selector.register(channel, selectors.EVENT_READ, running[-1])

    try:
        for _ in range(plan.workers):
            start()
        while not stop.is_set():
            for key, _ in selector.select(0.2):
                if key.fileobj is listener:
                    deal(listener, running)
                elif key.data not in running:
                    continue  # ended, by what its other channel said a moment ago
                elif key.fileobj is key.data.orders:
                    answered(rolled, key.data)
                elif heard(key.data):
                    failed = 0 if key.data.ready else failed
                else:
                    lost = key.data
                    for channel in (lost.control, lost.orders):
                        selector.unregister(channel)
                    running.remove(lost)
                    rollout.died(rolled, lost)
                    end([lost], plan.cfg.serve.stop_seconds)
                    rollout.tell(
                        f"worker {lost.process.pid} ended with status {lost.process.exitcode}{'' if lost.ready else ' before it served'}"
                    )
                    failed += not lost.ready
                    if not lost.ready and (
                        not greeted or failed >= TRIES and not any(worker.ready for worker in running)
                    ):
                        rollout.tell(
                            f"gives up: {'a worker never came to serve' if not greeted else f'{failed} workers in a row, and none serves'}"
                        )
                        return 1
                    wait = 0.0 if lost.ready else min(LONGEST_PAUSE, PAUSE * 2 ** (failed - 1))
                    again.append(time.monotonic() + wait)
                    if wait:
                        rollout.tell(
                            f"starts another in {wait:g} s; {sum(worker.ready for worker in running)} of {plan.workers} workers serve"
                        )
            for when in [when for when in again if when <= time.monotonic()]:
                again.remove(when)
                start()
            rollout.order(rolled, running)
            rollout.tidy(rolled, running, plan.cfg.serve.timeout_seconds)
            full = all(
                worker.load() >= MOST_OPEN for worker in running if worker.ready
            )  # also where none is ready: clients then wait
            if full == (listener in selector.get_map()):
                selector.unregister(listener) if full else selector.register(listener, selectors.EVENT_READ)
            if not greeted and all(worker.ready for worker in running):
                greeted = True
                on_ready()
        deal(listener, running)  # who has knocked already is let in
    finally:
        listener.close()
        late = end(running, plan.cfg.serve.stop_seconds)
    return late


def begin(plan):
    """Starts a worker process on plan.version. Returns Worker."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    orders, taken = context.Pipe()
    process = context.Process(target=worker_process.work, args=(plan, theirs, taken))
    process.start()
    theirs.close()
    taken.close()
    ours.settimeout(1)
    return Worker(process, ours, orders, plan.version)


def answered(rolled, worker):
    """Takes what a worker says of a version that it was told to load."""
    try:
        reason = worker.orders.recv()
    except (EOFError, OSError):
        return  # it has ended, and `control` says so, too
    rollout.loaded(rolled, worker, reason)


def heard(worker):
    """Takes a worker's reports. Returns False where it has ended."""
    try:
        data = worker.control.recv(protocol.REPORT.size * 100)
    except OSError:
        return False
    if not data:
        return False
    worker.got, worker.open = protocol.REPORT.unpack(data[-protocol.REPORT.size :])
    worker.ready = True
    return True


def deal(listener, running):
    """Accepts all that wait, each for the worker with the fewest connections."""
    while ready := [worker for worker in running if worker.ready and worker.load() < MOST_OPEN]:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        least = min(ready, key=Worker.load)
        with connection:  # the worker has a descriptor of its own
            try:
                socket.send_fds(least.control, [b"c"], [connection.fileno()])
                least.given += 1
            except OSError as error:
                print(
                    f"serve: a connection was lost, worker {least.process.pid} takes none: {error}",
                    file=sys.stderr,
                    flush=True,
                )
                return


def end(ending, seconds):
    """Ends workers, with so long for what they have in flight. Returns 0 if all ended by themselves, else 1."""
    for worker in ending:
        worker.process.terminate()
    deadline, late = time.monotonic() + seconds + 5, 0
    for worker in ending:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            print(
                f"serve: worker {worker.process.pid} did not end within {seconds:g} s and is killed",
                file=sys.stderr,
                flush=True,
            )
            worker.process.kill()
            worker.process.join()
            late = 1
        worker.control.close()
        worker.orders.close()
    return late
