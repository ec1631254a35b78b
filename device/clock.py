"""Time on a board without a clock chip: UTC as far as it is known, whether it is, and which boot we are in."""

import ctypes
import os
import time
from datetime import datetime, timezone
from functools import lru_cache

SYNCED_FILE = "/run/systemd/timesync/synchronized"  # systemd-timesyncd makes it after the first answer since boot


def now():
    """The wall clock, aware, in UTC. After a power cut it is wrong until NTP has answered."""
    return datetime.now(timezone.utc)


def uptime():
    """Seconds since boot, sleep included: with the boot id it orders frames, and later mends the time of unsynced ones."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@lru_cache(maxsize=1)
def boot_id():
    """32 hex digits, new at every boot. systemd hands it over where the unit hides /proc (LAKEVISION_BOOT_ID=%b)."""
    given = os.environ.get("LAKEVISION_BOOT_ID", "")
    if not given:
        with open("/proc/sys/kernel/random/boot_id") as file:
            given = file.read()
    return given.strip().replace("-", "").lower()


def synced():
    """True or False: whether the clock has been set from the network since boot; None where the system won't say.

    adjtimex(2) knows it for chrony and ntpd too: it returns TIME_ERROR (5) while the clock is not synchronised.
    """
    if os.path.exists(SYNCED_FILE):
        return True
    timex = ctypes.create_string_buffer(
        512
    )  # struct timex with modes = 0: read only; 208 bytes on 64-bit, 128 on 32-bit
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return None if state < 0 else state != 5


WORDS = {True: "synced", False: "not synced since boot", None: "sync state unknown"}
