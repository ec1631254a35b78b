"""Metrics and curves of predictions, from scikit-learn, with intervals over episodes.

The positive class of two is the last, as for training.threshold.
"""

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from lakevision.dataset import episodes as dataset_episodes
from lakevision.evaluation import intervals

BINS = 10  # of the reliability diagram
FEWEST = 5  # images that a slice must hold
NAMES = (
    "accuracy",
    "balanced accuracy",
    "F1, mean of classes",
    "area under ROC",
    "average precision",
    "expected calibration error",
    "log loss (nats)",
)


def overall(probabilities: np.ndarray, targets: np.ndarray, episodes: np.ndarray) -> pd.DataFrame:
    """DataFrame of metric (NAMES), value, low, high.

    probabilities: float (n, classes); targets: int (n,); episodes: n names.
    """

    def values(index: np.ndarray) -> list[float]:
        own, truth = probabilities[index], targets[index]
        predicted = own.argmax(1)
        recall = sk.recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
        areas = [_areas(own[:, number], truth == number) for number in range(own.shape[1])]
        area, precision = areas[-1] if own.shape[1] == 2 else np.nanmean(np.array([*areas, (np.nan, np.nan)]), 0)
        return [
            (predicted == truth).mean(),
            recall,
            sk.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0),
            area,
            precision,
            calibration_error(own, truth),
            -np.log(np.clip(own[np.arange(len(truth)), truth], 1e-7, 1)).mean(),
        ]

    ends = intervals.of(values, episodes)
    accuracy = intervals.share(probabilities.argmax(1) == targets, episodes)
    ends[0] = accuracy.low, accuracy.high  # intervals.share also has an interval for a perfect score
    return pd.DataFrame(
        {"metric": list(NAMES), "value": values(np.arange(len(targets))), "low": ends[:, 0], "high": ends[:, 1]}
    )


def by_class(
    probabilities: np.ndarray, targets: np.ndarray, episodes: np.ndarray, classes: tuple[str, ...]
) -> pd.DataFrame:
    """DataFrame of class, images, precision, recall and F1, each with its interval: <name>_low, <name>_high.

    probabilities: float (n, classes); targets: int (n,); episodes: n names; classes: their names.
    """
    predicted, numbers = probabilities.argmax(1), range(len(classes))

    def values(index: np.ndarray) -> np.ndarray:
        scores = sk.precision_recall_fscore_support(targets[index], predicted[index], labels=numbers, zero_division=0)
        absent = np.bincount(targets[index], minlength=len(classes)) == 0
        return np.where(np.tile(absent, 3), np.nan, np.concatenate(scores[:3]))

    ends = intervals.of(values, episodes).reshape(3, len(classes), 2)
    scores = values(np.arange(len(targets))).reshape(3, len(classes))
    table = {"class": list(classes), "images": np.bincount(targets, minlength=len(classes))}
    for number in numbers:
        for row, chosen in ((0, predicted == number), (1, targets == number)):  # precision and recall are shares, too
            if chosen.any():
                estimate = intervals.share((predicted == targets)[chosen], np.asarray(episodes)[chosen], draws=500)
                ends[row, number] = estimate.low, estimate.high
    for row, name in enumerate(("precision", "recall", "F1")):
        table |= {name: scores[row], f"{name}_low": ends[row, :, 0], f"{name}_high": ends[row, :, 1]}
    return pd.DataFrame(table)


def _areas(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """(area under ROC, average precision); nan if one class is absent."""
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    return sk.roc_auc_score(positive, scores), sk.average_precision_score(positive, scores)


def curves(probabilities: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]) -> list[dict]:
    """ROC and precision-recall curves of the test split.

    Returns dicts of class, roc (false positive rate, recall), pr (recall, precision), area, average_precision.
    Two classes have one curve, that of the last class. More classes have one curve each, against the rest; a class
    without test images has none.
    """
    numbers = [len(classes) - 1] if len(classes) == 2 else range(len(classes))
    result = []
    for number in numbers:
        positive = targets == number
        area, average = _areas(probabilities[:, number], positive)
        if np.isnan(area):
            continue
        false_alarms, hits, _ = sk.roc_curve(positive, probabilities[:, number])
        precision, recall, _ = sk.precision_recall_curve(positive, probabilities[:, number])
        result.append(
            {
                "class": classes[number],
                "roc": (false_alarms, hits),
                "pr": (recall, precision),
                "area": area,
                "average_precision": average,
            }
        )
    return result


def calibration(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """The reliability diagram: DataFrame of confidence, accuracy and images.

    Its rows are those of the BINS equal bins of the highest probability that hold any images.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    frame = pd.DataFrame(
        {
            "bin": np.minimum((confidence * BINS).astype(int), BINS - 1),
            "confidence": confidence,
            "accuracy": right.astype(float),
            "images": 1,
        }
    )
    return frame.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "images": "sum"}).reset_index(drop=True)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 5), 0..1."""
    bins = calibration(probabilities, targets)
    return float((bins["images"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / bins["images"].sum())


def costs(
    probabilities: np.ndarray, targets: np.ndarray, miss: float, false_alarm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cost per image at each threshold of the positive class's probability: (thresholds, costs), float (99,) each.

    For two classes. miss, false_alarm: cost of one such error, in any unit.
    """
    thresholds = np.arange(1, 100) / 100
    predicted = probabilities[:, 1][:, None] >= thresholds
    positive = (targets == 1)[:, None]
    return thresholds, (miss * (positive & ~predicted) + false_alarm * (~positive & predicted)).mean(0)


def cheapest(thresholds: np.ndarray, cost: np.ndarray) -> float:
    """The threshold of least cost; the middle threshold if several are equal."""
    best = np.flatnonzero(cost <= cost.min() + 1e-12)
    return float(thresholds[best[len(best) // 2]])


def slices(rows: pd.DataFrame, right: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Accuracy by camera, hour, light and quality, worst first, and texts on slices that are missing.

    rows: DataFrame as of baselines.joined, the test split; right: bool (n,), whether the prediction is correct.
    Returns (DataFrame of slice, value, images, episodes, accuracy, low, high; list of texts).
    """
    groups, missing = _groups(rows)
    found = []
    for name, values in groups.items():
        for value in sorted(values.unique()):
            chosen = (values == value).to_numpy()
            if chosen.sum() >= FEWEST:
                estimate = intervals.share(right[chosen], rows["episode"].to_numpy()[chosen], draws=500)
                counts = (estimate.count, estimate.episodes)
                found.append((name, value, *counts, estimate.value, estimate.low, estimate.high))
    table = pd.DataFrame(found, columns=["slice", "value", "images", "episodes", "accuracy", "low", "high"])
    return table.sort_values(["accuracy", "images"], ascending=[True, False], ignore_index=True), missing


def _groups(rows: pd.DataFrame) -> tuple[dict[str, pd.Series], list[str]]:
    """({name of a slice: Series with each row's value}, texts on slices that are missing)."""
    groups, missing = {"camera": rows["device"].fillna("unknown").astype(str)}, []
    timed = dataset_episodes.timed(rows)
    if timed.any():
        start = rows["captured_at"].dt.hour // 6 * 6
        spans = start.map("{:02d}".format) + " to " + (start + 6).map("{:02d}".format) + " h UTC"
        groups["hour"] = spans.where(timed, "no time")
    else:
        missing.append("slices by hour: no capture times")
    if "brightness" in rows and rows["brightness"].notna().any():
        brightness = rows["brightness"].astype(float)
        names = ["dark (under 0.25)", "medium", "bright (over 0.5)"]
        groups["light"] = pd.cut(brightness, [-0.01, 0.25, 0.5, 1.01], labels=names).astype(str)
    else:
        missing.append("slices by light: no brightness in the table images")
    if "quality" in rows:
        qualities = [dict(own or {}) for own in rows["quality"]]
        scores = pd.DataFrame(
            [{name: value for name, value in own.items() if name.endswith("_score")} for own in qualities],
            index=rows.index,
        ).astype(float)
        for name in scores:
            low = scores[name] <= scores[name].quantile(0.2)
            if 0 < low.sum() < len(rows) and scores[name].nunique() > 1:
                groups[name.removesuffix("_score")] = low.map({True: "the lowest fifth", False: "the others"})
    else:
        missing.append("slices by quality: no quality scores in the table images")
    return groups, missing
