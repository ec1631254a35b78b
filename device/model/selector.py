"""Which model is in use: the new one that sync.py has made ready, on probation at first, or the last good one."""

import math
import statistics
import sys
from pathlib import Path

from device import clock
from device.model import edge_model, golden, slots, transform
from device.spool import records
from device.spool.spool import FULL

FEW = 5  # frames before a median of their times says anything


class Pilot:
    """The model in use, and the decision which one that is. Only the scorer has one.

    model: a edge_model.Model, or None while there is none that works. on_probation: frames still to be judged, 0 when
    confirmed.
    """

    def __init__(self, settings, say):
        self.settings, self.say = settings.model, say
        self.threads = settings.score.threads
        self.root = Path(self.settings.folder)
        self.root.mkdir(parents=True, exist_ok=True)
        self.model, self.record, self.on_probation, self.times = None, {}, 0, []
        self.refused = set()  # digests that failed in this process: known, too, where a full disk takes no note of them

    def start(self):
        """Loads the model of active.json, or returns to the last good one, or takes any slot that is whole; None is
        left where none is.
        """
        self.record = slots.active(self.root)
        if self.record.get("fallback"):
            self.record["strikes"] = (
                self.record.get("strikes", 0) + 1
            )  # taken back by a clean stop: a crash of the process counts, too
            self._remember(self.record)
            if self.record["strikes"] > self.settings.crashes and self.record["digest"] not in slots.denied(self.root):
                self._deny(f"{self.record['strikes'] - 1} starts of the scorer did not live through its probation")
        known = slots.denied(self.root).keys() | self.refused
        wanted = [self.record.get("slot"), self.record.get("fallback"), *slots.SLOTS]
        for slot in dict.fromkeys(slot for slot in wanted if slot):
            card = slots.checked(self.root, slot)
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
        self.say(
            "no model here yet"
            if not self.record
            else "no model here works; frames go home unscored until sync has fetched one",
            sys.stderr,
        )

    def stop(self):
        """A clean stop is no strike against a model on probation, and the frames it was watched for count."""
        if self.on_probation and self.record.get("fallback"):
            self.record.update(strikes=0, left=self.on_probation)
            self._remember(self.record)

    def look(self):
        """Takes the model that sync.py has made ready, if there is one; says so. Cheap: a few small files are read."""
        wanted = records.read(self.root / "sync.json").get("digest")
        if not wanted or wanted == self.record.get("digest") and self.model or self.record.get("fallback"):
            return
        if slots.checked(self.root, slots.spare(self.record)).get("digest") != wanted:
            return  # not here yet, or set aside; sync needs its lock for itself
        if wanted in self.refused:
            return
        try:
            with slots.filling(self.root):
                slot = slots.spare(self.record)
                card = slots.checked(self.root, slot)
                if card.get("digest") != wanted or wanted in slots.denied(self.root):
                    return
                loaded = self._load(slot, card)
                if loaded is None:
                    slots.clear(self.root / slot)  # as in _discard
                    return
                self._use(slot, card, loaded, fallback=self.record.get("slot", "") if self.model else "", must=True)
        except slots.Busy:
            return
        except OSError as error:
            if error.errno not in FULL:
                raise  # on a full disk the one in use stays that, until the switch can be written

    def judge(self, milliseconds):
        """Takes in a frame that was scored, and how long it took.

        True where the model was given up for the last good one.
        """
        if not self.on_probation:
            return False
        self.times.append(milliseconds)
        middle = statistics.median(self.times)
        if len(self.times) >= FEW and middle > self.settings.budget_ms:
            return self._too_slow(middle)
        self.on_probation -= 1
        if not self.on_probation:
            self.record.update(fallback="", strikes=0)
            self._remember(self.record)
            slots.is_fast(self.root, self.record["digest"])
            self.say(f"model {self.record['version']} has passed its probation: {middle:.1f} ms a frame")
        return False

    def _too_slow(self, milliseconds):
        try:
            over, words = slots.too_slow(
                self.root, self.settings, self.record, milliseconds, golden.hindered(golden.heat())
            )
        except OSError as error:
            if error.errno not in FULL:
                raise
            over, words = False, f"{milliseconds:.0f} ms a frame, and model.budget_ms is {self.settings.budget_ms:g}"
        return self.give_up(words, for_good=over)

    def give_up(self, reason, for_good=True):
        """The model in use failed. On probation it is denied, and the last good one is in use again: True. Else nothing
        changes: False.

        for_good: False where it was only too slow, and may try again: it is not denied but set aside, until sync has
        checked it anew.
        """
        if not self.on_probation:
            return False
        failed = self.record.get("slot", "")
        if for_good:
            self._deny(reason)
        else:
            self.say(f"model {self.record['version']} is set aside: {reason}", sys.stderr)
        slot = self.record.get("fallback", "")
        card = slots.checked(self.root, slot) if slot else {}
        loaded = self._load(slot, card) if card else None
        self.on_probation, self.model = 0, None
        if loaded:
            self._use(slot, card, loaded, fallback="", back=True)
        else:
            self.record = {}
            (self.root / "active.json").unlink(missing_ok=True)
            self.say("there is no earlier model to return to; frames go home unscored", sys.stderr)
        if not for_good:
            slots.set_aside(self.root, failed)
        return True

    def _load(self, slot, card):
        try:
            return edge_model.load(str(self.root / slot), card["variant"], self.threads)
        except (edge_model.BadModel, transform.BadTransform, OSError, KeyError) as error:
            self.say(f"slot {slot} can't be used: {error}", sys.stderr)
            return None

    def _discard(self, slot):
        """Was whole once, and is no more (a failing card): no longer counted as here, so that sync fetches it anew."""
        try:
            with slots.filling(self.root):
                slots.clear(self.root / slot)
        except slots.Busy:
            self.say(f"slot {slot} stays as it is: sync is at work", sys.stderr)

    def _use(self, slot, card, loaded, fallback, back=False, must=False):
        """Switches: from the one rename on, this slot is the model, crash or not.

        must: raises OSError, and switches nothing, on a full disk.
        """
        fallback = fallback if fallback != slot else ""
        record = {
            "slot": slot,
            "digest": card["digest"],
            "version": card["version"],
            "variant": card["variant"],
            "fallback": fallback,
            "strikes": 0,
            "since": clock.now().isoformat(),
        }
        first = not back and not fallback and self.model is None
        self._remember(record, must)
        self.record = record
        self._take(loaded)
        if first:
            self.on_probation = (
                self.settings.probation
            )  # the first model has none to return to, and is watched all the same
        self.say(
            f"model {card['version']} ({card['variant']}) is in use from slot {slot}"
            + (f", on probation for {self.on_probation} frames" if self.on_probation else ", as before" if back else "")
        )

    def _take(self, loaded):
        self.model, self.times = loaded, []
        self.on_probation = self.record.get("left", self.settings.probation) if self.record.get("fallback") else 0

    def _remember(self, record, must=False):
        """Writes active.json.

        A disk that takes none costs memory of it, not the scoring: after a restart the one written last is in use.
        """
        try:
            records.write(self.root / "active.json", record, durable=True)
        except OSError as error:
            if must or error.errno not in FULL:
                raise
            self.say(f"{self.root / 'active.json'} stays as it was: {error.strerror}", sys.stderr)

    def _deny(self, reason):
        self.say(f"model {self.record['version']} is given up: {reason}", sys.stderr)
        self.refused.add(self.record["digest"])
        try:
            slots.deny(self.root, self.record["digest"], self.record["version"], reason)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.say(f"{self.root / 'denied.json'} stays as it was: {error.strerror}", sys.stderr)


def sound(scores, classes):
    """Whether a model's answer can be one: finite, a number for each class, each within 0 and 1 but for rounding."""
    return len(scores) == len(classes) and all(math.isfinite(score) and -0.01 <= score <= 1.01 for score in scores)
