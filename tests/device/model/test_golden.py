"""A model that says the right thing, and too late: it never replaces a good one, and is not denied for a bad moment
of the board.
"""

import json
import os
import time

import bundles
import pytest
from steps import denied, images, lines, shots, third_is_taken, used

from device.model import edge_model, golden

STARVED = """
import sys, time
if "device.model.golden" in getattr(sys, "orig_argv", ()):
    import device.model.edge_model
    real = device.model.edge_model.invoke
    device.model.edge_model.invoke = lambda *arguments: (time.sleep(0.03), real(*arguments))[1]
"""


@pytest.fixture
def starved(scoring):
    """The environment of a board so busy that each frame takes 30 ms and more to try; the budget is 25."""
    (scoring.folder / "site").mkdir()
    (scoring.folder / "site" / "sitecustomize.py").write_text(STARVED)
    scoring.configure(model={"budget_ms": 25.0, "interval_s": 0.01, "slow_rounds": 3})
    return {"PYTHONPATH": os.pathsep.join((str(scoring.folder / "site"), os.getcwd()))}


def rounds(agent):
    path = agent.model / "slow.json"
    return json.loads(path.read_text())["rounds"] if path.exists() else 0


def large(agent, frames, side=(2400, 1600)):
    """Takes photographs that take long to decode, some 20 ms."""
    folder = agent.folder / f"large-{len(os.listdir(agent.folder))}"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(bundles.photo(200, side))
    agent.configure(camera={"folder": str(folder), "loop": True})
    agent.run("capture", "--frames", str(frames))


def test_model_too_slow_in_all_rounds_is_denied(scoring, second):
    scoring.configure(model={"budget_ms": 8.0, "interval_s": 0.01, "slow_rounds": 3})
    digest = second(lambda folder: None, "slow")
    for count in (1, 2):
        done = scoring.run("sync")
        assert f"in {count} of model.slow_rounds = 3 rounds, and model.budget_ms is 8" in done.stdout
        assert used(scoring) == ("1", ["empty", "package"]) and not denied(scoring)
        shown = scoring.run("status", check=False).stdout
        assert "version 2 was too slow here" in shown and "in a row" not in shown, "neither denied nor a failure"
    (scoring.place / "versions" / "2" / "float32.tflite").unlink()
    done = scoring.run("sync", check=False)
    assert done.returncode == 77 and "model.budget_ms is 8" in done.stderr and digest in denied(scoring)
    assert "denied on this device" in scoring.run("sync").stdout
    assert used(scoring) == ("1", ["empty", "package"])
    scoring.configure(model={"budget_ms": 1000.0})
    third_is_taken(scoring)


def test_busy_board_takes_the_model_later(scoring, second, starved):
    second(lambda folder: None, "other")
    for count in (1, 2):
        scoring.run("sync", env=starved)
        assert rounds(scoring) == count and used(scoring) == ("1", ["empty", "package"])
    scoring.run("sync")
    for _ in range(3):
        assert used(scoring) == ("2", ["package", "empty"])
    assert rounds(scoring) == 0 and not denied(scoring), "through its probation, and forgotten"


def test_one_fast_variant_is_enough(scoring, second):
    """Only the time of the one that is chosen counts."""
    scoring.configure(model={"budget_ms": 25.0, "slow_rounds": 1})
    (scoring.folder / "site").mkdir()
    starved = STARVED.replace('in getattr(sys, "orig_argv", ()):', 'in sys.orig_argv and "float32" in sys.orig_argv:')
    (scoring.folder / "site" / "sitecustomize.py").write_text(starved)
    bundles.publish(scoring.models, scoring.place, "2", "other")
    scoring.run("sync", env={"PYTHONPATH": os.pathsep.join((str(scoring.folder / "site"), os.getcwd()))})
    assert used(scoring) == ("2", ["package", "empty"])
    assert json.loads((scoring.model / "active.json").read_text())["variant"] == "int8"


@pytest.mark.parametrize(
    "throttled, counts", [("0x4", False), ("0x50005", False), ("0x8", False), ("0x50000", True), ("0x0", True)]
)
def test_rounds_of_a_throttled_board_do_not_count(scoring, second, starved, throttled, counts):
    """vcgencmd's lower bits are now, the upper ones since boot."""
    tools = scoring.folder / "tools"
    tools.mkdir()
    (tools / "vcgencmd").write_text(f"#!/bin/sh\necho throttled={throttled}\n")
    (tools / "vcgencmd").chmod(0o755)
    starved = {**starved, "PATH": f"{tools}:{os.environ['PATH']}"}
    digest = second(lambda folder: None, "other")
    said = "".join(scoring.run("sync", check=False, env=starved).stdout for _ in range(3))
    assert used(scoring) == ("1", ["empty", "package"])
    assert (digest in denied(scoring)) == counts and (f"at throttled {throttled}, does not count" in said) == (
        not counts
    )


def test_hot_board_counts_as_hindered():
    from device.model import golden

    assert golden.hindered({"temperature_c": 83.2, "throttled": None}) == "83 C"
    assert (
        golden.hindered({"temperature_c": 79.0, "throttled": "0x0"})
        == golden.hindered({"temperature_c": None, "throttled": None})
        == ""
    )


def test_looks_in_quick_succession_are_one_round(scoring, second, starved):
    """A scorer that starts again and again, a person who is impatient: none of it makes the board's bad moment
    longer.
    """
    second(lambda folder: None, "other")
    scoring.configure(model={"interval_s": 900.0})
    scoring.run("sync", env=starved)
    for _ in range(4):
        assert "is tried again when model.interval_s is over" in scoring.run("sync", env=starved).stdout
    assert rounds(scoring) == 1 and not denied(scoring)


def test_endless_check_is_a_round(scoring, second, starved):
    scoring.configure(model={"check_s": 1.0})
    digest = second(lambda folder: None, "other")
    for _ in range(2):
        assert "no answer at best" in scoring.run("sync", env=starved).stdout and not denied(scoring)
    assert (
        scoring.run("sync", env=starved, check=False).returncode == 77
        and "no answer within" in denied(scoring)[digest]["reason"]
    )


def test_wrong_model_has_only_one_round(scoring, second, starved):
    """Slow and wrong is wrong."""
    digest = second(lambda folder: None, "other")
    manifest = json.loads((scoring.place / "versions" / "2" / "manifest.json").read_text())
    manifest["golden"][1]["scores"]["float32"] = [0.9, 0.1]
    bundles.write_manifest(scoring.place / "versions" / "2", manifest)
    bundles.point(scoring.place, "2")
    assert (
        scoring.run("sync", env=starved, check=False).returncode == 77
        and rounds(scoring) == 0
        and digest not in denied(scoring)
    )
    assert len(denied(scoring)) == 1


def test_model_slow_in_each_probation_is_denied(scoring, second):
    """Quick on its golden photographs, slow on what this camera takes: set aside each time after a few frames, then
    denied.
    """
    file = scoring.model / "b" / "float32.tflite"
    scoring.configure(model={"budget_ms": 12.0, "probation": 8, "interval_s": 0.01, "slow_rounds": 2})
    digest = second(lambda folder: None, "other")
    scoring.run("sync")
    large(scoring, 8)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)] == ["2"] * 5 + ["1"] * 3
    assert not denied(scoring) and rounds(scoring) == 1
    shots(scoring, 30, 220)
    scoring.run("score", "--once")
    assert lines(scoring)[-1]["version"] == "1", "set aside until it has been checked anew"
    before = file.stat().st_mtime_ns
    scoring.run("sync")
    assert file.stat().st_mtime_ns == before, "it is not fetched again"
    large(scoring, 8)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)[-8:]] == ["2"] * 5 + ["1"] * 3
    assert "in 2 of model.slow_rounds = 2 rounds, and model.budget_ms is 12" in denied(scoring)[digest]["reason"]
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


def test_slow_moment_on_probation_sets_model_aside(scoring, second):
    scoring.configure(model={"budget_ms": 12.0, "probation": 6, "interval_s": 0.01})
    second(lambda folder: None, "other")
    scoring.run("sync")
    large(scoring, 6)
    scoring.run("score", "--once")
    assert rounds(scoring) == 1 and used(scoring) == ("1", ["empty", "package"])
    scoring.run("sync")
    for _ in range(4):
        assert used(scoring) == ("2", ["package", "empty"])
    assert rounds(scoring) == 0 and not denied(scoring)


def test_slow_first_model_has_its_rounds_too(scoring):
    """There is none to return to: frames go home unscored meanwhile."""
    scoring.configure(model={"budget_ms": 12.0, "probation": 8, "interval_s": 0.01})
    scoring.run("sync")
    large(scoring, 8)
    scoring.run("score", "--once")
    assert len(lines(scoring)) == 5 and len(images(scoring)) == 8 and not denied(scoring)
    time.sleep(0.02)
    scoring.run("sync")
    assert used(scoring) == ("1", ["empty", "package"])


def test_another_model_starts_with_new_rounds(scoring, second, starved):
    second(lambda folder: None, "other")
    scoring.run("sync", env=starved)
    scoring.run("sync", env=starved)
    bundles.publish(scoring.models, scoring.place, "3", "other")
    scoring.run("sync", env=starved)
    assert rounds(scoring) == 1 and not denied(scoring)
    assert used(scoring) == ("1", ["empty", "package"])


@pytest.mark.parametrize("scores", [[float("nan"), float("nan")], [1.0], [0.5, 0.5, 0.0], [float("inf"), 0.0]], ids=str)
def test_impossible_scores_fail_the_golden_check(scoring, monkeypatch, scores):
    monkeypatch.setattr(edge_model, "probabilities", lambda *_: scores)
    assert (
        "at home, and the tolerance is" in golden.measure(str(scoring.place / "versions" / "1"), "float32", 1)["failed"]
    )
