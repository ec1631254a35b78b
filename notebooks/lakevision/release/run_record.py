"""Reads the MLflow record of a training: everything that is needed to repeat the run.

The record consists of what registry/tracking.py and training/training_record.py log: config, Delta version, placements,
best setting, ranks, commit, package versions, weights.
"""

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lakevision.dataset.object_region import Region
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.training import backbone, loop

ARTIFACTS = ("config.json", "versions.json", "split.csv", "setting.json", "training.json", "keras/model.keras")


class NotRepeatable(RuntimeError):
    """The record, or data that it names, no longer exists; the message names what is missing and the remedy."""


@dataclass
class Record:
    """What a run was made from.

    placements: path, sha256, label, episode, split; training: content of training.json; notes: settings that only the
    record or only this code has, in words; model: path of the fetched Keras file; accuracy: on the test split, None if
    it was not recorded.
    """

    run_id: str
    cfg: config.Config
    delta_version: int
    labels_version: str
    commit: str
    versions: dict[str, str]
    placements: pd.DataFrame
    setting: loop.Setting
    training: dict
    notes: list[str]
    model: str
    accuracy: float | None


def read(run_id: str, now: config.Config, folder: str | Path) -> Record:
    """The record of a run. Raises NotRepeatable, config.ConfigError.

    now: the settings of today, which name MLflow and the lakehouse; folder: artifacts are fetched into it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = workspace.places(now).mlflow_uri
    try:
        run = MlflowClient(uri).get_run(run_id)
    except MlflowException as error:
        raise NotRepeatable(
            f"run {run_id} is not in this lakehouse's MLflow ({error}): name the lakehouse in which it was trained, "
            "by the same --images, or --set storage.root=<folder>"
        ) from error
    kept = {name: _fetch(uri, run_id, name, folder) for name in ARTIFACTS}
    cfg, notes = config.of_record(_json(kept["config.json"]), now)
    setting, setting_notes = _setting(_json(kept["setting.json"]))
    training = _json(kept["training.json"])
    weights_notes = _compare_weights(run_id, setting, training)
    tags = run.data.tags
    return Record(
        run_id,
        replace(cfg, training=replace(cfg.training, ranks=training["ranks"])),
        int(tags["delta_version"]),
        tags.get("labels_version", ""),
        tags["commit"],
        _json(kept["versions.json"]),
        pd.read_csv(kept["split.csv"], dtype=str, keep_default_na=False),
        setting,
        training,
        notes + setting_notes + weights_notes,
        kept["keras/model.keras"],
        run.data.metrics.get("test.accuracy"),
    )


def differences(record: Record) -> list[str]:
    """What has changed since the run: commit, packages, and settings that only one side has. One line each."""
    now, commit = tracking.versions(), workspace.commit()
    lines = [] if commit == record.commit else [f"code: commit {record.commit} then, {commit} now"]
    if record.commit.endswith("+changes"):
        lines.append("code: the run was trained from a tree with uncommitted changes")
    lines += [
        f"{name}: {record.versions.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted(record.versions.keys() | now.keys())
        if record.versions.get(name) != now.get(name)
    ]
    return lines + record.notes


def _fetch(uri: str, run_id: str, name: str, folder: str | Path) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=name, tracking_uri=uri, dst_path=str(folder)
        )
    except (MlflowException, OSError) as error:
        raise NotRepeatable(
            f"run {run_id} has no {name} ({error}): it is not a finished training of 03_train, or it is older than "
            "complete records; name the run that 03_train calls `final`"
        ) from error


def _json(path: str) -> Any:
    return json.loads(Path(path).read_text())


def _setting(values: dict) -> tuple[loop.Setting, list[str]]:
    """(setting, differences in words) from the content of setting.json."""
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
            f"setting.json lacks {', '.join(missing)}, which this code requires; check out the commit of the record"
        )
    notes += [f"setting {name} was not recorded; it is {fields[name].default!r} now" for name in absent]
    known = {name: value for name, value in values.items() if name in fields}
    if known.get("region"):
        known["region"] = Region(tuple(known["region"]["box"]), known["region"]["source"])
    return loop.Setting(**known), notes


def _compare_weights(run_id: str, setting: loop.Setting, training: dict) -> list[str]:
    """The difference in a frozen backbone's weights, in words. Raises NotRepeatable if their file is gone."""
    if not backbone.frozen(setting):
        return []
    if setting.weights != "imagenet" and not Path(setting.weights).is_file():
        raise NotRepeatable(
            f"the backbone's weights {setting.weights} no longer exist: restore the file "
            f"(training.weights of run {run_id})"
        )
    source = backbone.source(setting)
    if source == training["weights"]:
        return []
    return [f"weights of the backbone: {training['weights']} then, {source} now"]
