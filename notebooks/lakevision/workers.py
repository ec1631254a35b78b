"""The REST service's worker processes: started, watched, given connections and ended by the one process that listens.

The listening process accepts and hands each connection to the worker that has the fewest. Where workers accept from one socket by themselves, the
kernel wakes the same one first: of four clients that came one after the other all four were one worker's, and the other core slept.
"""

import logging
import multiprocessing
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass

from lakevision import served

MOST_OPEN = 500  # connections of a worker; beyond, clients wait to be accepted. A process may have 1024 files, as a rule
REPORT = struct.Struct("II")  # a worker says how many connections it has been given, and how many are open
log = logging.getLogger("lakevision.serve")


@dataclass
class Worker:
    """A worker as the listening process sees it. control: socket, connections go down and reports come up; given, got, open: connections handed over,
    arrived there, and open there when it last said."""

    process: multiprocessing.Process
    control: socket.socket
    ready: bool = False
    given: int = 0
    got: int = 0
    open: int = 0

    def load(self):
        return self.open + self.given - self.got


def supervise(plan, listener, stop, on_ready):
    """Runs plan.workers workers until the event `stop`. on_ready() is called once, when all serve. Returns the exit status."""
    context = multiprocessing.get_context("spawn")
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    running, greeted = [], False

    def start():
        ours, theirs = socket.socketpair()
        process = context.Process(target=work, args=(plan, theirs))
        process.start()
        theirs.close()
        ours.settimeout(1)
        running.append(Worker(process, ours))
        selector.register(ours, selectors.EVENT_READ, running[-1])

    try:
        for _ in range(plan.workers):
            start()
        while not stop.is_set():
            for key, _ in selector.select(0.2):
                if key.fileobj is listener:
                    deal(listener, running)
                elif not heard(key.data):
                    lost = key.data
                    selector.unregister(lost.control)
                    running.remove(lost)
                    end([lost], plan.cfg.serve.stop_seconds)
                    print(f"serve: worker {lost.process.pid} ended with status {lost.process.exitcode}{'' if lost.ready else ' before it served'}",
                          file=sys.stderr, flush=True)
                    if not lost.ready:
                        return 1  # the next one would end in the same way
                    start()
            full = all(worker.load() >= MOST_OPEN for worker in running if worker.ready)  # also where none is ready: clients then wait
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


def heard(worker):
    """Takes a worker's reports. Returns False where it has ended."""
    try:
        data = worker.control.recv(REPORT.size * 100)
    except OSError:
        return False
    if not data:
        return False
    worker.got, worker.open = REPORT.unpack(data[-REPORT.size:])
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
                print(f"serve: a connection was lost, worker {least.process.pid} takes none: {error}", file=sys.stderr, flush=True)
                return


def end(ending, seconds):
    """Ends workers, with so long for what they have in flight. Returns 0 if all ended by themselves, else 1."""
    for worker in ending:
        worker.process.terminate()
    deadline, late = time.monotonic() + seconds + 5, 0
    for worker in ending:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            print(f"serve: worker {worker.process.pid} did not end within {seconds:g} s and is killed", file=sys.stderr, flush=True)
            worker.process.kill()
            worker.process.join()
            late = 1
        worker.control.close()
    return late


def work(plan, control):
    """A worker process: loads the version, serves the connections that come down `control`, until SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the server takes over there is nothing to finish
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s worker {os.getpid()}: %(message)s", stream=sys.stderr)
    threading.Thread(target=_follow_parent, daemon=True).start()
    from lakevision import server, train

    train.limit_threads(1)
    try:
        loaded = served.load(plan.version)
    except Exception as error:  # anything that a model's files can raise
        log.error("version %s can't be loaded: %s", plan.version.number, served.first_line(error))
        sys.exit(1)
    server.run(plan, loaded, control)


def _follow_parent():
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
