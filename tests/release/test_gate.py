"""The gate: each check blocks a faulty version; a person overrules the evaluation, but no technical fault."""

from types import SimpleNamespace

import numpy as np
import pytest
from release_cases import ACCURACIES, SERVING, champion, changed, decide

from lakevision.platform import config


def test_version_without_faults_is_promoted():
    decision = decide()
    assert decision.promoted and not decision.word and "0.980 against 0.550" in decision.reason
    assert decision.table()["passed"].all() and len(decision.table()) == 11


@pytest.mark.parametrize(
    "changes, reason",
    [
        pytest.param(
            {"trained": {"verdict": "not evaluable", "reasons": ["it follows the day"]}},
            "not evaluable: it follows the day",
            id="not evaluable",
        ),
        pytest.param({"trained": {"low": 0.54}}, "not above the best baseline (0.550)", id="no better than a baseline"),
        pytest.param(
            {"agreed": changed("pyfunc", 0, np.array([0.9001, 0.0999]))},
            "pyfunc against Keras: 1.0e-04 (day)",
            id="pyfunc differs",
        ),
        pytest.param(
            {"agreed": changed("Spark", 1, np.array([0.3, 0.7]))},
            "Spark against Keras: 1.0e-01 (night)",
            id="Spark differs",
        ),
        pytest.param(
            {"agreed": changed("REST", 1, None)}, "REST against Keras: inf (night)", id="REST refuses what others take"
        ),
        pytest.param(
            {"agreed": changed("LiteRT float32", 2, np.array([0.5, 0.5]))},
            "LiteRT float32 against Keras: inf (HTML)",
            id="the device takes HTML",
        ),
        pytest.param(
            {"agreed": changed("LiteRT float16", 0, np.array([0.4, 0.6]))},
            "float16 says the same: 50.0%",
            id="float16 differs",
        ),
        pytest.param(
            {"agreed": changed("LiteRT int8", 0, np.array([0.4, 0.6]))}, "int8 says the same: 50.0%", id="int8 differs"
        ),
        pytest.param({"accuracies": {**ACCURACIES, "int8": 0.96}}, "int8 loses accuracy: +0.0200", id="int8 loses"),
        pytest.param(
            {"manifest": {"variants": {"float32": {"bytes": 30_000_000, "p50_ms": 2.0}}}}, "30.00 MB", id="too large"
        ),
        pytest.param({"manifest": {"variants": {"float32": {"bytes": 3, "p50_ms": 300.0}}}}, "300.0 ms", id="too slow"),
        pytest.param(
            {
                "manifest": {
                    "variants": {"float32": {"bytes": 30_000_000, "p50_ms": 2.0}, "int8": {"bytes": 9, "p50_ms": 2.0}}
                }
            },
            "30.00 MB",
            id="the largest file counts",
        ),
        pytest.param(
            {"agreed": changed("REST", 0, np.array([0.9001, 0.1]))},
            "REST against Keras: 1.0e-04 (day)",
            id="one class of an image differs",
        ),
        pytest.param(
            {"serving": SERVING, "trained": champion(-0.02, -0.05, 0.01)}, "-0.020", id="worse than the champion"
        ),
        pytest.param(
            {"serving": SERVING, "trained": champion(0.0, -0.05, -0.001)}, "against the champion", id="surely worse"
        ),
        pytest.param(
            {"serving": SERVING, "trained": champion(0.1, 0.05, 0.15, "7")},
            "compared with 7: run it again",
            id="another champion meanwhile",
        ),
        pytest.param({"serving": SERVING}, "compared with none", id="never compared"),
    ],
)
def test_each_check_blocks_a_faulty_version(changes, reason):
    decision = decide(**changes)
    assert not decision.promoted and reason in decision.reason
    assert [row.check for row in decision.table().itertuples() if not row.passed]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"trained": {"verdict": "weak"}}, id="weak, but better than all baselines"),
        pytest.param({"serving": SERVING, "trained": champion(0.01, -0.02, 0.04)}, id="better than the champion"),
        pytest.param(
            {"serving": SERVING, "trained": {"champion": {"version": "1", "note": "other classes"}}},
            id="a champion of other classes",
        ),
        pytest.param({"serving": SimpleNamespace(version="1", run_id="new")}, id="the same training again"),
        pytest.param({"accuracies": {**ACCURACIES, "int8": 0.98 - 1 / 120}}, id="int8 misses one image of 120"),
        pytest.param({"agreed": changed("REST", 0, np.array([0.900004, 0.099996]))}, id="rounding"),
        pytest.param(
            {"manifest": {"variants": {"float32": {"bytes": 9, "p50_ms": 300.0}, "int8": {"bytes": 9, "p50_ms": 2.0}}}},
            id="the quickest file counts",
        ),
        pytest.param(
            {
                "cfg": config.load("local", ["deploy.may_lose=0.03"]),
                "serving": SERVING,
                "trained": champion(-0.02, -0.05, 0.01),
            },
            id="worse by what it may lose",
        ),
        pytest.param(
            {"cfg": config.load("local", ["deploy.int8_may_lose=0.03"]), "accuracies": {**ACCURACIES, "int8": 0.96}},
            id="int8 loses what it may",
        ),
        pytest.param(
            {
                "cfg": config.load("local", ["deploy.parity_tolerance=0.001"]),
                "agreed": changed("REST", 0, np.array([0.9001, 0.0999])),
            },
            id="a wider tolerance",
        ),
    ],
)
def test_version_within_the_limits_is_promoted(changes):
    assert decide(**changes).promoted


def test_word_overrules_the_evaluation_but_no_fault_of_paths():
    cfg = config.load("local", ["deploy.promote_anyway='A. Person, for a demonstration'"])
    against = {"verdict": "not evaluable", "reasons": ["the label follows the day"]}
    decision = decide(cfg, against)
    assert decision.promoted and decision.word == "A. Person, for a demonstration"
    assert "by word of A. Person" in decision.reason and "the label follows the day" in decision.reason
    assert decide(cfg, champion(-0.1, -0.2, -0.05), serving=SERVING).word
    assert not decide(cfg, against, changed("REST", 0, None)).promoted
    unneeded = decide(cfg)
    assert unneeded.promoted and not unneeded.word
