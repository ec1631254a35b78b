"""python -m device status: one screen of what the two processes left in the spool. Needs neither camera nor network."""

import fcntl
import os
from datetime import datetime
from pathlib import Path

from device import clock
from device.model import slots
from device.spool.entry import parse
from device.spool.records import read
from device.spool.spool import MEGABYTE


def run(settings):
    """Prints the screen; returns 0 when all is well, 1 when a person should look. Raises PermissionError on another user's spool."""
    root = Path(settings.spool.path)
    capture, upload = read(root / "capture.json"), read(root / "upload.json")
    worries = []
    print(f"device    {settings.device.id}   settings from {settings.source}")
    synced = clock.synced()
    print(
        f"clock     {clock.now():%Y-%m-%d %H:%M:%S} UTC, {clock.WORDS[synced]}; up {clock.uptime() / 3600:.1f} h, boot {clock.boot_id()[:8]}"
    )
    print(
        f"capture   {_process(settings, 'capture', capture, worries)}{' by score' if settings.score.camera else ''}; "
        f"camera {capture.get('camera', settings.camera.kind)}, "
        f"every {settings.capture.interval_s:g} s, hours {settings.capture.active_hours or 'always'}"
    )
    last = capture.get("last")
    print(
        f"          last frame {_ago(last['at'])}, {last['bytes'] / 1000:.0f} kB, {last['key']}"
        if last
        else "          no frame yet"
    )
    print(
        f"          captured {capture.get('captured', 0)}, dropped {capture.get('dropped', 0)}, refused {capture.get('refused', 0)}, "
        f"starts {capture.get('starts', 0)}, of these after a crash {capture.get('unclean_stops', 0)}, "
        f"camera failures {capture.get('camera_failures', 0)}"
    )
    if capture.get("camera_error"):
        print(f"          last camera failure: {capture['camera_error']}")
    _spool(settings, root, worries)
    if settings.score.enabled:
        _score(settings, worries)
    print(
        f"upload    {_process(settings, 'upload', upload, worries)}; to {settings.store.url or 'nowhere: store.url is empty'}"
    )
    sent = upload.get("last")
    print(f"          last upload {_ago(sent['at'])}, {sent['key']}" if sent else "          nothing sent yet")
    print(
        f"          uploaded {upload.get('uploaded', 0)}, already there {upload.get('already_there', 0)}, "
        f"failures {upload.get('failures', 0)}, damaged {upload.get('damaged', 0)}"
    )
    if upload.get("error"):
        print(f"          last failure: {upload['error']}")
    if upload.get("paused"):
        worries.append(f"upload is paused: {upload['paused']}")
    for worry in worries:
        print(f"LOOK      {worry}")
    return 1 if worries else 0


def is_running(settings, owner):
    """Whether that process runs on this spool; its lock tells the truth, since the kernel drops it with the process."""
    try:
        with open(Path(settings.spool.path) / f"{owner}.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False  # it was never started here
    return False


def _process(settings, owner, record, worries):
    """ "running", or what it is instead."""
    if is_running(settings, owner):
        return "running"
    unit = "lakevision-score" if owner == "capture" and settings.score.camera else f"lakevision-{owner}"
    worries.append(f"{owner} is not running: sudo systemctl start {unit}; journalctl -u {unit} -n 50")
    return "stopped in the middle" if record.get("running") else "stopped" if record else "never started here"


def _spool(settings, root, worries):
    if not (root / "ready").is_dir():
        print(f"spool     {root}: not made yet")
        return
    waiting = [entry for name in os.listdir(root / "ready") if (entry := parse(name))]
    dead = [name for name in os.listdir(root / "dead") if not name.endswith(".reason")]
    used = sum(entry.size for entry in waiting) / MEGABYTE
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize / MEGABYTE
    print(
        f"spool     {len(waiting)} frames, {used:.1f} of {settings.spool.max_mb:g} MB, when full: {settings.spool.when_full}; "
        f"disk has {free:.0f} MB free, floor {settings.spool.free_mb:g} MB; {root}"
    )
    if waiting:
        print(f"          oldest waiting: {min(waiting, key=lambda entry: entry.sequence).key}")
    if dead:
        worries.append(
            f"{len(dead)} set aside in {root / 'dead'}; the .reason beside each says why. To try again: mv it back to ready/"
        )
    if used > 0.8 * settings.spool.max_mb or free < 1.2 * settings.spool.free_mb:
        worries.append(f"the spool is nearly full; then it will act by spool.when_full = {settings.spool.when_full}")


def _score(settings, worries):
    """The scorer, its model, and where the next one comes from."""
    record, folder = read(Path(settings.spool.path) / "score.json"), Path(settings.model.folder)
    waiting = Path(settings.spool.path) / "unscored"
    count = sum(1 for name in os.listdir(waiting) if parse(name)) if waiting.is_dir() else 0
    print(
        f"score     {_process(settings, 'score', record, worries)}; {count} frames wait; home goes {settings.feedback.send}"
        + (
            f", {record.get('spent', 0) / MEGABYTE:.1f} of {settings.feedback.max_mb_a_day:g} MB on {record.get('day') or 'no day yet'}"
            if settings.feedback.send == "chosen"
            else ""
        )
    )
    last = record.get("last")
    print(
        f"          last {last['label']} ({last['score']:.2f}) {_ago(last['scored_at'])}, {last['latency_ms']:.1f} ms, {last['image']}"
        if last
        else "          nothing scored yet"
    )
    print(
        f"          scored {record.get('scored', 0)}, unscored {record.get('unscored', 0)}, errors {record.get('errors', 0)}, images home "
        f"{record.get('sent_home', 0)}, figures only {record.get('figures_only', 0)}, lines lost {record.get('lines_lost', 0)}, "
        f"acted {record.get('acted', 0)}, actions failed {record.get('act_failures', 0)}"
    )
    used, sync, denied = slots.active(folder), read(folder / "sync.json"), slots.denied(folder)
    if used:
        print(
            f"model     version {used['version']} ({used['variant']}), slot {used['slot']}, since {_ago(used['since'])}"
            + (f"; on probation, else back to slot {used['fallback']}" if used.get("fallback") else "")
        )
    else:
        print(f"model     none in {folder}")
        worries.append("there is no model that works: frames go home unscored. python -m device sync says why")
    if sync:
        print(
            f"          looked {_ago(sync['at'])}: {settings.model.alias} is version {sync.get('version', 'unknown')}, from {settings.model.url}"
        )
    slow = read(folder / "slow.json")
    if slow and slow["digest"] not in denied:
        print(
            f"          version {slow['version']} was too slow here {_ago(slow['at'])}, and is tried again: {slow['words']}"
        )
    if sync.get("error") and sync.get("failures"):
        worries.append(f"sync, {sync['failures']} times in a row: {sync['error']}")
    for digest, entry in denied.items():
        if digest == sync.get("digest"):
            worries.append(
                f"version {entry['version']} is denied on this device since {entry['at']}: {entry['reason']}. "
                f"After mending: rm {folder / 'denied.json'}"
            )
    if record.get("waiting_for_room"):
        worries.append(f"{record['waiting_for_room']} results wait in memory: the disk is full")
    if record.get("act_error"):
        print(f"          last action that failed: {record['act_error']}")


def _ago(iso):
    seconds = (clock.now() - datetime.fromisoformat(iso)).total_seconds()
    if seconds < 0:
        return f"at {iso} (the clock has gone back since)"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit} ago"
    return f"{seconds:.0f} s ago"
