"""The spool by itself: quota, policies, and threads that write at once."""

import threading

import pytest
from spools import AT, put, settings

from device.spool.entry import describe
from device.spool.spool import Damaged, Spool, SpoolBusy, SpoolFull


@pytest.fixture
def opened(tmp_path):
    made = Spool(settings(tmp_path), "capture")
    made.recover()
    yield made
    made.close()


def test_threads_together_keep_quota(tmp_path):
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


def test_frame_held_by_upload_is_not_dropped(tmp_path):
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
        assert kept and [entry.sequence for entry in dropped] == [2], "the second oldest frame was dropped instead"
        sender.remove(first)
    with sender.claim(dropped[0]) as data:
        assert data is None
    sender.close()
    made.close()


def test_reject_raises_and_newest_drops_new_frame(tmp_path):
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


def test_changed_bytes_raise_damaged(opened):
    entry, *_ = put(opened)
    (opened.ready / entry.name).write_bytes(b"y" * 1000)
    with pytest.raises(Damaged, match="SHA-256"), opened.claim(entry):
        raise AssertionError("a damaged frame must not be yielded")


def test_dead_folder_keeps_its_limit(opened):
    for _ in range(60):
        entry, *_ = put(opened)
        assert opened.bury(entry.name, "refused by the test")
    frames = list(opened.dead.glob("*.jpg"))
    assert (
        sum(path.stat().st_size for path in frames) <= 50_000
        and len(list(opened.dead.glob("*.reason"))) == len(frames) == 50
    )
    assert opened.counters["dead_dropped"] == 10


def test_second_owner_of_same_kind_is_refused(opened, tmp_path):
    with pytest.raises(SpoolBusy, match="another capture is running"):
        Spool(settings(tmp_path), "capture")
    Spool(settings(tmp_path), "upload").close()
