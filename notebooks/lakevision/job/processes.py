"""Child processes of a run: kernels, their JVM, Python workers and ranks all end with the run."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from lakevision.platform import locks

PATIENCE = 3  # seconds between SIGTERM and SIGKILL


def in_thread(function: Callable, *arguments: Any) -> Any:
    """Returns function(*arguments), called in a thread of its own.

    In the main thread, nbclient would catch Ctrl-C and go on.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result()
        except KeyboardInterrupt:
            end_children()  # the thread ends when its kernel dies
            raise


@contextlib.contextmanager
def temporary_folder() -> Iterator[None]:
    """Gives this run and its children a temporary folder of their own, which is removed at the end.

    Killed processes leave files behind, such as TensorFlow's autograph files. Locks stay in the machine's temporary
    folder, so that other runs see them.
    """
    before = os.environ.get("TMPDIR")
    os.environ.setdefault(locks.LOCKS, tempfile.gettempdir())
    folder = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="lakevision-run-")
    tempfile.tempdir = None  # Python looks at TMPDIR again
    try:
        yield
    finally:
        end_children()  # they may still write
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)


def interrupt_on_signals() -> None:
    """Makes SIGTERM and SIGHUP act like Ctrl-C, so that they also end the child processes."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def end_children() -> None:
    """Ends all descendants of this process; kills those that still run after PATIENCE seconds."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        _signal(child, "terminate")
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    for child in alive:
        _signal(child, "kill")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _signal(process: psutil.Process, method: str) -> None:
    try:
        getattr(process, method)()
    except psutil.NoSuchProcess:
        return  # the process has ended meanwhile
