"""What the spool does at its start: clear up after a crash, and count the frames that wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from device.spool.entry import NAME, Entry, parse

if TYPE_CHECKING:
    from device.spool.spool import Spool

WRITERS = ("capture", "score")  # the owners that put frames into the spool


def recover(spool: Spool) -> list[str]:
    """Clears up after a crash and sets the next sequence number; returns lines for the journal."""
    lines: list[str] = []
    unscored = spool.root / "unscored"
    if spool.owner == "capture" and spool.ready != unscored and unscored.is_dir():
        for name in filter(NAME.fullmatch, os.listdir(unscored)):
            # Scoring was switched off: its remaining frames are uploaded unscored.
            os.rename(unscored / name, spool.ready / name)
    if spool.owner in WRITERS:
        lines += _finish_drops(spool)
    largest = 0
    for folder in {spool.ready, spool.root / "ready", spool.dead}:
        for name in os.listdir(folder) if folder.is_dir() else ():
            entry = parse(name)
            largest = max(largest, entry.sequence if entry else 0)
            if folder == spool.ready:
                lines += _count_or_bury(spool, name, entry)
    if spool.owner == "capture":
        first = max(spool.counters.get("sequence_reserved", 0), largest)
        spool.counters.update(sequence=first, sequence_reserved=first)
    return lines


def _finish_drops(spool: Spool) -> list[str]:
    """Empties tmp/; counts the drops that the last stop interrupted."""
    lines = []
    for path in sorted(spool.tmp.iterdir()):
        entry = parse(path.name[len("drop-") :]) if path.name.startswith("drop-") else None
        if entry:
            spool.count_drop(entry)
            lines.append(f"dropped {entry.key}: the drop was under way at the last stop")
        path.unlink(missing_ok=True)
    return lines


def _count_or_bury(spool: Spool, name: str, entry: Entry | None) -> list[str]:
    """Counts a file of ready/, or sets it aside if it is not a whole frame."""
    try:
        size = os.stat(spool.ready / name).st_size
    except FileNotFoundError:
        return []  # upload has just sent it
    if entry is not None and size == entry.size:
        spool.room.used += size
        return []
    reason = "not a frame of this spool" if entry is None else f"{size} bytes instead of {entry.size}"
    return [f"set aside {name}: {reason}"] if spool.bury(name, reason) else []
