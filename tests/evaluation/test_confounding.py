"""What follows the label is found, each alone; a clean set of the same size raises no alarm; what can't be looked at
is said.
"""

import numpy as np
import pandas as pd
import pytest

from device.simulation import porch
from lakevision.dataset import object_region, split
from lakevision.dataset.feed import Arrays
from lakevision.evaluation import baselines, confounding, intervals
from lakevision.platform import config

SETTINGS = config.load("local").split


WHERE = object_region.Region(porch.PACKAGE_REGION, "simulated")


def looked_at(images, pixels, region=WHERE):
    placements = split.used(split.assign(images, SETTINGS)[0])
    return confounding.check(
        images, placements, [Arrays(pixels, np.zeros(len(pixels), np.int32), list(images["sha256"]))], region
    ), placements


@pytest.mark.parametrize(
    "shortcut, feature",
    [
        pytest.param("time", "day", id="time"),
        pytest.param("brightness", "brightness", id="brightness"),
        pytest.param("position", "camera position, sideways", id="camera position"),
    ],
)
def test_planted_shortcut_raises_an_alarm(porch, shortcut, feature):
    images, pixels = porch(shortcut=shortcut)
    checked, placements = looked_at(images, pixels)
    assert (
        checked.alarms[0].feature == feature and checked.alarms[0].explained > 0.7 and checked.alarms[0].accuracy > 0.9
    )
    if shortcut != "position":  # of which no metadata speaks
        rows = baselines.joined(images, placements)
        assert baselines.metadata(rows).mean() > 0.9


@pytest.mark.parametrize("seed", [3, 4])
def test_clean_set_raises_no_alarm(porch, seed):
    images, pixels = porch(seed=seed)
    checked, placements = looked_at(images, pixels)
    assert not checked.alarms and len(checked.findings) >= 6 and not checked.unchecked
    rows = baselines.joined(images, placements)
    for right in (baselines.metadata(rows), baselines.nearest_in_time(rows)):
        figure = intervals.share(right, rows.loc[rows["split"] == "test", "episode"])
        assert figure.low < 0.5 < 0.8 > figure.value


def frame(count=240, label_of=None, seed=1, **more):
    rng = np.random.default_rng(seed)
    at = pd.Timestamp("2026-03-01") + pd.to_timedelta(np.sort(rng.integers(0, 14 * 86400, count // 2)), unit="s")
    images = pd.DataFrame(
        {
            "captured_at": np.repeat(at, 2) + pd.to_timedelta(np.tile([0, 30], count // 2), unit="s"),
            "captured_from": "exif",
            "device": np.repeat(rng.choice(["a", "b"], count // 2), 2),
            "brightness": np.repeat(rng.random(count // 2), 2),
        }
    )
    speeds = np.repeat(rng.choice([100, 800], count // 2), 2)
    images = images.assign(
        width=600,
        height=600,
        exif=[{"ISOSpeedRatings": str(speed), "DateTime": str(number)} for number, speed in enumerate(speeds)],
        path=[f"{number}.jpg" for number in range(count)],
        sha256=[f"{number:016x}" for number in range(count)],
    ).assign(**more)
    coin = np.repeat(rng.choice(["x", "y"], count // 2), 2)
    return images.assign(label=[str(label_of(row)) for row in images.itertuples()] if label_of else coin)


@pytest.mark.parametrize(
    "label_of, feature",
    [
        pytest.param(lambda row: row.captured_at.day > 7, "day", id="day"),
        pytest.param(lambda row: row.captured_at.hour >= 12, "hour", id="hour"),
        pytest.param(lambda row: 6 <= row.captured_at.hour < 18, "hour", id="by day and by night"),
        pytest.param(lambda row: row.device, "camera", id="camera"),
        pytest.param(lambda row: row.exif["ISOSpeedRatings"], "EXIF ISOSpeedRatings", id="EXIF"),
        pytest.param(lambda row: row.brightness > 0.4, "brightness", id="brightness"),
        pytest.param(lambda row: int(row.brightness * 10), "brightness", id="ten classes"),
    ],
)
def test_each_feature_is_named_and_found_by_the_forest(label_of, feature):
    images = frame(label_of=label_of)
    placements = split.used(split.assign(images, SETTINGS)[0])
    checked = confounding.check(images, placements)
    assert [finding.feature for finding in checked.alarms] == [feature]
    assert baselines.metadata(baselines.joined(images, placements)).mean() > (
        0.85 if images["label"].nunique() == 2 else 0.5
    )


def test_picture_size_as_shortcut_is_found():
    images = frame()
    images["width"] = np.where(images["label"] == "x", 600, 640)
    checked = confounding.check(images, split.used(split.assign(images, SETTINGS)[0]))
    assert [finding.feature for finding in checked.alarms] == ["size"] and checked.alarms[0].accuracy == 1


def test_alarms_are_rare_without_a_shortcut():
    alarms = 0
    for seed in range(40):
        images = frame(count=120, seed=seed)
        alarms += bool(confounding.check(images, split.used(split.assign(images, SETTINGS)[0])).alarms)
    assert alarms <= 2  # 1 % of sets are meant to


def test_missing_evidence_is_reported_as_unchecked():
    images = frame(captured_from="file", exif=None).drop(columns="brightness")
    checked = confounding.check(images, split.used(split.assign(images, SETTINGS)[0]))
    assert [reason.split(":")[0] for reason in checked.unchecked] == [
        "day and hour",
        "brightness",
        "EXIF",
        "camera position",
    ]
    assert baselines.nearest_in_time(baselines.joined(images, split.used(split.assign(images, SETTINGS)[0]))) is None
    assert len(baselines.metadata(baselines.joined(images, split.used(split.assign(images, SETTINGS)[0])))) > 0


def test_broken_exif_number_is_no_error():
    images = frame(exif=[{"ExposureTime": "1/0", "FNumber": "f/2", "Model": "x\u0000y"} for _ in range(240)])
    assert not confounding.check(images, split.used(split.assign(images, SETTINGS)[0])).alarms


def test_few_episodes_name_the_day_without_an_alarm():
    """As in the public photographs: eleven episodes on two days, the label follows the day, and the rest tells
    nothing.
    """
    day = np.repeat([0] * 6 + [2] * 5, 20)
    hours = np.repeat([3, 7, 11, 15, 17, 20, 3, 7, 11, 15, 17], 20)
    at = pd.Timestamp("2021-07-13") + pd.to_timedelta(
        day * 86400 + hours * 3600 + np.tile(np.arange(20) * 30, 11), unit="s"
    )
    images = frame(220, captured_at=at, device="a")
    placements = images[["path", "sha256"]].assign(
        label=np.where(day == 0, "0", "1"),
        episode=np.repeat(np.arange(11), 20).astype(str),
        split=np.repeat(["train", "test"] * 5 + ["train"], 20),
    )
    checked = confounding.check(images, placements)
    assert [finding.feature for finding in checked.suspects] == ["day"] and checked.suspects[0].explained > 0.95
