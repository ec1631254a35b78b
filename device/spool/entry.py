"""What a spooled file is called, and what it will be called in the store.

A name is  <sequence>~<device>~<UTC time>_<boot>_<sequence>[_<label>]~<bytes>~<SHA-256>.jpg : sorted by name is in the order taken,
whatever the clock did, and all facts travel with the file, so that a crash can't part them.
"""

import hashlib
import re
from dataclasses import dataclass

from device import clock

NAME = re.compile(
    r"(?P<sequence>\d{10})~(?P<device>[^~/]+)~(?P<stem>[^~/]+)~(?P<size>\d+)~(?P<sha256>[0-9a-f]{64})(?P<suffix>\.[a-z]+)"
)

RESULTS = ".jsonl"


@dataclass(frozen=True)
class Entry:
    """One spooled file: a photograph, or lines of results (.jsonl). stem is its name in the store, without suffix."""

    sequence: int
    device: str
    stem: str
    size: int  # bytes
    sha256: str
    suffix: str = ".jpg"

    @property
    def name(self):
        """Its name in the spool."""
        return f"{self.sequence:010d}~{self.device}~{self.stem}~{self.size}~{self.sha256}{self.suffix}"

    @property
    def key(self):
        """Its place in the store, where no name needs a colon. Results lie below _results/: whoever lists photographs, Spark too, passes over it."""
        return f"{'_results/' if self.suffix == RESULTS else ''}device={self.device}/date={self.stem[:10]}/{self.stem}{self.suffix}"


def parse(name):
    """The Entry that a name in the spool stands for, None where it is not one."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    fields = match.groupdict()
    return Entry(**{**fields, "sequence": int(fields["sequence"]), "size": int(fields["size"])})


def stem(taken_at, boot_id, sequence, label=""):
    """What a frame is called: UTC time, boot, sequence and, if it has one, its label as the last field.

    Unique however the clock jumps: a boot id never comes again, and within a boot the sequence only grows.
    """
    fields = [f"{taken_at:%Y-%m-%dT%H%M%S}.{taken_at.microsecond // 1000:03d}Z", boot_id[:8], f"{sequence:06d}"]
    return "_".join(fields + [label] if label else fields)


def describe(parts, device, taken_at, sequence, label="", suffix=".jpg"):
    """The Entry of a frame given as byte strings that follow each other; takes its SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    name = stem(taken_at, clock.boot_id(), sequence, label)
    return Entry(sequence, device, name, sum(map(len, parts)), digest.hexdigest(), suffix)
