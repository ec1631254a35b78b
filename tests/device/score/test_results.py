"""What comes home: lines in batches, each once whatever happens; and images within the day's budget, chosen by what they can teach."""

import json
import os
import signal

import bundles
import pytest
from harness import until
from steps import images, lines, ready, shots

from device.score import feedback, results

NEAR = 120  # the models' threshold lies at this brightness


def test_only_what_teaches_comes_home(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "chosen", "sample": 0.0, "flat": 0.0, "drift": 1.0, "margin": 0.2})
    shots(scoring, 60, 200, NEAR, 60, 3, 200)
    scoring.run("score", "--once")
    got = lines(scoring)
    assert [line["why"] for line in got] == [[], [], ["near"], [], ["quality"], []]
    assert [line["sent"] for line in got] == ["figures", "figures", "image", "figures", "image", "figures"]
    assert images(scoring) == [got[2]["image"], got[4]["image"]]
    counters = scoring.counters("score")
    assert counters["figures_only"] == 4 and counters["sent_home"] == 2


def test_a_brightness_that_leaves_its_mean_comes_home(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "chosen", "sample": 0.0, "flat": 0.0, "margin": 0.0, "drift": 0.25})
    shots(scoring, *[60] * 6, 180, *[60] * 3)
    scoring.run("score", "--once")
    assert [line["why"] for line in lines(scoring)] == [[]] * 6 + [["drift"]] + [[]] * 3


def test_figures_only_and_all(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "none"})
    shots(scoring, 60, NEAR)
    scoring.run("score", "--once")
    assert [line["sent"] for line in lines(scoring)] == ["figures"] * 2 and images(scoring) == []
    scoring.configure(feedback={"send": "all"})
    shots(scoring, 60, NEAR)
    scoring.run("score", "--once")
    assert [line["sent"] for line in lines(scoring)] == ["figures"] * 2 + ["image"] * 2 and len(images(scoring)) == 2


def test_the_days_budget_holds_over_restarts_and_begins_anew_the_next_day(scoring):
    ready(scoring)
    size = len(bundles.photo(NEAR)) + 700  # with EXIF
    scoring.configure(
        feedback={
            "send": "chosen",
            "margin": 0.3,
            "sample": 0.0,
            "flat": 0.0,
            "drift": 1.0,
            "max_mb_a_day": 2.5 * size / 1e6,
        }
    )
    for _ in range(3):
        shots(scoring, NEAR, NEAR)
        scoring.run("score", "--once")
    got = lines(scoring)
    assert [line["sent"] for line in got] == ["image"] * 2 + ["figures"] * 4 and all(
        line["why"] == ["near"] for line in got
    )
    assert scoring.counters("score")["spent"] <= 2.5 * size
    shots(scoring, NEAR)
    tomorrow = "import datetime, device.clock as c; true = c.now; c.now = lambda: true() + datetime.timedelta(days=1)"
    scoring.run("score", "--once", driver=tomorrow)
    assert [line["sent"] for line in lines(scoring)][-1] == "image"


def test_a_share_of_all_is_drawn_by_the_frames_digest():
    settings = type("S", (), {"margin": 0.0, "dark": 0.0, "bright": 1.0, "flat": 0.0, "drift": 1.0, "sample": 0.25})
    chosen = [
        bool(
            feedback.Choice(settings).reasons(
                [0.0, 1.0], 0.5, {"brightness": 0.5, "contrast": 0.5}, f"{number * 2654435761 % 2**32:08x}"
            )
        )
        for number in range(4000)
    ]
    assert 900 < sum(chosen) < 1100


@pytest.mark.parametrize(
    "scores, threshold, near",
    [
        ([0.45, 0.55], 0.5, True),
        ([0.2, 0.8], 0.5, False),
        ([0.2, 0.8], 0.75, True),
        ([0.4, 0.35, 0.25], 0.5, True),
        ([0.9, 0.05, 0.05], 0.5, False),
    ],
)
def test_near(scores, threshold, near):
    settings = type("S", (), {"margin": 0.1, "dark": 0.0, "bright": 1.0, "flat": 0.0, "drift": 1.0, "sample": 0.0})
    assert feedback.Choice(settings).reasons(scores, threshold, {"brightness": 0.5, "contrast": 0.5}, "ffffffff") == (
        ["near"] if near else []
    )


def test_light_is_luma():
    assert feedback.light(bytes([255, 0, 0] * 16), 4) == {"brightness": round(76 / 255, 4), "contrast": 0.0}
    assert feedback.light(bytes([0, 0, 0] * 8 + [255] * 24), 4) == {"brightness": 0.5, "contrast": 0.5}


MOMENTS = {  # a kill at each step of sending a batch
    "before it is written": "device.score.results.records.write",
    "after it is written": "device.score.results.Desk._deliver",
    "before frames are passed on": "device.score.results.Desk._pass_on",
    "in the middle of passing on": "second call of device.score.results.Desk._pass_on",
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("sent_meanwhile", [False, True], ids=["", "and upload was faster"])
def test_killed_while_a_batch_is_sent(scoring, moment, sent_meanwhile):
    """Each frame has one line and its image, though the process dies at this very step."""
    ready(scoring)
    shots(scoring, 30, 220, 60, 200)
    target = MOMENTS[moment].rpartition(" ")[2]
    calls = 1 if not MOMENTS[moment].startswith("second") else 2
    owner, _, name = target.rpartition(".")
    driver = (
        f"import os, device.score.results\nowner, real, calls = {owner}, {target}, []\n"
        f"def deadly(*a, **k):\n    calls.append(1)\n    return os.kill(os.getpid(), 9) if len(calls) == {calls} and 'batch' in str(a[0]) + 'batch' else real(*a, **k)\n"
        f"owner.{name} = deadly"
    )
    done = scoring.run("score", "--once", check=False, driver=driver)
    assert done.returncode == -signal.SIGKILL
    if sent_meanwhile:
        scoring.run("upload", "--once")
    scoring.run("score", "--once")
    got = lines(scoring)
    assert [line["label"] for line in got] == ["empty", "package", "empty", "package"]
    assert images(scoring) == [line["image"] for line in got]
    assert not list((scoring.spool / "unscored").iterdir()) and not list((scoring.spool / "dead").iterdir())


def test_batches_by_count_and_by_time(scoring):
    scoring.configure(score={"batch_frames": 3, "batch_s": 3600.0})
    ready(scoring)
    shots(scoring, *[60] * 7)
    score = scoring.start("score")
    until(
        lambda: len(list((scoring.spool / "unscored").iterdir())) == 1,
        "two batches of three are through, the last frame waits for company",
    )
    waiting = [name for name in scoring.waiting() if name.endswith(".jsonl")]
    assert [len((scoring.spool / "ready" / name).read_text().splitlines()) for name in waiting] == [3, 3]
    scoring.stop(score)
    assert len(lines(scoring)) == 7, "the end of the process is the end of the wait"
    scoring.configure(score={"batch_s": 0.1})
    shots(scoring, 60)
    score = scoring.start("score")
    until(lambda: not list((scoring.spool / "unscored").iterdir()), "a frame alone is through after batch_s")
    scoring.stop(score)


def test_frames_whose_batch_is_under_way_are_not_scored_again(scoring):
    """A card on which deleting takes long: scoring goes on beside it, and each frame is scored once."""
    ready(scoring)
    scoring.configure(score={"batch_frames": 4})
    shots(scoring, *[60, 200] * 12)
    slow = (
        "import time, device.score.results as r; real = r.Desk._pass_on\n"
        "def pass_on(self, *a):\n    time.sleep(0.05)\n    return real(self, *a)\nr.Desk._pass_on = pass_on"
    )
    scoring.run("score", "--once", driver=slow)
    assert scoring.counters("score")["scored"] == 24 and len(lines(scoring)) == len(images(scoring)) == 24


def test_results_lie_where_no_reader_of_photographs_looks(scoring):
    from lakevision.ingest import landing

    ready(scoring)
    shots(scoring, 60, 200)
    scoring.run("score", "--once")
    got = lines(scoring)
    seen = sorted(file.path for file in landing.walk(scoring.folder / "landing"))
    assert seen == images(scoring) == [line["image"] for line in got]
    kept = [path for path in (scoring.folder / "landing" / "_results").rglob("*.jsonl")]
    assert len(kept) == 1 and kept[0].parent.name.startswith("date=") and kept[0].parents[1].name == "device=porch-7"


def test_the_captures_quota_may_drop_frames_that_wait_to_be_scored(scoring):
    ready(scoring)
    scoring.configure(spool={"max_mb": 0.04})
    shots(scoring, *[60] * 30)
    assert scoring.counters("capture")["dropped"] > 0
    scoring.run("score", "--once")
    assert 0 < len(lines(scoring)) == 30 - scoring.counters("capture")["dropped"]


def test_a_batch_that_finds_no_room_waits(scoring, tmp_path):
    from types import SimpleNamespace

    from device import clock
    from device.spool.entry import describe
    from device.spool.spool import Spool

    settings = SimpleNamespace(path=str(tmp_path / "s"), max_mb=0.0001, free_mb=0.0, dead_mb=1.0, when_full="reject")
    inbox, outbox = Spool(settings, "inbox", ready="unscored"), Spool(settings, "score", tmp="tmp-score")
    inbox.room.max_bytes = 10**6
    desk, batch, said = results.Desk(inbox, outbox, lambda *line: said.append(line)), results.Batch(), []
    for sequence in (1, 2):
        entry = describe([bytes(50 + sequence)], "d", clock.now(), sequence)
        inbox.put(entry, [bytes(50 + sequence)])
        batch.add(entry, {"n": sequence, "padding": "x" * 100}, False)
    assert desk.send(batch, {}) is False and len(said) == 1 and batch.lines
    outbox.room.max_bytes = 10**6
    assert desk.send(batch, {}) is True
    (name,) = os.listdir(outbox.ready)
    assert [json.loads(line)["n"] for line in (outbox.ready / name).read_text().splitlines()] == [1, 2]
    inbox.close()
    outbox.close()
