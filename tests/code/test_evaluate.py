"""Verdicts, intervals and the baseline that sees no pixel."""

import numpy as np
import pandas as pd
import pytest

from lakevision import evaluate


@pytest.mark.parametrize("accuracy, low, metadata, majority, warnings, verdict", [
    pytest.param(0.98, 0.95, 0.55, 0.5, (), "evaluable", id="sees the object"),
    pytest.param(1.0, 1.0, 1.0, 0.5, (), "not evaluable", id="metadata does as well"),
    pytest.param(0.93, 0.9, 0.9, 0.5, (), "not evaluable", id="metadata nearly does"),
    pytest.param(0.52, 0.45, 0.5, 0.5, (), "weak", id="no better than chance"),
    pytest.param(0.98, 0.95, 0.5, 0.5, ("leakage is unchecked",), "weak", id="unchecked"),
    pytest.param(0.91, 0.85, 0.9, 0.9, (), "weak", id="one class is frequent"),
])
def test_verdict(accuracy, low, metadata, majority, warnings, verdict):
    found, reasons = evaluate.judge(accuracy, low, metadata, majority, warnings)
    assert found == verdict and reasons and set(warnings) <= set(reasons)


def test_interval_counts_episodes_not_frames():
    rng = np.random.default_rng(0)
    right = rng.random(40) < 0.8
    narrow = evaluate.interval(np.repeat(right, 10), np.arange(400))
    honest = evaluate.interval(np.repeat(right, 10), np.repeat(np.arange(40), 10))
    assert honest[1] - honest[0] > 2 * (narrow[1] - narrow[0])
    assert honest[0] < right.mean() < honest[1]


def frame(label_of, count=240):
    rng = np.random.default_rng(1)
    at = pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 14 * 86400, count), unit="s")
    images = pd.DataFrame({"path": [f"{index}.jpg" for index in range(count)], "device": rng.choice(["a", "b"], count), "captured_at": at,
                           "captured_from": "exif", "width": 600, "height": 600, "exif": [{"ISOSpeedRatings": str(value)} for value in rng.choice([100, 800], count)]})
    labels = [label_of(row) for row in images.itertuples()]
    sides = pd.DataFrame({"path": images["path"], "label": labels, "split": rng.choice(["train", "validation", "test"], count, p=[0.6, 0.15, 0.25])})
    return images, sides


@pytest.mark.parametrize("label_of", [
    pytest.param(lambda row: str(row.captured_at.day > 7), id="day"), pytest.param(lambda row: str(row.captured_at.hour > 12), id="hour"),
    pytest.param(lambda row: row.device, id="camera"), pytest.param(lambda row: row.exif["ISOSpeedRatings"], id="exposure"),
])
def test_the_metadata_baseline_finds_a_planted_confounder(label_of):
    found, majority = evaluate.metadata_baseline(*frame(label_of))
    assert found > 0.95 > majority


def test_the_metadata_baseline_finds_nothing_where_nothing_is():
    rng = np.random.default_rng(2)
    found, majority = evaluate.metadata_baseline(*frame(lambda row: rng.choice(["x", "y"])))
    assert found < 0.65


def test_images_with_no_time_and_no_exif_are_taken():
    images, sides = frame(lambda row: row.device)
    found, _ = evaluate.metadata_baseline(images.assign(captured_from="file", exif=None), sides)
    assert found > 0.95
