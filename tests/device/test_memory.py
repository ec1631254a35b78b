"""Memory that a process keeps."""

import ctypes

import pytest

from device import memory


class Glibc:
    """A C library whose mallopt() refuses mmap thresholds above `limit`; records the accepted values."""

    def __init__(self, limit=1 << 40):
        self.limit, self.accepted = limit, {}

    def mallopt(self, name, value):
        if name == memory.M_MMAP_THRESHOLD and value > self.limit:
            return 0
        self.accepted[name] = value
        return 1


def test_keep_sets_both_thresholds(monkeypatch):
    library = Glibc()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    memory.keep()
    assert library.accepted == {memory.M_TRIM_THRESHOLD: memory.KEPT, memory.M_MMAP_THRESHOLD: memory.KEPT}


def test_keep_sets_what_older_glibc_accepts(monkeypatch):
    library = Glibc(limit=32 << 20)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    memory.keep()
    assert library.accepted == {memory.M_TRIM_THRESHOLD: memory.KEPT, memory.M_MMAP_THRESHOLD: 32 << 20}


@pytest.mark.parametrize("error", [AttributeError, TypeError, OSError], ids=["musl", "Windows", "no library"])
def test_keep_does_nothing_without_glibc(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    memory.keep()
