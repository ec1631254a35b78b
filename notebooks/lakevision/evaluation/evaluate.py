"""What a model is worth: figures on episodes it has not seen, beside baselines and controls that cannot see the object, and a verdict."""

from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from lakevision.dataset import cache, feed, object_region
from lakevision.dataset.split import SPLIT_NAMES
from lakevision.evaluation import baselines, context_control, intervals, metrics, occlusion, swap_test, verdict
from lakevision.registry import tracking
from lakevision.training import loop

LOOKED_AT = 48  # validation images that a region is learnt from: 64 forward passes each


@dataclass
class Evaluation:
    """The key figures. accuracy and its 95 % interval over episodes; accuracies of what sees no object (None where it could not be had); confusion:
    counts, rows are the truth; confounders: alarms of the check before training; unchecked: what nobody could look at."""

    accuracy: float
    low: float
    high: float
    metadata_baseline: float
    majority_baseline: float
    nearest_baseline: float
    context_only: float
    swap_followed: float
    swap_same_class: float
    best_baseline: float
    calibration_error: float
    cheapest_threshold: float
    region: str
    leakage: dict
    confounders: list
    confusion: list
    verdict: str
    reasons: list
    unchecked: list

    def figures(self):
        return asdict(self)


@dataclass
class Material:
    """What the pictures and the report are drawn from. rows: the test side, DataFrame as of baselines.joined, in the order of test; seen:
    verdict.Evidence; falls: occlusion maps of the images `shown`, for the class that was said."""

    classes: tuple
    test: feed.Arrays
    rows: pd.DataFrame
    probabilities: np.ndarray
    validation: tuple  # (probabilities, targets)
    seen: verdict.Evidence
    checked: object
    swapped: swap_test.Swapped
    shown: np.ndarray
    falls: np.ndarray
    slices: pd.DataFrame
    champion: dict = field(default_factory=dict)

    @property
    def right(self):
        return self.probabilities.argmax(1) == self.test.targets


def load(pixels):
    """All sides of a cache in memory: {"train", "validation", "test": feed.Arrays}."""
    return {side: feed.load(pixels, side) for side in SPLIT_NAMES}


def load_split(folder, side):
    """One side of the cache in a folder, in memory: feed.Arrays."""
    return feed.load(cache.opened(folder), side)


def on_test(cfg, network, setting, arrays, placements, images, warnings, checked, classes):
    """Judges a Keras model on the test side. setting: the loop.Setting it was made with; arrays: of load(); sides, warnings: of split; images: their
    metadata; checked: of confounding.check. Returns (Evaluation, Material)."""
    joined = baselines.joined(images, placements)
    test = arrays["test"]
    rows = joined[joined["split"] == "test"].set_index("sha256").loc[test.keys].reset_index()
    ordered = pd.concat([joined[joined["split"] != "test"], rows])  # baselines answer in the order of their test rows
    probabilities = loop.predict(network, test.pixels)
    validation = loop.predict(network, arrays["validation"].pixels)
    region, unchecked = _region(cfg, network, arrays["validation"])
    around = (
        context_control.control(arrays, setting, region, cfg.evaluation.control_epochs)
        if region and cfg.evaluation.control_epochs
        else None
    )
    swapped = (
        swap_test.measure(network, test, rows, region, cfg.evaluation)
        if region and region.known and cfg.evaluation.swap_pairs
        else None
    )

    def figure(right):
        return None if right is None else intervals.share(right, rows["episode"])

    seen = verdict.Evidence(
        accuracy=figure(probabilities.argmax(1) == test.targets),
        majority=float(baselines.majority(ordered).mean()),
        metadata=figure(baselines.metadata(ordered)),
        nearest=figure(baselines.nearest_in_time(ordered)),
        context=None if around is None else figure(around.argmax(1) == test.targets),
        followed=swapped and swapped.followed,
        region=region,
        confounders=checked.alarms,
        suspects=checked.suspects,
        warnings=list(warnings),
    )
    said, reasons = verdict.judge(seen)
    unchecked = checked.unchecked + unchecked + _not_had(seen, swapped)
    sliced, missing = metrics.slices(rows, probabilities.argmax(1) == test.targets)
    shown = _worst(probabilities, test.targets, cfg.evaluation.explained)
    falls = occlusion.maps(network, test.pixels[shown], probabilities[shown].argmax(1))
    known = (validation, arrays["validation"].targets)
    material = Material(tuple(classes), test, rows, probabilities, known, seen, checked, swapped, shown, falls, sliced)
    threshold = None
    if len(classes) == 2:
        threshold = metrics.cheapest(*metrics.costs(*known, cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost))
    return Evaluation(
        accuracy=seen.accuracy.value,
        low=seen.accuracy.low,
        high=seen.accuracy.high,
        metadata_baseline=seen.metadata.value,
        majority_baseline=seen.majority,
        nearest_baseline=_value(seen.nearest),
        context_only=_value(seen.context),
        swap_followed=_value(seen.followed),
        swap_same_class=None if swapped is None or np.isnan(swapped.same_class) else swapped.same_class,
        best_baseline=verdict.best_baseline(seen),
        calibration_error=metrics.calibration_error(probabilities, test.targets),
        cheapest_threshold=threshold,
        region=str(region) if region else "none",
        leakage=baselines.leakage(joined),
        confounders=checked.figures()["confounders"],
        confusion=confusion_matrix(test.targets, probabilities.argmax(1), labels=range(len(classes))).tolist(),
        verdict=said,
        reasons=reasons,
        unchecked=unchecked + missing,
    ), material


def _value(figure):
    return figure.value if figure else None


def _region(cfg, network, validation):
    """(the object's Region or None, what could not be checked for want of one)."""
    region = object_region.known(cfg)
    if region is None and object_region.wanted_from_occlusion(cfg):
        region = occlusion.region(
            occlusion.maps(network, validation.pixels[:LOOKED_AT], validation.targets[:LOOKED_AT])
        )
        if region is None:
            return None, ["the object's region: the model looks all over the picture, and evaluation.region names none"]
        return region, []
    return region, [] if region else ["the object's region: evaluation.region_from is none"]


def _not_had(seen, swapped):
    found = []
    if seen.nearest is None:
        found.append("nearest image in time: the images have no capture time")
    if seen.context is None:
        found.append("context-only control: no region, or evaluation.control_epochs is 0")
    if seen.region and not seen.region.known:
        found.append(
            "intervention test: the region was learnt from the model itself; name it (evaluation.region_from=config) to exchange objects"
        )
    elif seen.region and swapped is None:
        found.append(
            "intervention test: no two held-out photographs of one camera match in hour and light, or evaluation.swap_pairs is 0"
        )
    return found


def _worst(probabilities, targets, count):
    """The images of which the truth was thought least likely, int (count,): errors first, since they come first by that."""
    return np.argsort(probabilities[np.arange(len(targets)), targets], kind="stable")[:count]


def log(evaluation, network, page=""):
    """Logs the figures, the Keras file and the report's HTML into the active MLflow run."""
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
