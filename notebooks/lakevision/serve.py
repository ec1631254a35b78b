"""A REST service for one version of the registered model, until SIGTERM or Ctrl-C.

    bash notebooks/run.sh --serve                               # the champion, at http://127.0.0.1:5001
    bash notebooks/run.sh --serve 3 --set serve.port=8080       # version 3
    python -m lakevision.serve --config local --alias champion --port 5001 --workers 2      # with notebooks/ on PYTHONPATH

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:5001/invocations

It is MLflow's scoring server (what `mlflow models serve --env-manager local` runs) on uvicorn, uvloop and httptools, with what lakevision/service.py adds.
This process loads no model: it listens, starts the workers, starts another in place of one that died, and ends them. Exit status: 0 after a clean stop;
1 where the model or a worker can't be had; 2 for a wrong command line.
"""

import argparse
import logging
import multiprocessing
import multiprocessing.connection
import os
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

from lakevision import config, served

CORES_EACH = 4  # threads that one worker's interpreter keeps busy: of an image's 3.5 ms some 0.5 are Python, which one thread at a time can run
log = logging.getLogger("lakevision.serve")


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know. scratch: folder for files of models, gone at the end; threads: images at a time in a worker."""

    cfg: config.Config
    version: served.Version
    scratch: str
    workers: int
    threads: int


def sized(cfg, cores):
    """(workers, threads of each) by the settings, 0 by the cores."""
    workers = cfg.serve.workers or -(-cores // CORES_EACH)
    return workers, cfg.serve.threads or max(1, cores // workers)


def listen(host, port):
    """A bound socket that listens. Raises served.NotServable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise served.NotServable(f"can't listen at {host}:{port}: {error.strerror or error}; say another serve.host or serve.port") from error
    return listener


def work(plan, listener, ready):
    """A worker process: loads the version, serves until SIGTERM. ready: Event that it sets."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the server takes over there is nothing to finish
    _logging()
    threading.Thread(target=_follow_parent, daemon=True).start()
    from lakevision import server, train

    train.limit_threads(1)
    try:
        loaded = served.load(plan.version)
    except Exception as error:  # anything that a model's files can raise
        log.error("version %s can't be loaded: %s: %s", plan.version.number, type(error).__name__, str(error).splitlines()[0][:300] if str(error) else "")
        sys.exit(1)
    server.run(plan, loaded, listener, ready)


def _follow_parent():
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _logging():
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s worker {os.getpid()}: %(message)s", stream=sys.stderr)


def supervise(plan, listener, stop):
    """Runs the workers until the event `stop`. Returns the exit status."""
    context = multiprocessing.get_context("spawn")

    def start():
        ready = context.Event()
        process = context.Process(target=work, args=(plan, listener, ready))
        process.start()
        return process, ready

    running, status, greeted = [start() for _ in range(plan.workers)], 0, False
    try:
        while not stop.is_set():
            multiprocessing.connection.wait([process.sentinel for process, _ in running], timeout=0.2)
            for place, (process, ready) in enumerate(running):
                if process.is_alive():
                    continue
                if not ready.is_set():
                    print(f"serve: a worker ended with status {process.exitcode} before it served", file=sys.stderr)
                    status = 1
                    stop.set()
                    break
                print(f"serve: worker {process.pid} died (status {process.exitcode}); another one starts", file=sys.stderr, flush=True)
                running[place] = start()
            if not greeted and all(ready.is_set() for _, ready in running):
                greeted = True
                print(greeting(plan, listener), flush=True)
    finally:
        listener.close()  # with the workers' own, new clients are refused at once instead of waiting for nobody
        return end([process for process, _ in running], plan.cfg.serve.stop_seconds) or status  # noqa: B012


def end(processes, seconds):
    """Ends workers, with so long for what they have in flight. Returns 0 if all ended by themselves, else 1."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds + 5
    late = 0
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        if process.is_alive():
            print(f"serve: worker {process.pid} did not end within {seconds:g} s and is killed", file=sys.stderr)
            process.kill()
            process.join()
            late = 1
    return late


def greeting(plan, listener):
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    version = plan.version
    return (f"{version.name} version {version.number}{f' ({version.alias})' if version.alias else ''} at http://{host}:{port}, {plan.workers} "
            f"worker{'s' if plan.workers > 1 else ''} of {plan.threads} thread{'s' if plan.threads > 1 else ''}; Ctrl-C or SIGTERM stops it\n"
            f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://{host}:{port}/invocations")


def run(cfg, alias="champion", number=""):
    """Serves until it is told to stop. Returns the exit status. number: of the version, else the alias says which."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        listener = listen(cfg.serve.host, cfg.serve.port)
        with tempfile.TemporaryDirectory(prefix="lakevision-serve-") as folder:
            version = served.find(cfg, folder, "" if number else alias, number)
            return supervise(Plan(cfg, version, folder, *sized(cfg, len(os.sched_getaffinity(0)))), listener, stop)
    except served.NotServable as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1


def main(words=None):
    parser = argparse.ArgumentParser(prog="python -m lakevision.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="local", help="the overlay in config/ (default: local)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--alias", default="champion", help="serve the version that has this alias (default: champion)")
    which.add_argument("--version", default="", metavar="N", help="serve this version")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting that differs; can be repeated")
    for name in ("host", "port", "workers"):
        parser.add_argument(f"--{name}", help=f"the same as --set serve.{name}=")
    given = parser.parse_args(words)
    more = [f"serve.{name}={value}" for name in ("host", "port", "workers") if (value := getattr(given, name)) is not None]
    try:
        cfg = config.load(given.config, shlex.split(shlex.join(given.set)) + more)
    except config.ConfigError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    return run(cfg, given.alias, given.version)


if __name__ == "__main__":
    sys.exit(main())
