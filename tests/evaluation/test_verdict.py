"""The verdict: what evidence leads to which, and why."""

from dataclasses import replace

import pytest

from lakevision.dataset.object_region import Region
from lakevision.evaluation import verdict
from lakevision.evaluation.confounding import Finding
from lakevision.evaluation.intervals import Estimate

KNOWN, LEARNT = Region((0, 0.5, 1, 1), "config"), Region((0, 0, 0.5, 0.5), "occlusion")


def figure(value, low=None, high=None):
    return Estimate(
        value, value - 0.05 if low is None else low, min(1.0, value + 0.05) if high is None else high, 100, 40
    )


GOOD = verdict.Evidence(
    accuracy=figure(0.98, 0.95),
    majority=0.5,
    metadata=figure(0.55),
    nearest=figure(0.52),
    context=figure(0.5),
    followed=figure(0.97),
    region=KNOWN,
)


DAY = Finding("day", 1.0, 0.0003, 1.0, True)


LIGHT = Finding("brightness", 0.3, 0.0003, 0.75, True)


@pytest.mark.parametrize(
    "changed, expected, said",
    [
        pytest.param({}, "evaluable", "metadata alone 0.550", id="sees the object"),
        pytest.param(
            {
                "accuracy": figure(1.0, 0.5, 1.0),
                "metadata": figure(1.0, 0.3),
                "nearest": figure(1.0, 0.3),
                "confounders": [DAY],
            },
            "not evaluable",
            "the label follows the day",
            id="all is told by the day",
        ),
        pytest.param(
            {"accuracy": figure(0.14, 0, 1), "nearest": figure(1.0, 0.3), "suspects": [DAY]},
            "not evaluable",
            "the label follows the day",
            id="a baseline does, with too few episodes for an alarm",
        ),
        pytest.param({"suspects": [DAY]}, "evaluable", "metadata alone 0.550", id="a suspect alone is no evidence"),
        pytest.param({"metadata": figure(0.94)}, "not evaluable", "sees no pixel", id="metadata nearly does as well"),
        pytest.param({"nearest": figure(0.97)}, "not evaluable", "nearest image in time", id="the neighbour does"),
        pytest.param({"context": figure(0.95)}, "not evaluable", "object hidden", id="the surroundings do"),
        pytest.param(
            {"followed": figure(0.05)}, "not evaluable", "looks at something else", id="the exchanged object is ignored"
        ),
        pytest.param(
            {"confounders": [replace(DAY, feature="camera position, sideways")]},
            "not evaluable",
            "sideways alone",
            id="one feature does",
        ),
        pytest.param({"accuracy": figure(0.52, 0.43, 0.61)}, "weak", "includes chance", id="random labels"),
        pytest.param(
            {"accuracy": figure(0.52, 0.43, 0.61), "metadata": figure(0.58, 0.44)},
            "weak",
            "includes chance",
            id="random labels, lucky baseline",
        ),
        pytest.param({"confounders": [LIGHT]}, "weak", "follows the brightness in part", id="told in part"),
        pytest.param({"followed": figure(0.8)}, "weak", "object is exchanged", id="the object is followed too seldom"),
        pytest.param({"context": None}, "weak", "unchecked", id="no control"),
        pytest.param(
            {"context": figure(0.97), "region": LEARNT, "followed": None},
            "weak",
            "something else reveals",
            id="a learnt region is not all",
        ),
        pytest.param({"region": LEARNT, "followed": None}, "evaluable", "surroundings alone", id="a learnt region"),
        pytest.param(
            {"warnings": ["leakage is unchecked"]}, "weak", "leakage is unchecked", id="a warning of the split"
        ),
        pytest.param(
            {"accuracy": figure(0.91, 0.85), "majority": 0.9}, "weak", "most frequent class", id="one class is frequent"
        ),
        pytest.param({"nearest": None}, "evaluable", "episodes not used for training", id="no times"),
    ],
)
def test_verdict_and_its_reasons(changed, expected, said):
    seen = replace(GOOD, **changed)
    found, reasons = verdict.judge(seen)
    assert found == expected and any(said in reason for reason in reasons), reasons
    assert set(seen.warnings) <= set(reasons)


def test_each_blind_baseline_counts():
    assert verdict.best_baseline(GOOD) == 0.55
    assert verdict.best_baseline(replace(GOOD, context=figure(0.7))) == 0.7
    assert verdict.best_baseline(replace(GOOD, context=figure(0.7), region=LEARNT)) == 0.55
    assert verdict.best_baseline(replace(GOOD, nearest=None, context=None, metadata=figure(0.3))) == 0.5
