"""python -m device upload: spool -> store, oldest first, each frame exactly once.

A frame leaves the spool only when the store has said that it holds these very bytes. An upload whose answer was lost is tried again,
finds its key taken, and compares. What the store says decides what happens next:

    no answer, 429, 5xx        wait a random while (full jitter), then again, for months if need be
    401, 403, no bucket        pause, say so in the journal and in `status`, read the credentials anew, ask again
    this frame is refused      go on with the others; if they are accepted and it never is, it goes to dead/
    other bytes at its key     to dead/: somebody else wrote there

Between an answer that was lost and the next attempt the quota may drop the frame: then it counts as dropped although the store has
it. Never the other way round.
"""

import hashlib
import random
import signal
import sys
import time

from . import clock, stores
from .notify import notify
from .spool import Damaged, Spool

EXIT_LEFT = 75  # EX_TEMPFAIL: --once could not send all
BATCH = 200  # frames listed at a time
STREAK = 5  # refusals in a row, none accepted in between: it's the set-up, not the frames
STATUS_EVERY_S = 10.0


def run(settings, once=False, dry_run=False):
    """Uploads until SIGTERM or SIGINT; returns the exit status. once: one pass over the spool. dry_run: says what it would send."""
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    spool = Spool(settings.spool, "upload")
    try:
        if dry_run:
            for entry in spool.oldest(sys.maxsize):
                say(f"would send {entry.key} bytes={entry.size} to {settings.store.url or 'nowhere: store.url is empty'}")
            return 0
        for line in spool.recover():
            say(line, sys.stderr)
        _count(spool, "starts")
        spool.counters.update(store=settings.store.url, paused="", running=True)
        notify("READY=1", f"STATUS=sending to {settings.store.url}")
        return _loop(settings, spool, once, stopping)
    finally:
        spool.counters["running"] = False
        spool.close()


def _loop(settings, spool, once, stopping):
    config = settings.upload
    store, failures, streak, refused, saved = None, 0, 0, {}, 0.0
    while not stopping:
        notify("WATCHDOG=1")
        if time.monotonic() - saved >= STATUS_EVERY_S:
            saved = time.monotonic()
            spool.save()
        entries = [entry for entry in spool.oldest(BATCH + len(refused)) if _is_due(refused, entry)]
        if not entries:
            if once:
                break
            _sleep(config.poll_s, stopping)
        wait = 0.0
        for entry in entries:
            if stopping:
                break
            notify("WATCHDOG=1")
            began = time.monotonic()
            try:
                store = store or stores.open_store(settings)
                if _send(store, spool, entry):
                    failures = streak = 0
                    _resume(spool)
                    _bury_suspects(spool, refused, config.refusals)
                    if config.max_kb_s:
                        _sleep(entry.size / 1000 / config.max_kb_s - (time.monotonic() - began), stopping)
            except stores.Refused as error:
                streak += 1
                _count(spool, "refusals")
                times = refused.get(entry.name, (0, 0.0))[0] + 1
                refused[entry.name] = times, time.monotonic() + config.denied_pause_s
                say(f"refused {entry.key} (time {times}): {error}", sys.stderr)
                if error.definite:
                    del refused[entry.name]
                    _bury(spool, entry, f"refused: {error}")
                elif streak >= STREAK:  # it is hardly the frames
                    wait = config.denied_pause_s
                    spool.counters["paused"] = str(error)
                    _trouble(spool, f"{streak} refusals in a row: {error}", f"paused; trying again in {wait:g} s")
                    break
            except stores.Unavailable as error:
                failures += 1
                wait = random.uniform(0, min(config.backoff_max_s, config.backoff_s * 2 ** min(failures - 1, 32)))
                _trouble(spool, f"{error}", f"trying again in {wait:.1f} s")
                break
            except (stores.Denied, ValueError) as error:  # ValueError: a credentials file that can't be read as such
                store, wait = None, config.denied_pause_s
                spool.counters["paused"] = str(error)
                _trouble(spool, f"DENIED: {error}", f"paused; asking again in {wait:g} s")
                break
        if once and wait:
            break
        _sleep(wait, stopping)
    left = spool.oldest(1)
    say("the spool is empty" if not left else "stopped with frames left in the spool")
    notify("STOPPING=1")
    return EXIT_LEFT if once and left else 0


def _is_due(refused, entry):
    """Whether a frame may be tried now: one that was refused waits, and holds up nobody meanwhile."""
    return entry.name not in refused or refused[entry.name][1] <= time.monotonic()


def _send(store, spool, entry):
    """Sends one frame; True when the store has it, False where it was gone, damaged or in the way. Raises stores' exceptions."""
    try:
        with spool.claim(entry) as data:
            if data is None:
                return False
            try:
                store.put(entry.key, data)
                word = "uploaded"
            except stores.AlreadyThere:
                there = store.get(entry.key)
                if len(there) != entry.size or hashlib.sha256(there).hexdigest() != entry.sha256:
                    _bury(spool, entry, f"another object of {len(there)} bytes lies at {entry.key}")
                    return False
                word = "already there"
            spool.remove(entry)
    except Damaged as error:
        _bury(spool, entry, str(error))
        _count(spool, "damaged")
        return False
    say(f"{word} {entry.key} bytes={entry.size}")
    _count(spool, word.replace(" ", "_"))
    spool.counters["uploaded_bytes"] = spool.counters.get("uploaded_bytes", 0) + entry.size
    spool.counters["last"] = {"key": entry.key, "at": clock.now().isoformat()}
    return True


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
