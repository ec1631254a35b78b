"""MLflow tracking: the experiment, the record of each training run, and the child runs that workers write."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakevision.platform import workspace

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from mlflow import MlflowClient

    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places

# The packages that decide a model's numbers.
PACKAGES = (
    *("tensorflow-cpu", "tensorflow", "keras", "horovod", "petastorm", "hyperopt"),
    *("pyspark", "delta-spark", "pyarrow", "numpy", "pillow", "mlflow"),
)


def start(cfg: Config, places: Places) -> str:
    """Connects this process to the configured MLflow server or file, and creates the experiment. Returns its id.

    Call this in the driver before any worker does: two processes that initialise one SQLite file at once crash.
    """
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(places.mlflow_uri)
    mlflow.set_registry_uri(places.registry_uri)
    name = cfg.storage.experiment
    existing = mlflow.get_experiment_by_name(name)
    if existing:
        return existing.experiment_id
    local = places.mlflow_uri.startswith("sqlite:")
    return mlflow.create_experiment(
        name, artifact_location=Path(places.root, "mlartifacts").as_uri() if local else None
    )


def record(cfg: Config, delta_version: int, placements: pd.DataFrame, **tags: Any) -> None:
    """Logs everything that is needed to repeat the active run, before the training starts.

    The record consists of config, Delta version, placements, commit and package versions; release/run_record.py reads
    it back. placements: DataFrame of split.used. MLflow cuts params at 6000 characters, so the whole config is also an
    artifact.
    """
    import mlflow

    mlflow.log_params({**cfg.flat(), "delta_version": delta_version})
    mlflow.set_tags({"commit": workspace.commit(), "delta_version": delta_version, **tags})
    mlflow.log_dict(asdict(cfg), "config.json")
    mlflow.log_dict(versions(), "versions.json")
    mlflow.log_text(placements[["path", "sha256", "label", "episode", "split"]].to_csv(index=False), "split.csv")


def record_network(network: keras.Model) -> None:
    """Logs a Keras model into the active run as keras/model.keras."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        network.save(os.path.join(folder, "model.keras"))
        mlflow.log_artifact(os.path.join(folder, "model.keras"), "keras")


def versions() -> dict[str, str]:
    """{package or python: version} of the installed PACKAGES."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES if _installed(name)}}


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def child(uri: str, experiment_id: str, parent: str, name: str, params: Mapping[str, Any]) -> tuple[MlflowClient, str]:
    """Opens a child run from a process without an active run, such as a Spark worker. Returns (client, run id).

    parent: id of the parent run; name: of the child run.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param

    os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    client = MlflowClient(uri)
    run = client.create_run(experiment_id, tags={"mlflow.parentRunId": parent}, run_name=name)
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return client, run.info.run_id


def log_epoch(client: MlflowClient, run_id: str, epoch: int, figures: Mapping[str, float]) -> None:
    """Logs an epoch's figures into a run, in one call: every call is a database write or an HTTP request."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, value, now, epoch) for key, value in figures.items()])


def login_environment(places: Places) -> dict[str, str]:
    """Environment variables with the notebook's login, for a subprocess. Empty except on Databricks."""
    from mlflow.utils.databricks_utils import get_databricks_env_vars

    return get_databricks_env_vars(places.mlflow_uri)
