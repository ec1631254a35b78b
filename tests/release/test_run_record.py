"""The record of a training, read back from MLflow; missing parts and foreign settings are named."""

import pytest

from lakevision.dataset import split
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.release import run_record

pytestmark = pytest.mark.spark


def test_record_holds_everything_the_training_was_made_from(trained, now, tmp_path):
    cfg, run_id, done = trained.cfg, trained.run_id, trained.result
    record = run_record.read(run_id, now, tmp_path)
    assert record.cfg == cfg and record.notes == []
    assert (
        record.setting.dropout == 0.123
        and record.setting.width == 4
        and record.training["history"] == done.result.history
    )
    assert len(record.placements) == 64 and set(record.placements["split"]) == set(split.SPLIT_NAMES)


def test_missing_run_or_incomplete_record_is_refused(trained, now, tmp_path, command):
    import mlflow

    with pytest.raises(run_record.NotRepeatable, match="not in this lakehouse's MLflow.*storage.root"):
        run_record.read("0" * 32, now, tmp_path)
    with mlflow.start_run(experiment_id=tracking.start(trained.cfg, workspace.places(trained.cfg))) as bare:
        mlflow.set_tag("delta_version", 1)
    with pytest.raises(run_record.NotRepeatable, match="has no config.json"):
        run_record.read(bare.info.run_id, now, tmp_path)
    refused = command("--repeat", trained.run_id, "--set", "training.epochs=3")
    assert refused.returncode == 2 and "takes all settings from the record" in refused.stderr


def test_settings_of_only_one_side_are_named(trained, now):
    from dataclasses import asdict

    values = asdict(trained.cfg)
    values["training"]["old"] = 1
    del values["training"]["swap"]
    made, notes = config.of_record(values, now)
    assert made == trained.cfg
    assert notes == [
        "training.old = 1 was recorded; this code has no such setting",
        "training.swap was not recorded; it is 0.0 now",
    ]
