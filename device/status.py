"""python -m device status: one screen about the agent's processes, read from the spool.

Needs neither camera nor network.
"""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device import clock
from device.model import slots
from device.spool.entry import parse
from device.spool.records import read
from device.spool.spool import MEGABYTE

if TYPE_CHECKING:
    from device.config import Settings

Record = dict[str, Any]


def run(settings: Settings) -> int:
    """Prints the screen; returns 0 if all is well, 1 if a person should look.

    Raises PermissionError on another user's spool.
    """
    root = Path(settings.spool.path)
    worries: list[str] = []
    print(f"device    {settings.device.id}   settings from {settings.source}")
    print(
        f"clock     {clock.now():%Y-%m-%d %H:%M:%S} UTC, {clock.WORDS[clock.synced()]}; "
        f"up {clock.uptime() / 3600:.1f} h, boot {clock.boot_id()[:8]}"
    )
    _capture(settings, read(root / "capture.json"), worries)
    _spool(settings, root, worries)
    if settings.score.enabled:
        score = read(root / "score.json")
        _score(settings, score, worries)
        _model(settings, worries)
        if score.get("waiting_for_room"):
            worries.append(f"{score['waiting_for_room']} results wait in memory: the disk is full")
        if score.get("act_error"):
            print(f"          last action that failed: {score['act_error']}")
    _upload(settings, read(root / "upload.json"), worries)
    for worry in worries:
        print(f"LOOK      {worry}")
    return 1 if worries else 0


def is_running(settings: Settings, owner: str) -> bool:
    """True if that process runs on this spool. The kernel releases its lock with the process, so the lock is proof."""
    try:
        with open(Path(settings.spool.path) / f"{owner}.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False  # never started here
    return False


def _process(settings: Settings, owner: str, record: Record, worries: list[str]) -> str:
    """The state of a process in words; adds a worry if the process is not running."""
    if is_running(settings, owner):
        return "running"
    unit = "lakevision-score" if owner == "capture" and settings.score.camera else f"lakevision-{owner}"
    worries.append(f"{owner} is not running: sudo systemctl start {unit}; journalctl -u {unit} -n 50")
    return "stopped in the middle" if record.get("running") else "stopped" if record else "never started here"


def _counts(record: Record, *names: tuple[str, str]) -> str:
    """Counters as text: (key, label) pairs."""
    return ", ".join(f"{label} {record.get(key, 0)}" for key, label in names)


def _capture(settings: Settings, record: Record, worries: list[str]) -> None:
    print(
        f"capture   {_process(settings, 'capture', record, worries)}{' by score' if settings.score.camera else ''}; "
        f"camera {record.get('camera', settings.camera.kind)}, "
        f"every {settings.capture.interval_s:g} s, hours {settings.capture.active_hours or 'always'}"
    )
    last = record.get("last")
    if last:
        print(f"          last frame {_ago(last['at'])}, {last['bytes'] / 1000:.0f} kB, {last['key']}")
    else:
        print("          no frame yet")
    counts = _counts(
        record,
        ("captured", "captured"),
        ("dropped", "dropped"),
        ("refused", "refused"),
        ("starts", "starts"),
        ("unclean_stops", "of these after a crash"),
        ("camera_failures", "camera failures"),
    )
    print(f"          {counts}")
    if record.get("camera_error"):
        print(f"          last camera failure: {record['camera_error']}")


def _upload(settings: Settings, record: Record, worries: list[str]) -> None:
    target = settings.store.url or "nowhere: store.url is empty"
    print(f"upload    {_process(settings, 'upload', record, worries)}; to {target}")
    last = record.get("last")
    print(f"          last upload {_ago(last['at'])}, {last['key']}" if last else "          nothing sent yet")
    counts = _counts(
        record,
        ("uploaded", "uploaded"),
        ("already_there", "already there"),
        ("failures", "failures"),
        ("damaged", "damaged"),
    )
    print(f"          {counts}")
    if record.get("error"):
        print(f"          last failure: {record['error']}")
    if record.get("paused"):
        worries.append(f"upload is paused: {record['paused']}")


def _spool(settings: Settings, root: Path, worries: list[str]) -> None:
    if not (root / "ready").is_dir():
        print(f"spool     {root}: not made yet")
        return
    waiting = [entry for name in os.listdir(root / "ready") if (entry := parse(name))]
    dead = [name for name in os.listdir(root / "dead") if not name.endswith(".reason")]
    used = sum(entry.size for entry in waiting) / MEGABYTE
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize / MEGABYTE
    print(
        f"spool     {len(waiting)} frames, {used:.1f} of {settings.spool.max_mb:g} MB, "
        f"when full: {settings.spool.when_full}; "
        f"disk has {free:.0f} MB free, floor {settings.spool.free_mb:g} MB; {root}"
    )
    if waiting:
        print(f"          oldest waiting: {min(waiting, key=lambda entry: entry.sequence).key}")
    if dead:
        worries.append(
            f"{len(dead)} set aside in {root / 'dead'}; the .reason beside each names the fault. "
            "To try again: mv it back to ready/"
        )
    if used > 0.8 * settings.spool.max_mb or free < 1.2 * settings.spool.free_mb:
        worries.append(f"the spool is nearly full; then it will act by spool.when_full = {settings.spool.when_full}")


def _score(settings: Settings, record: Record, worries: list[str]) -> None:
    """The scorer: its process, its last result and its counters."""
    waiting = Path(settings.spool.path) / "unscored"
    count = sum(1 for name in os.listdir(waiting) if parse(name)) if waiting.is_dir() else 0
    spent = ""
    if settings.feedback.send == "chosen":
        spent = (
            f", {record.get('spent', 0) / MEGABYTE:.1f} of {settings.feedback.max_mb_a_day:g} MB "
            f"on {record.get('day') or 'no day yet'}"
        )
    process = _process(settings, "score", record, worries)
    print(f"score     {process}; {count} frames wait; home goes {settings.feedback.send}{spent}")
    last = record.get("last")
    if last:
        print(
            f"          last {last['label']} ({last['score']:.2f}) {_ago(last['scored_at'])}, "
            f"{last['latency_ms']:.1f} ms, {last['image']}"
        )
    else:
        print("          nothing scored yet")
    counts = _counts(
        record,
        ("scored", "scored"),
        ("unscored", "unscored"),
        ("errors", "errors"),
        ("sent_home", "images home"),
        ("figures_only", "figures only"),
        ("lines_lost", "lines lost"),
        ("acted", "acted"),
        ("act_failures", "actions failed"),
    )
    print(f"          {counts}")


def _model(settings: Settings, worries: list[str]) -> None:
    """The model in use, and the source of the next one."""
    folder = Path(settings.model.folder)
    used, sync, denied = slots.active(folder), read(folder / "sync.json"), slots.denied(folder)
    if used:
        probation = f"; on probation, else back to slot {used['fallback']}" if used.get("fallback") else ""
        print(
            f"model     version {used['version']} ({used['variant']}), slot {used['slot']}, "
            f"since {_ago(used['since'])}{probation}"
        )
    else:
        print(f"model     none in {folder}")
        worries.append(
            "there is no model that works: frames are uploaded unscored. python -m device sync names the fault"
        )
    if sync:
        print(
            f"          looked {_ago(sync['at'])}: {settings.model.alias} is version {sync.get('version', 'unknown')}, "
            f"from {settings.model.url}"
        )
    slow = read(folder / "slow.json")
    if slow and slow["digest"] not in denied:
        print(
            f"          version {slow['version']} was too slow here {_ago(slow['at'])}, "
            f"and is tried again: {slow['words']}"
        )
    if sync.get("error") and sync.get("failures"):
        worries.append(f"sync, {sync['failures']} times in a row: {sync['error']}")
    for digest, entry in denied.items():
        if digest == sync.get("digest"):
            worries.append(
                f"version {entry['version']} is denied on this device since {entry['at']}: {entry['reason']}. "
                f"After mending: rm {folder / 'denied.json'}"
            )


def _ago(iso: str) -> str:
    seconds = (clock.now() - datetime.fromisoformat(iso)).total_seconds()
    if seconds < 0:
        return f"at {iso} (the clock has gone back since)"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit} ago"
    return f"{seconds:.0f} s ago"
