"""The spool: a durable, bounded folder through which capture passes frames to upload.

    tmp/       frames being written, and frames being dropped; nobody was promised the files that a crash leaves here
    ready/     frames that upload may send; each name holds all facts, so a crash cannot separate a frame from its facts
    unscored/  if a model is in use (score.enabled): frames on their way through score.py, which moves them to ready/
    dead/      damaged or refused frames for a person to look at, each with a .reason file

entry.py describes the names. Capture and upload are different processes. They share only this folder and flock(2) on
the frame in hand, which the kernel releases when a process dies.

Durability. A frame is written to tmp/ and renamed to ready/; then the file and the folder are synced, and only then
does put() return. Renaming before the sync costs one journal commit, the usual order two (an SD card manages some 30
a second). A power cut in between may leave a damaged frame in ready/. Its size and SHA-256 reveal the damage, and
recover() or claim() sets the frame aside.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import heapq
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from device import clock, files
from device.spool import records, recovery
from device.spool.entry import NAME, Entry, parse
from device.spool.room import MEGABYTE, Room

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESERVED = 64  # sequence numbers reserved with one durable write; a crash skips the rest of them


class SpoolFull(Exception):
    """when_full is "reject" and there is no room; the message names the limit."""


class SpoolBusy(Exception):
    """Another process of the same kind holds this spool."""


class Damaged(Exception):
    """A frame's bytes differ from the captured ones."""


class Spool:
    """An open spool, owned by one process of each kind ("capture", "upload", "score").

    A second process raises SpoolBusy; root on another user's spool raises PermissionError.
    counters: this process's counts, kept in <owner>.json beside the frames.
    """

    def __init__(self, settings: SimpleNamespace, owner: str, ready: str = "ready", tmp: str = "tmp"):
        """settings: the [spool] section. ready, tmp: folders to use instead of ready/ and tmp/.

        Each of two writers needs its own tmp folder.
        """
        self.root = Path(settings.path)
        self.root.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and self.root.stat().st_uid != 0:
            raise PermissionError(
                errno.EPERM, "belongs to the services' user, who could not read root's files there", str(self.root)
            )
        self.tmp, self.ready, self.dead = (self.root / name for name in (tmp, ready, "dead"))
        for folder in (self.tmp, self.ready, self.dead):
            folder.mkdir(exist_ok=True)
        self._lock = open(self.root / f"{owner}.lock", "w")  # noqa: SIM115  held until close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise SpoolBusy(
                f"another {owner} is running on {self.root}: stop it first (systemctl stop lakevision-{owner})"
            ) from error
        self._ready_fd = os.open(self.ready, os.O_RDONLY | os.O_DIRECTORY)
        self.record = self.root / f"{owner}.json"
        files.remove_partials(self.record)
        self.counters = records.read(self.record)
        self._saving, self._room_lock = threading.Lock(), threading.Lock()
        self.when_full = settings.when_full
        self.room = Room(
            self.ready,
            max_bytes=int(settings.max_mb * MEGABYTE),
            free_bytes=int(settings.free_mb * MEGABYTE),
            recount=self.when_full != "oldest",
        )
        self.dead_bytes = int(settings.dead_mb * MEGABYTE)
        self.owner = owner

    def close(self) -> None:
        """Releases the spool, and with it the unused rest of the reserved sequence numbers."""
        if "sequence" in self.counters:
            self.counters["sequence_reserved"] = self.counters["sequence"]
        self.save(durable=True)
        os.close(self._ready_fd)
        self._lock.close()

    def save(self, durable: bool = False) -> None:
        """Writes the counters; on a full disk they stay in memory.

        A power cut may undo a write that is not durable, but such a write hardly wears the SD card.
        """
        try:
            with self._saving:
                records.write(self.record, dict(self.counters), durable)
        except OSError as error:
            if error.errno not in FULL:
                raise
            print(f"{self.record} waits for room on the disk: {error.strerror}", file=sys.stderr, flush=True)

    # ---- capture's side

    def recover(self) -> list[str]:
        """Clears up after a crash; returns lines for the journal. Call this once, at the start."""
        return recovery.recover(self)

    def next_sequence(self) -> int:
        """The next sequence number, never used before, not even before a crash."""
        number = self.counters["sequence"] + 1
        if number > self.counters["sequence_reserved"]:
            self.counters["sequence_reserved"] = number + RESERVED
            self.counters["sequence"] = number
            self.save(durable=True)
        self.counters["sequence"] = number
        return number

    def adopt(self, entry: Entry, path: Path) -> tuple[bool, list[Entry]]:
        """Stores a frame that is at `path` on the same disk, by a rename: no byte is written twice. Else as put()."""
        return self.put(entry, path)

    def put(self, entry: Entry, parts: Sequence[bytes | memoryview] | Path) -> tuple[bool, list[Entry]]:
        """Stores a frame, given as the byte strings passed to describe(); durable on return.

        Several threads may call this at once. Returns (True if the frame was kept, dropped entries); a frame that was
        not kept is itself among the dropped ones. Raises SpoolFull, OSError.
        """
        dropped: list[Entry] = []
        problem: str | None = None
        while True:
            with self._room_lock:
                older_help = True  # as after a write that met a full disk
                if problem is None:
                    problem, older_help = self.room.lacking(entry.size)
                if problem is None:
                    self.room.reserve(entry)
                elif self.when_full == "reject":
                    raise SpoolFull(problem)
                else:
                    oldest = self._drop_oldest() if self.when_full == "oldest" and older_help else None
                    if oldest is None:
                        self.count_drop(entry)
                        return False, [*dropped, entry]
                    dropped, problem = dropped + oldest, None
                    continue
            try:
                if isinstance(parts, Path):
                    self._move(entry, parts)
                else:
                    problem = self._write(entry, parts)
            finally:
                with self._room_lock:
                    self.room.settle(entry, written=problem is None)
            if problem is None:
                return True, dropped

    def _write(self, entry: Entry, parts: Sequence[bytes | memoryview]) -> str | None:
        """Writes a frame durably; returns None, or a message if the disk is full."""
        path = self.tmp / entry.name
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(file, view) :]
            os.rename(path, self.ready / entry.name)
            path = self.ready / entry.name
            os.fsync(file)
            os.fsync(self._ready_fd)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno in FULL:
                return f"the disk: {error.strerror}"
            raise
        finally:
            os.close(file)
        return None

    def _move(self, entry: Entry, path: Path) -> None:
        os.rename(path, self.ready / entry.name)  # raises FileNotFoundError if capture's quota was faster
        os.fsync(self._ready_fd)

    def _drop_oldest(self) -> list[Entry] | None:
        """Drops the oldest frame that upload does not hold: [its Entry].

        [] if upload was faster; None if no frame is left.
        """
        self.room.has_candidates()
        while entry := self.room.oldest():
            try:
                file = os.open(self.ready / entry.name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self.room.used -= entry.size
                return []
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                doomed = self.tmp / f"drop-{entry.name}"
                os.rename(self.ready / entry.name, doomed)  # from here on the frame counts as dropped, crash or not
            except BlockingIOError:
                continue  # upload is sending it
            except FileNotFoundError:
                self.room.used -= entry.size
                return []
            finally:
                os.close(file)
            self.room.used -= entry.size
            os.truncate(doomed, 0)  # on a full disk the counters need its blocks; the name keeps the facts
            self.count_drop(entry)
            os.unlink(doomed)
            return [entry]
        return None

    def count_drop(self, entry: Entry) -> None:
        """Counts a dropped frame, durably and only once."""
        if self.counters.get("last_dropped") == entry.name:
            return  # counted before the crash
        self.counters["dropped"] = self.counters.get("dropped", 0) + 1
        self.counters["dropped_bytes"] = self.counters.get("dropped_bytes", 0) + entry.size
        self.counters["last_dropped"] = entry.name
        self.save(durable=True)

    # ---- upload's side

    def oldest(self, count: int) -> list[Entry]:
        """Up to `count` Entries of ready/, in the order taken."""
        names = heapq.nsmallest(count, filter(NAME.fullmatch, os.listdir(self.ready)))
        return [entry for name in names if (entry := parse(name))]

    @contextmanager
    def claim(self, entry: Entry) -> Iterator[bytes | None]:
        """Locks a frame, so that it is not dropped while being sent; yields its bytes, or None if it is gone.

        Raises Damaged.
        """
        try:
            file = open(self.ready / entry.name, "rb")  # noqa: SIM115  closed below; `with` would hide the except
        except FileNotFoundError:
            yield None
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (self.ready / entry.name).exists():
                yield None
                return
            data = file.read()
            if len(data) != entry.size:
                raise Damaged(f"{len(data)} bytes instead of {entry.size}")
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise Damaged("the bytes read differ from those written (SHA-256); the SD card may be failing")
            yield data

    def remove(self, entry: Entry) -> None:
        """Deletes a frame that the store has."""
        os.unlink(self.ready / entry.name)

    def bury(self, name: str, reason: str) -> bool:
        """Moves a file of ready/ to dead/ and writes the reason beside it; False if the file is gone.

        Deletes the oldest dead files beyond dead_mb.
        """
        try:
            os.rename(self.ready / name, self.dead / name)
        except FileNotFoundError:
            return False
        records.write_text(self.dead / f"{name[:240]}.reason", f"{clock.now():%Y-%m-%d %H:%M:%S}Z {reason}\n")
        self.counters["dead"] = self.counters.get("dead", 0) + 1
        paths = [path for path in sorted(self.dead.iterdir()) if path.suffix != ".reason"]
        excess = sum(path.stat().st_size for path in paths) - self.dead_bytes
        for path in paths:
            if excess <= 0:
                break
            excess -= path.stat().st_size
            path.unlink()
            (self.dead / f"{path.name[:240]}.reason").unlink(missing_ok=True)
            self.counters["dead_dropped"] = self.counters.get("dead_dropped", 0) + 1
        self.save(durable=True)
        return True
