"""Results are sent in batches, and each line arrives once, whatever interrupts the process."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from harness import until
from steps import images, lines, ready, shots

from device import clock
from device.score import results
from device.spool.entry import describe
from device.spool.spool import Spool

MOMENTS = {  # a kill at each step of sending a batch: (function, on which of its calls)
    "before the batch is written": ("results.records.write", 1),
    "after it is written": ("results.Desk._deliver", 1),
    "before frames are passed on": ("results.Desk._pass_on", 1),
    "while frames are passed on": ("results.Desk._pass_on", 2),
}
KILL = """
import os
from device.score import results
owner, real, calls = {owner}, {target}, []
def deadly(first, *arguments, **more):
    if isinstance(first, results.Desk) or first.name == "batch.json":  # the spool writes records too
        calls.append(1)
    return os.kill(os.getpid(), 9) if len(calls) == {call} else real(first, *arguments, **more)
owner.{name} = deadly
"""


@pytest.mark.kill
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("sent_meanwhile", [False, True], ids=["", "upload ran meanwhile"])
def test_each_frame_has_one_line_after_a_kill(scoring, moment, sent_meanwhile):
    """The process dies at this very step. Each frame still has one line and one image."""
    ready(scoring)
    shots(scoring, 30, 220, 60, 200)
    target, call = MOMENTS[moment]
    owner, _, name = target.rpartition(".")
    driver = KILL.format(owner=owner, target=target, call=call, name=name)
    done = scoring.run("score", "--once", check=False, driver=driver)
    assert done.returncode == -signal.SIGKILL
    if sent_meanwhile:
        scoring.run("upload", "--once")
    scoring.run("score", "--once")
    scored = lines(scoring)
    assert [line["label"] for line in scored] == ["empty", "package", "empty", "package"]
    assert images(scoring) == [line["image"] for line in scored]
    assert not list((scoring.spool / "unscored").iterdir()) and not list((scoring.spool / "dead").iterdir())


def test_batch_is_sent_after_batch_frames_or_batch_s(scoring):
    scoring.configure(score={"batch_frames": 3, "batch_s": 3600.0})
    ready(scoring)
    shots(scoring, *[60] * 7)
    score = scoring.start("score")
    until(
        lambda: len(list((scoring.spool / "unscored").iterdir())) == 1,
        "two batches of three are sent, and the last frame waits for more",
    )
    waiting = [name for name in scoring.waiting() if name.endswith(".jsonl")]
    assert [len((scoring.spool / "ready" / name).read_text().splitlines()) for name in waiting] == [3, 3]
    scoring.stop(score)
    assert len(lines(scoring)) == 7, "the end of the process sends the last batch"
    scoring.configure(score={"batch_s": 0.1})
    shots(scoring, 60)
    score = scoring.start("score")
    until(lambda: not list((scoring.spool / "unscored").iterdir()), "a single frame is sent after batch_s")
    scoring.stop(score)


def test_frames_of_a_batch_under_way_are_scored_once(scoring):
    """The card takes long to delete. Scoring goes on meanwhile, and scores each frame once."""
    ready(scoring)
    scoring.configure(score={"batch_frames": 4})
    shots(scoring, *[60, 200] * 12)
    slow = (
        "import time, device.score.results as r; real = r.Desk._pass_on\n"
        "def pass_on(self, *a):\n    time.sleep(0.05)\n    return real(self, *a)\nr.Desk._pass_on = pass_on"
    )
    scoring.run("score", "--once", driver=slow)
    assert scoring.counters("score")["scored"] == 24 and len(lines(scoring)) == len(images(scoring)) == 24


def test_result_files_are_hidden_from_readers_of_photographs(scoring):
    from lakevision.ingest import landing

    ready(scoring)
    shots(scoring, 60, 200)
    scoring.run("score", "--once")
    scored = lines(scoring)
    photographs = sorted(file.path for file in landing.walk(scoring.folder / "landing"))
    assert photographs == images(scoring) == [line["image"] for line in scored]
    files = list((scoring.folder / "landing" / "_results").rglob("*.jsonl"))
    assert len(files) == 1 and files[0].parent.name.startswith("date=") and files[0].parents[1].name == "device=porch-7"


def test_frames_dropped_by_quota_before_scoring_have_no_line(scoring):
    ready(scoring)
    scoring.configure(spool={"max_mb": 0.04})
    shots(scoring, *[60] * 30)
    assert scoring.counters("capture")["dropped"] > 0
    scoring.run("score", "--once")
    assert 0 < len(lines(scoring)) == 30 - scoring.counters("capture")["dropped"]


def test_batch_without_room_waits_in_memory(tmp_path):
    settings = SimpleNamespace(path=str(tmp_path / "s"), max_mb=0.0001, free_mb=0.0, dead_mb=1.0, when_full="reject")
    inbox, outbox = Spool(settings, "inbox", ready="unscored"), Spool(settings, "score", tmp="tmp-score")
    inbox.room.max_bytes = 10**6
    journal = []
    desk, batch = results.Desk(inbox, outbox, lambda *line: journal.append(line)), results.Batch()
    for sequence in (1, 2):
        entry = describe([bytes(50 + sequence)], "d", clock.now(), sequence)
        inbox.put(entry, [bytes(50 + sequence)])
        batch.add(entry, {"n": sequence, "padding": "x" * 100}, False)
    assert desk.send(batch, {}) is False and len(journal) == 1 and batch.lines
    outbox.room.max_bytes = 10**6
    assert desk.send(batch, {}) is True
    (name,) = os.listdir(outbox.ready)
    assert [json.loads(line)["n"] for line in (outbox.ready / name).read_text().splitlines()] == [1, 2]
    inbox.close()
    outbox.close()
