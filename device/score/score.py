"""python -m device score: frames that capture took -> label -> action, results, and the images worth sending.

    capture -> unscored/ -> score -> ready/ -> upload

With score.camera = true one process does both: capture's loop in the main thread, which signals and drivers want, the scorer's in another. Between
them lies the same folder, so that a frame is safe before it is scored, and either way can take over from the other.

One loop scores; all that may wait for somebody happens elsewhere: models come in by a process of their own (sync.py), actions run in a thread
(act.py), batches of results become safe in another (results.py), sending is upload's. Which model is in use is pilot.py's matter. Without any
model frames go home as they are.
"""

import ctypes
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from device import capture, clock
from device.model import edge_model, golden, selector, transform
from device.notify import notify, watchdog_s
from device.score import act, feedback, results
from device.spool.spool import Damaged, Spool

EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE
AT_A_TIME = 64  # frames listed at once
LOOK_EVERY_S = 1.0  # for a model that has come in
STATUS_EVERY_S = 10.0


def run(settings, once=False, frames=None):
    """Scores until SIGTERM or SIGINT; returns the exit status. once: all that waits, then ends; no model is fetched.

    frames: with score.camera, so many are taken, and all that waits is scored (once: one is). SpoolBusy and OSErrors pass through, as in capture.
    """
    if frames and not settings.score.camera:
        print(
            "--frames is the camera's, and score.camera is false: python -m device capture --frames N, or set it to true",
            file=sys.stderr,
        )
        return 64
    if not settings.score.enabled:
        print(
            "score.enabled is false: set it to true in /etc/lakevision/device.toml, and restart capture too",
            file=sys.stderr,
        )
        return 78
    try:
        import ai_edge_litert.interpreter  # noqa: F401  its absence should be said here, not in the middle of a frame
    except ImportError as error:
        print(f"scoring needs LiteRT: pip install -r device/requirements-score.txt ({error})", file=sys.stderr)
        return EXIT_UNAVAILABLE
    _keep_memory()
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    outbox = Spool(settings.spool, "score", tmp="tmp-score")
    inbox = Spool(settings.spool, "inbox", ready="unscored")
    try:
        for line in outbox.recover() + inbox.recover():
            say(line, sys.stderr)
        scorer = _Scorer(settings, inbox, outbox, stopping, once)
        return (
            _with_camera(settings, scorer, stopping, 1 if once else frames) if settings.score.camera else scorer.loop()
        )
    finally:
        outbox.counters["running"] = False
        inbox.close()
        outbox.close()


def _with_camera(settings, scorer, stopping, frames):
    """Drives the camera in this thread and scores in another, until either ends; the camera's exit status."""
    with ThreadPoolExecutor(1, "score") as threads:
        scoring = threads.submit(scorer.loop)
        scoring.add_done_callback(lambda _: stopping.append(True))  # a scorer that failed ends the camera's loop
        status = None
        try:
            status = capture.drive(settings, stopping, frames, scorer.is_well)
        finally:
            scorer.ending = True
            if status not in (0, capture.EXIT_FULL):
                stopping.append(
                    True
                )  # a camera that failed: what waits is scored after the new start, which should come soon
        scoring.result()
    return status


def _keep_memory():
    """Has glibc keep what a photograph took for the next one: else each is given back to the kernel, and comes anew page by page.

    mallopt(3): M_MMAP_THRESHOLD (-3) at 32 MB, its largest, and M_TRIM_THRESHOLD (-1) at 64 MB. Other C libraries have no mallopt, and do without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-3, 32 << 20)
        mallopt(-1, 64 << 20)


class _Scorer:
    """The loop and what it keeps between frames. ending: whether it ends when nothing waits."""

    def __init__(self, settings, inbox, outbox, stopping, once):
        self.settings, self.inbox, self.outbox, self.stopping, self.once = settings, inbox, outbox, stopping, once
        self.ending = once and not settings.score.camera
        self.alive = time.monotonic()
        self.counters = outbox.counters
        self.desk, self.batch = results.Desk(inbox, outbox, say), results.Batch()
        self.choice = feedback.Choice(settings.feedback, **{**{"day": "", "spent": 0}, **self.desk.finish()})
        self.actor = act.Actor(settings.act, self.counters, say)
        self.pilot = selector.Pilot(settings, say)
        self.sync = Sync(settings)
        self.looked = self.saved = self.tried = -float("inf")

    def loop(self):
        """Scores until told to stop, or until nothing waits where it is to end then; 0."""
        began = time.monotonic()
        self.counters.update(running=True, starts=self.counters.get("starts", 0) + 1, device=self.settings.device.id)
        self.pilot.start()
        self._tend()
        if not self.settings.score.camera:  # else its first frame says so
            notify("READY=1", f"STATUS=scoring after {time.monotonic() - began:.1f} s")
        try:
            while not self.stopping:
                ending = self.ending  # asked before the folder is: whatever came until then is seen
                fresh = self._fresh()
                for entry in fresh:
                    self._frame(entry)
                    self._tend()
                    if self.stopping:
                        break
                if not fresh and ending:
                    break
                if not fresh:
                    time.sleep(self.settings.score.poll_s)
                    self._tend()
            say("stopped as asked" if self.stopping else "nothing waits to be scored")
            self._settle()
            self._send()
            self._settle()
            self.pilot.stop()
        finally:
            self.sync.end()
            self.desk.close()
        self.actor.finish(self.settings.act.timeout_s if self.once else 1.0)
        notify("STOPPING=1")
        return 0

    def _fresh(self):
        """The oldest Entries that wait, without those whose results are under way."""
        busy = self.batch.frames.keys() | self.desk.under_way()
        return [entry for entry in self.inbox.oldest(AT_A_TIME + len(busy)) if entry.name not in busy]

    def is_well(self):
        """Whether the scorer has lately shown that it neither hangs nor waits; for the watchdog of a process that has two loops."""
        patience = watchdog_s()
        return patience is None or time.monotonic() - self.alive < patience / 3

    def _tend(self):
        """Between frames: the watchdog, batches that are due, a model that has come in, counters."""
        now = self.alive = time.monotonic()
        due = self.batch.is_due(self.settings.score)
        if self.desk.is_done() or due and self.desk.under_way():
            self._settle()  # a card slower than the scoring is waited for here
        if due and now - self.tried > 1:  # a full disk is not asked more often
            self._send()
        if now - self.looked < LOOK_EVERY_S:
            return
        self.looked = now
        if not self.settings.score.camera:
            notify("WATCHDOG=1")
        elif capture.time_left() < 2 * LOOK_EVERY_S:
            self.pilot.stop()  # the camera hangs and will end this process: no fault of a model on probation
        self.pilot.look()
        if not self.once:
            self.sync.tend()
        if now - self.saved >= STATUS_EVERY_S:
            self.saved = now
            self._save()

    def _save(self):
        record = self.pilot.record if self.pilot.model else {}
        self.counters.update(
            model=record.get("version", ""),
            variant=record.get("variant", ""),
            on_probation=self.pilot.on_probation,
            **self.choice.account(),
        )
        self.outbox.save()

    def _send(self):
        """Has the batch made safe, beside the scoring."""
        if self.batch.frames:
            self.desk.start(self.batch, self.choice.account())
            self.batch = results.Batch()

    def _settle(self):
        """Takes in how the batch under way fared; what found no room waits with the next."""
        left = self.desk.settle()
        if left:
            self.tried = time.monotonic()
            self.batch = left.followed_by(self.batch)
        self._save()

    def _frame(self, entry):
        """One frame from unscored/: scored, acted on, and put into the batch."""
        try:
            with self.inbox.claim(entry) as data:
                if data is None:
                    return  # capture's quota was faster
                line, home = self._line(entry, data)
        except Damaged as error:
            self.inbox.bury(entry.name, str(error))
            self._count("damaged")
            return
        self.batch.add(entry, line, home)
        if line is None:
            self._count("unscored")
            return
        self._count("scored")
        if line["error"]:
            self._count("errors")
        else:
            self.counters["last"] = {key: line[key] for key in ("image", "label", "score", "latency_ms", "scored_at")}
            self.actor.handle(line)

    def _line(self, entry, data):
        """(the frame's result as it goes home, whether its image goes with it); (None, True) without a model."""
        while self.pilot.model:
            used = self.pilot.model
            began = time.perf_counter()
            try:
                pixels = transform.pixels(data, used.transform)
            except transform.BadImage as error:
                return self._written(entry, used, error=f"not an image: {error}"), self.settings.feedback.send == "all"
            try:
                scores = edge_model.invoke(used, pixels)
                failed = "" if selector.sound(scores, used.classes) else f"scores {scores} are no probabilities"
            except (ValueError, RuntimeError) as error:
                failed = f"{type(error).__name__}: {error}"
            took = 1000 * (time.perf_counter() - began)
            if failed and self.pilot.give_up(failed):
                continue  # the last good model scores this frame
            if failed:
                return self._written(entry, used, error=failed[:300]), self.settings.feedback.send == "all"
            figures = feedback.light(pixels, transform.image_size(used.transform))
            why = self.choice.reasons(scores, used.threshold, figures, entry.sha256)
            home = self._goes_home(entry, why)
            line = self._written(entry, used, scores, took, figures, why)
            line["sent"] = "image" if home else "figures"
            self.pilot.judge(took)
            return line, home
        return None, True

    def _goes_home(self, entry, why):
        policy = self.settings.feedback.send
        return policy == "all" or policy == "chosen" and bool(why) and self.choice.take(entry.size)

    def _written(self, entry, used, scores=None, took=None, figures=None, why=(), error=""):
        label = edge_model.decide(scores, used.classes, used.threshold) if scores else None
        return {
            "schema_version": results.SCHEMA_VERSION,
            "image": entry.key,
            "sha256": entry.sha256,
            "device": entry.device,
            "taken_at": _taken_at(entry.stem),
            "scored_at": clock.now().isoformat(timespec="milliseconds"),
            "clock_synced": _synced(),
            "model": self.settings.model.name,
            "version": used.version,
            "variant": used.variant,
            "digest": self.pilot.record["digest"],
            "classes": list(used.classes),
            "scores": scores and [round(score, 6) for score in scores],
            "threshold": used.threshold,
            "label": label,
            "score": scores and round(scores[used.classes.index(label)], 6),
            "latency_ms": took and round(took, 3),
            **(figures or {}),
            "why": list(why),
            "sent": "figures",
            "error": error,
        }

    def _count(self, name):
        self.counters[name] = self.counters.get(name, 0) + 1


def _taken_at(stem):
    """ISO time from a frame's name, which holds UTC without colons."""
    time_ = stem.partition("_")[0]
    return f"{time_[:13]}:{time_[13:15]}:{time_[15:]}"


_sync_state = [None, -float("inf")]  # what the clock said, and when it was asked


def _synced():
    if time.monotonic() - _sync_state[1] > 10:  # it changes once in a boot
        _sync_state[:] = clock.synced(), time.monotonic()
    return _sync_state[0]


class Sync:
    """Starts `python -m device sync` when it is due, as a process of its own; never waits for it."""

    def __init__(self, settings):
        self.settings, self.process, self.due, self.failures = settings, None, time.monotonic(), 0
        self.began = 0.0

    def tend(self):
        """Looks after the process under way, or starts one that is due. Failures are followed by ever longer pauses, up to model.interval_s."""
        if not self.settings.model.url:
            return
        now, limit = time.monotonic(), self.settings.model.interval_s
        if self.process is None:
            if now >= self.due:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "device", "sync", "--config", self.settings.source],
                    stdin=subprocess.DEVNULL,
                    env=golden.environment(),
                )
                self.began = now
            return
        status = self.process.poll()
        if status is None:
            if now - self.began > max(3600.0, limit):
                self.process.kill()  # a line that dribbles; what has come stays
            return
        self.process = None
        self.failures = self.failures + 1 if status else 0
        pause = (
            limit
            if not status
            else random.uniform(0.5, 1.0) * min(limit, self.settings.upload.backoff_s * 2 ** min(self.failures, 32))
        )
        self.due = now + pause

    def end(self):
        """For the end of the scorer: what sync has fetched stays for the next time."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


def say(line, file=None):
    """One line to the journal, in one piece: threads say things at once."""
    print(f"{line}\n", end="", file=file or sys.stdout, flush=True)
