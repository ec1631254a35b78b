"""A REST service for one version of the registered model, until SIGTERM or Ctrl-C.

    bash notebooks/run.sh --serve                               # the champion, at http://127.0.0.1:5001
    bash notebooks/run.sh --serve 3 --set serve.port=8080       # version 3
    python -m lakevision.serving.rest.main --config local --alias champion --port 5001 --workers 2     # with notebooks/ on PYTHONPATH

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:5001/invocations

It is MLflow's scoring server (what `mlflow models serve --env-manager local` runs) on uvicorn, uvloop and httptools, with what lakevision/serving/rest/app.py
adds. This process loads no model: it listens, and deals the connections to the workers (lakevision/serving/rest/supervisor.py). Exit status: 0 after a clean stop;
1 where the model or a worker can't be had; 2 for a wrong command line.
"""

import argparse
import os
import shlex
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass

from lakevision.platform import config
from lakevision.serving.rest import loaded_model, supervisor


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know. scratch: folder for files of models, gone at the end; threads: images at a time in a worker."""

    cfg: config.Config
    version: loaded_model.Version
    scratch: str
    workers: int
    threads: int


def sized(cfg, cores):
    """(workers, threads of each) by the settings, 0 by the cores.

    A worker for each core: on 2 cores two of one thread answer 435 images/s for 4 clients, one of two threads 332, since an interpreter runs one
    thread at a time.
    """
    count = cfg.serve.workers or cores
    return count, cfg.serve.threads or max(1, cores // count)


def listen(host, port):
    """A bound socket that listens. Raises loaded_model.NotServable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise loaded_model.NotServable(
            f"can't listen at {host}:{port}: {error.strerror or error}; say another serve.host or serve.port"
        ) from error
    return listener


def greeting(plan, listener):
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    version = plan.version
    return (
        f"{version.name} version {version.number}{f' ({version.alias})' if version.alias else ''} at http://{host}:{port}, {plan.workers} "
        f"worker{'s' if plan.workers > 1 else ''} of {plan.threads} thread{'s' if plan.threads > 1 else ''}; Ctrl-C or SIGTERM stops it\n"
        f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://{host}:{port}/invocations"
    )


def serve(cfg, alias="champion", number=""):
    """Serves until it is told to stop. Returns the exit status. number: of the version, else the alias says which."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        listener = listen(cfg.serve.host, cfg.serve.port)
        with tempfile.TemporaryDirectory(prefix="lakevision-serve-") as folder:
            version = loaded_model.find(cfg, folder, "" if number else alias, number)
            plan = Plan(cfg, version, folder, *sized(cfg, len(os.sched_getaffinity(0))))
            return supervisor.supervise(plan, listener, stop, lambda: print(greeting(plan, listener), flush=True))
    except loaded_model.NotServable as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1


def main(words=None):
    parser = argparse.ArgumentParser(
        prog="python -m lakevision.serving.rest.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="local", help="the overlay in config/ (default: local)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--alias", default="champion", help="serve the version that has this alias (default: champion)")
    which.add_argument("--version", default="", metavar="N", help="serve this version")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a setting that differs; can be repeated",
    )
    for name in ("host", "port", "workers"):
        parser.add_argument(f"--{name}", help=f"the same as --set serve.{name}=")
    given = parser.parse_args(words)
    more = [
        f"serve.{name}={value}" for name in ("host", "port", "workers") if (value := getattr(given, name)) is not None
    ]
    try:
        cfg = config.load(given.config, shlex.split(shlex.join(given.set)) + more)
    except config.ConfigError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    return serve(cfg, given.alias, given.version)


if __name__ == "__main__":
    sys.exit(main())
