"""The spool by itself: names, room, and threads that write at once."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from device.spool import spool
from device.spool.entry import describe, parse, stem
from device.spool.spool import Damaged, Spool, SpoolBusy, SpoolFull

AT = datetime(2026, 3, 2, 14, 5, 9, 123456, UTC)


def settings(path, **more):
    return SimpleNamespace(
        **{"path": str(path), "max_mb": 10.0, "free_mb": 0.0, "when_full": "oldest", "dead_mb": 0.05, **more}
    )


@pytest.fixture
def opened(tmp_path):
    made = Spool(settings(tmp_path), "capture")
    made.recover()
    yield made
    made.close()


def put(where, data=b"x" * 1000):
    sequence = where.next_sequence()
    entry = describe([data], "porch-1", AT, sequence)
    return entry, *where.put(entry, [data])


def test_a_name_says_all_there_is_to_know():
    entry = describe([b"ab", b"cd"], "porch_1.a", AT, 17, "package")
    assert parse(entry.name) == entry and entry.size == 4
    assert entry.key.startswith("device=porch_1.a/date=2026-03-02/2026-03-02T140509.123Z_") and entry.key.endswith(
        "_000017_package.jpg"
    )
    assert len(entry.name) < 256 - len("drop-.reason")


def test_the_longest_names_fit():
    entry = describe([b"x"], "d" * 63, AT, 9_999_999_999, "l" * 40)
    assert len(entry.name) <= 255 - len("drop-") and parse(entry.name) == entry


@pytest.mark.parametrize("name", ["photo.jpg", "", "1~a~b~2~c.jpg", "0000000001~a~b~2~" + "0" * 63 + ".jpg"])
def test_other_names_are_none(name):
    assert parse(name) is None


def test_names_sort_in_the_order_taken_whatever_the_clock_did():
    times = [AT, AT.replace(year=1970), AT.replace(year=2040)]
    names = [describe([b"x"], "d", at, sequence).name for sequence, at in enumerate(times, 9)]
    assert names == sorted(names)
    assert stem(AT, "ab" * 16, 5) == "2026-03-02T140509.123Z_abababab_000005"


def test_threads_together_keep_the_quota(tmp_path):
    made = Spool(settings(tmp_path, max_mb=0.1), "capture")
    made.recover()
    entries = []
    lock = threading.Lock()

    def write():
        for _ in range(40):
            with lock:
                sequence = made.next_sequence()
            entry = describe([bytes(9000)], "porch-1", AT, sequence)
            kept, dropped = made.put(entry, [bytes(9000)])
            with lock:
                entries.append((kept, dropped))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = made.oldest(1000)
    assert sum(entry.size for entry in left) <= 100_000
    assert len(left) + made.counters["dropped"] == 320 == len(entries)
    made.close()


def test_room_counts_what_is_being_written(tmp_path):
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


def test_a_frame_that_upload_holds_is_not_dropped(tmp_path):
    made = Spool(settings(tmp_path, max_mb=0.003), "capture")
    made.recover()
    first, *_ = put(made)
    put(made)
    sender = Spool(settings(tmp_path), "upload")
    with sender.claim(first) as data:
        assert data == b"x" * 1000
        _, kept, _ = put(made)
        assert kept
        _, kept, dropped = put(made)
        assert kept and [entry.sequence for entry in dropped] == [2], "the second oldest went in its place"
        sender.remove(first)
    with sender.claim(dropped[0]) as data:
        assert data is None
    sender.close()
    made.close()


def test_reject_and_newest(tmp_path):
    made = Spool(settings(tmp_path / "a", max_mb=0.002, when_full="reject"), "capture")
    made.recover()
    first, *_ = put(made)
    put(made)
    with pytest.raises(SpoolFull, match="spool.max_mb = 0.002 is used up"):
        put(made)
    made.remove(first)
    assert put(made)[1], "upload made room"
    made.close()
    made = Spool(settings(tmp_path / "b", max_mb=0.002, when_full="newest"), "capture")
    made.recover()
    put(made), put(made)
    entry, kept, dropped = put(made)
    assert not kept and dropped == [entry] and [left.sequence for left in made.oldest(9)] == [1, 2]
    made.close()


def test_a_rotten_frame_is_damaged(opened):
    entry, *_ = put(opened)
    (opened.ready / entry.name).write_bytes(b"y" * 1000)
    with pytest.raises(Damaged, match="SHA-256"), opened.claim(entry):
        raise AssertionError("it must not be handed out")


def test_dead_has_a_limit_too(opened):
    for _ in range(60):
        entry, *_ = put(opened)
        assert opened.bury(entry.name, "refused by the test")
    frames = list(opened.dead.glob("*.jpg"))
    assert (
        sum(path.stat().st_size for path in frames) <= 50_000
        and len(list(opened.dead.glob("*.reason"))) == len(frames) == 50
    )
    assert opened.counters["dead_dropped"] == 10


def test_numbers_go_on_after_a_crash(tmp_path):
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


def test_one_owner_of_a_kind(opened, tmp_path):
    with pytest.raises(SpoolBusy, match="another capture is running"):
        Spool(settings(tmp_path), "capture")
    Spool(settings(tmp_path), "upload").close()
