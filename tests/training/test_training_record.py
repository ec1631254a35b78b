"""The record of a training holds everything that a repeat compares."""

import json
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest

from lakevision.platform import config
from lakevision.training import loop, ranks, setting, training_record


@pytest.mark.slow
def test_run_holds_setting_and_course(tmp_path):
    cache = SimpleNamespace(transform="decode|upright|rgb|resize(32)", classes=["empty", "package"])
    made = setting.first_setting(config.load("local"), cache)
    result = loop.Result([np.zeros(2, np.float32)], [{"loss": 0.5, "val_loss": 0.6}])
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("record", artifact_location=(tmp_path / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        trained = ranks.Trained(result, "collectives", [result.digest, result.digest], 1.0, 2.0)
        training_record.record_training(made, trained)
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(tmp_path / "fetched")))
    kept = json.loads((folder / "setting.json").read_text())
    assert setting.Setting(**kept) == made
    course = json.loads((folder / "training.json").read_text())
    assert (course["digest"], course["ranks"], course["weights"]) == (result.digest, 2, "")
    assert course["engine"] == "collectives"
    assert course["history"] == result.history
