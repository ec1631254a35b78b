"""Two slots for a model, a and b: one is in use, the other may be filled.

No power cut can leave the device without a working model. Files below model.folder:

    active.json    the slot in use, its probation, and the slot to return to; one rename changes it
    a/, b/         manifest.json, *.tflite, golden/; checked.json is written last, and a slot without it holds no model
    denied.json    digests that failed here, with the reason; they are never taken again
    slow.json      the digest that has the right scores but was too slow, how often, and its best time
    sync.json      what sync.py found and wants

Only the scorer (selector.py) writes active.json. Nothing writes to the slot in use or to the one to return to; sync.py
fills the other one. A digest is the SHA-256 of manifest.json, which holds the SHA-256 of every other file.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device import clock
from device.files import sync_folder
from device.spool import records

SLOTS = ("a", "b")


class Busy(Exception):
    """Another process is filling a slot."""


@contextmanager
def filling(root: str | Path) -> Iterator[None]:
    """Lock for writing to a slot that is not in use, and for switching to it. Raises Busy."""
    Path(root).mkdir(parents=True, exist_ok=True)
    with open(Path(root) / "sync.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another sync is under way") from error
        yield


def active(root: str | Path) -> dict[str, Any]:
    """active.json: slot, digest, version, fallback ("" after probation), left (frames of probation), strikes.

    {} if no model was ever in use.
    """
    record = records.read(Path(root) / "active.json")
    return record if record.get("slot") in SLOTS else {}


def spare(record: dict[str, Any]) -> str:
    """The slot that may be filled. record: of active()."""
    return "b" if record.get("slot") == "a" else "a"


def checked(root: str | Path, slot: str) -> dict[str, Any]:
    """checked.json of a complete slot: digest of the manifest, variant in use, table of all variants.

    {} if incomplete.
    """
    folder = Path(root, slot)
    record = records.read(folder / "checked.json")
    try:
        same = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == record.get("digest")
    except OSError:
        return {}
    return record if same else {}


def denied(root: str | Path) -> dict[str, Any]:
    """{digest: {"reason", "version", "at"}} of models that failed here."""
    return records.read(Path(root) / "denied.json")


def deny(root: str | Path, digest: str, version: str, reason: str) -> None:
    """Records durably that this digest must not be used here again. Raises OSError."""
    known = denied(root)
    known[digest] = {"version": version, "reason": reason, "at": f"{clock.now():%Y-%m-%d %H:%M:%S}Z"}
    records.write(Path(root) / "denied.json", dict(list(known.items())[-100:]), durable=True)


def too_slow(
    root: str | Path, settings: Any, card: dict[str, Any], milliseconds: float | None, hindered: str
) -> tuple[bool, str]:
    """Records durably that a model with the right scores was too slow in a round.

    The best round counts, and the first round within the budget is enough: a board may be hot or busy for a while, and
    a denial is final. So rounds are model.interval_s apart, and rounds of a slowed-down board do not count.

    settings: [model]. card: {"digest", "version"}. milliseconds: for a frame, None without an answer. hindered: of
    golden.hindered(). Returns (True if model.slow_rounds are over and the model should be denied, the reason in words).
    """
    known = _slow(root, card["digest"])
    best = min((time for time in (known.get("best_ms"), milliseconds) if time is not None), default=None)
    rounds = known.get("rounds", 0) + (0 if hindered or is_resting(root, settings, card["digest"]) else 1)
    words = (
        f"{'no answer' if best is None else f'{best:.0f} ms a frame'} at best in {rounds} of model.slow_rounds = "
        f"{settings.slow_rounds} rounds, and model.budget_ms is {settings.budget_ms:g}"
        + (f"; this one, at {hindered}, does not count" if hindered else "")
    )
    record = {
        "digest": card["digest"],
        "version": card["version"],
        "rounds": rounds,
        "best_ms": best,
        "words": words,
        "at": clock.now().isoformat(),
        "boot_id": clock.boot_id(),
        "uptime_s": clock.uptime(),
    }
    records.write(Path(root) / "slow.json", record, durable=True)
    return rounds >= settings.slow_rounds, words


def is_resting(root: str | Path, settings: Any, digest: str) -> bool:
    """True if this digest was too slow less than model.interval_s ago.

    Uses the time since boot, because clocks jump.
    """
    known = _slow(root, digest)
    return known.get("boot_id") == clock.boot_id() and clock.uptime() - known["uptime_s"] < settings.interval_s


def is_fast(root: str | Path, digest: str) -> None:
    """Removes the record of a slow digest, because it kept within its budget during probation."""
    if _slow(root, digest):
        (Path(root) / "slow.json").unlink()


def _slow(root: str | Path, digest: str) -> dict[str, Any]:
    known = records.read(Path(root) / "slow.json")
    return known if known.get("digest") == digest else {}


def set_aside(root: str | Path, slot: str) -> None:
    """Marks a slot as incomplete, durably. Its files stay for the next round of a model that was too slow."""
    (Path(root, slot) / "checked.json").unlink(missing_ok=True)
    sync_folder(Path(root, slot))


def clear(folder: str | Path) -> None:
    """Empties a slot. checked.json goes first, durably, so the slot never looks complete."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checked.json").unlink(missing_ok=True)
    sync_folder(folder)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
