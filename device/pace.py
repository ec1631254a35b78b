"""The pace of capture: when the next frame is due, and when the watchdog needs one."""

from __future__ import annotations

import time
from collections.abc import Callable

from device.notify import notify, watchdog_s


class Pace:
    """Times frames by the monotonic clock. A watchdog gets three frames in each of its periods, due or not."""

    def __init__(self, interval_s: float):
        limit = watchdog_s()
        self.interval_s = interval_s
        self.proof_every = limit / 3 if limit else float("inf")
        self.began = self.due = time.monotonic()
        self.proved = -float("inf")  # when a frame last fed the watchdog

    def pause(self) -> float:
        """Seconds until the next frame; 0 if it is due now, for the interval or for the watchdog."""
        now = time.monotonic()
        if now >= self.due or now - self.proved >= self.proof_every:
            return 0.0
        return min(self.due - now, self.proof_every - (now - self.proved))

    def advance(self) -> bool:
        """True if a frame is due for the interval; then the next one is planned. No burst follows a stall."""
        now = time.monotonic()
        if now < self.due:
            return False
        if self.interval_s:
            missed = int((now - self.due) / self.interval_s)
            self.due += (missed + 1) * self.interval_s
        else:
            self.due = now
        return True

    def prove_alive(self, is_well: Callable[[], bool]) -> None:
        """Reports a frame to systemd: READY=1 for the first, then WATCHDOG=1 at most once a second."""
        if self.proved == -float("inf"):
            notify("READY=1", f"STATUS=first frame after {time.monotonic() - self.began:.1f} s")
        if time.monotonic() - self.proved >= min(1.0, self.proof_every):
            self.proved = time.monotonic()
            if is_well():
                notify("WATCHDOG=1")
