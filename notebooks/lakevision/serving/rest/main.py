"""Serves one version of the registered model over REST, until SIGTERM or Ctrl-C.

    bash notebooks/run.sh --serve                               # the champion, at http://127.0.0.1:5001
    bash notebooks/run.sh --serve 3 --set serve.port=8080       # version 3
    python -m lakevision.serving.rest.main --config local --alias champion --port 5001 --workers 2

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:5001/invocations

The third command needs notebooks/ on PYTHONPATH. The service is MLflow's scoring server (as started by
`mlflow models serve --env-manager local`) on uvicorn, uvloop and httptools, with the additions of app.py in this
folder. This process loads no model: it listens, and hands the connections to the workers (supervisor.py). Exit status:
0 after a clean stop; 1 if the model or a worker is unavailable; 2 for a wrong command line.
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
    """What the supervisor and its workers run.

    scratch: folder for the models' files, removed at the end; threads: images scored at a time in a worker;
    first_pause, longest_pause: seconds before a worker that died while loading is replaced.
    """

    cfg: config.Config
    version: loaded_model.Version
    scratch: str
    workers: int
    threads: int
    first_pause: float = supervisor.PAUSE
    longest_pause: float = supervisor.LONGEST_PAUSE


def sized(cfg: config.Config, cores: int) -> tuple[int, int]:
    """Returns (workers, threads per worker) from the settings. A setting of 0 depends on the number of cores.

    The default is one worker per core, because an interpreter runs one thread at a time: on 2 cores and for 4 clients,
    two workers of one thread answered 435 images/s, one worker of two threads 332.
    """
    count = cfg.serve.workers or cores
    return count, cfg.serve.threads or max(1, cores // count)


def listen(host: str, port: int) -> socket.socket:
    """Returns a bound, listening socket. Raises loaded_model.NotServable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise loaded_model.NotServable(
            f"can't listen at {host}:{port}: {error.strerror or error}; set another serve.host or serve.port"
        ) from error
    return listener


def greeting(plan: Plan, listener: socket.socket) -> str:
    """Returns the lines that are printed when all workers serve."""
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    version = plan.version
    alias = f" ({version.alias})" if version.alias else ""
    workers = f"{plan.workers} worker{'s' if plan.workers > 1 else ''}"
    threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    return (
        f"{version.name} version {version.number}{alias} at http://{host}:{port}, {workers} of {threads}; "
        "Ctrl-C or SIGTERM stops it\n"
        f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://{host}:{port}/invocations"
    )


def serve(
    cfg: config.Config,
    alias: str = "champion",
    number: str = "",
    pauses: tuple[float, float] = (supervisor.PAUSE, supervisor.LONGEST_PAUSE),
) -> int:
    """Serves version `number`, or else the alias's version, until a signal. Returns the exit status.

    pauses: first and longest pause in seconds before a worker that died while loading is replaced.
    """
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        listener = listen(cfg.serve.host, cfg.serve.port)
        with tempfile.TemporaryDirectory(prefix="lakevision-serve-") as folder:
            version = loaded_model.find(cfg, folder, "" if number else alias, number)
            plan = Plan(cfg, version, folder, *sized(cfg, len(os.sched_getaffinity(0))), *pauses)
            return supervisor.supervise(plan, listener, stop, lambda: print(greeting(plan, listener), flush=True))
    except loaded_model.NotServable as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1


def main(words: list[str] | None = None) -> int:
    """Runs the command line, by default sys.argv. Returns the exit status."""
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
