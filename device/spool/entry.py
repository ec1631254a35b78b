"""The name of a spooled file, and its key in the store.

A name is  <sequence>~<device>~<UTC time>_<boot>_<sequence>[_<label>]~<bytes>~<SHA-256>.jpg
Names sort in the order taken, even if the clock jumped. All facts are in the name, so a crash cannot separate a frame
and its facts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from device import clock

NAME = re.compile(
    r"(?P<sequence>\d{10})~(?P<device>[^~/]+)~(?P<stem>[^~/]+)~(?P<size>\d+)~(?P<sha256>[0-9a-f]{64})(?P<suffix>\.[a-z]+)"
)

RESULTS = ".jsonl"


@dataclass(frozen=True)
class Entry:
    """One spooled file: a photograph, or lines of results (.jsonl)."""

    sequence: int
    device: str
    stem: str  # the name in the store, without suffix
    size: int  # bytes
    sha256: str  # 64 hex digits
    suffix: str = ".jpg"

    @property
    def name(self) -> str:
        """The file's name in the spool."""
        return f"{self.sequence:010d}~{self.device}~{self.stem}~{self.size}~{self.sha256}{self.suffix}"

    @property
    def key(self) -> str:
        """The file's key in the store, free of colons.

        Results are below _results/, which Spark and other readers of photographs skip.
        """
        folder = "_results/" if self.suffix == RESULTS else ""
        return f"{folder}device={self.device}/date={self.stem[:10]}/{self.stem}{self.suffix}"


def parse(name: str) -> Entry | None:
    """The Entry of a name in the spool; None if it is no such name."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    return Entry(
        sequence=int(match["sequence"]),
        device=match["device"],
        stem=match["stem"],
        size=int(match["size"]),
        sha256=match["sha256"],
        suffix=match["suffix"],
    )


def stem(taken_at: datetime, boot_id: str, sequence: int, label: str = "") -> str:
    """A frame's name: UTC time, boot, sequence and, as the last field, the label if there is one.

    The name is unique even if the clock jumps: a boot id never repeats, and within a boot the sequence only grows.
    """
    fields = [f"{taken_at:%Y-%m-%dT%H%M%S}.{taken_at.microsecond // 1000:03d}Z", boot_id[:8], f"{sequence:06d}"]
    return "_".join([*fields, label] if label else fields)


def describe(
    parts: Sequence[bytes | memoryview],
    device: str,
    taken_at: datetime,
    sequence: int,
    label: str = "",
    suffix: str = ".jpg",
) -> Entry:
    """The Entry of a frame given as consecutive byte strings; computes its SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    name = stem(taken_at, clock.boot_id(), sequence, label)
    return Entry(sequence, device, name, sum(map(len, parts)), digest.hexdigest(), suffix)
