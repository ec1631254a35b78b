"""Repeats a training from its MLflow record alone, and compares the two models.

    bash notebooks/run.sh repeat RUN_ID

The repeat logs a run of its own, tagged with the run that it repeats. It registers and promotes nothing, and changes no
table.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lakevision.dataset import cache, feed
from lakevision.evaluation import evaluate
from lakevision.ingest import tables
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.release import run_record
from lakevision.release.run_record import NotRepeatable, Record
from lakevision.training import loop, ranks, training_record

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Spark's messages if the files of a Delta version have been removed.
GONE = (
    "FileNotFound",
    "does not exist",
    "Cannot time travel",
    "VERSION_NOT_FOUND",
    "DELTA_FILE_NOT_FOUND",
    "recreateVersion",
    "MISSING_PART_FILES",
)


@dataclass
class Comparison:
    """The recorded model (then) and the repeated one (now).

    accuracies: on the same test images; weights_apart: largest difference of a weight; probabilities_apart: mean
    absolute difference over images and classes; losses: (recorded, repeated) validation loss of each epoch.
    """

    equal: bool
    accuracy_then: float
    accuracy_now: float
    weights_apart: float
    probabilities_apart: float
    losses: list[tuple[float, float]]
    tolerance: float

    @property
    def agrees(self) -> bool:
        """True for equal weights, or if accuracy and probabilities are both within the tolerance."""
        return self.equal or (
            abs(self.accuracy_now - self.accuracy_then) <= self.tolerance and self.probabilities_apart <= self.tolerance
        )

    def lines(self) -> list[str]:
        """The comparison as lines of text."""
        rows = [
            f"epoch {number:>3}  validation loss {then:.6f}, repeated {now:.6f}"
            for number, (then, now) in enumerate(self.losses, start=1)
        ]
        weights, probabilities = f"{self.weights_apart:.3g}", f"{self.probabilities_apart:.3g}"
        apart = f"not equal: {weights} apart at most; probabilities {probabilities} on average"
        result = "agrees" if self.agrees else "DOES NOT AGREE"
        return [
            *rows,
            f"test accuracy {self.accuracy_then:.4f}, repeated {self.accuracy_now:.4f}",
            f"weights {'equal to the bit' if self.equal else apart}",
            f"{result} (equal weights, or accuracy and probabilities within {self.tolerance:g}: "
            "evaluation.repeat_tolerance)",
        ]


def demand_images(spark: SparkSession, places: workspace.Places, record: Record) -> None:
    """Raises NotRepeatable if the recorded Delta version is unreadable, or lacks photographs of the training."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    tables.create(spark, places)
    keys, version = ["path", "sha256"], record.delta_version
    wanted = spark.createDataFrame(record.placements[keys])
    try:
        images = tables.at(spark, places, "images", version).select(keys)
        count = images.join(F.broadcast(wanted), keys, "left_semi").count()
    except (PySparkException, Py4JJavaError) as error:
        if not any(sign in str(error) for sign in GONE):
            raise
        raise NotRepeatable(
            f"version {version} of images can't be read any more: VACUUM has removed its files, which are kept for "
            "ingest.retention_days. The training can't be repeated; its model is still in its run"
        ) from error
    if count != len(record.placements):
        raise NotRepeatable(
            f"version {version} of images holds {count} of the {len(record.placements)} photographs that the run was "
            "trained on: this is another lakehouse, or the table was made anew; name the right one by --images or "
            "--set storage.root"
        )


def train_again(spark: SparkSession, record: Record) -> tuple[Comparison, str]:
    """Trains the recorded setting again on the recorded data and compares. Returns (comparison, id of the new run).

    Raises NotRepeatable, ranks.RankFailed.
    """
    import mlflow

    cfg, places = record.cfg, workspace.places(record.cfg)
    demand_images(spark, places, record)
    experiment = tracking.start(cfg, places)
    with mlflow.start_run(
        experiment_id=experiment, run_name=f"repeat of {record.run_id[:8]}", tags={"repeats": record.run_id}
    ) as own:
        tracking.record(cfg, record.delta_version, record.placements, labels_version=record.labels_version)
        mlflow.log_dict({"differences": run_record.differences(record)}, "differences.json")
        pixels = cache.build(spark, cfg, places, record.placements, record.delta_version)
        trained = ranks.train(
            spark, cfg, places, pixels, record.setting, {"uri": places.mlflow_uri, "run_id": own.info.run_id}
        )
        training_record.record_training(record.setting, trained)
        network = loop.with_weights(record.setting, trained.result.weights)
        tracking.record_network(network)
        comparison = compare(record, trained, network, evaluate.load(pixels)["test"])
        mlflow.log_metrics(
            {
                "test.accuracy": comparison.accuracy_now,
                "weights_apart": comparison.weights_apart,
                "probabilities_apart": comparison.probabilities_apart,
            }
        )
        mlflow.log_dict({**dataclasses.asdict(comparison), "agrees": comparison.agrees}, "comparison.json")
        mlflow.set_tag("agrees", comparison.agrees)
    return comparison, own.info.run_id


def compare(record: Record, trained: ranks.Trained, network: Any, test: feed.Arrays) -> Comparison:
    """Compares a recorded training with its repeat. network: the repeat's Keras model with its weights."""
    import keras

    old = keras.models.load_model(record.model, compile=False)
    then, now = (loop.predict(model, test.pixels) for model in (old, network))
    weights = zip(old.get_weights(), trained.result.weights, strict=True)
    accuracy = loop.score(then, test.targets)[1] if record.accuracy is None else record.accuracy
    epochs = zip(record.training["history"], trained.result.history, strict=False)
    return Comparison(
        record.training["digest"] == trained.result.digest,
        accuracy,
        loop.score(now, test.targets)[1],
        max(float(np.abs(before - after).max()) for before, after in weights),
        float(np.abs(then - now).mean()),
        [(before["val_loss"], after["val_loss"]) for before, after in epochs],
        record.cfg.evaluation.repeat_tolerance,
    )


def main(run_id: str, now: config.Config) -> int:
    """Repeats a run and prints differences and comparison. Returns 0 if the repeat agrees, else 1.

    now: the settings of today. Raises NotRepeatable, config.ConfigError.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = run_record.read(run_id, now, folder)
        print(
            f"repeats {run_id}: images, version {record.delta_version}; {len(record.placements)} photographs; "
            f"{record.training['ranks']} ranks, {record.setting.epochs} epochs of {record.setting.model}"
        )
        differences = [f"differs: {line}" for line in run_record.differences(record)]
        print(*differences or ["code and packages as they were"], sep="\n", flush=True)
        spark = workspace.spark(record.cfg)
        try:
            comparison, own = train_again(spark, record)
        finally:
            spark.stop()
    print(*comparison.lines(), f"logged as run {own}", sep="\n")
    return 0 if comparison.agrees else 1
