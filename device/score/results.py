"""Sends results home: batches of JSON lines, one line for each frame; each line arrives exactly once.

A scored frame stays in unscored/ until its batch is safe. That folder is the journal, so no single frame needs a sync.
A batch is sent in three steps:

    1. the batch, with the fate of each frame, is written durably to batch.json
    2. its lines go into ready/ as <time>_<boot>_<sequence>.jsonl, named after the last frame of the batch
    3. each frame is moved to ready/ or deleted

After a crash before the end of step 1, the frames are scored again. After a later crash, steps 2 and 3 are repeated at
the next start with the same name and the same bytes, which a store recognises if it has them already. All three run in
a thread beside the scoring, one batch at a time, because an SD card takes long to sync and to delete.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from device.files import sync_folder
from device.spool import records
from device.spool.entry import RESULTS, Entry, parse
from device.spool.spool import FULL, Spool, SpoolFull

SCHEMA_VERSION = 1
MOST = 2000  # lines kept in memory while the disk is full


@dataclass
class Batch:
    """Frames scored since the last batch, with their lines of JSON.

    frames: {name in unscored/: True if the image is sent too}.
    """

    lines: list[str] = field(default_factory=list)
    frames: dict[str, bool] = field(default_factory=dict)
    began: float = 0.0  # when the first frame came, monotonic

    def add(self, entry: Entry, result: dict[str, Any] | None, with_image: bool) -> None:
        """Adds a frame. result: None if it was not scored. with_image: True if its image is sent too."""
        self.began = self.began or time.monotonic()
        self.frames[entry.name] = with_image
        if result is not None:
            self.lines.append(json.dumps(result, separators=(",", ":")))

    def followed_by(self, later: Batch) -> Batch:
        """This batch and a later one as a single Batch."""
        return Batch(self.lines + later.lines, {**self.frames, **later.frames}, self.began)

    def is_due(self, settings: SimpleNamespace) -> bool:
        """True if batch_frames or batch_s of settings, the [score] section, is reached."""
        return bool(self.frames) and (
            len(self.frames) >= settings.batch_frames or time.monotonic() - self.began >= settings.batch_s
        )


class Desk:
    """Sends batches from inbox (a Spool whose ready/ is unscored/) to outbox (a Spool), in a thread of its own.

    say: journal.say or the like.
    """

    def __init__(self, inbox: Spool, outbox: Spool, say: Callable[..., object]):
        self.inbox, self.outbox, self.say = inbox, outbox, say
        self.path = outbox.root / "batch.json"
        self.thread = ThreadPoolExecutor(1, "results")
        self.batch: Batch | None = None  # the batch under way
        self.sending: Future[bool] | None = None  # send() of that batch

    def finish(self) -> dict[str, Any]:
        """Repeats what a crash may have interrupted; returns feedback.Choice's account as of that batch.

        Call this once, at the start.
        """
        record = records.read(self.path)
        if record.get("frames"):
            self._deliver(record)
        return record.get("account", {})

    def start(self, batch: Batch, account: dict[str, Any]) -> None:
        """Sends a batch in the thread. Call this only when the previous batch is settled."""
        self.batch, self.sending = batch, self.thread.submit(self.send, batch, account)

    def under_way(self) -> Set[str]:
        """Names in unscored/ of the frames of the batch under way."""
        return self.batch.frames.keys() if self.batch else set()

    def is_done(self) -> bool:
        """True if a batch waits for settle(), which would return at once."""
        return self.sending is not None and self.sending.done()

    def settle(self) -> Batch | None:
        """Waits for the batch under way, if there is one. Returns it if it must be sent again. Raises OSError."""
        if self.sending is None:
            return None
        batch, sending, self.batch, self.sending = self.batch, self.sending, None, None
        return None if sending.result() else batch

    def close(self) -> None:
        """Ends the thread after the batch under way."""
        self.thread.shutdown()

    def send(self, batch: Batch, account: dict[str, Any]) -> bool:
        """Sends a batch: True when it is safe, False if the disk or the spool is full.

        A batch without room stays in memory; its frames without an image to send are deleted at once, because a full
        disk needs the room more than the journal needs the frames.
        """
        last = parse(max(batch.frames))
        assert last  # the scorer only adds frames whose names it parsed
        record = {
            "lines": batch.lines,
            "frames": batch.frames,
            "account": account,
            "device": last.device,
            "stem": last.stem,
            "sequence": last.sequence,
        }
        try:
            records.write(self.path, record, durable=True)
            self._deliver(record)
        except (OSError, SpoolFull) as error:
            if isinstance(error, OSError) and error.errno not in FULL:
                raise
            self._keep_in_memory(batch, error)
            return False
        self.outbox.counters["waiting_for_room"] = 0
        return True

    def _keep_in_memory(self, batch: Batch, error: Exception) -> None:
        for name in [name for name, with_image in batch.frames.items() if not with_image and len(batch.frames) > 1]:
            (self.inbox.ready / name).unlink(missing_ok=True)
        excess = len(batch.lines) - MOST
        if excess > 0:
            del batch.lines[:excess]
            self._count("lines_lost", excess)
        if not self.outbox.counters.get("waiting_for_room"):
            self.say(f"results wait in memory: {error}", sys.stderr)
        self.outbox.counters["waiting_for_room"] = len(batch.lines)

    def _deliver(self, record: dict[str, Any]) -> None:
        if record["lines"]:
            data = "".join(f"{line}\n" for line in record["lines"]).encode()
            digest = hashlib.sha256(data).hexdigest()
            entry = Entry(record["sequence"], record["device"], record["stem"], len(data), digest, RESULTS)
            if not (self.outbox.ready / entry.name).exists():
                kept, dropped = self.outbox.put(entry, [data])
                self._report(dropped)
                self._count("lines_lost", 0 if kept else len(record["lines"]))
        for name, with_image in record["frames"].items():
            if frame := parse(name):
                self._pass_on(frame, with_image)
        sync_folder(self.inbox.ready)

    def _pass_on(self, entry: Entry, with_image: bool) -> None:
        path = self.inbox.ready / entry.name
        if not path.exists():
            return  # done before the crash, or dropped by capture's quota
        if with_image:
            try:
                kept, dropped = self.outbox.adopt(entry, path)
            except FileNotFoundError:
                return
            except SpoolFull:
                kept, dropped = False, [entry]  # its line is on its way: keeping the frame would send the line twice
                self._count("dropped")
            self._report(dropped)
            if kept:
                self._count("sent_home")
                return
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        self._count("figures_only", 0 if with_image else 1)

    def _report(self, dropped: list[Entry]) -> None:
        for lost in dropped:
            self.say(
                f"dropped {lost.key} bytes={lost.size}: the spool is full (spool.when_full = {self.outbox.when_full})",
                sys.stderr,
            )

    def _count(self, name: str, number: int = 1) -> None:
        self.outbox.counters[name] = self.outbox.counters.get(name, 0) + number
