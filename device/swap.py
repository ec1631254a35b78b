"""Two places for a model, a and b: one is in use, the other may be filled. Nothing a power cut does leaves none that works.

    <model.folder>/active.json    which one is in use, on probation or not, and to which one to return; one rename changes it
    <model.folder>/a/, b/         manifest.json, *.tflite, golden/; checked.json is written last, by golden.py: a slot without it is no model
    <model.folder>/denied.json    digests that failed here, with the reason; they are never taken again
    <model.folder>/sync.json      what sync.py saw and wants

active.json is written by the scorer alone, and the slot that it names, or returns to, is never written by anybody. sync.py fills the other one.
A digest is the SHA-256 of manifest.json, which holds the SHA-256 of every other file.
"""

import fcntl
import hashlib
import math
import shutil
import statistics
import sys
from contextlib import contextmanager
from pathlib import Path

from . import clock, model, records, transform

SLOTS = ("a", "b")
FEW = 5  # frames before a median of their times says anything


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
    """active.json, a dict: slot, digest, version, fallback ("" once probation is over), left (frames of it), strikes. {} where no model was ever in use."""
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


def clear(folder):
    """Empties a slot so that it is at no moment taken for whole: checked.json goes first, durably."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checked.json").unlink(missing_ok=True)
    records.sync_folder(folder)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Pilot:
    """The model in use, and the decision which one that is. Only the scorer has one.

    model: a model.Model, or None while there is none that works. on_probation: frames still to be judged, 0 when confirmed.
    """

    def __init__(self, settings, say):
        self.settings, self.say = settings.model, say
        self.threads = settings.score.threads
        self.root = Path(self.settings.folder)
        self.root.mkdir(parents=True, exist_ok=True)
        self.model, self.record, self.on_probation, self.times = None, {}, 0, []

    def start(self):
        """Loads the model of active.json, or returns to the last good one, or takes any slot that is whole; None is left where none is."""
        self.record = active(self.root)
        if self.record.get("fallback"):
            self.record["strikes"] = self.record.get("strikes", 0) + 1  # taken back by a clean stop: a crash of the process counts, too
            records.write(self.root / "active.json", self.record, durable=True)
            if self.record["strikes"] > self.settings.crashes and self.record["digest"] not in denied(self.root):
                self._deny(f"{self.record['strikes'] - 1} starts of the scorer did not live through its probation")
        known = denied(self.root)
        wanted = [self.record.get("slot"), self.record.get("fallback"), *SLOTS]
        for slot in dict.fromkeys(slot for slot in wanted if slot):
            card = checked(self.root, slot)
            if not card or card["digest"] in known:
                continue
            loaded = self._load(slot, card)
            if loaded is None:
                self._discard(slot)
            else:
                if card["digest"] != self.record.get("digest") or slot != self.record.get("slot"):
                    self._use(slot, card, loaded, fallback="", back=bool(self.record))
                else:
                    self._take(loaded)
                return
        self.say("no model here yet" if not self.record else "no model here works; frames go home unscored until sync has fetched one", sys.stderr)

    def stop(self):
        """A clean stop is no strike against a model on probation, and the frames it was watched for count."""
        if self.on_probation and self.record.get("fallback"):
            self.record.update(strikes=0, left=self.on_probation)
            self._remember()

    def look(self):
        """Takes the model that sync.py has made ready, if there is one; says so. Cheap: a few small files are read."""
        wanted = records.read(self.root / "sync.json").get("digest")
        if not wanted or wanted == self.record.get("digest") and self.model or self.record.get("fallback"):
            return
        try:
            with filling(self.root):
                slot = spare(self.record)
                card = checked(self.root, slot)
                if card.get("digest") != wanted or wanted in denied(self.root):
                    return
                loaded = self._load(slot, card)
                if loaded is None:
                    clear(self.root / slot)  # as in _discard
                    return
                self._use(slot, card, loaded, fallback=self.record.get("slot", "") if self.model else "")
        except Busy:
            return

    def judge(self, milliseconds):
        """Takes in a frame that was scored, and how long it took. True where the model was given up for the last good one."""
        if not self.on_probation:
            return False
        self.times.append(milliseconds)
        middle = statistics.median(self.times)
        if len(self.times) >= FEW and middle > self.settings.budget_ms:
            return self.give_up(f"{middle:.0f} ms a frame, and model.budget_ms is {self.settings.budget_ms:g}")
        self.on_probation -= 1
        if not self.on_probation:
            self.record.update(fallback="", strikes=0)
            self._remember()
            self.say(f"model {self.record['version']} has passed its probation: {middle:.1f} ms a frame")
        return False

    def give_up(self, reason):
        """The model in use failed. On probation it is denied, and the last good one is in use again: True. Else nothing changes: False."""
        if not self.on_probation:
            return False
        self._deny(reason)
        slot = self.record.get("fallback", "")
        card = checked(self.root, slot) if slot else {}
        loaded = self._load(slot, card) if card else None
        self.on_probation, self.model = 0, None
        if loaded:
            self._use(slot, card, loaded, fallback="", back=True)
        else:
            self.record = {}
            (self.root / "active.json").unlink(missing_ok=True)
            self.say("there is no earlier model to return to; frames go home unscored", sys.stderr)
        return True

    def _load(self, slot, card):
        try:
            return model.load(str(self.root / slot), card["variant"], self.threads)
        except (model.BadModel, transform.BadTransform, OSError, KeyError) as error:
            self.say(f"slot {slot} can't be used: {error}", sys.stderr)
            return None

    def _discard(self, slot):
        """Was whole once, and is no more (a failing card): no longer counted as here, so that sync fetches it anew."""
        try:
            with filling(self.root):
                clear(self.root / slot)
        except Busy:
            self.say(f"slot {slot} stays as it is: sync is at work", sys.stderr)

    def _use(self, slot, card, loaded, fallback, back=False):
        """Switches: from the one rename on, this slot is the model, crash or not."""
        fallback = fallback if fallback != slot else ""
        self.record = {"slot": slot, "digest": card["digest"], "version": card["version"], "variant": card["variant"], "fallback": fallback,
                       "strikes": 0, "since": clock.now().isoformat()}
        first = not back and not fallback and self.model is None
        self._remember()
        self._take(loaded)
        if first:
            self.on_probation = self.settings.probation  # the first model has none to return to, and is watched all the same
        self.say(f"model {card['version']} ({card['variant']}) is in use from slot {slot}"
                 + (f", on probation for {self.on_probation} frames" if self.on_probation else ", as before" if back else ""))

    def _take(self, loaded):
        self.model, self.times = loaded, []
        self.on_probation = self.record.get("left", self.settings.probation) if self.record.get("fallback") else 0

    def _remember(self):
        records.write(self.root / "active.json", self.record, durable=True)

    def _deny(self, reason):
        self.say(f"model {self.record['version']} is given up: {reason}", sys.stderr)
        deny(self.root, self.record["digest"], self.record["version"], reason)


def sound(scores, classes):
    """Whether a model's answer can be one: finite, a number for each class, each within 0 and 1 but for rounding."""
    return len(scores) == len(classes) and all(math.isfinite(score) and -0.01 <= score <= 1.01 for score in scores)
