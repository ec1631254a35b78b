"""Metrics: scikit-learn's values, slices, calibration, thresholds."""

import numpy as np
import pandas as pd
import pytest

from lakevision.evaluation import metrics


def test_metrics_agree_with_scikit_learn(two):
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


def test_slices_come_worst_first_and_name_missing_values():
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


def test_calibration_tells_honest_from_overconfident():
    rng = np.random.default_rng(0)
    positive = rng.random(20_000)
    probabilities, targets = np.stack([1 - positive, positive], 1), (rng.random(20_000) < positive).astype(int)
    assert metrics.calibration_error(probabilities, targets) < 0.02
    sure = np.where(probabilities > 0.5, 0.99, 0.01)
    assert metrics.calibration_error(sure, targets) == pytest.approx(
        0.24, abs=0.02
    )  # says 0.99, is right in three of four


@pytest.mark.parametrize("miss, false_alarm, expected", [(1, 1, 0.5), (9, 1, 0.1), (1, 4, 0.8)])
def test_cheapest_threshold_agrees_with_theory(miss, false_alarm, expected):
    rng = np.random.default_rng(1)
    positive = rng.random(200_000)
    probabilities, targets = np.stack([1 - positive, positive], 1), (rng.random(200_000) < positive).astype(int)
    best = metrics.cheapest(*metrics.costs(probabilities, targets, miss, false_alarm))
    assert best == pytest.approx(expected, abs=0.04)  # false_alarm / (false_alarm + miss): Elkan, 2001


def test_single_class_in_the_test_has_no_curve():
    probabilities = np.tile([[0.3, 0.7]], (10, 1))
    assert metrics.curves(probabilities, np.ones(10, int), ("a", "b")) == []
    assert (
        metrics.overall(probabilities, np.ones(10, int), np.arange(10)).set_index("metric").loc["accuracy", "value"]
        == 1
    )
