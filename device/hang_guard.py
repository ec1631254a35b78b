"""Ends a process whose camera driver hangs, with a traceback that shows where."""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

_deadline = float("inf")  # when guard() ends the process, by the monotonic clock


@contextmanager
def guard(seconds: float) -> Iterator[None]:
    """Ends the process, with a traceback, if the block takes longer than `seconds`. For the main thread.

    The kernel's timer and faulthandler's C handler do this without Python, because a driver may hang while it holds
    the GIL. No Python code in any thread runs then. If even this fails, systemd's watchdog kills the process.
    """
    global _deadline
    if not faulthandler.is_enabled():
        faulthandler.enable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action ends the process, after the traceback
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    _deadline = time.monotonic() + seconds
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _deadline = float("inf")


def time_left() -> float:
    """Seconds until guard() ends this process; infinite outside its block. For threads that must save something."""
    return _deadline - time.monotonic()
