"""python -m device capture: camera -> EXIF -> spool, for months.

Capture never waits for the network, because upload is another process. The monotonic clock times the frames, so a
jump of the wall clock neither stops nor floods capture. A camera that fails or hangs ends the process, because only
that frees a driver's memory; systemd starts the process again. Only real frames feed systemd's watchdog. At night or
between rare frames, capture takes a frame for the watchdog alone and discards it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from device import camera as cameras
from device import clock, exif
from device.camera import trigger
from device.hang_guard import guard
from device.journal import say, sleep
from device.notify import notify
from device.pace import Pace
from device.spool.entry import Entry, describe
from device.spool.spool import Spool, SpoolFull

if TYPE_CHECKING:
    from device.config import Settings

EXIT_CAMERA = 71  # EX_OSERR of sysexits.h
EXIT_FULL = 75  # EX_TEMPFAIL
WRITERS = 4  # frames written at once; a frame being written cannot be dropped, so more would weigh on a small quota
STATUS_EVERY_S = 10.0  # how often the counters go to disk

Result = TypeVar("Result")


class BadFrame(cameras.CameraError):
    """The camera returned bytes that are not a whole JPEG."""


def run(settings: Settings, once: bool = False, dry_run: bool = False, frames: int | None = None) -> int:
    """Captures until SIGTERM or SIGINT; returns the exit status.

    once: take one frame. frames: take this many. dry_run: take one frame and print its facts without storing it.
    SpoolBusy and an OSError of a dead disk end the process with a traceback, and systemd starts it again.
    """
    stopping: list[bool] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    if dry_run:
        camera = cameras.load(settings)
        try:
            _guarded(settings, camera.open)
            return _show(settings, camera)
        except cameras.CameraError as error:
            say(f"camera failed: {error}", sys.stderr)
            return EXIT_CAMERA
        finally:
            _close(settings, camera)
    return drive(settings, stopping, 1 if once else frames)


def drive(
    settings: Settings, stopping: list[bool], frames: int | None = None, is_well: Callable[[], bool] = lambda: True
) -> int:
    """Captures in the main thread until `stopping` is not empty or `frames` are taken; returns the exit status.

    score.py also calls this function if score drives the camera. is_well: True if the rest of the process is well;
    only then do frames feed systemd's watchdog. Raises as run() does.
    """
    camera = cameras.load(settings)
    spool = Spool(settings.spool, "capture", ready="unscored" if settings.score.enabled else "ready")
    counters = spool.counters
    try:
        for line in spool.recover():
            say(line)
        _note_start(settings, spool)
        _guarded(settings, camera.open)
        return _loop(settings, camera, spool, stopping, frames, is_well)
    except cameras.NoMoreFrames as end:
        say(str(end))
        return 0
    except cameras.CameraError as error:
        counters.update(
            camera_failures=counters.get("camera_failures", 0) + 1,
            camera_error=f"{clock.now():%Y-%m-%d %H:%M:%S}Z {error}",
        )
        say(f"camera failed: {error}", sys.stderr)
        notify(f"STATUS=camera failed: {error}")
        return EXIT_CAMERA
    finally:
        counters["running"] = False
        spool.close()
        _close(settings, camera)


def _close(settings: Settings, camera: cameras.Camera) -> None:
    with guard(settings.camera.timeout_s):  # closing can hang as well as opening
        camera.close()


def _note_start(settings: Settings, spool: Spool) -> None:
    counters = spool.counters
    if counters.get("running"):
        counters["unclean_stops"] = counters.get("unclean_stops", 0) + 1
    counters.update(
        starts=counters.get("starts", 0) + 1,
        running=True,
        boot_id=clock.boot_id(),
        camera=settings.camera.kind,
        device=settings.device.id,
    )
    spool.save(durable=True)


def _loop(
    settings: Settings,
    camera: cameras.Camera,
    spool: Spool,
    stopping: list[bool],
    frames: int | None,
    is_well: Callable[[], bool],
) -> int:
    """Takes frames until asked to stop.

    Up to WRITERS frames are written while the next frame is taken, so the camera does not wait for the card. Two
    syncs at once cost the card hardly more than one, because the journal commits them together.
    """
    config = settings.capture
    scene = trigger.SceneChange(config) if config.trigger == "change" else None
    pace = Pace(config.interval_s)
    taken = 0
    writes: deque = deque()
    keeper = Keeper(spool)
    with ThreadPoolExecutor(WRITERS) as writers:
        while not stopping:
            pause = pace.pause()
            if pause > 0:
                while writes:
                    writes.popleft().result()  # raises a failed write now rather than one frame later
                sleep(pause, stopping)
                continue
            is_due = pace.advance()
            frame = _whole(_guarded(settings, camera.capture))
            pace.prove_alive(is_well)
            if not is_due or not trigger.is_active(config.active_hours, time.localtime()):
                continue
            if scene and not scene.wants(frame):
                continue
            sequence = spool.next_sequence()
            parts, label, synced = _with_exif(settings, frame, sequence)
            entry = describe(parts, settings.device.id, frame.taken_at, sequence, label)
            if len(writes) == WRITERS:
                writes.popleft().result()
            writes.append(writers.submit(keeper.keep, entry, parts, frame.taken_at, synced))
            taken += 1
            if taken == frames:
                return 0 if [write.result() for write in writes][-1] else EXIT_FULL
    for write in writes:
        write.result()
    say("stopped as asked")
    notify("STOPPING=1")
    return 0


class Keeper:
    """Puts frames into the spool, counts them and prints a line for each. The line "captured" is the promise."""

    def __init__(self, spool: Spool):
        self.spool, self.full, self.saved = spool, False, -float("inf")
        self.lock = threading.Lock()

    def keep(self, entry: Entry, parts: Sequence[bytes | memoryview], taken_at: datetime, synced: bool | None) -> bool:
        """True if the frame was kept. Several threads may call this at once. Raises OSError if the disk fails."""
        try:
            kept, dropped = self.spool.put(entry, parts)
        except SpoolFull as error:
            with self.lock:
                self._refuse(error)
            return False
        with self.lock:
            self.full = False
            for lost in dropped:
                say(
                    f"dropped {lost.key} bytes={lost.size} sha256={lost.sha256}: "
                    f"the spool is full (spool.when_full = {self.spool.when_full})",
                    sys.stderr,
                )
            if kept:
                say(f"captured {entry.key} bytes={entry.size} sha256={entry.sha256}")
                counters = self.spool.counters
                counters["captured"] = counters.get("captured", 0) + 1
                counters["last"] = {
                    "key": entry.key,
                    "bytes": entry.size,
                    "at": taken_at.isoformat(),
                    "clock_synced": synced,
                }
            if time.monotonic() - self.saved >= STATUS_EVERY_S:
                self.saved = time.monotonic()
                self.spool.save()
        return kept

    def _refuse(self, error: SpoolFull) -> None:
        self.spool.counters["refused"] = self.spool.counters.get("refused", 0) + 1
        if not self.full:
            say(f"not taking pictures until upload makes room: {error}", sys.stderr)
            notify(f"STATUS=not taking pictures: {error}")
        self.full = True


def _with_exif(
    settings: Settings, frame: cameras.Frame, sequence: int
) -> tuple[list[bytes | memoryview], str, bool | None]:
    """(the frame's byte strings with EXIF, its label, the clock's sync state)."""
    metadata = dict(frame.metadata)
    label = metadata.pop("label", "") or settings.device.label
    synced = clock.synced_within(1.0)
    block = exif.for_frame(
        frame.taken_at,
        settings.device.id,
        clock.boot_id(),
        sequence,
        synced,
        clock.uptime() - (time.monotonic() - frame.monotonic),
        orientation=exif.UPRIGHT[settings.camera.rotation],
        position=tuple(settings.device.position) or None,
        **metadata,
    )
    return exif.splice(frame.jpeg, block), label, synced


def _show(settings: Settings, camera: cameras.Camera) -> int:
    frame = _whole(_guarded(settings, camera.capture))
    parts, label, synced = _with_exif(settings, frame, 0)
    say(
        f"would store {sum(map(len, parts))} bytes, taken {frame.taken_at:%Y-%m-%d %H:%M:%S.%f} UTC, "
        f"clock {clock.WORDS[synced]}, label {label or 'none'}, {frame.metadata}"
    )
    return 0


def _guarded(settings: Settings, method: Callable[[], Result]) -> Result:
    """Calls camera.open() or camera.capture() under guard(). Every exception of a driver becomes a CameraError."""
    try:
        with guard(settings.camera.timeout_s + settings.camera.warm_up_s):
            return method()
    except (cameras.CameraError, cameras.NoMoreFrames):
        raise
    except Exception as error:  # drivers raise nearly anything, and the remedy is always a new start
        traceback.print_exc()
        raise cameras.CameraError(f"{type(error).__name__}: {error}") from error


def _whole(frame: cameras.Frame) -> cameras.Frame:
    """The frame, if it is a whole JPEG. Raises BadFrame."""
    jpeg = frame.jpeg
    if jpeg[:2] != b"\xff\xd8" or jpeg[-2:] != b"\xff\xd9":
        raise BadFrame(
            f"the camera gave {len(jpeg)} bytes that are not a whole JPEG, from {jpeg[:4]!r} to {jpeg[-4:]!r}"
        )
    return frame
