"""Changes a running service's version: one download, a trial in one worker, then all others.

This code runs in the listening process (supervisor.py). The main thread gives the orders; a second thread, look(),
polls the registry. The version last loaded by a worker is the good one. Replacement workers start with the good
version, even if the registry is down.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakevision.registry import model_registry
from lakevision.serving.rest import loaded_model

if TYPE_CHECKING:
    from lakevision.serving.rest.main import Plan
    from lakevision.serving.rest.supervisor import Worker

# Seconds before a version that failed to load is tried again. Each pause is twice the last.
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3600.0


@dataclass
class Rollout:
    """The state of a change of version.

    good: the version that workers start with and change to; offered: a downloaded version not yet tried, or None;
    old: {earlier good version whose files remain: time of its last use}. The queue `asked` takes a version to the main
    thread; `verdict` returns "" or the reason of a failure. Each holds at most one item.
    """

    good: loaded_model.Version
    offered: loaded_model.Version | None = None
    old: dict[loaded_model.Version, float] = field(default_factory=dict)
    asked: queue.Queue = field(default_factory=queue.Queue)
    verdict: queue.Queue = field(default_factory=queue.Queue)


@dataclass
class Pause:
    """A pause after a failure. The next one is twice as long."""

    until: float = 0.0
    seconds: float = FIRST_PAUSE

    def over(self) -> bool:
        """True if the pause has ended."""
        return time.monotonic() >= self.until

    def longer(self) -> float:
        """Starts the next pause. Returns its seconds."""
        taken, self.seconds = self.seconds, min(2 * self.seconds, LONGEST_PAUSE)
        self.until = time.monotonic() + taken
        return taken


def tell(text: str) -> None:
    """Prints a line to the service's error output."""
    print(f"serve: {text}", file=sys.stderr, flush=True)


def start(plan: Plan, stop: threading.Event) -> Rollout:
    """Returns the Rollout of plan.version. Follows the alias in a thread if serve.reload_seconds is set."""
    rollout = Rollout(plan.version)
    if plan.cfg.serve.reload_seconds and plan.version.alias:
        threading.Thread(target=look, args=(plan, rollout, stop), daemon=True).start()
    return rollout


def look(plan: Plan, rollout: Rollout, stop: threading.Event) -> None:
    """Polls the alias every serve.reload_seconds until the event `stop`, and offers a version that is new.

    A registry that is down, a missing alias and a version that fails to load change nothing and are logged once. A
    version that failed is downloaded again only after a pause, or after the alias has named another version.
    """
    current = named = plan.version.number
    pause, logged = Pause(), ""  # logged: type of the error that was logged last
    while not stop.wait(plan.cfg.serve.reload_seconds):
        try:
            version = model_registry.version_of(plan.cfg, plan.version.alias)
            if version is None:
                raise loaded_model.NotServable(f"no version is {plan.version.alias} any more")
            if str(version.version) != named:
                named, pause, logged = str(version.version), Pause(), ""
            if named == current:
                logged = ""
            elif pause.over():
                attempt(plan, rollout, named, pause)
                tell(f"changed from version {current} to {named}, which is {plan.version.alias} now")
                current = named
        except Exception as error:  # the loaded version keeps serving, whatever the error
            if type(error).__name__ != logged:
                tell(f"keeps version {current}: {loaded_model.first_line(error)}")
            logged = type(error).__name__


def attempt(plan: Plan, rollout: Rollout, number: str, pause: Pause) -> None:
    """Downloads a version and waits until a worker has loaded it. A failure starts a pause and is raised."""
    try:
        rollout.asked.put(loaded_model.find(plan.cfg, plan.scratch, plan.version.alias, number))
        if reason := rollout.verdict.get():
            raise loaded_model.NotServable(f"version {number} can't be loaded: {reason}")
    except Exception:
        pause.longer()
        raise


def order(rollout: Rollout, running: Sequence[Worker]) -> None:
    """Orders the next worker to load its version. One at a time.

    The others keep serving, and a bad version crashes at most one worker.
    """
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


def send(worker: Worker, version: loaded_model.Version) -> None:
    """Orders one worker to load a version."""
    worker.loading = version
    with contextlib.suppress(OSError):  # the worker has ended; the main loop notices that, too
        worker.orders.send(version)


def loaded(rollout: Rollout, worker: Worker, reason: str) -> None:
    """Records the result of a load. reason: why the load failed, "" if it succeeded."""
    version, worker.loading = worker.loading, None
    assert version is not None, "a worker reports only loads that were ordered"
    if version == rollout.offered:
        rollout.offered = None
        if reason:
            remove(version)
        else:
            rollout.old[rollout.good] = time.monotonic()
            rollout.good = version
        rollout.verdict.put(reason)
    elif reason:  # the files are intact: another worker serves this version
        wait = worker.pause.longer()
        tell(f"worker {worker.process.pid} keeps version {worker.version.number}, {reason}; next try in {wait:g} s")
    if not reason:
        worker.version, worker.pause = version, Pause()


def died(rollout: Rollout, worker: Worker) -> None:
    """Records the end of a worker. A new version that the worker was trying counts as failed."""
    if worker.loading and worker.loading == rollout.offered:
        loaded(rollout, worker, "the worker that tried it died")


def tidy(rollout: Rollout, running: Sequence[Worker], seconds: float) -> None:
    """Removes the files of versions unused for `seconds`, the longest that a request may take."""
    now, used = (
        time.monotonic(),
        {rollout.good, *(worker.version for worker in running), *(worker.loading for worker in running)},
    )
    for version, last_used in list(rollout.old.items()):
        if version in used:
            rollout.old[version] = now
        elif now - last_used > seconds:
            remove(version)
            del rollout.old[version]


def remove(version: loaded_model.Version) -> None:
    """Deletes a version's files."""
    shutil.rmtree(version.folder, ignore_errors=True)
