"""The spool after a crash."""

from types import SimpleNamespace

from device.spool import spool
from device.spool.spool import Spool


def settings(path, **more):
    return SimpleNamespace(
        **{"path": str(path), "max_mb": 10.0, "free_mb": 0.0, "when_full": "oldest", "dead_mb": 0.05, **more}
    )


def test_sequence_numbers_continue_after_crash(tmp_path):
    """A crash is a spool that is not closed: the record says only what was reserved."""
    made = Spool(settings(tmp_path), "capture")
    made.recover()
    used = [made.next_sequence() for _ in range(spool.RESERVED + 5)]
    made._lock.close()
    again = Spool(settings(tmp_path), "capture")
    again.recover()
    assert again.next_sequence() > max(used)
    again.close()
    clean = Spool(settings(tmp_path), "capture")
    clean.recover()
    assert clean.next_sequence() == again.counters["sequence"] + 1, "a clean stop leaves no gap"
    clean.close()
