"""Starts `python -m device sync` when due, as a process that scoring never waits for.

Sync runs as a process of its own, so that scoring never waits for it.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

from device.config import Settings
from device.model import golden

LONGEST_S = 3600.0  # a sync that takes longer than this, and than model.interval_s, is killed


class SyncStarter:
    """Runs sync every model.interval_s; after failures, with growing pauses up to that interval."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.process: subprocess.Popen | None = None
        self.due, self.began = time.monotonic(), 0.0
        self.failures = 0  # in a row

    def tend(self) -> None:
        """Starts sync if it is due, or checks on the process under way. Does nothing without model.url."""
        if not self.settings.model.url:
            return
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                self._start(now)
            return
        status = self.process.poll()
        if status is None:
            if now - self.began > max(LONGEST_S, self.settings.model.interval_s):
                self.process.kill()  # the network is too slow; sync keeps the files that are complete
            return
        self.process = None
        self.failures = self.failures + 1 if status else 0
        self.due = now + self._pause()

    def end(self) -> None:
        """Ends the process under way. The files that it has fetched remain for the next sync."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def _start(self, now: float) -> None:
        command = [sys.executable, "-m", "device", "sync", "--config", self.settings.source]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=golden.environment())
        self.began = now

    def _pause(self) -> float:
        interval_s = self.settings.model.interval_s
        if not self.failures:
            return interval_s
        longest = min(interval_s, self.settings.upload.backoff_s * 2 ** min(self.failures, 32))
        return random.uniform(0.5, 1.0) * longest
