"""Lines to the journal, and pauses that end early."""

import io
import threading
import time

from device import journal


def test_each_line_is_a_single_write():
    class Writes(io.StringIO):
        def __init__(self):
            super().__init__()
            self.pieces = []

        def write(self, text):
            if text:
                self.pieces.append(text)
            return super().write(text)

    file = Writes()
    journal.say("captured a", file)
    journal.say("dropped b", file)
    assert file.pieces == ["captured a\n", "dropped b\n"]


def test_line_goes_to_stdout_by_default(capsys):
    journal.say("hello")
    assert capsys.readouterr().out == "hello\n"


def test_sleep_lasts_its_time_and_calls_meanwhile():
    calls, began = [], time.monotonic()
    journal.sleep(0.6, [], meanwhile=lambda: calls.append(1))
    assert time.monotonic() - began >= 0.6 and len(calls) == 2


def test_sleep_ends_soon_after_stop_request():
    stopping, began = [], time.monotonic()
    threading.Timer(0.1, stopping.append, [True]).start()
    journal.sleep(30, stopping)
    assert time.monotonic() - began < 2


def test_sleep_of_negative_time_returns_at_once():
    calls = []
    journal.sleep(-1, [], meanwhile=lambda: calls.append(1))
    assert calls == []
