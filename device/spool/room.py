"""How much the spool may hold: the quota spool.max_mb, and the part of the disk that stays free."""

from __future__ import annotations

import heapq
import os
from pathlib import Path

from device.spool.entry import NAME, Entry, parse

MEGABYTE = 1_000_000
OLDEST = 256  # oldest names remembered from one listing of ready/


class Room:
    """The account of one ready/ folder. Not thread-safe: the spool holds its lock around every call.

    used: upper bound of the bytes in ready/, because upload only ever removes frames.
    """

    def __init__(self, ready: Path, max_bytes: int, free_bytes: int, recount: bool):
        """recount: list ready/ again if the quota seems used up, because there are no older frames to drop instead."""
        self.ready, self.max_bytes, self.free_bytes, self.recount = ready, max_bytes, free_bytes, recount
        self.used = 0
        self._writing: set[str] = set()  # names on their way to ready/
        self._oldest: list[str] = []  # names, oldest last; listed again when used up
        self._measured: int | None = None  # mtime of ready/ at the last recount, in ns

    def lacking(self, size: int) -> tuple[str | None, bool]:
        """(the limit that `size` more bytes would exceed or None, True if dropping older frames would help)."""
        if self.used + size > self.max_bytes and self.recount:
            changed = os.stat(self.ready).st_mtime_ns  # changes when upload removes a frame
            if changed != self._measured:
                self._measured = changed
                self.measure()
        if self.used + size > self.max_bytes:
            return f"spool.max_mb = {self.max_bytes / MEGABYTE:g} is used up", True
        disk = os.statvfs(self.ready)
        spare = disk.f_bavail * disk.f_frsize - self.free_bytes - size
        if spare < 0:
            # If other programs fill the disk, dropping every frame would not help: then keep the frames.
            floor = f"less than spool.free_mb = {self.free_bytes / MEGABYTE:g} would stay free on the disk"
            return floor, spare + self.used >= 0
        return None, False

    def reserve(self, entry: Entry) -> None:
        """Counts a frame that is about to be written."""
        self.used += entry.size
        self._writing.add(entry.name)

    def settle(self, entry: Entry, written: bool) -> None:
        """Ends a reservation; a frame that was not written gives its bytes back."""
        self._writing.discard(entry.name)
        if not written:
            self.used -= entry.size

    def oldest(self) -> Entry | None:
        """Takes the oldest frame off the list of candidates to drop; None if there is none."""
        return parse(self._oldest.pop()) if self._oldest else None

    def has_candidates(self) -> bool:
        """True if oldest() would return a frame; lists ready/ again if needed."""
        if not self._oldest:
            self.measure()
        return bool(self._oldest)

    def measure(self) -> None:
        """Lists ready/ again. 10,000 frames take 20 ms on a PC, too long for every frame."""
        entries = {name: entry for name in os.listdir(self.ready) if NAME.fullmatch(name) and (entry := parse(name))}
        coming = {name: entry for name in self._writing if (entry := parse(name))}
        self.used = sum(entry.size for entry in {**entries, **coming}.values())
        # A frame that is still being written is not yet promised and cannot be dropped.
        self._oldest = heapq.nsmallest(OLDEST, entries.keys() - self._writing)[::-1]
