"""A version that passes every check of the gate, and changes that make it fail."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from lakevision.platform import config
from lakevision.release import gate, parity

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
SERVING = SimpleNamespace(version="1", run_id="old")


def decide(cfg=None, trained=(), agreed=AGREED, manifest=MANIFEST, accuracies=ACCURACIES, serving=None):
    """The gate's decision on the version with these changes."""
    cfg, training = cfg or config.load("local"), TRAINED | dict(trained)
    return gate.decide(cfg, training, gate.checks(cfg, training, agreed, manifest, accuracies, serving))


def changed(path, place, scores):
    """AGREED with other scores of one path for one image."""
    return replace(
        AGREED,
        scores={**AGREED.scores, path: [*AGREED.scores[path][:place], scores, *AGREED.scores[path][place + 1 :]]},
    )


def champion(difference, low, high, version="1"):
    """A comparison with the champion, as 03_train reports it."""
    return {
        "champion": {"version": version, "difference": difference, "low": low, "high": high, "images": 120, "note": ""}
    }
