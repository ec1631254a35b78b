"""Figures and curves of a model's predictions on the test side, from scikit-learn, with intervals over episodes.

The positive class of two is the last one, as for training.threshold.
"""

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from lakevision.evaluation import intervals

BINS = 10  # of the reliability diagram
FEWEST = 5  # images that a slice must hold


def overall(probabilities, targets, episodes):
    """DataFrame of metric, value, low, high: accuracy, balanced accuracy, macro F1, ROC AUC, average precision, calibration error, log loss."""
    names = [
        "accuracy",
        "balanced accuracy",
        "F1, mean of classes",
        "area under ROC",
        "average precision",
        "expected calibration error",
        "log loss (nats)",
    ]

    def figures(index):
        own, truth = probabilities[index], targets[index]
        said = own.argmax(1)
        recall = sk.recall_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0)
        areas = [_areas(own[:, number], truth == number) for number in range(own.shape[1])]
        area, precision = areas[-1] if own.shape[1] == 2 else np.nanmean(np.array(areas + [(np.nan, np.nan)]), 0)
        return [
            (said == truth).mean(),
            recall,
            sk.f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0),
            area,
            precision,
            calibration_error(own, truth),
            -np.log(np.clip(own[np.arange(len(truth)), truth], 1e-7, 1)).mean(),
        ]

    ends = intervals.of(figures, episodes)
    accuracy = intervals.share(probabilities.argmax(1) == targets, episodes)
    ends[0] = accuracy.low, accuracy.high  # which knows what to say of a perfect score
    return pd.DataFrame(
        {"metric": names, "value": figures(np.arange(len(targets))), "low": ends[:, 0], "high": ends[:, 1]}
    )


def by_class(probabilities, targets, episodes, classes):
    """DataFrame of class, images, precision, recall and F1, each with its interval: <name>_low, <name>_high."""
    said, numbers = probabilities.argmax(1), range(len(classes))

    def figures(index):
        scores = sk.precision_recall_fscore_support(targets[index], said[index], labels=numbers, zero_division=0)[:3]
        absent = np.bincount(targets[index], minlength=len(classes)) == 0
        return np.where(np.tile(absent, 3), np.nan, np.concatenate(scores))

    ends = intervals.of(figures, episodes).reshape(3, len(classes), 2)
    values = figures(np.arange(len(targets))).reshape(3, len(classes))
    table = {"class": list(classes), "images": np.bincount(targets, minlength=len(classes))}
    for number in numbers:
        for place, chosen in ((0, said == number), (1, targets == number)):  # precision and recall are shares, too
            if chosen.any():
                figure = intervals.share((said == targets)[chosen], np.asarray(episodes)[chosen], draws=500)
                ends[place, number] = figure.low, figure.high
    for place, name in enumerate(("precision", "recall", "F1")):
        table |= {name: values[place], f"{name}_low": ends[place, :, 0], f"{name}_high": ends[place, :, 1]}
    return pd.DataFrame(table)


def _areas(scores, positive):
    """(area under ROC, average precision); nan where one class is absent."""
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    return sk.roc_auc_score(positive, scores), sk.average_precision_score(positive, scores)


def curves(probabilities, targets, classes):
    """ROC and precision-recall curves: a list of dicts of class, roc (false positive rate, recall), pr (recall, precision), area, average_precision.

    One curve for two classes, that of the last; else one against the rest for each class that the test side has.
    """
    numbers = [len(classes) - 1] if len(classes) == 2 else range(len(classes))
    found = []
    for number in numbers:
        positive = targets == number
        area, average = _areas(probabilities[:, number], positive)
        if np.isnan(area):
            continue
        false_alarms, hits, _ = sk.roc_curve(positive, probabilities[:, number])
        precision, recall, _ = sk.precision_recall_curve(positive, probabilities[:, number])
        found.append(
            {
                "class": classes[number],
                "roc": (false_alarms, hits),
                "pr": (recall, precision),
                "area": area,
                "average_precision": average,
            }
        )
    return found


def calibration(probabilities, targets):
    """The reliability diagram: DataFrame of confidence, accuracy, images for each of BINS bins of the highest probability that is not empty."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == targets
    frame = pd.DataFrame(
        {
            "bin": np.minimum((sure * BINS).astype(int), BINS - 1),
            "confidence": sure,
            "accuracy": right.astype(float),
            "images": 1,
        }
    )
    return frame.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "images": "sum"}).reset_index(drop=True)


def calibration_error(probabilities, targets):
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 5), 0..1."""
    bins = calibration(probabilities, targets)
    return float((bins["images"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / bins["images"].sum())


def costs(probabilities, targets, miss, false_alarm):
    """Cost an image at each threshold of the positive class's probability: (thresholds, costs), float (99,) each. Two classes."""
    thresholds = np.arange(1, 100) / 100
    said = probabilities[:, 1][:, None] >= thresholds
    positive = (targets == 1)[:, None]
    return thresholds, (miss * (positive & ~said) + false_alarm * (~positive & said)).mean(0)


def cheapest(thresholds, cost):
    """The threshold of least cost; the middle one of several."""
    best = np.flatnonzero(cost <= cost.min() + 1e-12)
    return float(thresholds[best[len(best) // 2]])


def slices(rows, right):
    """Accuracy by camera, hour, light and quality, worst first: DataFrame of slice, value, images, episodes, accuracy, low, high.

    rows: DataFrame as of baselines.joined, the test side; right: bool (n,). Returns the table and what could not be sliced by, in words.
    """
    from lakevision.dataset import episodes

    groups, missing = {"camera": rows["device"].fillna("unknown").astype(str)}, []
    timed = episodes.timed(rows)
    if timed.any():
        start = rows["captured_at"].dt.hour // 6 * 6
        groups["hour"] = (start.map("{:02d}".format) + " to " + (start + 6).map("{:02d}".format) + " h UTC").where(
            timed, "no time"
        )
    else:
        missing.append("slices by hour: no capture times")
    if "brightness" in rows and rows["brightness"].notna().any():
        light = pd.cut(
            rows["brightness"].astype(float),
            [-0.01, 0.25, 0.5, 1.01],
            labels=["dark (under 0.25)", "medium", "bright (over 0.5)"],
        )
        groups["light"] = light.astype(str)
    else:
        missing.append("slices by light: no brightness in the table images")
    if "quality" in rows:
        scores = pd.DataFrame(
            [
                {name: value for name, value in dict(own or {}).items() if name.endswith("_score")}
                for own in rows["quality"]
            ],
            index=rows.index,
        ).astype(float)
        for name in scores:
            low = scores[name] <= scores[name].quantile(0.2)
            if 0 < low.sum() < len(rows) and scores[name].nunique() > 1:
                groups[name.removesuffix("_score")] = low.map({True: "the lowest fifth", False: "the others"})
    else:
        missing.append("slices by quality: no quality scores in the table images")
    found = []
    for name, values in groups.items():
        for value in sorted(values.unique()):
            chosen = (values == value).to_numpy()
            if chosen.sum() >= FEWEST:
                figure = intervals.share(right[chosen], rows["episode"].to_numpy()[chosen], draws=500)
                found.append((name, value, figure.count, figure.episodes, figure.value, figure.low, figure.high))
    table = pd.DataFrame(found, columns=["slice", "value", "images", "episodes", "accuracy", "low", "high"])
    return table.sort_values(["accuracy", "images"], ascending=[True, False], ignore_index=True), missing
