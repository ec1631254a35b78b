"""python -m device score: scores captured frames, acts on labels, and passes the results on.

    capture -> unscored/ -> score -> ready/ -> upload

With score.camera = true, one process captures and scores: capture's loop runs in the main thread, which signals and
camera drivers need, and the scorer's loop in another. Frames still pass through unscored/, so each is safe before it
is scored, and either arrangement can continue the other's work. The loop itself is in scorer.py.
"""

from __future__ import annotations

import importlib
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from device import capture, memory
from device.config import Settings
from device.journal import say
from device.score.scorer import Scorer
from device.spool.spool import Spool

EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_CONFIG = 64, 69, 78  # of sysexits.h


def run(settings: Settings, once: bool = False, frames: int | None = None) -> int:
    """Scores until SIGTERM or SIGINT; returns the exit status.

    once: score all waiting frames and end, without fetching a model; with score.camera, take one frame first.
    frames: with score.camera, take this many frames and score all waiting ones. Raises SpoolBusy and OSError as
    capture does.
    """
    if refusal := _refusal(settings, frames):
        status, reason = refusal
        print(reason, file=sys.stderr)
        return status
    memory.keep()
    stopping: list[bool] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    outbox = Spool(settings.spool, "score", tmp="tmp-score")
    inbox = Spool(settings.spool, "inbox", ready="unscored")
    try:
        for line in outbox.recover() + inbox.recover():
            say(line, sys.stderr)
        scorer = Scorer(settings, inbox, outbox, stopping, once)
        if settings.score.camera:
            return _with_camera(settings, scorer, stopping, 1 if once else frames)
        return scorer.loop()
    finally:
        outbox.counters["running"] = False
        inbox.close()
        outbox.close()


def _refusal(settings: Settings, frames: int | None) -> tuple[int, str] | None:
    """(exit status, the reason why scoring cannot start); None if it can."""
    if frames and not settings.score.camera:
        reason = "--frames limits the camera, but score.camera is false: "
        return EXIT_USAGE, reason + "use python -m device capture --frames N, or set score.camera to true"
    if not settings.score.enabled:
        reason = "score.enabled is false: set it to true in /etc/lakevision/device.toml, and restart capture too"
        return EXIT_CONFIG, reason
    try:
        importlib.import_module("ai_edge_litert.interpreter")  # report its absence now, not at the first frame
    except ImportError as error:
        return EXIT_UNAVAILABLE, f"scoring needs LiteRT: pip install -r device/requirements-score.txt ({error})"
    return None


def _with_camera(settings: Settings, scorer: Scorer, stopping: list[bool], frames: int | None) -> int:
    """Drives the camera in this thread and scores in another until either ends; returns the camera's exit status."""
    with ThreadPoolExecutor(1, "score") as threads:
        scoring = threads.submit(scorer.loop)
        scoring.add_done_callback(lambda _: stopping.append(True))  # a failed scorer ends the camera's loop too
        status = None
        try:
            status = capture.drive(settings, stopping, frames, scorer.is_well)
        finally:
            scorer.ending = True
            if status not in (0, capture.EXIT_FULL):
                stopping.append(True)  # after a camera failure, restart soon; the next process scores waiting frames
        scoring.result()
    return status
