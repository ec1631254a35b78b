"""The gate: each check blocks what it should, somebody's word overrules the evaluation and nothing else, and what the comparison calls apart."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from device.simulation import porch
from lakevision.platform import config
from lakevision.release import edge_bundle, gate, parity
from lakevision.release import plots as release_plots

TRAINED = {
    "verdict": "evaluable",
    "accuracy": 0.98,
    "low": 0.95,
    "best_baseline": 0.55,
    "reasons": ["the model sees it"],
    "run_id": "new",
    "champion": {},
    "confusion": [[60, 0], [0, 60]],
}
SCORES = [np.array([0.9, 0.1]), np.array([0.2, 0.8]), None]
AGREED = parity.Parity(
    {
        path: [None if row is None else row.copy() for row in SCORES]
        for path in (parity.REFERENCE, *parity.EXACT, *parity.VARIANTS.values())
    },
    ("empty", "package"),
    0.5,
    ["day", "night", "HTML"],
    [b""] * 3,
)
MANIFEST = {"variants": {name: {"bytes": 150_000, "p50_ms": 2.0} for name in parity.VARIANTS}}
ACCURACIES = {"float32": 0.98, "float16": 0.98, "int8": 0.98}


def decide(cfg=None, trained=(), agreed=AGREED, manifest=MANIFEST, accuracies=ACCURACIES, serving=None):
    cfg, training = cfg or config.load("local"), TRAINED | dict(trained)
    return gate.decide(cfg, training, gate.checks(cfg, training, agreed, manifest, accuracies, serving))


def changed(path, place, scores):
    """AGREED with the scores of one path for one image replaced."""
    return replace(
        AGREED,
        scores={**AGREED.scores, path: [*AGREED.scores[path][:place], scores, *AGREED.scores[path][place + 1 :]]},
    )


def champion(difference, low, high, version="1"):
    return {
        "champion": {"version": version, "difference": difference, "low": low, "high": high, "images": 120, "note": ""}
    }


SERVING = SimpleNamespace(version="1", run_id="old")


def test_all_well():
    decision = decide()
    assert decision.promoted and not decision.word and "0.980 against 0.550" in decision.reason
    assert decision.table()["passed"].all() and len(decision.table()) == 11


@pytest.mark.parametrize(
    "what, said",
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
def test_each_check_blocks_what_it_should(what, said):
    decision = decide(**what)
    assert not decision.promoted and said in decision.reason
    assert [row.check for row in decision.table().itertuples() if not row.passed]


@pytest.mark.parametrize(
    "what",
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
def test_what_passes(what):
    assert decide(**what).promoted


def test_somebodys_word_promotes_against_the_evaluation_and_is_kept_but_not_against_paths_that_differ():
    cfg = config.load("local", ["deploy.promote_anyway='A. Person, for a demonstration'"])
    against = {"verdict": "not evaluable", "reasons": ["the label follows the day"]}
    decision = decide(cfg, against)
    assert decision.promoted and decision.word == "A. Person, for a demonstration"
    assert "by word of A. Person" in decision.reason and "the label follows the day" in decision.reason
    assert decide(cfg, champion(-0.1, -0.2, -0.05), serving=SERVING).word
    assert not decide(cfg, against, changed("REST", 0, None)).promoted
    unneeded = decide(cfg)
    assert unneeded.promoted and not unneeded.word


def test_apart():
    assert AGREED.exact == 0 and AGREED.agreement("REST") == 1
    assert changed("REST", 0, None).exact == np.inf and changed("REST", 0, None).agreement("REST") == 0.5
    assert changed("REST", 2, np.array([1.0, 0.0])).apart("REST").tolist() == [0, 0, np.inf]
    # float16 and int8 may differ: they are no part of what must be exact.
    assert changed("LiteRT int8", 0, np.array([0.8, 0.2])).exact == 0


def test_the_pictures_that_are_shown_are_those_on_which_paths_differ():
    assert release_plots.worst(AGREED, 1e-5, 2) == [(0, "LiteRT int8"), (1, "LiteRT int8")]
    assert release_plots.worst(changed("LiteRT int8", 1, np.array([0.3, 0.7])), 1e-5, 2)[0] == (1, "LiteRT int8")
    refused = changed("REST", 1, None)
    assert release_plots.worst(refused, 1e-5, 2) == [(1, "REST"), (0, "LiteRT int8")]
    taken = replace(
        refused,
        scores={**refused.scores, "Spark": [np.array([0.8, 0.2]), *refused.scores["Spark"][1:2], np.array([0.5, 0.5])]},
    )
    assert release_plots.worst(taken, 1e-5, 6) == [(1, "REST"), (2, "Spark"), (0, "Spark")]
    photograph = porch.jpeg(porch.plan(1, size=(64, 64))[0])
    figure = release_plots.paths(
        replace(taken, images=[photograph, photograph, b"<html>"]),
        decide(agreed=taken).table(),
        HISTORY,
        "three differ",
        1e-5,
    )
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == [
        "night\nP(package): Keras 0.800\nREST refused",
        "HTML\nP(package): Keras refused\nSpark 0.500",
        "day\nP(package): Keras 0.100\nSpark 0.200",
    ]


HISTORY = pd.DataFrame(
    [
        {
            "decided_at": pd.Timestamp("2026-03-02"),
            "version": str(number),
            "promoted": number % 2 == 0,
            "forced": False,
            "action": "gate",
            "reason": "long " * (10 * number),
        }
        for number in range(20)
    ]
)


def test_the_ledgers_reasons_are_shown_whole_newest_first_as_many_as_fit():
    figure = release_plots.paths(
        replace(AGREED, images=[porch.jpeg(porch.plan(1, size=(64, 64))[0])] * 3),
        decide().table(),
        HISTORY.head(4),
        "",
        1e-5,
    )
    cells = figure.axes[-1].tables[0].get_celld()
    assert [cells[row, 1].get_text().get_text() for row in range(1, 5)] == ["3", "2", "1", "0"]
    assert (
        cells[2, 3].get_text().get_text().split() == ["gate:", *["long"] * 20]
        and cells[2, 3].get_height() > cells[4, 3].get_height()
    )


def test_each_edge_file_stands_beside_its_own_accuracy():
    entry = {
        "bytes": 1,
        "input": "uint8",
        "largest": 0.0,
        "agreement": 1.0,
        "p50_ms": 1.0,
        "p90_ms": 1.0,
        "sha256": "a" * 64,
    }
    table = edge_bundle.variants(
        {"variants": {name: entry for name in ("float32", "float16", "int8")}},
        {"float16": 0.9, "float32": 0.8, "int8": 0.7},
    )
    assert dict(zip(table["variant"], table["accuracy"])) == {"float32": 0.8, "float16": 0.9, "int8": 0.7}


def test_what_is_hard_on_purpose_of_a_large_photograph_still_fits_into_a_request():
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (3040, 4056, 3), np.uint8)).save(
        noise, "JPEG", quality=85
    )
    assert {name: len(data) for name, data in parity.hard(noise.getvalue()) if len(data) > 16e6} == {}
