"""python -m device capture: camera -> EXIF -> spool, for months.

It never waits for the network: upload is another process. Times between frames come from the monotonic clock, so a jump of the
wall clock neither stops nor floods it. A camera that fails or hangs ends the process, since that is what frees a driver's memory;
systemd starts it again. systemd's watchdog is fed by frames that the camera really gave, and by nothing else: at night or between
rare frames one is taken for that alone and thrown away.
"""

import faulthandler
import signal
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from device import camera as cameras
from device import clock, exif
from device.camera import trigger
from device.notify import notify, watchdog_s
from device.spool.entry import describe
from device.spool.spool import Spool, SpoolFull

EXIT_CAMERA = 71  # EX_OSERR of sysexits.h
EXIT_FULL = 75  # EX_TEMPFAIL
WRITERS = (
    4  # frames being written at once; what is being written can't be dropped, so more would weigh on a small quota
)
STATUS_EVERY_S = 10.0  # how often the counters go to disk


class BadFrame(cameras.CameraError):
    """The camera gave something that is not a whole JPEG."""


def run(settings, once=False, dry_run=False, frames=None):
    """Captures until SIGTERM or SIGINT; returns the exit status.

    once: one frame. frames: that many. dry_run: one frame, shown and not stored. SpoolBusy, and an OSError of a disk that died,
    pass through: the process ends with a traceback, and systemd starts it again.
    """
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    if dry_run:
        camera = cameras.load(settings)
        try:
            _ask(settings, camera.open)
            return _show(settings, camera)
        except cameras.CameraError as error:
            say(f"camera failed: {error}", sys.stderr)
            return EXIT_CAMERA
        finally:
            _close(settings, camera)
    return drive(settings, stopping, 1 if once else frames)


def drive(settings, stopping, frames=None, is_well=lambda: True):
    """Camera -> spool, by this process's main thread, until `stopping` holds something or `frames` are taken; returns the exit status.

    score.py calls it, too, where score drives the camera itself. is_well: whether all else in this process is well; only then frames
    feed systemd's watchdog. Raises as run() does.
    """
    camera = cameras.load(settings)
    spool = Spool(settings.spool, "capture", ready="unscored" if settings.score.enabled else "ready")
    counters = spool.counters
    try:
        for line in spool.recover():
            say(line)
        _note_start(settings, spool)
        _ask(settings, camera.open)
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


def _close(settings, camera):
    with guard(settings.camera.timeout_s):  # closing can hang as well as opening
        camera.close()


def _note_start(settings, spool):
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


def _loop(settings, camera, spool, stopping, frames, is_well):
    """Takes frames until told to stop.

    Up to WRITERS frames are being written while the next is taken: the camera doesn't wait for the card, and two syncs at once
    cost the card hardly more than one, since a journal commits them together.
    """
    config = settings.capture
    scene = trigger.SceneChange(config) if config.trigger == "change" else None
    patience = watchdog_s()
    proof_every = patience / 3 if patience else float("inf")
    first = time.monotonic()
    due, proved, taken, writes = first, -float("inf"), 0, deque()
    keeper = Keeper(spool)
    with ThreadPoolExecutor(WRITERS) as writers:
        while not stopping:
            now = time.monotonic()
            if now < due and now - proved < proof_every:
                while writes:
                    writes.popleft().result()  # raises what went wrong, now rather than a frame later
                _sleep(min(due - now, proof_every - (now - proved)), stopping)
                continue
            is_due = now >= due
            if is_due:
                missed = int((now - due) / config.interval_s) if config.interval_s else 0  # no burst after a stall
                due = due + (missed + 1) * config.interval_s if config.interval_s else now
            frame = _whole(_ask(settings, camera.capture))
            if proved == -float("inf"):
                notify("READY=1", f"STATUS=first frame after {time.monotonic() - first:.1f} s")
            if time.monotonic() - proved >= min(1.0, proof_every):
                proved = time.monotonic()
                if is_well():
                    notify("WATCHDOG=1")
            if (
                not is_due
                or not trigger.is_active(config.active_hours, time.localtime())
                or (scene and not scene.wants(frame))
            ):
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
    """Puts frames into the spool, counts them and says so; a line that says "captured" is the promise."""

    def __init__(self, spool):
        self.spool, self.full, self.saved = spool, False, -float("inf")
        self.lock = threading.Lock()

    def keep(self, entry, parts, taken_at, synced):
        """Whether the frame was kept. Raises OSError where the disk fails."""
        try:
            kept, dropped = self.spool.put(entry, parts)
        except SpoolFull as error:
            with self.lock:
                self._refused(error)
            return False
        with self.lock:
            self.full = False
            for lost in dropped:
                say(
                    f"dropped {lost.key} bytes={lost.size} sha256={lost.sha256}: the spool is full (spool.when_full = {self.spool.when_full})",
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

    def _refused(self, error):
        self.spool.counters["refused"] = self.spool.counters.get("refused", 0) + 1
        if not self.full:
            say(f"not taking pictures until upload makes room: {error}", sys.stderr)
            notify(f"STATUS=not taking pictures: {error}")
        self.full = True


def _with_exif(settings, frame, sequence):
    """(the frame's byte strings with EXIF, its label, whether the clock was synced)."""
    metadata = dict(frame.metadata)
    label = metadata.pop("label", "") or settings.device.label
    synced = _synced()
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


_sync_state = [None, -float("inf")]  # what the clock said, and when it was asked


def _synced():
    # Asked once a second: it changes once in a boot.
    if time.monotonic() - _sync_state[1] > 1:
        _sync_state[:] = clock.synced(), time.monotonic()
    return _sync_state[0]


def _show(settings, camera):
    frame = _whole(_ask(settings, camera.capture))
    parts, label, synced = _with_exif(settings, frame, 0)
    say(
        f"would store {sum(map(len, parts))} bytes, taken {frame.taken_at:%Y-%m-%d %H:%M:%S.%f} UTC, "
        f"clock {clock.WORDS[synced]}, label {label or 'none'}, {frame.metadata}"
    )
    return 0


def _ask(settings, method):
    """camera.open() or camera.capture() within its time; whatever a driver raises comes out as a CameraError."""
    try:
        with guard(settings.camera.timeout_s + settings.camera.warm_up_s):
            return method()
    except (cameras.CameraError, cameras.NoMoreFrames):
        raise
    except Exception as error:  # drivers raise nearly anything, and all of it means the same: start anew
        traceback.print_exc()
        raise cameras.CameraError(f"{type(error).__name__}: {error}") from error


def _whole(frame):
    """The Frame, when it is a whole JPEG. Raises BadFrame."""
    jpeg = frame.jpeg
    if jpeg[:2] != b"\xff\xd8" or jpeg[-2:] != b"\xff\xd9":
        raise BadFrame(
            f"the camera gave {len(jpeg)} bytes that are not a whole JPEG, from {jpeg[:4]!r} to {jpeg[-4:]!r}"
        )
    return frame


def _sleep(seconds, stopping):
    """Sleeps in one piece; a signal wakes it, since its handler runs and Python then sleeps on: so in pieces of half a second."""
    end = time.monotonic() + seconds
    while not stopping and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))


@contextmanager
def guard(seconds):
    """Ends the process, with a traceback that shows where it hangs, when the block takes longer than `seconds`.

    The kernel's timer and faulthandler's handler in C do it, without Python: a driver may hang with Python's lock held, and then
    no Python code, in whatever thread, runs again. Where even dying hangs, systemd's watchdog is next.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, after the traceback
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    _deadline[0] = time.monotonic() + seconds
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _deadline[0] = float("inf")


_deadline = [float("inf")]  # when guard() ends the process, by the monotonic clock


def time_left():
    """Seconds until guard() ends this process; infinite while no camera is asked. For threads with something to save."""
    return _deadline[0] - time.monotonic()


def say(line, file=None):
    """One line to the journal, in one piece: threads say things at once."""
    print(f"{line}\n", end="", file=file or sys.stdout, flush=True)
