"""The results of an evaluation: key figures, and material for pictures and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lakevision.dataset import feed
from lakevision.evaluation import confounding, swap_test, verdict


@dataclass
class Evaluation:
    """The key figures. Its fields are keys of summary.json and of evaluation.json.

    accuracy, low, high: of the model, with the 95 % interval over episodes; *_baseline, context_only: accuracies
    without sight of the object, None if not measured; swap_followed, swap_same_class: shares of the swap test, None if
    it did not run; cheapest_threshold: None unless there are two classes; region: box and source as text, or "none";
    leakage: of baselines.leakage; confounders: alarms of the confounding check, as dicts; confusion: counts, rows are
    the truth; reasons: for the verdict; unchecked: texts on checks that could not run.
    """

    accuracy: float
    low: float
    high: float
    metadata_baseline: float
    majority_baseline: float
    nearest_baseline: float | None
    context_only: float | None
    swap_followed: float | None
    swap_same_class: float | None
    best_baseline: float
    calibration_error: float
    cheapest_threshold: float | None
    region: str
    leakage: dict[str, float | None]
    confounders: list[dict]
    confusion: list[list[int]]
    verdict: str
    reasons: list[str]
    unchecked: list[str]

    def figures(self) -> dict[str, Any]:
        """The key figures as a dict that is valid JSON."""
        return asdict(self)


@dataclass
class Material:
    """The material for the pictures and the report.

    test: the test split; rows: its metadata, DataFrame as of baselines.joined, in the order of test;
    probabilities: float (tests, classes); validation: (probabilities, targets) of the validation split;
    shown: int (k,), test images with the least likely truths; falls: their occlusion maps for the predicted class,
    float (k, GRID, GRID); slices: of metrics.slices; champion: of champion_comparison.compare.
    """

    classes: tuple[str, ...]
    test: feed.Arrays
    rows: pd.DataFrame
    probabilities: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    evidence: verdict.Evidence
    checked: confounding.Checked
    swapped: swap_test.SwapResult | None
    shown: np.ndarray
    falls: np.ndarray
    slices: pd.DataFrame
    champion: dict[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction on the test split is correct: bool (tests,)."""
        return self.probabilities.argmax(1) == self.test.targets
