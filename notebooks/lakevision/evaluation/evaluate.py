"""Evaluates a model on held-out episodes, beside baselines and controls, and judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from lakevision.dataset import cache, feed, object_region
from lakevision.dataset.split import SPLIT_NAMES
from lakevision.evaluation import (
    baselines,
    confounding,
    context_control,
    intervals,
    metrics,
    occlusion,
    swap_test,
    verdict,
)
from lakevision.evaluation.results import Evaluation, Material
from lakevision.platform import config
from lakevision.registry import tracking
from lakevision.training import loop

if TYPE_CHECKING:
    import keras

LOOKED_AT = 48  # validation images from which a region is learnt: 64 forward passes each


@dataclass
class Data:
    """The images for an evaluation, with everything known about them.

    arrays: of load(); placements, warnings: of split.used and split.assign; images: metadata, as of
    split_table.metadata; checked: of confounding.check; classes: names in the order of the targets.
    """

    arrays: dict[str, feed.Arrays]
    placements: pd.DataFrame
    images: pd.DataFrame
    warnings: list[str]
    checked: confounding.Checked
    classes: tuple[str, ...]


def load(pixels: cache.Cache) -> dict[str, feed.Arrays]:
    """All splits of a cache in memory, keyed by SPLIT_NAMES."""
    return {split: feed.load(pixels, split) for split in SPLIT_NAMES}


def load_split(folder: str, split: str) -> feed.Arrays:
    """One split of the cache in a folder, in memory."""
    return feed.load(cache.opened(folder), split)


def on_test(
    cfg: config.Config, network: Callable, setting: loop.Setting | None, data: Data
) -> tuple[Evaluation, Material]:
    """Judges a network on the test split.

    network: a Keras model, or any callable on float32 batches (n, size, size, 3) that returns probabilities
    (n, classes); setting: for the context-only control, may be None if evaluation.control_epochs is 0.
    """
    joined = baselines.joined(data.images, data.placements)
    test, validation = data.arrays["test"], data.arrays["validation"]
    rows = joined[joined["split"] == "test"].set_index("sha256").loc[test.keys].reset_index()
    probabilities = loop.predict(network, test.pixels)
    right = probabilities.argmax(1) == test.targets
    region, unchecked = _region(cfg, network, validation)
    around = None
    if region and setting and cfg.evaluation.control_epochs:
        around = context_control.control(data.arrays, setting, region, cfg.evaluation.control_epochs)
    swapped = None
    if region and region.known and cfg.evaluation.swap_pairs:
        swapped = swap_test.measure(network, test, rows, region, cfg.evaluation)
    evidence = _evidence(data, joined, rows, right)
    evidence.region = region
    evidence.context = None if around is None else intervals.share(around.argmax(1) == test.targets, rows["episode"])
    evidence.followed = swapped.followed if swapped else None
    sliced, not_sliced = metrics.slices(rows, right)
    shown = _least_likely(probabilities, test.targets, cfg.evaluation.explained)
    material = Material(
        classes=tuple(data.classes),
        test=test,
        rows=rows,
        probabilities=probabilities,
        validation=(loop.predict(network, validation.pixels), validation.targets),
        evidence=evidence,
        checked=data.checked,
        swapped=swapped,
        shown=shown,
        falls=occlusion.maps(network, test.pixels[shown], probabilities[shown].argmax(1)),
        slices=sliced,
    )
    evaluation = _key_figures(cfg, material, joined)
    evaluation.unchecked = data.checked.unchecked + unchecked + _not_run(evidence, swapped) + not_sliced
    return evaluation, material


def _evidence(data: Data, joined: pd.DataFrame, rows: pd.DataFrame, right: np.ndarray) -> verdict.Evidence:
    """The evidence that needs no region: accuracy, baselines, confounders and the split's warnings."""
    ordered = pd.concat([joined[joined["split"] != "test"], rows])  # baselines return their test rows in this order
    nearest = baselines.nearest_in_time(ordered)
    return verdict.Evidence(
        accuracy=intervals.share(right, rows["episode"]),
        majority=float(baselines.majority(ordered).mean()),
        metadata=intervals.share(baselines.metadata(ordered), rows["episode"]),
        nearest=None if nearest is None else intervals.share(nearest, rows["episode"]),
        confounders=data.checked.alarms,
        suspects=data.checked.suspects,
        warnings=list(data.warnings),
    )


def _key_figures(cfg: config.Config, material: Material, joined: pd.DataFrame) -> Evaluation:
    """The key figures, still without the list of checks that did not run."""
    evidence, swapped, targets = material.evidence, material.swapped, material.test.targets
    word, reasons = verdict.judge(evidence)
    threshold = None
    if len(material.classes) == 2:
        miss, false_alarm = cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost
        threshold = metrics.cheapest(*metrics.costs(*material.validation, miss, false_alarm))
    predicted = material.probabilities.argmax(1)
    return Evaluation(
        accuracy=evidence.accuracy.value,
        low=evidence.accuracy.low,
        high=evidence.accuracy.high,
        metadata_baseline=evidence.metadata.value,
        majority_baseline=evidence.majority,
        nearest_baseline=_value(evidence.nearest),
        context_only=_value(evidence.context),
        swap_followed=_value(evidence.followed),
        swap_same_class=None if swapped is None or np.isnan(swapped.same_class) else swapped.same_class,
        best_baseline=verdict.best_baseline(evidence),
        calibration_error=metrics.calibration_error(material.probabilities, targets),
        cheapest_threshold=threshold,
        region=str(evidence.region) if evidence.region else "none",
        leakage=baselines.leakage(joined),
        confounders=material.checked.figures()["confounders"],
        confusion=confusion_matrix(targets, predicted, labels=range(len(material.classes))).tolist(),
        verdict=word,
        reasons=reasons,
        unchecked=[],
    )


def _value(estimate: intervals.Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _region(
    cfg: config.Config, network: Callable, validation: feed.Arrays
) -> tuple[object_region.Region | None, list[str]]:
    """(the object's region or None, reasons why there is none)."""
    region = object_region.known(cfg)
    if region is None and object_region.wanted_from_occlusion(cfg):
        falls = occlusion.maps(network, validation.pixels[:LOOKED_AT], validation.targets[:LOOKED_AT])
        region = occlusion.region(falls)
        if region is None:
            return None, [
                "the object's region: the model looks all over the picture, and evaluation.region names no region"
            ]
        return region, []
    return region, [] if region else ["the object's region: evaluation.region_from is none"]


def _not_run(evidence: verdict.Evidence, swapped: swap_test.SwapResult | None) -> list[str]:
    """Texts on checks that did not run, each with the reason."""
    texts = []
    if evidence.nearest is None:
        texts.append("nearest image in time: the images have no capture time")
    if evidence.context is None:
        texts.append("context-only control: no region, or evaluation.control_epochs is 0")
    if evidence.region and not evidence.region.known:
        texts.append(
            "swap test: the region was learnt from the model itself; name the region to exchange objects "
            "(evaluation.region_from=config)"
        )
    elif evidence.region and swapped is None:
        texts.append(
            "swap test: no two held-out photographs of one camera match in hour and light, "
            "or evaluation.swap_pairs is 0"
        )
    return texts


def _least_likely(probabilities: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """The images whose true class has the lowest probability, int (count,). Errors come first by this order."""
    return np.argsort(probabilities[np.arange(len(targets)), targets], kind="stable")[:count]


def log(evaluation: Evaluation, network: keras.Model, page: str = "") -> None:
    """Logs the key figures, the Keras file and the report's HTML into the active MLflow run."""
    import mlflow

    figures = evaluation.figures()
    mlflow.log_metrics(
        {f"test.{name}": value for name, value in figures.items() if isinstance(value, float) and np.isfinite(value)}
    )
    mlflow.set_tag("verdict", evaluation.verdict)
    mlflow.set_tag("verdict.reason", evaluation.reasons[0][:500])
    mlflow.log_dict(figures, "evaluation.json")
    if page:
        mlflow.log_text(page, "report.html")
    tracking.record_network(network)
