"""Time on a board without a clock chip: UTC, the state of its synchronisation, and the boot id."""

from __future__ import annotations

import ctypes
import os
import time
from datetime import datetime, timezone
from functools import lru_cache

SYNCED_FILE = "/run/systemd/timesync/synchronized"  # systemd-timesyncd makes it after the first answer since boot
WORDS = {True: "synced", False: "not synced since boot", None: "sync state unknown"}
TIMEX_BYTES = 512  # struct timex takes 208 bytes on 64-bit systems and 128 on 32-bit ones
TIME_ERROR = 5  # timex.h

_reading: tuple[float, bool | None] = (-float("inf"), None)  # when synced_within() last read the state, and the state


def now() -> datetime:
    """The wall clock as an aware datetime in UTC. After a power cut it is wrong until NTP has answered."""
    return datetime.now(timezone.utc)


def uptime() -> float:
    """Seconds since boot, sleep included. With the boot id they order frames and later correct unsynced times."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """32 hex digits, new at every boot. systemd passes them if the unit hides /proc (LAKEVISION_BOOT_ID=%b)."""
    given = os.environ.get("LAKEVISION_BOOT_ID", "")
    if not given:
        with open("/proc/sys/kernel/random/boot_id") as file:
            given = file.read()
    return given.strip().replace("-", "").lower()


def synced() -> bool | None:
    """True if the clock has been set from the network since boot, False if not, None if the system does not tell.

    adjtimex(2) covers chrony and ntpd too: it returns TIME_ERROR while the clock is not synchronised.
    """
    if os.path.exists(SYNCED_FILE):
        return True
    timex = ctypes.create_string_buffer(TIMEX_BYTES)  # all zero: modes = 0 only reads
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return None if state < 0 else state != TIME_ERROR


def synced_within(seconds: float) -> bool | None:
    """synced(), read again only if the last reading is older than `seconds`: the state changes once in a boot."""
    global _reading
    if time.monotonic() - _reading[0] > seconds:
        _reading = time.monotonic(), synced()
    return _reading[1]
