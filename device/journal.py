"""Lines to the journal, and pauses that a stop request ends early."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sized
from typing import TextIO

PIECE_S = 0.5  # a signal handler runs during time.sleep(), but Python then sleeps on: so sleep in short pieces


def say(line: str, file: TextIO | None = None) -> None:
    """Writes a line to stdout (or file) with a single write, so that lines of several threads do not mix."""
    print(f"{line}\n", end="", file=file or sys.stdout, flush=True)


def sleep(seconds: float, stopping: Sized, meanwhile: Callable[[], object] | None = None) -> None:
    """Sleeps until the time is over or `stopping` is no longer empty.

    meanwhile: called before each piece of PIECE_S seconds, for example to feed the watchdog.
    """
    end = time.monotonic() + seconds
    while not stopping and (left := end - time.monotonic()) > 0:
        if meanwhile:
            meanwhile()
        time.sleep(min(left, PIECE_S))
