"""Two places for a model, a and b: one is in use, the other may be filled. Nothing a power cut does leaves none that works.

    <edge_model.folder>/active.json    which one is in use, on probation or not, and to which one to return; one rename changes it
    <edge_model.folder>/a/, b/         manifest.json, *.tflite, golden/; checked.json is written last, by golden.py: a slot without it is no model
    <edge_model.folder>/denied.json    digests that failed here, with the reason; they are never taken again
    <edge_model.folder>/slow.json      the digest that scores rightly and was too slow here, how often, and how fast at best
    <edge_model.folder>/sync.json      what sync.py saw and wants

active.json is written by the scorer alone (pilot.py), and the slot that it names, or returns to, by nobody. sync.py fills the other one.
A digest is the SHA-256 of manifest.json, which holds the SHA-256 of every other file.
"""

import fcntl
import hashlib
import shutil
from contextlib import contextmanager
from pathlib import Path

from device import clock
from device.files import sync_folder
from device.spool import records

SLOTS = ("a", "b")


class Busy(Exception):
    """Another process is filling a slot."""


@contextmanager
def filling(root):
    """Held by whoever writes to a slot that is not in use, or is about to use it. Raises Busy."""
    Path(root).mkdir(parents=True, exist_ok=True)
    with open(Path(root) / "sync.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another sync is under way") from error
        yield


def active(root):
    """active.json, a dict: slot, digest, version, fallback ("" once probation is over), left (frames of it), strikes.

    {} where no model was ever in use.
    """
    record = records.read(Path(root) / "active.json")
    return record if record.get("slot") in SLOTS else {}


def spare(record):
    """The slot that may be filled, by active.json's record."""
    return "b" if record.get("slot") == "a" else "a"


def checked(root, slot):
    """checked.json of a whole slot, {} where it is not whole: the manifest's digest, the variant in use, and the table of all variants."""
    folder = Path(root, slot)
    record = records.read(folder / "checked.json")
    try:
        same = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == record.get("digest")
    except OSError:
        return {}
    return record if same else {}


def denied(root):
    """{digest: {"reason", "version", "at"}} of models that failed here."""
    return records.read(Path(root) / "denied.json")


def deny(root, digest, version, reason):
    """Notes, durably, that this digest is not to be used here again. Raises OSError."""
    known = denied(root)
    known[digest] = {"version": version, "reason": reason, "at": f"{clock.now():%Y-%m-%d %H:%M:%S}Z"}
    records.write(Path(root) / "denied.json", dict(list(known.items())[-100:]), durable=True)


def too_slow(root, settings, card, milliseconds, hindered):
    """Notes, durably, that a model which scores rightly took `milliseconds` (None: no answer came) for a frame just now.

    Its best round counts, and as soon as one keeps to the budget it is taken: a board may be hot or busy for a while, and a model that is denied is
    denied for good. So rounds lie model.interval_s apart, and those of a board that says it is slowed down are not counted. settings: [model];
    card: {"digest", "version"}; hindered: golden.hindered()'s word. Returns (whether model.slow_rounds are over and it should be denied, words).
    """
    known = _slow(root, card["digest"])
    best = min((time for time in (known.get("best_ms"), milliseconds) if time is not None), default=None)
    rounds = known.get("rounds", 0) + (0 if hindered or is_resting(root, settings, card["digest"]) else 1)
    words = (
        f"{'no answer' if best is None else f'{best:.0f} ms a frame'} at best in {rounds} of model.slow_rounds = {settings.slow_rounds} rounds, "
        f"and model.budget_ms is {settings.budget_ms:g}"
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


def is_resting(root, settings, digest):
    """Whether this digest was too slow less than model.interval_s ago: it is not tried again so soon. By the time since boot, as clocks jump."""
    known = _slow(root, digest)
    return known.get("boot_id") == clock.boot_id() and clock.uptime() - known["uptime_s"] < settings.interval_s


def is_fast(root, digest):
    """Forgets that this digest was too slow: it has kept to its budget through its probation."""
    if _slow(root, digest):
        (Path(root) / "slow.json").unlink()


def _slow(root, digest):
    known = records.read(Path(root) / "slow.json")
    return known if known.get("digest") == digest else {}


def set_aside(root, slot):
    """A slot is not whole any more, durably; its files stay, for the next round of a model that was too slow."""
    (Path(root, slot) / "checked.json").unlink(missing_ok=True)
    sync_folder(Path(root, slot))


def clear(folder):
    """Empties a slot so that it is at no moment taken for whole: checked.json goes first, durably."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checked.json").unlink(missing_ok=True)
    sync_folder(folder)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
