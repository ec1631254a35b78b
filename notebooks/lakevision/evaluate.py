"""What a model is worth: figures on episodes it has not seen, beside baselines that cannot see the object, and a verdict."""

import os
import tempfile
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import confusion_matrix

from lakevision import train

MARGIN = 0.05  # a model that beats a baseline by less than this has not been shown to see more than it


@dataclass
class Evaluation:
    """Figures on the test side. accuracy and its 95 % interval over episodes; baselines; confusion: counts, rows are the truth."""

    accuracy: float
    low: float
    high: float
    metadata_baseline: float
    majority_baseline: float
    confusion: list
    verdict: str
    reasons: list

    def figures(self):
        return asdict(self)


def on_test(network, test, sides, images, warnings, classes):
    """Judges a Keras model on the test side. test: feed.Arrays; sides, warnings: of split.assign; images: their metadata. Returns Evaluation."""
    episodes = sides.set_index("sha256")["episode"].reindex(test.keys).to_numpy()
    return evaluate(train.predict(network, test.pixels), test.targets, episodes, metadata_baseline(images, sides), warnings, classes)


def log(evaluation, network):
    """Logs the figures and the Keras file into the active MLflow run."""
    import mlflow

    figures = evaluation.figures()
    mlflow.log_metrics({f"test.{name}": figures[name] for name in ("accuracy", "low", "high", "metadata_baseline", "majority_baseline")})
    mlflow.set_tag("verdict", evaluation.verdict)
    mlflow.log_dict(figures, "evaluation.json")
    with tempfile.TemporaryDirectory() as folder:
        network.save(os.path.join(folder, "model.keras"))
        mlflow.log_artifact(os.path.join(folder, "model.keras"), "keras")


def evaluate(probabilities, targets, episodes, metadata, warnings, classes):
    """Judges predictions. probabilities: float (n, classes); targets: int (n,); episodes: n names; metadata: (accuracy of the metadata baseline,
    accuracy of saying the most frequent class); warnings: what the split could not rule out. Returns Evaluation."""
    right = probabilities.argmax(1) == targets
    low, high = interval(right, episodes)
    baseline, majority = metadata
    accuracy = float(right.mean())
    verdict, reasons = judge(accuracy, low, baseline, majority, warnings)
    confusion = confusion_matrix(targets, probabilities.argmax(1), labels=range(len(classes)))
    return Evaluation(accuracy, low, high, baseline, majority, confusion.tolist(), verdict, reasons)


def judge(accuracy, low, metadata, majority, warnings):
    """("evaluable" | "weak" | "not evaluable", reasons in words). low: the lower end of accuracy's interval."""
    reasons = []
    if metadata > majority + MARGIN and metadata >= accuracy - MARGIN:
        reasons.append(f"a baseline that sees no pixel (camera, day, hour, EXIF) reaches {metadata:.3f}, the model {accuracy:.3f}: "
                       "this set can't show that the model sees the object")
        return "not evaluable", reasons + list(warnings)
    if low <= majority:
        reasons.append(f"the model's accuracy of {accuracy:.3f} (at least {low:.3f}) is not above saying the most frequent class ({majority:.3f})")
        return "weak", reasons + list(warnings)
    if warnings:
        return "weak", list(warnings)
    return "evaluable", [f"the model reaches {accuracy:.3f} on episodes it has not seen, metadata alone {metadata:.3f}"]


def interval(right, episodes, draws=2000, seed=0):
    """95 % percentile bootstrap of accuracy over episodes, not frames: frames of one episode are near copies (Efron and Tibshirani, 1993, ch. 13).
    right: bool (n,); episodes: n names. Returns (low, high)."""
    groups = pd.DataFrame({"right": right, "episode": list(episodes)}).groupby("episode")["right"].agg(["sum", "count"]).to_numpy()
    drawn = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    accuracy = groups[drawn, 0].sum(1) / groups[drawn, 1].sum(1)
    return tuple(float(value) for value in np.quantile(accuracy, (0.025, 0.975)))


def metadata_baseline(images, sides):
    """Accuracy on the test side of a random forest that sees no pixel: (its accuracy, that of the most frequent class).

    images: DataFrame of path, device, captured_at, captured_from, width, height, exif; sides: DataFrame of path, label, split.
    """
    rows = sides[["path", "label", "split"]].merge(images.drop(columns="label", errors="ignore"), on="path")
    features = metadata_features(rows)
    test = (rows["split"] == "test").to_numpy()
    majority = rows.loc[~test, "label"].mode()[0]
    forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=0, n_jobs=1).fit(features[~test], rows.loc[~test, "label"])
    return (float(forest.score(features[test], rows.loc[test, "label"])), float((rows.loc[test, "label"] == majority).mean()))


def metadata_features(rows):
    """What can be known of a photograph without looking at it, as a float DataFrame: when, which camera, what exposure, what size."""
    timed = rows["captured_from"] != "file"
    when = rows["captured_at"]
    hour = (when.dt.hour + when.dt.minute / 60) * (2 * np.pi / 24)
    features = pd.DataFrame({
        "day": (when - when.min()).dt.total_seconds() // 86400, "hour_sin": np.sin(hour), "hour_cos": np.cos(hour), "weekday": when.dt.weekday,
    }).where(timed, -1.0)
    for tag in ("ExposureTime", "ISOSpeedRatings", "FNumber", "FocalLength", "Orientation", "GPSLatitude"):
        features[tag] = pd.to_numeric(rows["exif"].map(lambda tags, tag=tag: (tags or {}).get(tag, "")).str.split(" ").str[0], errors="coerce").fillna(-1)
    features["width"], features["height"] = rows["width"], rows["height"]
    return pd.concat([features, pd.get_dummies(rows["device"], prefix="device")], axis=1).astype(float)
