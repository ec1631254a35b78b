"""Tracking in a SQLite file: one experiment, records of a run, child runs."""

import json

import pandas as pd
import pytest

from lakevision.platform import config, workspace
from lakevision.registry import tracking


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """(Config, Places, experiment id) with MLflow in a SQLite file."""
    cfg = config.load("local", [f"storage.root={tmp_path_factory.mktemp('tracking')}"])
    places = workspace.places(cfg)
    return cfg, places, tracking.start(cfg, places)


def test_second_start_finds_the_same_experiment(lake):
    cfg, places, experiment = lake
    assert tracking.start(cfg, places) == experiment


def test_record_holds_config_versions_and_placements(lake):
    import mlflow

    cfg, _, experiment = lake
    rows = pd.DataFrame([["a.jpg", "0" * 64, "package", "one", "train"]])
    rows.columns = ["path", "sha256", "label", "episode", "split"]
    with mlflow.start_run(experiment_id=experiment) as run:
        tracking.record(cfg, 7, rows, split_scheme="seed 1")
    kept = mlflow.get_run(run.info.run_id)
    assert kept.data.params["delta_version"] == "7" and kept.data.tags["split_scheme"] == "seed 1"
    text = mlflow.artifacts.load_text(f"{kept.info.artifact_uri}/split.csv")
    assert text.splitlines()[1] == "a.jpg," + "0" * 64 + ",package,one,train"
    assert json.loads(mlflow.artifacts.load_text(f"{kept.info.artifact_uri}/versions.json")) == tracking.versions()


def test_child_run_keeps_parent_params_and_epochs(lake):
    import mlflow

    _, places, experiment = lake
    with mlflow.start_run(experiment_id=experiment) as parent:
        client, run_id = tracking.child(places.mlflow_uri, experiment, parent.info.run_id, "trial", {"width": 8})
    for epoch, loss in enumerate((0.5, 0.25)):
        tracking.log_epoch(client, run_id, epoch, {"loss": loss})
    run = client.get_run(run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.data.params == {"width": "8"}
    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [0.5, 0.25]


def test_login_environment_is_empty_without_databricks(lake):
    assert tracking.login_environment(lake[1]) == {}
