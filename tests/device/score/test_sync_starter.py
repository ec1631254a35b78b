"""Sync runs when it is due, with growing pauses after failures, and is killed if it takes too long."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from harness import until
from steps import ready

from device.score import sync_starter


@pytest.fixture
def starter(monkeypatch):
    """A SyncStarter whose processes run starter.code instead of sync; starter.started counts them."""
    settings = SimpleNamespace(
        source="device.toml",
        model=SimpleNamespace(url="/edge", interval_s=100.0),
        upload=SimpleNamespace(backoff_s=1.0),
    )
    made = sync_starter.SyncStarter(settings)
    made.code, made.started = "", 0
    real = subprocess.Popen

    def start(command, **options):
        assert command[1:4] == ["-m", "device", "sync"] and command[-1] == settings.source
        made.started += 1
        return real([sys.executable, "-c", made.code], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    yield made
    made.end()


def pause_after(starter, code):
    """Runs one process with this code; returns the pause that follows it, in seconds."""
    starter.code, starter.due = code, time.monotonic()
    starter.tend()
    until(lambda: starter.process.poll() is not None, "the process ends")
    starter.tend()
    return starter.due - time.monotonic()


def test_sync_starts_when_due_and_only_once_at_a_time(starter):
    starter.code = "import time; time.sleep(60)"
    for _ in range(3):
        starter.tend()
    assert starter.started == 1 and starter.process.poll() is None


def test_no_url_means_no_sync(starter):
    starter.settings.model.url = ""
    starter.tend()
    assert starter.started == 0


def test_next_sync_waits_for_the_interval_after_success(starter):
    assert 99 < pause_after(starter, "") <= 100
    starter.tend()
    assert starter.started == 1


def test_pauses_grow_with_failures_up_to_the_interval(starter):
    pauses = [pause_after(starter, "raise SystemExit(1)") for _ in range(3)]
    for failures, pause in enumerate(pauses, 1):
        assert 0.5 * 2**failures - 0.5 < pause <= 2**failures
    starter.failures = 1000
    assert 49 < pause_after(starter, "raise SystemExit(1)") <= 100
    assert 99 < pause_after(starter, "") <= 100 and starter.failures == 0


def test_sync_that_takes_too_long_is_killed(starter):
    starter.code = "import time; time.sleep(60)"
    starter.tend()
    starter.began -= sync_starter.LONGEST_S + 1
    starter.tend()
    until(lambda: starter.process.poll() is not None, "it is killed")
    starter.tend()
    assert starter.process is None and starter.failures == 1


def test_end_stops_the_process_under_way(starter):
    starter.code = "import time; time.sleep(60)"
    starter.tend()
    process = starter.process
    starter.end()
    assert process.poll() is not None


def test_sync_fetches_nothing_if_nothing_is_new(scoring):
    ready(scoring)
    slot = scoring.model / "a"
    before = {path: path.stat().st_mtime_ns for path in slot.rglob("*")}
    (scoring.place / "versions" / "1" / "manifest.json").unlink()
    assert "nothing new" in scoring.run("sync").stdout
    assert {path: path.stat().st_mtime_ns for path in slot.rglob("*")} == before
