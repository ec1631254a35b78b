"""Selects the model in use: a new one from sync.py, first on probation, or the last good one."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from device import clock
from device.model import edge_model, golden, slots, transform
from device.spool import records
from device.spool.spool import FULL

FEW = 5  # least number of frames for a median of their times


class Selector:
    """The model in use. Only the scorer has one.

    model: None while no model works. on_probation: frames that are still to be judged, 0 after probation.
    """

    def __init__(self, settings: Any, say: Callable[..., None]) -> None:
        self.settings, self.say = settings.model, say
        self.threads = settings.score.threads
        self.root = Path(self.settings.folder)
        self.root.mkdir(parents=True, exist_ok=True)
        self.model: edge_model.Model | None = None
        self.record: dict[str, Any] = {}
        self.on_probation = 0
        self.times: list[float] = []
        # Digests that failed in this process. A full disk cannot record them.
        self.refused: set[str] = set()

    def start(self) -> None:
        """Loads the model of active.json, else the last good one, else any complete slot.

        Without one, model is None.
        """
        self.record = slots.active(self.root)
        if self.record.get("fallback"):
            # Each start is a strike until a clean stop takes it back, so a crash of the process counts.
            self.record["strikes"] = self.record.get("strikes", 0) + 1
            self._remember(self.record)
            if self.record["strikes"] > self.settings.crashes and self.record["digest"] not in slots.denied(self.root):
                self._deny(f"{self.record['strikes'] - 1} starts of the scorer did not survive its probation")
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

    def stop(self) -> None:
        """Ends cleanly: no strike against a model on probation, and its judged frames count."""
        if self.on_probation and self.record.get("fallback"):
            self.record.update(strikes=0, left=self.on_probation)
            self._remember(self.record)

    def look(self) -> None:
        """Switches to a new model from sync.py, if there is one. Cheap: reads a few small files."""
        wanted = records.read(self.root / "sync.json").get("digest")
        if not wanted or wanted == self.record.get("digest") and self.model or self.record.get("fallback"):
            return
        if slots.checked(self.root, slots.spare(self.record)).get("digest") != wanted:
            return  # not here yet, or set aside; do not take the lock from sync
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
                raise  # on a full disk the present model stays until the switch can be written

    def judge(self, milliseconds: float) -> bool:
        """Judges a scored frame by its time. Returns True if the model was given up for the last good one."""
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

    def _too_slow(self, milliseconds: float) -> bool:
        try:
            over, words = slots.too_slow(
                self.root, self.settings, self.record, milliseconds, golden.hindered(golden.heat())
            )
        except OSError as error:
            if error.errno not in FULL:
                raise
            over, words = False, f"{milliseconds:.0f} ms a frame, and model.budget_ms is {self.settings.budget_ms:g}"
        return self.give_up(words, for_good=over)

    def give_up(self, reason: str, for_good: bool = True) -> bool:
        """Gives up the failed model in use and returns True if it is on probation; else changes nothing.

        The model is denied, and the last good one is used again. for_good: False for a model that was only too slow.
        Such a model is set aside until sync has checked it again.
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

    def _load(self, slot: str, card: dict[str, Any]) -> edge_model.Model | None:
        try:
            return edge_model.load(str(self.root / slot), card["variant"], self.threads)
        except (edge_model.BadModel, transform.BadTransform, OSError, KeyError) as error:
            self.say(f"slot {slot} cannot be used: {error}", sys.stderr)
            return None

    def _discard(self, slot: str) -> None:
        """Clears a slot that a failing card has damaged, so that sync fetches the model again."""
        try:
            with slots.filling(self.root):
                slots.clear(self.root / slot)
        except slots.Busy:
            self.say(f"slot {slot} stays as it is: sync is at work", sys.stderr)

    def _use(
        self,
        slot: str,
        card: dict[str, Any],
        loaded: edge_model.Model,
        fallback: str,
        back: bool = False,
        must: bool = False,
    ) -> None:
        """Switches to a slot with one rename. must: on a full disk raise OSError and switch nothing."""
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
            self.on_probation = self.settings.probation  # the first model is judged too, though it has no fallback
        self.say(
            f"model {card['version']} ({card['variant']}) is in use from slot {slot}"
            + (f", on probation for {self.on_probation} frames" if self.on_probation else ", as before" if back else "")
        )

    def _take(self, loaded: edge_model.Model) -> None:
        self.model, self.times = loaded, []
        self.on_probation = self.record.get("left", self.settings.probation) if self.record.get("fallback") else 0

    def _remember(self, record: dict[str, Any], must: bool = False) -> None:
        """Writes active.json. A full disk does not stop the scoring: after a restart the last written record holds."""
        try:
            records.write(self.root / "active.json", record, durable=True)
        except OSError as error:
            if must or error.errno not in FULL:
                raise
            self.say(f"{self.root / 'active.json'} stays as it was: {error.strerror}", sys.stderr)

    def _deny(self, reason: str) -> None:
        self.say(f"model {self.record['version']} is given up: {reason}", sys.stderr)
        self.refused.add(self.record["digest"])
        try:
            slots.deny(self.root, self.record["digest"], self.record["version"], reason)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.say(f"{self.root / 'denied.json'} stays as it was: {error.strerror}", sys.stderr)


def sound(scores: Sequence[float], classes: Sequence[str]) -> bool:
    """True if scores can be probabilities: one finite number for each class, from 0 to 1 within rounding."""
    return len(scores) == len(classes) and all(math.isfinite(score) and -0.01 <= score <= 1.01 for score in scores)
