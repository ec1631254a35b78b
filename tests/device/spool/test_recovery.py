"""The spool after a crash."""

from spools import settings

from device.spool import spool
from device.spool.spool import Spool


def test_sequence_numbers_continue_after_crash(tmp_path):
    """A crash leaves the spool open: the record holds only the reserved numbers."""
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
