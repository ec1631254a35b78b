"""python -m device upload: spool -> store, oldest first, each frame exactly once.

A frame leaves the spool only when the store has said that it holds these very bytes. An upload whose answer was lost is tried again,
finds its key taken, and compares. What the store says decides what happens next:

    accepted, and soon         two frames are under way from now on: one is read and checked while the other is on the wire
    no answer, 429, 5xx        wait a random while (full jitter), then again, for months if need be
    401, 403, no bucket        pause, say so in the journal and in `status`, read the credentials anew, ask again
    this frame is refused      go on with the others; if they are accepted and it never is, it goes to dead/
    other bytes at its key     to dead/: somebody else wrote there

At the start and after every no, a single frame asks whether the store takes any: a store in trouble gets one request a pause. A slow line
and a capped one carry one frame at a time.

Between an answer that was lost and the next attempt the quota may drop the frame: then it counts as dropped although the store has
it. Never the other way round.
"""

import hashlib
import random
import signal
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from device import clock
from device.notify import notify
from device.spool.spool import Damaged, Spool
from device.store import stores, types

EXIT_LEFT = 75  # EX_TEMPFAIL: --once could not send all
AT_ONCE = 2  # frames under way while the store takes them; more would only hold more of the spool against the quota
BATCH = 200  # frames listed at a time
STREAK = 5  # refusals in a row, none accepted in between: it's the set-up, not the frames
STATUS_EVERY_S = 10.0


class Occupied(Exception):
    """Other bytes lie at the frame's key."""


@dataclass
class State:
    """How things stand with the store. Only the main thread touches it; the threads that send know one frame each."""

    settings: object
    spool: Spool
    stopping: list
    store: types.Store = None  # None: to be opened, with the credentials read anew
    brisk: bool = False  # whether the last answer was a yes, and came soon: then AT_ONCE frames are under way
    failures: int = 0  # in a row
    streak: int = 0  # refusals in a row
    refused: dict = field(default_factory=dict)  # spool name -> (times, when it is due again by the monotonic clock)
    wait: float = None  # seconds that the store is to be left alone; None: not at all
    saved: float = 0.0  # when the counters last went to disk


def run(settings, once=False, dry_run=False):
    """Uploads until SIGTERM or SIGINT; returns the exit status. once: one pass over the spool. dry_run: says what it would send."""
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    spool = Spool(settings.spool, "upload")
    try:
        if dry_run:
            for entry in spool.oldest(sys.maxsize):
                say(
                    f"would send {entry.key} bytes={entry.size} to {settings.store.url or 'nowhere: store.url is empty'}"
                )
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


def _loop(state, once):
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


def _show_life(state):
    notify("WATCHDOG=1")
    if time.monotonic() - state.saved >= STATUS_EVERY_S:
        state.saved = time.monotonic()
        state.spool.save()


def _is_due(refused, entry):
    """Whether a frame may be tried now: one that was refused waits, and holds up nobody meanwhile."""
    return entry.name not in refused or refused[entry.name][1] <= time.monotonic()


def _send_all(state, entries, senders):
    """Sends a deque of entries, oldest first, until the store wants to be left alone or we are to stop; answers are taken in the same order."""
    under_way = deque()
    try:
        state.store = state.store or stores.open_store(state.settings)
    except (types.Denied, ValueError) as error:  # ValueError: a credentials file that can't be read as such
        _deny(state, error)
    while True:
        width = 0 if state.wait is not None or state.stopping else _width(state)
        while entries and len(under_way) < width:
            entry = entries.popleft()
            under_way.append((entry, time.monotonic(), senders.submit(_send, state.store, state.spool, entry)))
        if not under_way:
            return
        _heed(state, *under_way.popleft())
        _show_life(state)


def _width(state):
    """Frames that may be under way. One where the pace is capped: the pause after each is what keeps it."""
    return AT_ONCE if state.brisk and state.store.parallel and not state.settings.upload.max_kb_s else 1


def _send(store, spool, entry):
    """Sends one frame, in a thread: "uploaded" or "already there" when the store has it, None where the frame is gone.

    Raises Damaged, Occupied and stores' exceptions. Touches nothing but this frame.
    """
    with spool.claim(entry) as data:
        if data is None:
            return None
        try:
            store.put(entry.key, data)
            word = "uploaded"
        except types.AlreadyThere:
            there = store.get(entry.key)
            if len(there) != entry.size or hashlib.sha256(there).hexdigest() != entry.sha256:
                raise Occupied(f"another object of {len(there)} bytes lies at {entry.key}") from None
            word = "already there"
        spool.remove(entry)
        return word


def _heed(state, entry, began, sent):
    """Takes in what became of a frame. Where the store is to be left alone already, the answer decides about this frame and nothing else."""
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


def _accept(state, entry, began, word):
    config, spool = state.settings.upload, state.spool
    say(f"{word} {entry.key} bytes={entry.size}")
    _count(spool, word.replace(" ", "_"))
    spool.counters["uploaded_bytes"] = spool.counters.get("uploaded_bytes", 0) + entry.size
    spool.counters["last"] = {"key": entry.key, "at": clock.now().isoformat()}
    state.refused.pop(entry.name, None)
    if state.wait is not None:
        return
    state.failures = state.streak = 0
    # A slow line is full with one frame; two would share it, and both might run out of time.
    state.brisk = time.monotonic() - began < config.timeout_s / 4
    _resume(spool)
    _bury_suspects(spool, state.refused, config.refusals)
    if config.max_kb_s:
        _sleep(entry.size / 1000 / config.max_kb_s - (time.monotonic() - began), state.stopping)


def _refuse(state, entry, error):
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
    elif state.streak >= STREAK and state.wait is None:  # it is hardly the frames
        state.wait = config.denied_pause_s
        spool.counters["paused"] = str(error)
        _trouble(spool, f"{state.streak} refusals in a row: {error}", f"paused; trying again in {state.wait:g} s")


def _deny(state, error):
    state.store, state.brisk, state.wait = None, False, state.settings.upload.denied_pause_s
    state.spool.counters["paused"] = str(error)
    _trouble(state.spool, f"DENIED: {error}", f"paused; asking again in {state.wait:g} s")


def _bury_suspects(spool, refused, limit):
    """Others are accepted, so it's not the set-up: what was refused `limit` times goes to dead/."""
    for name in [name for name, (times, _) in refused.items() if times >= limit]:
        reason = f"refused {refused.pop(name)[0]} times while others were accepted"
        if spool.bury(name, reason):
            say(f"set aside {name}: {reason}", sys.stderr)


def _bury(spool, entry, reason):
    if spool.bury(entry.name, reason):
        say(f"set aside {entry.key}: {reason}", sys.stderr)


def _trouble(spool, what, next_step):
    _count(spool, "failures")
    spool.counters["error"] = f"{clock.now():%Y-%m-%d %H:%M:%S}Z {what}"
    spool.save()
    say(f"{what}; {next_step}", sys.stderr)
    notify(f"STATUS={what[:200]}; {next_step}")


def _resume(spool):
    if spool.counters.get("paused"):
        spool.counters["paused"] = ""
        say("the store takes frames again")
        notify(f"STATUS=sending to {spool.counters.get('store', '')}")


def _count(spool, name):
    spool.counters[name] = spool.counters.get(name, 0) + 1


def _sleep(seconds, stopping):
    end = time.monotonic() + seconds
    while not stopping and (left := end - time.monotonic()) > 0:
        notify("WATCHDOG=1")
        time.sleep(min(left, 0.5))


def say(line, file=None):
    """One line to the journal."""
    print(line, file=file or sys.stdout, flush=True)
