"""The clock: UTC, boot id and the cached sync state."""

import os
import re
import time
from datetime import timedelta

import pytest

from device import clock


def test_now_is_aware_and_in_utc():
    assert clock.now().utcoffset() == timedelta(0) and abs(clock.now().timestamp() - time.time()) < 5


def test_uptime_grows_with_monotonic_clock():
    before, began = clock.uptime(), time.monotonic()
    time.sleep(0.02)
    assert clock.uptime() - before == pytest.approx(time.monotonic() - began, abs=0.02)


def test_boot_id_comes_from_systemd_if_given(monkeypatch):
    clock.boot_id.cache_clear()
    monkeypatch.setenv("LAKEVISION_BOOT_ID", "AB" * 16)
    assert clock.boot_id() == "ab" * 16
    clock.boot_id.cache_clear()


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/random/boot_id"), reason="needs Linux' /proc")
def test_boot_id_is_32_hex_digits(monkeypatch):
    clock.boot_id.cache_clear()
    monkeypatch.delenv("LAKEVISION_BOOT_ID", raising=False)
    assert re.fullmatch("[0-9a-f]{32}", clock.boot_id())


def test_sync_file_of_systemd_means_synced(monkeypatch, tmp_path):
    (tmp_path / "synchronized").touch()
    monkeypatch.setattr(clock, "SYNCED_FILE", str(tmp_path / "synchronized"))
    assert clock.synced() is True
    monkeypatch.setattr(clock, "SYNCED_FILE", str(tmp_path / "missing"))
    assert clock.synced() in clock.WORDS


def test_sync_state_is_read_again_only_after_its_age(monkeypatch):
    states = iter([False, True])
    monkeypatch.setattr(clock, "synced", lambda: next(states))
    monkeypatch.setattr(clock, "_reading", (-float("inf"), None))
    assert [clock.synced_within(60), clock.synced_within(60)] == [False, False]
    assert clock.synced_within(-1) is True
