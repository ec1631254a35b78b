"""A version's way into the REST service while it serves: looked for and downloaded once, tried by one worker, then taken by the others.

All of it is the listening process's (lakevision/serving/rest/supervisor.py). Its main thread gives the orders, a thread of its own, look(), asks the registry. The
last version that a worker has loaded is the good one: a worker that replaces another starts with it, also while the registry is down.
"""

import queue
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field

from lakevision.registry import model_registry
from lakevision.serving.rest import loaded_model

FIRST_PAUSE, LONGEST_PAUSE = (
    30.0,
    3600.0,
)  # seconds before a version that would not load is tried again; each pause is twice the last


@dataclass
class Rollout:
    """good: loaded_model.Version that workers start with and come to; offered: one that is downloaded and not yet tried, or None; old: {version that was
    good: when it was last seen in use}, their files are still there. asked, verdict: between the two threads, each holds one thing at most."""

    good: loaded_model.Version
    offered: loaded_model.Version | None = None
    old: dict = field(default_factory=dict)
    asked: queue.Queue = field(default_factory=queue.Queue)
    verdict: queue.Queue = field(default_factory=queue.Queue)


@dataclass
class Pause:
    """What is left alone until a time, and for twice as long after the next failure."""

    until: float = 0.0
    seconds: float = FIRST_PAUSE

    def over(self):
        return time.monotonic() >= self.until

    def longer(self):
        """Starts the next pause. Returns its seconds."""
        taken, self.seconds = self.seconds, min(2 * self.seconds, LONGEST_PAUSE)
        self.until = time.monotonic() + taken
        return taken


def tell(text):
    print(f"serve: {text}", file=sys.stderr, flush=True)


def start(plan, stop):
    """The Rollout of a service that begins with plan.version. Follows the alias, in a thread, where serve.reload_seconds says so."""
    rollout = Rollout(plan.version)
    if plan.cfg.serve.reload_seconds and plan.version.alias:
        threading.Thread(target=look, args=(plan, rollout, stop), daemon=True).start()
    return rollout


def look(plan, rollout, stop):
    """Looks at the alias every serve.reload_seconds until the event `stop`, and offers the version that it names, if it is another.

    A registry that is down, an alias that is gone and a version that can't be loaded change nothing, and are said once. A version that failed is
    downloaded again only after a pause, or where the alias has named another meanwhile.
    """
    current = named = plan.version.number
    pause, said = Pause(), ""
    while not stop.wait(plan.cfg.serve.reload_seconds):
        try:
            found = model_registry.version_of(plan.cfg, plan.version.alias)
            if found is None:
                raise loaded_model.NotServable(f"no version is {plan.version.alias} any more")
            if str(found.version) != named:
                named, pause, said = str(found.version), Pause(), ""
            if named == current:
                said = ""
            elif pause.over():
                attempt(plan, rollout, named, pause)
                tell(f"changed from version {current} to {named}, which is {plan.version.alias} now")
                current = named
        except Exception as error:  # whatever it is, the version that is loaded goes on serving
            if type(error).__name__ != said:
                tell(f"keeps version {current}: {loaded_model.first_line(error)}")
            said = type(error).__name__


def attempt(plan, rollout, number, pause):
    """Downloads a version and waits until a worker has loaded it. Raises what went wrong, after it began a pause."""
    try:
        rollout.asked.put(loaded_model.find(plan.cfg, plan.scratch, plan.version.alias, number))
        if reason := rollout.verdict.get():
            raise loaded_model.NotServable(f"version {number} can't be loaded: {reason}")
    except Exception:
        pause.longer()
        raise


def order(rollout, running):
    """Tells the next worker to load what it should serve. One at a time: the others answer meanwhile, and a version that kills kills one."""
    if rollout.offered is None and not rollout.asked.empty():
        rollout.offered = rollout.asked.get()
    if any(worker.loading for worker in running):
        return
    able = [worker for worker in running if worker.ready]
    behind = [worker for worker in able if worker.version != rollout.good and worker.pause.over()]
    if rollout.offered and able:
        send(able[0], rollout.offered)
    elif behind:
        send(behind[0], rollout.good)


def send(worker, version):
    worker.loading = version
    try:
        worker.orders.send(version)
    except OSError:
        pass  # it has ended; the main loop sees that, too


def loaded(rollout, worker, reason):
    """A worker has loaded what it was told to, or has not: the reason in words, "" for none."""
    version, worker.loading = worker.loading, None
    if version == rollout.offered:
        rollout.offered = None
        if reason:
            remove(version)
        else:
            rollout.old[rollout.good] = time.monotonic()
            rollout.good = version
        rollout.verdict.put(reason)
    elif reason:  # the files are sound, another worker serves them
        tell(
            f"worker {worker.process.pid} keeps version {worker.version.number}, {reason}; next try in {worker.pause.longer():g} s"
        )
    if not reason:
        worker.version, worker.pause = version, Pause()


def died(rollout, worker):
    """A worker has ended. Where it was trying a version for the others, that version is why, as far as anyone can tell."""
    if worker.loading and worker.loading == rollout.offered:
        loaded(rollout, worker, "the worker that tried it died")


def tidy(rollout, running, seconds):
    """Removes the files of versions that nobody has served for so long: the time that a request may take, so that none is answered by them."""
    now, used = (
        time.monotonic(),
        {rollout.good, *(worker.version for worker in running), *(worker.loading for worker in running)},
    )
    for version, seen in list(rollout.old.items()):
        if version in used:
            rollout.old[version] = now
        elif now - seen > seconds:
            remove(version)
            del rollout.old[version]


def remove(version):
    shutil.rmtree(version.folder, ignore_errors=True)
