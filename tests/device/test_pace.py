"""When a frame is due, for the interval and for the watchdog."""

import time

import harness
import pytest

from device.pace import Pace


@pytest.fixture
def now(monkeypatch):
    """The monotonic clock as a list with one number, to be set by the test."""
    at = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def test_first_frame_is_due_at_once_and_next_after_interval(now):
    pace = Pace(10.0)
    assert pace.pause() == 0 and pace.advance()
    pace.prove_alive(lambda: True)
    now[0] += 4
    assert pace.pause() == pytest.approx(6.0)
    now[0] += 6
    assert pace.pause() == 0 and pace.advance()


def test_stall_is_followed_by_no_burst(now):
    pace = Pace(10.0)
    pace.advance()
    pace.prove_alive(lambda: True)
    now[0] += 35
    assert pace.advance() and pace.pause() == pytest.approx(5.0)


def test_interval_zero_is_always_due(now):
    pace = Pace(0.0)
    for _ in range(3):
        assert pace.pause() == 0 and pace.advance()


def test_watchdog_needs_frame_that_is_not_due(now, monkeypatch, tmp_path):
    with harness.NotifySocket(tmp_path) as systemd:
        for name, value in systemd.env(watchdog_s=9.0).items():
            monkeypatch.setenv(name, value)
        pace = Pace(100.0)
        pace.advance()
        pace.prove_alive(lambda: True)
        assert pace.pause() == pytest.approx(3.0)
        now[0] += 3
        assert pace.pause() == 0 and not pace.advance()
        pace.prove_alive(lambda: False)
        lines = systemd.heard()
    assert lines[0] == "READY=1" and lines.count("WATCHDOG=1") == 1, "no message while the process is unwell"
