"""A new model is watched before it is trusted, and one that rots on the card later is replaced: the last good one is
scoring after each.
"""

import json
import os
import signal

import bundles
import pytest
from steps import denied, flipped, images, lines, shots, third_is_taken, used


def test_nan_on_probation_returns_to_last_good_model(scoring, second):
    """The golden photographs are dark; a bright one makes it say NaN.

    That very frame is scored by the last good model.
    """
    digest = second(lambda folder: None, "nan", golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30, 60, 250, 30)
    scoring.run("score", "--once")
    got = lines(scoring)
    assert [(line["version"], line["label"]) for line in got] == [
        ("2", "empty"),
        ("2", "empty"),
        ("1", "package"),
        ("1", "empty"),
    ]
    assert "no probabilities" in denied(scoring)[digest]["reason"] and not any(line["error"] for line in got)
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


def test_crashes_on_probation_return_to_last_good_model(scoring, second):
    """It takes the scorer with it: after model.crashes starts the last good one is back."""
    scoring.configure(model={"crashes": 2})
    digest = second(lambda folder: None, "other")
    scoring.run("sync")
    deadly = (
        "import os, device.model.edge_model as m; real = m.invoke\n"
        "def invoke(model, pixels):\n"
        "    return os.kill(os.getpid(), 9) if model.version == '2' else real(model, pixels)\n"
        "m.invoke = invoke"
    )
    shots(scoring, 30, 220)
    ends = [scoring.run("score", "--once", check=False, driver=deadly).returncode for _ in range(5)]
    assert ends == [-signal.SIGKILL] * 3 + [0, 0]
    assert [(line["version"], line["label"]) for line in lines(scoring)] == [("1", "empty"), ("1", "package")]
    assert "did not survive" in denied(scoring)[digest]["reason"]
    third_is_taken(scoring)


def test_failed_first_model_sends_frames_home_unscored(scoring, models):
    bundles.publish(models, scoring.place, "1", "nan", variants=("float32",), golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30, 250, 30)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)] == ["1"] and len(images(scoring)) == 3
    third_is_taken(scoring)


def test_clean_stops_are_no_strikes(scoring, second):
    scoring.configure(model={"crashes": 1, "probation": 50})
    second(lambda folder: None, "other")
    scoring.run("sync")
    for _ in range(4):
        assert used(scoring) == ("2", ["package", "empty"])
    assert not denied(scoring)


# ---- rot on the card


@pytest.mark.parametrize("rot", ["bit flip", "cut", "gone", "active.json damaged", "manifest cut"])
def test_rotten_model_in_use_is_replaced(scoring, second, rot):
    """Version 2 took over from 1, and its files go bad on the card: 1 is scoring again, and 2 is fetched anew."""
    second(lambda folder: None, "other")
    scoring.run("sync")
    for _ in range(3):
        assert used(scoring) == ("2", ["package", "empty"])
    record = json.loads((scoring.model / "active.json").read_text())
    assert record["fallback"] == "", "confirmed"
    path = scoring.model / record["slot"] / "float32.tflite"
    if rot == "bit flip":
        flipped(path)
    elif rot == "cut":
        os.truncate(path, 300)
    elif rot == "gone":
        path.unlink()
    elif rot == "manifest cut":
        os.truncate(scoring.model / record["slot"] / "manifest.json", 100)
    else:
        (scoring.model / "active.json").write_bytes(b"\0" * 200)
    if rot == "active.json damaged":  # either slot would do; sync.json still says which one is wanted
        assert used(scoring) == ("2", ["package", "empty"])
        return
    assert used(scoring) == ("1", ["empty", "package"])
    scoring.run("sync")
    assert used(scoring) == ("2", ["package", "empty"])
