"""The spool's account of its bytes."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

from device.spool.entry import describe
from device.spool.spool import Spool

AT = datetime(2026, 3, 2, 14, 5, 9, 123456, UTC)


def settings(path, **more):
    return SimpleNamespace(
        **{"path": str(path), "max_mb": 10.0, "free_mb": 0.0, "when_full": "oldest", "dead_mb": 0.05, **more}
    )


def put(where, data=b"x" * 1000):
    sequence = where.next_sequence()
    entry = describe([data], "porch-1", AT, sequence)
    return entry, *where.put(entry, [data])


def test_quota_counts_frame_being_written(tmp_path):
    """A slow card: one frame is under way while others come and go; together they stay within the quota."""
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
        assert sum(entry.size for entry in made.oldest(99)) <= 2000, "the one under way needs the rest"
    go_on.set()
    thread.join()
    assert len(made.oldest(99)) == 3
    made.close()
