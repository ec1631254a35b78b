"""Memory that a process keeps."""

import ctypes
from types import SimpleNamespace

import pytest

from device import memory


def test_keep_sets_both_thresholds(monkeypatch):
    calls = []
    monkeypatch.setattr(
        ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda name, value: calls.append((name, value)))
    )
    memory.keep()
    assert calls == [(memory.M_TRIM_THRESHOLD, memory.KEPT), (memory.M_MMAP_THRESHOLD, memory.KEPT)]


@pytest.mark.parametrize("error", [AttributeError, TypeError, OSError], ids=["musl", "Windows", "no library"])
def test_keep_does_nothing_without_glibc(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    memory.keep()
