"""The spool: one folder through which capture hands frames to upload, durable and bounded.

    tmp/     frames being written, and frames being dropped; whatever a crash leaves here was never promised to anyone
    ready/   frames that upload may send; a name says all there is to know, so a crash can't part a frame from its facts
    unscored/  where a model is in use (score.enabled): frames on their way through score.py, which passes them on to ready/
    dead/    damaged or refused frames, each with a .reason beside it, for a person to look at

What a name says stands in entry.py. Capture and upload are different processes; what they share is this folder and flock(2) on the
frame in hand, which the kernel gives back when a process dies.

Durability. A frame is written to tmp/, renamed to ready/, and then both the file and the folder are synced; only then put()
returns. Rename before sync costs one journal commit where the usual order costs two (an SD card makes some 30 a second). A power cut
in between may leave a damaged frame in ready/, and its size and SHA-256 give it away: recover() and claim() set it aside.
"""

import errno
import fcntl
import hashlib
import heapq
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from device import clock
from device.spool import records
from device.spool.entry import NAME, parse

MEGABYTE = 1_000_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRITERS = ("capture", "score")  # the owners that put frames here
RESERVED = 64  # sequence numbers set aside with one durable write; a crash skips the rest of them


class SpoolFull(Exception):
    """when_full is "reject" and there is no room; the message says what is full."""


class SpoolBusy(Exception):
    """Another process of the same kind holds this spool."""


class Damaged(Exception):
    """A frame's bytes are not those that were captured."""


class Spool:
    """An open spool, owned by one process of each kind ("capture", "upload", "score"): a second one raises SpoolBusy,
    and root on another user's spool PermissionError.

    settings: the [spool] section. counters: this process's figures, kept in <owner>.json beside the frames.
    ready, tmp: names of the folders that take the place of ready/ and tmp/; each of two writers needs a tmp/ of its own.
    """

    def __init__(self, settings, owner, ready="ready", tmp="tmp"):
        self.root = Path(settings.path)
        self.root.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and self.root.stat().st_uid != 0:
            raise PermissionError(
                errno.EPERM,
                "belongs to the user of the services, who could not read what root writes there",
                str(self.root),
            )
        self.tmp, self.ready, self.dead = (self.root / name for name in (tmp, ready, "dead"))
        for folder in (self.tmp, self.ready, self.dead):
            folder.mkdir(exist_ok=True)
        self._lock = open(self.root / f"{owner}.lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SpoolBusy(
                f"another {owner} is running on {self.root}: stop it first (systemctl stop lakevision-{owner})"
            ) from error
        self._ready_fd = os.open(self.ready, os.O_RDONLY | os.O_DIRECTORY)
        self.record = self.root / f"{owner}.json"
        self.counters = records.read(self.record)
        self._saving, self._room = threading.Lock(), threading.Lock()
        self.max_bytes = int(settings.max_mb * MEGABYTE)
        self.free_bytes = int(settings.free_mb * MEGABYTE)
        self.dead_bytes = int(settings.dead_mb * MEGABYTE)
        self.when_full = settings.when_full
        self.owner = owner
        self._used = 0  # bytes in ready/ at most: upload only ever makes it less
        self._writing = set()  # names under way to ready/
        self._oldest = []  # names, the oldest last; made anew when used up
        self._measured = None  # when ready/ had last changed when it was last counted

    def close(self):
        """Gives the spool back; the skipped rest of the reserved sequence numbers too."""
        if "sequence" in self.counters:
            self.counters["sequence_reserved"] = self.counters["sequence"]
        self.save(durable=True)
        os.close(self._ready_fd)
        self._lock.close()

    def save(self, durable=False):
        """Writes the counters. Not durable, a power cut may undo it, and an SD card hardly wears. On a full disk they wait in memory."""
        try:
            with self._saving:
                records.write(self.record, dict(self.counters), durable)
        except OSError as error:
            if error.errno not in FULL:
                raise
            print(f"{self.record} waits for room on the disk: {error.strerror}", file=sys.stderr, flush=True)

    # ---- what capture does

    def recover(self):
        """Clears what a crash left behind; returns lines that say what was done. Call it once, at start."""
        said = []
        unscored = self.root / "unscored"
        if self.owner == "capture" and self.ready != unscored and unscored.is_dir():
            for name in filter(NAME.fullmatch, os.listdir(unscored)):
                os.rename(
                    unscored / name, self.ready / name
                )  # scoring was switched off: what it left goes home as it is
        if self.owner in WRITERS:
            for path in sorted(self.tmp.iterdir()):
                entry = parse(path.name[len("drop-") :]) if path.name.startswith("drop-") else None
                if entry:
                    self._count_drop(entry)
                    said.append(f"dropped {entry.key}: the drop was under way at the last stop")
                path.unlink(missing_ok=True)
        largest = 0
        for folder in {self.ready, self.root / "ready", self.dead}:
            for name in os.listdir(folder) if folder.is_dir() else ():
                entry = parse(name)
                largest = max(largest, entry.sequence if entry else 0)
                try:
                    size = os.stat(folder / name).st_size
                except FileNotFoundError:
                    continue  # upload has sent it meanwhile
                if folder == self.ready and (entry is None or size != entry.size):
                    reason = (
                        "not a frame of this spool"
                        if entry is None
                        else f"{size} bytes where {entry.size} were written"
                    )
                    if self.bury(name, reason):
                        said.append(f"set aside {name}: {reason}")
                elif folder == self.ready:
                    self._used += size
        if self.owner == "capture":
            first = max(self.counters.get("sequence_reserved", 0), largest)
            self.counters.update(sequence=first, sequence_reserved=first)
        return said

    def next_sequence(self):
        """The next number: never used before, neither in this run nor before a crash."""
        number = self.counters["sequence"] + 1
        if number > self.counters["sequence_reserved"]:
            self.counters["sequence_reserved"] = number + RESERVED
            self.counters["sequence"] = number
            self.save(durable=True)
        self.counters["sequence"] = number
        return number

    def adopt(self, entry, path):
        """Stores a frame that lies at `path` on the same disk: by a rename, so that its bytes are not written twice. As put() else."""
        return self.put(entry, path)

    def put(self, entry, parts):
        """Stores a frame, given as the byte strings that describe() saw; durable when it returns. Threads may call it at once.

        Returns (whether it was kept, list of dropped Entries, itself among them if it was not). Raises SpoolFull, OSError.
        """
        dropped, problem = [], None
        while True:
            with self._room:
                older_help = True  # as it does after a write that met a full disk
                if problem is None:
                    problem, older_help = self._lacking(entry.size)
                if problem is None:
                    self._used += entry.size
                    self._writing.add(entry.name)
                elif self.when_full == "reject":
                    raise SpoolFull(problem)
                else:
                    oldest = self._drop_oldest() if self.when_full == "oldest" and older_help else None
                    if oldest is None:
                        self._count_drop(entry)
                        return False, dropped + [entry]
                    dropped, problem = dropped + oldest, None
                    continue
            try:
                problem = self._move(entry, parts) if isinstance(parts, Path) else self._write(entry, parts)
            finally:
                with self._room:
                    self._writing.discard(entry.name)
                    self._used -= entry.size if problem else 0
            if problem is None:
                return True, dropped

    def _lacking(self, size):
        """(what is full or None, whether dropping older frames would help)."""
        if self._used + size > self.max_bytes and self.when_full != "oldest":
            self._measure_if_changed()
        if self._used + size > self.max_bytes:
            return f"spool.max_mb = {self.max_bytes / MEGABYTE:g} is used up", True
        disk = os.statvfs(self.ready)
        spare = disk.f_bavail * disk.f_frsize - self.free_bytes - size
        if spare < 0:
            # Where others fill the disk, dropping every frame we have would not help: then keep them.
            return (
                f"less than spool.free_mb = {self.free_bytes / MEGABYTE:g} would stay free on the disk",
                spare + self._used >= 0,
            )
        return None, False

    def _measure_if_changed(self):
        changed = os.stat(self.ready).st_mtime_ns  # moves when upload takes a frame away
        if changed != self._measured:
            self._measured = changed
            self._measure()

    def _measure(self):
        """Counts ready/ anew: 10,000 frames take 20 ms on a PC, so never for each frame."""
        names = {name for name in os.listdir(self.ready) if NAME.fullmatch(name)}
        self._used = sum(parse(name).size for name in names | self._writing)
        self._oldest = heapq.nsmallest(256, names - self._writing)[::-1]  # what is not yet promised can't be dropped

    def _write(self, entry, parts):
        """Writes durably; None, or what was full."""
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

    def _move(self, entry, path):
        os.rename(path, self.ready / entry.name)  # raises FileNotFoundError where capture's quota was faster
        os.fsync(self._ready_fd)

    def _drop_oldest(self):
        """Drops the oldest frame that upload does not hold. [the Entry]; [] where upload was faster; None where none is left."""
        if not self._oldest:
            self._measure()
        while self._oldest:
            entry = parse(self._oldest.pop())
            try:
                file = os.open(self.ready / entry.name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._used -= entry.size
                return []
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                doomed = self.tmp / f"drop-{entry.name}"
                os.rename(self.ready / entry.name, doomed)  # from here on it counts as dropped, crash or not
            except BlockingIOError:
                continue  # upload is sending it
            except FileNotFoundError:
                self._used -= entry.size
                return []
            finally:
                os.close(file)
            self._used -= entry.size
            os.truncate(doomed, 0)  # on a full disk the counters need its blocks; the name keeps the facts
            self._count_drop(entry)
            os.unlink(doomed)
            return [entry]
        return None

    def _count_drop(self, entry):
        if self.counters.get("last_dropped") == entry.name:
            return  # counted before the crash
        self.counters["dropped"] = self.counters.get("dropped", 0) + 1
        self.counters["dropped_bytes"] = self.counters.get("dropped_bytes", 0) + entry.size
        self.counters["last_dropped"] = entry.name
        self.save(durable=True)

    # ---- what upload does

    def oldest(self, count):
        """Up to `count` Entries of ready/, in the order taken."""
        return [parse(name) for name in heapq.nsmallest(count, filter(NAME.fullmatch, os.listdir(self.ready)))]

    @contextmanager
    def claim(self, entry):
        """Holds a frame, so that it is not dropped while it travels; yields its bytes, or None where it is gone. Raises Damaged."""
        try:
            file = open(self.ready / entry.name, "rb")
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
                raise Damaged(f"{len(data)} bytes where {entry.size} were written")
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise Damaged("the bytes read back are not those written (SHA-256 differs); the SD card may be failing")
            yield data

    def remove(self, entry):
        """Deletes a frame that the store has."""
        os.unlink(self.ready / entry.name)

    def bury(self, name, reason):
        """Moves a file of ready/ to dead/ with the reason beside it; False where it is gone. Oldest dead ones go beyond dead_mb."""
        try:
            os.rename(self.ready / name, self.dead / name)
        except FileNotFoundError:
            return False
        records.write_text(self.dead / f"{name[:240]}.reason", f"{clock.now():%Y-%m-%d %H:%M:%S}Z {reason}\n")
        self.counters["dead"] = self.counters.get("dead", 0) + 1
        frames = [path for path in sorted(self.dead.iterdir()) if path.suffix != ".reason"]
        excess = sum(path.stat().st_size for path in frames) - self.dead_bytes
        for path in frames:
            if excess <= 0:
                break
            excess -= path.stat().st_size
            path.unlink()
            (self.dead / f"{path.name[:240]}.reason").unlink(missing_ok=True)
            self.counters["dead_dropped"] = self.counters.get("dead_dropped", 0) + 1
        self.save(durable=True)
        return True
