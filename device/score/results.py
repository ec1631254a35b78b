"""Results on their way home: JSON lines, one for each frame, in batches; each line arrives exactly once.

A scored frame stays in unscored/ until its batch is safe; that folder is the journal, and nothing is synced for a single frame. Then

    1. the batch, with what is to become of each frame, is written to batch.json, durably
    2. its lines go into ready/ as <time>_<boot>_<sequence>.jsonl, named after the last frame in it
    3. each frame goes to ready/ or is deleted

A crash before 1 costs some scoring, which is done again. After it, 2 and 3 are done again at the next start: same name, same bytes,
and a store that has them already says so. All three happen in a thread beside the scoring, one batch after the other: a card takes its time
to sync and to delete, and the processor has better to do than to wait for it.
"""

import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from device.files import sync_folder
from device.spool import records
from device.spool.entry import RESULTS, Entry, parse
from device.spool.spool import FULL, SpoolFull

SCHEMA_VERSION = 1
MOST = 2000  # lines that wait in memory where the disk takes none


@dataclass
class Batch:
    """Frames scored since the last batch. lines: texts; frames: {name in unscored/: whether it goes home with its image}."""

    lines: list = field(default_factory=list)
    frames: dict = field(default_factory=dict)
    began: float = 0.0  # monotonic, of the first frame

    def add(self, entry, line, home):
        """Takes in a frame: its line (a dict, or None for a frame that was not scored) and whether its image goes home."""
        self.began = self.began or time.monotonic()
        self.frames[entry.name] = home
        if line is not None:
            self.lines.append(json.dumps(line, separators=(",", ":")))

    def followed_by(self, later):
        """Both as one Batch."""
        return Batch(self.lines + later.lines, {**self.frames, **later.frames}, self.began)

    def is_due(self, settings):
        """Whether [score]'s batch_frames or batch_s is reached."""
        return bool(self.frames) and (
            len(self.frames) >= settings.batch_frames or time.monotonic() - self.began >= settings.batch_s
        )


class Desk:
    """Sends batches: from inbox (a Spool whose ready/ is unscored/) to outbox (a Spool)."""

    def __init__(self, inbox, outbox, say):
        self.inbox, self.outbox, self.say = inbox, outbox, say
        self.path = outbox.root / "batch.json"
        self.thread = ThreadPoolExecutor(1, "results")
        self.batch, self.answer = None, None  # the one under way, and send()'s Future

    def finish(self):
        """Does again what a crash may have left half done; the account of feedback.Choice as of that batch. Call it once, at start."""
        record = records.read(self.path)
        if record.get("frames"):
            self._deliver(record)
        return record.get("account", {})

    def start(self, batch, account):
        """Sends a batch in the thread. Only when the one before is settled."""
        self.batch, self.answer = batch, self.thread.submit(self.send, batch, account)

    def under_way(self):
        """Names in unscored/ of the frames of the batch under way."""
        return self.batch.frames.keys() if self.batch else set()

    def is_done(self):
        """Whether settle() would not wait, and has something to say."""
        return self.answer is not None and self.answer.done()

    def settle(self):
        """Waits for the batch under way, if there is one. None when it is safe, else the Batch, still to be sent. Raises OSError."""
        if self.answer is None:
            return None
        batch, answer, self.batch, self.answer = self.batch, self.answer, None, None
        return None if answer.result() else batch

    def close(self):
        """Ends the thread, when it has done what it has."""
        self.thread.shutdown()

    def send(self, batch, account):
        """True when the batch is safe. False where the disk or the spool is full: it waits in memory, and frames that would not go home go now."""
        last = parse(max(batch.frames))
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
            for name in [name for name, home in batch.frames.items() if not home and len(batch.frames) > 1]:
                (self.inbox.ready / name).unlink(
                    missing_ok=True
                )  # a full disk needs the room more than we need them as a journal
            lost = len(batch.lines) - MOST
            if lost > 0:
                del batch.lines[:lost]
                self._count("lines_lost", lost)
            if not self.outbox.counters.get("waiting_for_room"):
                self.say(f"results wait in memory: {error}", sys.stderr)
            self.outbox.counters["waiting_for_room"] = len(batch.lines)
            return False
        self.outbox.counters["waiting_for_room"] = 0
        return True

    def _deliver(self, record):
        if record["lines"]:
            data = "".join(f"{line}\n" for line in record["lines"]).encode()
            entry = Entry(
                record["sequence"],
                record["device"],
                record["stem"],
                len(data),
                hashlib.sha256(data).hexdigest(),
                RESULTS,
            )
            if not (self.outbox.ready / entry.name).exists():
                kept, dropped = self.outbox.put(entry, [data])
                self._note(dropped)
                self._count("lines_lost", 0 if kept else len(record["lines"]))
        for name, home in record["frames"].items():
            self._pass_on(parse(name), home)
        sync_folder(self.inbox.ready)

    def _pass_on(self, entry, home):
        path = self.inbox.ready / entry.name
        if not path.exists():
            return  # done before the crash, or dropped by capture's quota
        if home:
            try:
                kept, dropped = self.outbox.adopt(entry, path)
            except FileNotFoundError:
                return
            except SpoolFull:
                kept, dropped = False, [entry]  # its line is under way: to wait with it would send that twice
                self._count("dropped")
            self._note(dropped)
            if kept:
                self._count("sent_home")
                return
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        self._count("figures_only", 0 if home else 1)

    def _note(self, dropped):
        for lost in dropped:
            self.say(
                f"dropped {lost.key} bytes={lost.size}: the spool is full (spool.when_full = {self.outbox.when_full})",
                sys.stderr,
            )

    def _count(self, name, more=1):
        self.outbox.counters[name] = self.outbox.counters.get(name, 0) + more
