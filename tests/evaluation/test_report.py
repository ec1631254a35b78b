"""The evaluation whole, on networks that are functions of the pixels, and the page that says it."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lakevision.dataset import split
from lakevision.dataset.feed import Arrays
from lakevision.evaluation import confounding, evaluate, metrics, report
from lakevision.evaluation import plots as evaluation_plots
from lakevision.platform import config

HUES = np.array(
    [
        [200, 40, 40],
        [40, 200, 40],
        [40, 40, 200],
        [200, 200, 40],
        [200, 40, 200],
        [40, 200, 200],
        [240, 240, 240],
        [20, 20, 20],
        [120, 120, 120],
        [240, 130, 20],
    ]
)


def made(classes, count=200, times=True, seed=0, noise=20):
    """(images, sides, warnings, arrays, names): squares of a colour in the middle; the colour is the class."""
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(count // 2), 2)
    targets = np.repeat(rng.integers(0, classes, count // 2), 2).astype(np.int32)
    names = [f"kind <{chr(97 + number)}>" for number in range(classes)]
    pixels = np.clip(100 + rng.normal(0, noise, (count, 32, 32, 3)), 0, 255).astype(np.uint8)
    pixels[:, 10:22, 10:22] = HUES[targets][:, None, None] + rng.integers(-15, 15, (count, 12, 12, 3))
    at = pd.Timestamp("2026-03-01") + pd.to_timedelta(episode * 137 + np.tile([0, 1], count // 2), unit="min")
    images = pd.DataFrame(
        {
            "path": [f"<{number}>.jpg" for number in range(count)],
            "sha256": [f"{number:016x}" for number in range(count)],
            "device": [f"cam{number % 3}" for number in episode],
            "label": [names[target] for target in targets],
            "captured_at": at,
            "captured_from": "exif" if times else "file",
            "width": 32,
            "height": 32,
            "exif": [{"Model": "m"}] * count if times else None,
            "quality": [{"blur_score": float(rng.random())}] * count,
        }
    )
    if times:
        images["brightness"] = pixels.mean((1, 2, 3)) / 255
    placed, warnings = split.assign(images, config.load("local").split)
    placements = split.used(placed)
    arrays = {}
    for side in split.SPLIT_NAMES:
        index = (
            placements.loc[placements["split"] == side, "sha256"].map(lambda key: int(key, 16)).sort_values().to_numpy()
        )
        arrays[side] = Arrays(pixels[index], targets[index], list(images["sha256"].iloc[index]))
    return images, placements, warnings, arrays, names


def network(classes, slip=0.0):
    """Says the colour of the middle, and slips in a share of the pictures."""

    def predict(batch):
        middle = np.asarray(batch)[:, 12:20, 12:20].mean((1, 2))
        far = np.abs(middle[:, None] - HUES[:classes]).sum(2)
        said = np.exp(-far / 30) + 1e-4
        wrong = (middle.sum(1) * 1000 % 1) < slip
        said[wrong] = np.roll(said[wrong], 1, axis=1)
        return (said / said.sum(1, keepdims=True)).astype(np.float32)

    return predict


def judged(classes, slip=0.0, settings=(), **more):
    images, placements, warnings, arrays, names = made(classes, **more)
    cfg = config.load("local", ["capture.source=folder", "evaluation.control_epochs=0", *settings])
    checked = confounding.check(images, placements, list(arrays.values()))
    return cfg, *evaluate.on_test(
        cfg, network(classes, slip), None, evaluate.Data(arrays, placements, images, warnings, checked, tuple(names))
    )


@pytest.fixture(scope="module")
def two():
    return judged(2, 0.1, ["evaluation.region_from=config", "evaluation.region=[0.25, 0.25, 0.75, 0.75]"])


@pytest.fixture(scope="module")
def ten():
    return judged(10, 0.1, count=600, times=False)


@pytest.fixture(params=["two", "ten"])
def whole(request):
    return request.getfixturevalue(request.param)


def test_the_page_is_whole_and_needs_nothing_outside_it(whole):
    cfg, evaluation, material = whole
    page = report.render(cfg, evaluation, material, {"images": "<many>"}, "today")
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page)
    for heading in (
        "What it was trained on",
        "Does it see the object?",
        "Metrics",
        "Errors, thresholds, calibration",
        "Slices, worst first",
        "The worst errors",
        "Against the champion",
        "What was not checked",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "&lt;many&gt;" in page and "kind &lt;a&gt;" in page and "kind <" not in page  # names are text, never markup
    for picture in re.findall(r'base64,([^"]+)"', page):
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    assert page.index(evaluation.verdict) < 6000 and all(
        reason.replace("'", "&#x27;") in page for reason in evaluation.reasons
    )


def test_figures_are_plain_json(whole):
    import json

    _, evaluation, _ = whole
    again = json.loads(json.dumps(evaluation.figures(), allow_nan=False))
    assert again["accuracy"] == evaluation.accuracy and np.sum(again["confusion"]) > 0


def test_ten_classes_without_times_or_exif_say_what_was_not_checked(ten):
    _, evaluation, material = ten
    assert (
        np.shape(evaluation.confusion) == (10, 10)
        and evaluation.accuracy > 0.8
        and evaluation.cheapest_threshold is None
    )
    assert evaluation.verdict == "weak" and any("leakage is unchecked" in reason for reason in evaluation.reasons)
    said = " ".join(evaluation.unchecked)
    for what in (
        "day and hour",
        "EXIF",
        "nearest image in time",
        "context-only control",
        "swap test",
        "light",
        "brightness",
    ):
        assert what in said
    assert evaluation.leakage == {"random_split": None, "episodes": None} and evaluation.nearest_baseline is None


def test_a_known_region_is_exchanged():
    _, evaluation, material = judged(
        2, 0.0, ["evaluation.region_from=config", "evaluation.region=[0.25, 0.25, 0.75, 0.75]"]
    )
    assert (
        evaluation.region.endswith("(config)") and evaluation.swap_followed > 0.95 and evaluation.swap_same_class > 0.95
    )
    assert len(material.swapped.pairs) > 10


def test_metrics_agree_with_scikit_learn_and_intervals_hold_them(two):
    from sklearn import metrics as sk

    _, _, material = two
    overall = metrics.overall(
        material.probabilities, material.test.targets, material.rows["episode"].to_numpy()
    ).set_index("metric")
    assert overall.loc["area under ROC", "value"] == sk.roc_auc_score(
        material.test.targets, material.probabilities[:, 1]
    )
    assert ((overall["low"] <= overall["value"] + 1e-9) & (overall["value"] <= overall["high"] + 1e-9))[
        overall["low"].notna()
    ].all()
    classes = metrics.by_class(
        material.probabilities, material.test.targets, material.rows["episode"].to_numpy(), material.classes
    )
    recall = sk.recall_score(material.test.targets, material.probabilities.argmax(1), average=None)
    assert classes["recall"].tolist() == pytest.approx(recall.tolist())
    assert (classes["recall_low"] <= classes["recall"]).all() and (classes["recall"] <= classes["recall_high"]).all()


def test_the_worst_errors_come_first(two):
    _, _, material = two
    truth = material.probabilities[np.arange(len(material.test)), material.test.targets]
    assert (np.diff(truth[material.shown]) >= 0).all() and not material.right[material.shown[0]]
    assert material.falls.shape == (len(material.shown), 8, 8)


def test_slices_come_worst_first_and_name_what_is_missing():
    rows = pd.DataFrame(
        {
            "device": ["good"] * 40 + ["bad"] * 40,
            "captured_from": "exif",
            "episode": [f"{number // 4}" for number in range(80)],
            "captured_at": pd.date_range("2026-03-01", periods=80, freq="h"),
            "brightness": np.tile([0.1, 0.4, 0.6, 0.4], 20),
            "quality": [{"blur_score": number / 80, "glare_score": 0.5} for number in range(80)],
        }
    )
    right = np.array([True] * 40 + [False, True] * 20)
    table, missing = metrics.slices(rows, right)
    assert table["accuracy"].is_monotonic_increasing and not missing
    assert {"camera", "hour", "light", "blur"} == set(table["slice"])  # glare is the same everywhere
    assert table.loc[table["value"] == "bad", "accuracy"].item() == 0.5 and table.iloc[0]["accuracy"] <= 0.5
    _, missing = metrics.slices(rows.drop(columns=["brightness", "quality"]).assign(captured_from="file"), right)
    assert [reason.split(":")[0] for reason in missing] == ["slices by hour", "slices by light", "slices by quality"]


def test_calibration_of_probabilities_that_mean_what_they_say_and_of_such_that_do_not():
    rng = np.random.default_rng(0)
    positive = rng.random(20_000)
    probabilities, targets = np.stack([1 - positive, positive], 1), (rng.random(20_000) < positive).astype(int)
    assert metrics.calibration_error(probabilities, targets) < 0.02
    sure = np.where(probabilities > 0.5, 0.99, 0.01)
    assert metrics.calibration_error(sure, targets) == pytest.approx(
        0.24, abs=0.02
    )  # says 0.99, is right in three of four


@pytest.mark.parametrize("miss, false_alarm, expected", [(1, 1, 0.5), (9, 1, 0.1), (1, 4, 0.8)])
def test_the_cheapest_threshold_is_the_one_theory_names(miss, false_alarm, expected):
    rng = np.random.default_rng(1)
    positive = rng.random(200_000)
    probabilities, targets = np.stack([1 - positive, positive], 1), (rng.random(200_000) < positive).astype(int)
    best = metrics.cheapest(*metrics.costs(probabilities, targets, miss, false_alarm))
    assert best == pytest.approx(expected, abs=0.04)  # false_alarm / (false_alarm + miss): Elkan, 2001


def test_one_class_alone_on_the_test_side_has_no_curve_and_no_error():
    probabilities = np.tile([[0.3, 0.7]], (10, 1))
    assert metrics.curves(probabilities, np.ones(10, int), ("a", "b")) == []
    assert (
        metrics.overall(probabilities, np.ones(10, int), np.arange(10)).set_index("metric").loc["accuracy", "value"]
        == 1
    )


def test_every_picture_has_titles_and_axes(whole):
    cfg, evaluation, material = whole
    figure = evaluation_plots.overview(material, evaluation)
    assert evaluation.verdict in figure.get_suptitle()
    for axis in [*figure.axes, *evaluation_plots.causes(material, cfg).axes]:
        assert axis.get_title() and axis.get_xlabel()
    worst = evaluation_plots.worst(material)
    assert sum("WRONG" in axis.get_title() for axis in worst.axes) == (~material.right[material.shown]).sum() > 0
