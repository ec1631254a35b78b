"""Repeats a training from its MLflow record alone, and says how far the two are apart.

    bash notebooks/run.sh --repeat RUN_ID

The record is what tracking.record and its siblings log: config, Delta version, placements, best setting, ranks, commit, package versions, weights.
The repeat logs a run of its own, tagged with the one that it repeats. It registers and promotes nothing, and changes no table.
"""

import dataclasses
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lakevision.dataset import cache
from lakevision.dataset.object_region import Region
from lakevision.evaluation import evaluate
from lakevision.ingest import tables
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.training import backbone, horovod_ranks, loop, training_record

GONE = (
    "FileNotFound",
    "does not exist",
    "Cannot time travel",
    "VERSION_NOT_FOUND",
    "DELTA_FILE_NOT_FOUND",
    "recreateVersion",
    "MISSING_PART_FILES",
)
ARTIFACTS = ("config.json", "versions.json", "split.csv", "setting.json", "training.json", "keras/model.keras")


class NotRepeatable(RuntimeError):
    """The record, or the data that it names, is not there any more; the message says what is missing and what to do."""


@dataclass
class Record:
    """What a run was made from. placements: DataFrame of path, sha256, label, episode, split; training: dict of training.json; notes: settings that
    only one of the record and this code knows, in words; model: path of the Keras file, fetched; accuracy: on the test side, None where it was not
    recorded."""

    run_id: str
    cfg: config.Config
    delta_version: int
    labels_version: str
    commit: str
    versions: dict
    placements: pd.DataFrame
    setting: loop.Setting
    training: dict
    notes: list
    model: str
    accuracy: float


@dataclass
class Comparison:
    """accuracies on the same test images; weights_apart: largest difference of a weight; probabilities_apart: mean absolute difference over images
    and classes; losses: (recorded, repeated) validation loss of each epoch."""

    equal: bool
    accuracy_then: float
    accuracy_now: float
    weights_apart: float
    probabilities_apart: float
    losses: list
    tolerance: float

    @property
    def agrees(self):
        """Equal weights; else accuracy and probabilities both within the tolerance."""
        return self.equal or (
            abs(self.accuracy_now - self.accuracy_then) <= self.tolerance and self.probabilities_apart <= self.tolerance
        )

    def lines(self):
        """The comparison as lines of text."""
        rows = [
            f"epoch {number:>3}  validation loss {then:.6f}, repeated {now:.6f}"
            for number, (then, now) in enumerate(self.losses, start=1)
        ]
        apart = f"not equal: {self.weights_apart:.3g} apart at most; probabilities {self.probabilities_apart:.3g} on average"
        said = "agrees" if self.agrees else "DOES NOT AGREE"
        return [
            *rows,
            f"test accuracy {self.accuracy_then:.4f}, repeated {self.accuracy_now:.4f}",
            f"weights {'equal to the bit' if self.equal else apart}",
            f"{said} (equal weights, or accuracy and probabilities within {self.tolerance:g}: evaluation.repeat_tolerance)",
        ]


def read(run_id, now, folder):
    """The Record of a run. now: the Config of today, which says where MLflow and the lakehouse are; folder: to fetch artifacts into.

    Raises NotRepeatable, config.ConfigError.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = workspace.places(now).mlflow_uri
    try:
        run = MlflowClient(uri).get_run(run_id)
    except MlflowException as error:
        raise NotRepeatable(
            f"run {run_id} is not in this lakehouse's MLflow ({error}): name the one it was trained in, by the same --images, or "
            "--set storage.root=<folder>"
        ) from error
    kept = {name: _fetch(uri, run_id, name, folder) for name in ARTIFACTS}
    cfg, notes = config.of_record(_json(kept["config.json"]), now)
    setting, more = _setting(_json(kept["setting.json"]))
    training = _json(kept["training.json"])
    if backbone.frozen(setting):
        if setting.weights != "imagenet" and not Path(setting.weights).is_file():
            raise NotRepeatable(
                f"the backbone's weights {setting.weights} are no longer there: put the file back (training.weights of run {run_id})"
            )
        if backbone.source(setting) != training["weights"]:
            more.append(f"weights of the backbone: {training['weights']} then, {backbone.source(setting)} now")
    cfg = replace(cfg, training=replace(cfg.training, ranks=training["ranks"]))
    tags = run.data.tags
    return Record(
        run_id,
        cfg,
        int(tags["delta_version"]),
        tags.get("labels_version", ""),
        tags["commit"],
        _json(kept["versions.json"]),
        pd.read_csv(kept["split.csv"], dtype=str, keep_default_na=False),
        setting,
        training,
        notes + more,
        kept["keras/model.keras"],
        run.data.metrics.get("test.accuracy"),
    )


def _fetch(uri, run_id, name, folder):
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=name, tracking_uri=uri, dst_path=str(folder)
        )
    except (MlflowException, OSError) as error:
        raise NotRepeatable(
            f"run {run_id} has no {name} ({error}): it is no finished training of 03_train, or one of before runs were recorded "
            "whole; give the run that 03_train calls `final`"
        ) from error


def _json(path):
    return json.loads(Path(path).read_text())


def _setting(values):
    """(loop.Setting, what is not known on both sides in words) from setting.json."""
    fields = {field.name: field for field in dataclasses.fields(loop.Setting)}
    notes = [
        f"setting {name} = {values[name]!r} was recorded; this code has no such setting"
        for name in values
        if name not in fields
    ]
    absent = [name for name in fields if name not in values]
    missing = [name for name in absent if fields[name].default is dataclasses.MISSING]
    if missing:
        raise NotRepeatable(
            f"setting.json lacks {', '.join(missing)}: this code can't train without; check out the commit of the record"
        )
    notes += [f"setting {name} was not recorded; it is {fields[name].default!r} now" for name in absent]
    known = {name: value for name, value in values.items() if name in fields}
    if known.get("region"):
        known["region"] = Region(tuple(known["region"]["box"]), known["region"]["source"])
    return loop.Setting(**known), notes


def differences(record):
    """What is not as it was when the run was made: commit, packages, settings that one side does not know. List of lines."""
    now, commit = tracking.versions(), workspace.commit()
    lines = [] if commit == record.commit else [f"code: commit {record.commit} then, {commit} now"]
    if record.commit.endswith("+changes"):
        lines.append("code: it was trained from a tree with changes that no commit holds")
    lines += [
        f"{name}: {record.versions.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted(record.versions.keys() | now.keys())
        if record.versions.get(name) != now.get(name)
    ]
    return lines + record.notes


def demand_images(spark, places, record):
    """Raises NotRepeatable where the Delta version of a record can't be read any more, or holds other photographs than those that were trained on."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    tables.create(spark, places)
    keys = ["path", "sha256"]
    wanted = spark.createDataFrame(record.sides[keys])
    try:
        found = (
            tables.at(spark, places, "images", record.delta_version)
            .select(keys)
            .join(F.broadcast(wanted), keys, "left_semi")
            .count()
        )
    except (PySparkException, Py4JJavaError) as error:
        if not any(sign in str(error) for sign in GONE):
            raise
        raise NotRepeatable(
            f"version {record.delta_version} of images can't be read any more: VACUUM has removed its files, which are kept for "
            "ingest.retention_days. The training can't be repeated; its model is still in its run"
        ) from error
    if found != len(record.sides):
        raise NotRepeatable(
            f"version {record.delta_version} of images holds {found} of the {len(record.sides)} photographs that the run was trained "
            "on: this is another lakehouse, or the table was made anew; name the right one by --images or --set storage.root"
        )


def train_again(spark, record):
    """Trains the recorded setting anew from the recorded data, logs that as a run of its own and compares. Returns (Comparison, id of that run).

    Raises NotRepeatable, horovod_ranks.RankFailed.
    """
    import mlflow

    cfg, places = record.cfg, workspace.places(record.cfg)
    demand_images(spark, places, record)
    experiment = tracking.start(cfg, places)
    with mlflow.start_run(
        experiment_id=experiment, run_name=f"repeat of {record.run_id[:8]}", tags={"repeats": record.run_id}
    ) as own:
        tracking.record(cfg, record.delta_version, record.sides, labels_version=record.labels_version)
        mlflow.log_dict({"differences": differences(record)}, "differences.json")
        pixels = cache.build(spark, cfg, places, record.sides, record.delta_version)
        trained = horovod_ranks.train(
            spark, cfg, places, pixels, record.setting, {"uri": places.mlflow_uri, "run_id": own.info.run_id}
        )
        training_record.record_training(record.setting, trained)
        network = loop.with_weights(record.setting, trained.result.weights)
        tracking.record_network(network)
        found = compare(record, trained, network, evaluate.load(pixels)["test"])
        mlflow.log_metrics(
            {
                "test.accuracy": found.accuracy_now,
                "weights_apart": found.weights_apart,
                "probabilities_apart": found.probabilities_apart,
            }
        )
        mlflow.log_dict({**dataclasses.asdict(found), "agrees": found.agrees}, "comparison.json")
        mlflow.set_tag("agrees", found.agrees)
    return found, own.info.run_id


def compare(record, trained, network, test):
    """The Comparison of a Record with a repeat. trained: horovod_ranks.Trained; network: the Keras model with its weights; test: feed.Arrays."""
    import keras

    old = keras.models.load_model(record.model, compile=False)
    then, now = (loop.predict(model, test.pixels) for model in (old, network))
    apart = max(float(np.abs(one - two).max()) for one, two in zip(old.get_weights(), trained.result.weights))
    accuracy = loop.score(then, test.targets)[1] if record.accuracy is None else record.accuracy
    losses = [
        (one["val_loss"], two["val_loss"]) for one, two in zip(record.training["history"], trained.result.history)
    ]
    return Comparison(
        record.training["digest"] == trained.result.digest,
        accuracy,
        loop.score(now, test.targets)[1],
        apart,
        float(np.abs(then - now).mean()),
        losses,
        record.cfg.evaluation.repeat_tolerance,
    )


def main(run_id, now):
    """What run.py --repeat does: prints differences and comparison. now: the Config of today. Returns 0 where the repeat agrees, else 1.

    Raises NotRepeatable."""
    with tempfile.TemporaryDirectory() as folder:
        record = read(run_id, now, folder)
        print(
            f"repeats {run_id}: images, version {record.delta_version}; {len(record.sides)} photographs; {record.training['ranks']} ranks, "
            f"{record.setting.epochs} epochs of {record.setting.model}"
        )
        print(
            *[f"differs: {line}" for line in differences(record)] or ["code and packages as they were"],
            sep="\n",
            flush=True,
        )
        spark = workspace.spark(record.cfg)
        try:
            found, own = train_again(spark, record)
        finally:
            spark.stop()
    print(*found.lines(), f"logged as run {own}", sep="\n")
    return 0 if found.agrees else 1
