"""MLflow: the experiment, what every run carries, and child runs that workers write."""

import logging
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

from lakevision.platform import workspace


def start(cfg, places):
    """Points this process at the configured MLflow server or file and makes the experiment. Returns its id.

    The driver calls this before any worker does: racing initialisers of one sqlite file crash.
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


def record(cfg, delta_version, placements, **tags):
    """Logs into the active run what it can be repeated from before it has trained: config, Delta version, placements, commit, package versions.

    placements: DataFrame of split.used. Params are cut at 6000 characters, so the whole config is an artifact, too. reproduce.read() reads it all back.
    """
    import mlflow

    mlflow.log_params({**cfg.flat(), "delta_version": delta_version})
    mlflow.set_tags({"commit": workspace.commit(), "delta_version": delta_version, **tags})
    mlflow.log_dict(asdict(cfg), "config.json")
    mlflow.log_dict(versions(), "versions.json")
    mlflow.log_text(placements[["path", "sha256", "label", "episode", "split"]].to_csv(index=False), "split.csv")


def record_network(network):
    """Logs a Keras model into the active run as keras/model.keras."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        network.save(os.path.join(folder, "model.keras"))
        mlflow.log_artifact(os.path.join(folder, "model.keras"), "keras")


def versions():
    """{package or python: version} of what decides a model's numbers."""
    from importlib.metadata import version

    names = (
        "tensorflow-cpu",
        "tensorflow",
        "keras",
        "horovod",
        "petastorm",
        "hyperopt",
        "pyspark",
        "delta-spark",
        "pyarrow",
        "numpy",
        "pillow",
        "mlflow",
    )
    return {"python": platform.python_version(), **{name: version(name) for name in names if _installed(name)}}


def _installed(name):
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def child(uri, experiment_id, parent, name, params):
    """Opens a run under a parent from a process that has no active run, such as a Spark worker. Returns (client, run id)."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    client = MlflowClient(uri)
    run = client.create_run(experiment_id, tags={"mlflow.parentRunId": parent}, run_name=name)
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return client, run.info.run_id


def log_epoch(client, run_id, epoch, figures):
    """Logs an epoch's figures (a dict of floats) into a run, in one call: each is a write to a database, or a request."""
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, value, now, epoch) for key, value in figures.items()])


def login_environment(places):
    """Environment variables with the notebook's login, for a process of its own. Empty except on Databricks."""
    from mlflow.utils.databricks_utils import get_databricks_env_vars

    return get_databricks_env_vars(places.mlflow_uri)
