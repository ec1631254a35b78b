"""The spool's account of its bytes."""

import threading

from spools import put, settings

from device.spool.spool import Spool


def test_quota_counts_frame_being_written(tmp_path):
    """On a slow card one frame is being written while others come and go; together they stay within the quota."""
    made = Spool(settings(tmp_path, max_mb=0.003), "capture")
    made.recover()
    begun, go_on, write = threading.Event(), threading.Event(), made._write

    def slow(entry, parts):
        begun.set()
        go_on.wait(10)
        return write(entry, parts)

    made._write = slow
    thread = threading.Thread(target=put, args=(made,))
    thread.start()
    begun.wait(10)
    made._write = write
    for _ in range(5):
        assert put(made)[1]
        assert sum(entry.size for entry in made.oldest(99)) <= 2000, "the frame being written needs the rest"
    go_on.set()
    thread.join()
    assert len(made.oldest(99)) == 3
    made.close()
