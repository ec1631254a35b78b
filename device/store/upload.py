"""python -m device upload: spool -> store, oldest first, each frame exactly once.

A frame leaves the spool only after the store has confirmed that it holds these very bytes. If the response to an
upload is lost, upload tries again, finds the key taken, and compares the bytes. The store's response decides:

    accepted, and soon         send two frames at a time: read and check one while the other is being sent
    no response, 429, 5xx      wait a random time (full jitter), then try again, for months if necessary
    401, 403, no bucket        pause, report it in the journal and in `status`, reload the credentials, try again
    this frame is refused      go on with the others; if they are accepted and it never is, move it to dead/
    other bytes at its key     move it to dead/: another program wrote there

At the start and after every failure, a single frame tests the store, so a store in trouble gets one request per
pause. A slow or capped line also carries one frame at a time.

Between a lost response and the next attempt, the quota may drop the frame. Then it counts as dropped although the
store has it. The opposite never happens.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device import clock, journal
from device.journal import say
from device.notify import notify
from device.spool.entry import Entry
from device.spool.spool import Damaged, Spool
from device.store import stores, types

if TYPE_CHECKING:
    from device.config import Settings

EXIT_LEFT = 75  # EX_TEMPFAIL: --once could not send everything
AT_ONCE = 2  # frames sent at once while the store accepts them; more would only hold more of the spool's quota
BATCH = 200  # frames listed at a time
STREAK = 5  # consecutive refusals without an acceptance: then the set-up is wrong, not the frames
STATUS_EVERY_S = 10.0


class Occupied(Exception):
    """The frame's key holds other bytes."""


@dataclass
class State:
    """The state of the conversation with the store. Only the main thread changes it; a sender thread gets one frame."""

    settings: Settings
    spool: Spool
    stopping: list[bool]
    store: types.Store | None = None  # None: to be opened, with the credentials reloaded
    brisk: bool = False  # True if the last frame was accepted soon: then AT_ONCE frames are sent at once
    failures: int = 0  # in a row
    streak: int = 0  # refusals in a row
    refused: dict[str, tuple[int, float]] = field(default_factory=dict)  # name -> (times, next try, monotonic)
    wait: float | None = None  # seconds to leave the store alone; None: do not wait
    saved: float = 0.0  # when the counters last went to disk


def run(settings: Settings, once: bool = False, dry_run: bool = False) -> int:
    """Uploads until SIGTERM or SIGINT; returns the exit status.

    once: one pass over the spool. dry_run: print the frames without sending them.
    """
    stopping: list[bool] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    spool = Spool(settings.spool, "upload")
    try:
        if dry_run:
            target = settings.store.url or "nowhere: store.url is empty"
            for entry in spool.oldest(sys.maxsize):
                say(f"would send {entry.key} bytes={entry.size} to {target}")
            return 0
        for line in spool.recover():
            say(line, sys.stderr)
        _count(spool, "starts")
        spool.counters.update(store=settings.store.url, paused="", running=True)
        notify("READY=1", f"STATUS=sending to {settings.store.url}")
        return _loop(State(settings, spool, stopping), once)
    finally:
        spool.counters["running"] = False
        spool.close()


def _loop(state: State, once: bool) -> int:
    spool, stopping = state.spool, state.stopping
    with ThreadPoolExecutor(AT_ONCE) as senders:
        while not stopping:
            _show_life(state)
            entries = deque(
                entry for entry in spool.oldest(BATCH + len(state.refused)) if _is_due(state.refused, entry)
            )
            if not entries:
                if once:
                    break
                _sleep(state.settings.upload.poll_s, stopping)
                continue
            state.wait = None
            _send_all(state, entries, senders)
            if state.wait is not None:
                if once:
                    break
                _sleep(state.wait, stopping)
    left = spool.oldest(1)
    say("the spool is empty" if not left else "stopped with frames left in the spool")
    notify("STOPPING=1")
    return EXIT_LEFT if once and left else 0


def _sleep(seconds: float, stopping: list[bool]) -> None:
    journal.sleep(seconds, stopping, meanwhile=lambda: notify("WATCHDOG=1"))


def _show_life(state: State) -> None:
    notify("WATCHDOG=1")
    if time.monotonic() - state.saved >= STATUS_EVERY_S:
        state.saved = time.monotonic()
        state.spool.save()


def _is_due(refused: dict[str, tuple[int, float]], entry: Entry) -> bool:
    """True if a frame may be sent now. A refused frame waits without delaying the others."""
    return entry.name not in refused or refused[entry.name][1] <= time.monotonic()


def _send_all(state: State, entries: deque[Entry], senders: ThreadPoolExecutor) -> None:
    """Sends entries, oldest first, until the store needs a pause or the process must stop.

    Handles the results in the order sent.
    """
    under_way: deque[tuple[Entry, float, Future[str | None]]] = deque()
    try:
        state.store = state.store or stores.open_store(state.settings)
    except (types.Denied, ValueError) as error:  # ValueError: a malformed credentials file
        _deny(state, error)
    while True:
        width = 0 if state.wait is not None or state.stopping else _width(state)
        while state.store and entries and len(under_way) < width:
            entry = entries.popleft()
            under_way.append((entry, time.monotonic(), senders.submit(_send, state.store, state.spool, entry)))
        if not under_way:
            return
        _handle(state, *under_way.popleft())
        _show_life(state)


def _width(state: State) -> int:
    """Number of frames to send at once. One if the rate is capped: the pause after each frame keeps the cap."""
    parallel = state.store is not None and state.store.parallel
    return AT_ONCE if state.brisk and parallel and not state.settings.upload.max_kb_s else 1


def _send(store: types.Store, spool: Spool, entry: Entry) -> str | None:
    """Sends one frame, in a thread: "uploaded" or "already there" if the store has it, None if the frame is gone.

    Raises Damaged, Occupied and the exceptions of types.py. Touches only this frame.
    """
    with spool.claim(entry) as data:
        if data is None:
            return None
        try:
            store.put(entry.key, data)
            word = "uploaded"
        except types.AlreadyThere:
            stored = store.get(entry.key)
            if len(stored) != entry.size or hashlib.sha256(stored).hexdigest() != entry.sha256:
                raise Occupied(f"another object of {len(stored)} bytes lies at {entry.key}") from None
            word = "already there"
        spool.remove(entry)
        return word


def _handle(state: State, entry: Entry, began: float, sent: Future[str | None]) -> None:
    """Handles a frame's result. During a pause, the result affects only this frame."""
    config, spool = state.settings.upload, state.spool
    try:
        word = sent.result()
    except Damaged as error:
        _bury(spool, entry, str(error))
        _count(spool, "damaged")
    except Occupied as error:
        _bury(spool, entry, str(error))
    except types.Refused as error:
        _refuse(state, entry, error)
    except types.Unavailable as error:
        state.brisk = False
        if state.wait is not None:
            say(f"{entry.key}: {error}", sys.stderr)
            return
        state.failures += 1
        state.wait = random.uniform(0, min(config.backoff_max_s, config.backoff_s * 2 ** min(state.failures - 1, 32)))
        _trouble(spool, f"{error}", f"trying again in {state.wait:.1f} s")
    except (types.Denied, ValueError) as error:
        if state.store is None:
            say(f"{entry.key}: {error}", sys.stderr)
            return
        _deny(state, error)
    else:
        if word is not None:
            _accept(state, entry, began, word)


def _accept(state: State, entry: Entry, began: float, word: str) -> None:
    config, spool = state.settings.upload, state.spool
    say(f"{word} {entry.key} bytes={entry.size}")
    _count(spool, word.replace(" ", "_"))
    spool.counters["uploaded_bytes"] = spool.counters.get("uploaded_bytes", 0) + entry.size
    spool.counters["last"] = {"key": entry.key, "at": clock.now().isoformat()}
    state.refused.pop(entry.name, None)
    if state.wait is not None:
        return
    state.failures = state.streak = 0
    # One frame fills a slow line; two would share it, and both might time out.
    state.brisk = time.monotonic() - began < config.timeout_s / 4
    _resume(spool)
    _bury_suspects(spool, state.refused, config.refusals)
    if config.max_kb_s:
        _sleep(entry.size / 1000 / config.max_kb_s - (time.monotonic() - began), state.stopping)


def _refuse(state: State, entry: Entry, error: types.Refused) -> None:
    config, spool, refused = state.settings.upload, state.spool, state.refused
    state.brisk = False
    state.streak += 1
    _count(spool, "refusals")
    times = refused.get(entry.name, (0, 0.0))[0] + 1
    refused[entry.name] = times, time.monotonic() + config.denied_pause_s
    say(f"refused {entry.key} (time {times}): {error}", sys.stderr)
    if error.definite:
        del refused[entry.name]
        _bury(spool, entry, f"refused: {error}")
    elif state.streak >= STREAK and state.wait is None:  # the frames are hardly the cause
        state.wait = config.denied_pause_s
        spool.counters["paused"] = str(error)
        _trouble(spool, f"{state.streak} refusals in a row: {error}", f"paused; trying again in {state.wait:g} s")


def _deny(state: State, error: Exception) -> None:
    state.store, state.brisk, state.wait = None, False, state.settings.upload.denied_pause_s
    state.spool.counters["paused"] = str(error)
    _trouble(state.spool, f"DENIED: {error}", f"paused; asking again in {state.wait:g} s")


def _bury_suspects(spool: Spool, refused: dict[str, tuple[int, float]], limit: int) -> None:
    """Moves frames that were refused `limit` times to dead/. Others are accepted, so the set-up is right."""
    for name in [name for name, (times, _) in refused.items() if times >= limit]:
        reason = f"refused {refused.pop(name)[0]} times while others were accepted"
        if spool.bury(name, reason):
            say(f"set aside {name}: {reason}", sys.stderr)


def _bury(spool: Spool, entry: Entry, reason: str) -> None:
    if spool.bury(entry.name, reason):
        say(f"set aside {entry.key}: {reason}", sys.stderr)


def _trouble(spool: Spool, problem: str, next_step: str) -> None:
    _count(spool, "failures")
    spool.counters["error"] = f"{clock.now():%Y-%m-%d %H:%M:%S}Z {problem}"
    spool.save()
    say(f"{problem}; {next_step}", sys.stderr)
    notify(f"STATUS={problem[:200]}; {next_step}")


def _resume(spool: Spool) -> None:
    if spool.counters.get("paused"):
        spool.counters["paused"] = ""
        say("the store takes frames again")
        notify(f"STATUS=sending to {spool.counters.get('store', '')}")


def _count(spool: Spool, name: str) -> None:
    spool.counters[name] = spool.counters.get(name, 0) + 1
