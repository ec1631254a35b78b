"""The scorer's loop: frames from unscored/ become labels, actions and batches of results.

The loop only scores; everything that may wait runs elsewhere. sync.py fetches models in a process of its own, act.py
acts in a thread, results.py makes batches safe in another thread, and upload sends them. selector.py decides which
model is in use. Without a model, frames are sent unscored.
"""

from __future__ import annotations

import time
from typing import Any

from device import clock, hang_guard
from device.config import Settings
from device.journal import say, sleep
from device.model import edge_model, selector, transform
from device.notify import notify, watchdog_s
from device.score import act, feedback, results, sync_starter
from device.spool.entry import Entry
from device.spool.spool import Damaged, Spool

AT_A_TIME = 64  # frames listed at once
LOOK_EVERY_S = 1.0  # how often the loop looks for a new model
STATUS_EVERY_S = 10.0  # how often the counters go to disk
RETRY_S = 1.0  # how often a full disk is tried again


class Scorer:
    """The loop and its state between frames.

    inbox: a Spool whose ready/ is unscored/. outbox: the Spool that upload empties; its counters are the scorer's.
    stopping: a list, not empty once the process is to stop. once: no model is fetched.
    ending: if True, the loop ends as soon as no frame waits.
    """

    def __init__(self, settings: Settings, inbox: Spool, outbox: Spool, stopping: list[bool], once: bool):
        self.settings, self.inbox, self.outbox, self.stopping, self.once = settings, inbox, outbox, stopping, once
        self.ending = once and not settings.score.camera
        self.alive_at = time.monotonic()
        self.counters = outbox.counters
        self.desk, self.batch = results.Desk(inbox, outbox, say), results.Batch()
        self.choice = feedback.Choice(settings.feedback, **{**{"day": "", "spent": 0}, **self.desk.finish()})
        self.actor = act.Actor(settings.act, self.counters, say)
        self.selector = selector.Selector(settings, say)
        self.sync = sync_starter.SyncStarter(settings)
        self.looked_at = self.saved_at = self.refused_at = -float("inf")

    def loop(self) -> int:
        """Scores until asked to stop, or until no frame waits if `ending`; returns 0. Raises OSError."""
        began = time.monotonic()
        self.counters.update(running=True, starts=self.counters.get("starts", 0) + 1, device=self.settings.device.id)
        self.selector.start()
        self._tend()
        if not self.settings.score.camera:  # the camera's loop reports READY with its first frame
            notify("READY=1", f"STATUS=scoring after {time.monotonic() - began:.1f} s")
        try:
            self._score_frames()
            say("stopped as asked" if self.stopping else "no frame waits to be scored")
            self._settle()
            self._send()
            self._settle()
            self.selector.stop()
        finally:
            self.sync.end()
            self.desk.close()
        self.actor.finish(self.settings.act.timeout_s if self.once else 1.0)
        notify("STOPPING=1")
        return 0

    def is_well(self) -> bool:
        """True if the loop has lately shown that it neither hangs nor waits; for the watchdog of a two-loop process."""
        patience = watchdog_s()
        return patience is None or time.monotonic() - self.alive_at < patience / 3

    def _score_frames(self) -> None:
        while not self.stopping:
            ending = self.ending  # read before the folder is listed, so that no frame taken until then is missed
            entries = self._fresh()
            for entry in entries:
                self._score_frame(entry)
                self._tend()
                if self.stopping:
                    break
            if not entries:
                if ending:
                    break
                sleep(self.settings.score.poll_s, self.stopping)
                self._tend()

    def _fresh(self) -> list[Entry]:
        """The oldest waiting frames, without those whose results are under way."""
        busy = self.batch.frames.keys() | self.desk.under_way()
        return [entry for entry in self.inbox.oldest(AT_A_TIME + len(busy)) if entry.name not in busy]

    def _tend(self) -> None:
        """Between frames: sends batches that are due, feeds the watchdog, takes a new model, saves the counters."""
        now = self.alive_at = time.monotonic()
        due = self.batch.is_due(self.settings.score)
        if self.desk.is_done() or due and self.desk.under_way():
            self._settle()  # waits if the card is slower than the scoring
        if due and now - self.refused_at > RETRY_S:
            self._send()
        if now - self.looked_at < LOOK_EVERY_S:
            return
        self.looked_at = now
        if not self.settings.score.camera:
            notify("WATCHDOG=1")
        elif hang_guard.time_left() < 2 * LOOK_EVERY_S:
            self.selector.stop()  # the camera hangs and will end this process; this must not count against a new model
        self.selector.look()
        if not self.once:
            self.sync.tend()
        if now - self.saved_at >= STATUS_EVERY_S:
            self.saved_at = now
            self._save()

    def _save(self) -> None:
        record = self.selector.record if self.selector.model else {}
        self.counters.update(
            model=record.get("version", ""),
            variant=record.get("variant", ""),
            on_probation=self.selector.on_probation,
            **self.choice.account(),
        )
        self.outbox.save()

    def _send(self) -> None:
        """Starts to send the batch, beside the scoring."""
        if self.batch.frames:
            self.desk.start(self.batch, self.choice.account())
            self.batch = results.Batch()

    def _settle(self) -> None:
        """Waits for the batch under way; if there was no room for it, it joins the next batch."""
        unsent = self.desk.settle()
        if unsent:
            self.refused_at = time.monotonic()
            self.batch = unsent.followed_by(self.batch)
        self._save()

    def _score_frame(self, entry: Entry) -> None:
        """Scores one frame, acts on its result and adds it to the batch."""
        try:
            with self.inbox.claim(entry) as data:
                if data is None:
                    return  # dropped by capture's quota
                result, with_image = self._score(entry, data)
        except Damaged as error:
            self.inbox.bury(entry.name, str(error))
            self._count("damaged")
            return
        self.batch.add(entry, result, with_image)
        if result is None:
            self._count("unscored")
            return
        self._count("scored")
        if result["error"]:
            self._count("errors")
        else:
            self.counters["last"] = {key: result[key] for key in ("image", "label", "score", "latency_ms", "scored_at")}
            self.actor.handle(result)

    def _score(self, entry: Entry, data: bytes) -> tuple[dict[str, Any] | None, bool]:
        """(the frame's result, True if its image is sent too); (None, True) without a model."""
        send_failed = self.settings.feedback.send == "all"
        while self.selector.model:
            model = self.selector.model
            began = time.perf_counter()
            try:
                pixels = transform.pixels(data, model.transform)
            except transform.BadImage as error:
                return self._result(entry, model, error=f"not an image: {error}"), send_failed
            scores: list[float] = []
            try:
                scores = edge_model.invoke(model, pixels)
                failure = "" if selector.sound(scores, model.classes) else f"scores {scores} are no probabilities"
            except (ValueError, RuntimeError) as error:
                failure = f"{type(error).__name__}: {error}"
            milliseconds = 1000 * (time.perf_counter() - began)
            if failure and self.selector.give_up(failure):
                continue  # the last good model scores this frame
            if failure:
                return self._result(entry, model, error=failure[:300]), send_failed
            figures = feedback.light(pixels, transform.image_size(model.transform))
            reasons = self.choice.reasons(scores, model.threshold, figures, entry.sha256)
            with_image = self._sends_image(entry, reasons)
            result = self._result(entry, model, scores, milliseconds, figures, reasons)
            result["sent"] = "image" if with_image else "figures"
            self.selector.judge(milliseconds)
            return result, with_image
        return None, True

    def _sends_image(self, entry: Entry, reasons: list[str]) -> bool:
        policy = self.settings.feedback.send
        return policy == "all" or policy == "chosen" and bool(reasons) and self.choice.take(entry.size)

    def _result(
        self,
        entry: Entry,
        model: edge_model.Model,
        scores: list[float] | None = None,
        milliseconds: float | None = None,
        figures: dict[str, float] | None = None,
        reasons: list[str] | None = None,
        error: str = "",
    ) -> dict[str, Any]:
        """The frame's line of results, as a dict."""
        label = edge_model.decide(scores, model.classes, model.threshold) if scores else None
        return {
            "schema_version": results.SCHEMA_VERSION,
            "image": entry.key,
            "sha256": entry.sha256,
            "device": entry.device,
            "taken_at": _taken_at(entry.stem),
            "scored_at": clock.now().isoformat(timespec="milliseconds"),
            "clock_synced": clock.synced_within(10),
            "model": self.settings.model.name,
            "version": model.version,
            "variant": model.variant,
            "digest": self.selector.record["digest"],
            "classes": list(model.classes),
            "scores": scores and [round(score, 6) for score in scores],
            "threshold": model.threshold,
            "label": label,
            "score": scores and round(scores[model.classes.index(label)], 6),
            "latency_ms": milliseconds and round(milliseconds, 3),
            **(figures or {}),
            "why": reasons or [],
            "sent": "figures",
            "error": error,
        }

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1


def _taken_at(stem: str) -> str:
    """ISO time from a frame's name, which holds the UTC time without colons."""
    utc = stem.partition("_")[0]
    return f"{utc[:13]}:{utc[13:15]}:{utc[15:]}"
