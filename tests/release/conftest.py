"""Shared by the tests of releases: a small registry, copied for each test, and a recorded training."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import rest_service

from lakevision.platform import config, workspace

sys.path.insert(0, str(Path(__file__).parent))  # for release_cases


@pytest.fixture(scope="session")
def registry_database(tmp_path_factory):
    """The database of a registry with versions 1 and 2, none of them champion. Built once, because it needs
    TensorFlow.
    """
    from mlflow import MlflowClient

    from lakevision.registry import model_registry

    root = tmp_path_factory.mktemp("registry")
    cfg, _ = rest_service.registered(root)
    MlflowClient().delete_registered_model_alias(model_registry.name(cfg), "champion")
    return root / "mlflow.db"


@pytest.fixture
def two(lakehouse, registry_database, tmp_path):
    """(spark, cfg, places) with a copy of the registry and empty tables."""
    from lakevision.ingest import tables
    from lakevision.registry import tracking

    spark, make = lakehouse
    shutil.copy(registry_database, tmp_path / "mlflow.db")
    cfg, places = make()
    tracking.start(cfg, places)
    tables.create(spark, places)
    return spark, cfg, places


@pytest.fixture(scope="session")
def recorded(spark, tmp_path_factory):
    """A training as 03_train records it: cfg, run_id and result. Two ranks at 32 px; the record names another
    Pillow.
    """
    import mlflow

    from lakevision.dataset import cache, split, split_table
    from lakevision.ingest import capture, stream, tables
    from lakevision.registry import tracking
    from lakevision.training import loop, ranks, training_record

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('repeat')}",
            "storage.schema=test_repeat",
            "capture.photographs=64",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
            "evaluation.purpose=" + "x" * 7000,  # MLflow cuts a parameter at 6000 characters
        ],
    )
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    pixels = cache.build(spark, cfg, places, placements, version)
    setting = replace(loop.first_setting(cfg, pixels), epochs=2, width=4, dropout=0.123)
    experiment = tracking.start(cfg, places)
    versions = tracking.versions
    with pytest.MonkeyPatch.context() as patched, mlflow.start_run(experiment_id=experiment) as run:
        patched.setattr(tracking, "versions", lambda: {**versions(), "pillow": "9.0.0"})
        tracking.record(cfg, version, placements, labels_version=tables.version(spark, places, "labels"))
        result = ranks.train(spark, cfg, places, pixels, setting)
        training_record.record_training(setting, result)
        tracking.record_network(loop.with_weights(setting, result.result.weights))
    return SimpleNamespace(cfg=cfg, run_id=run.info.run_id, result=result)


@pytest.fixture
def trained(recorded):
    """The recorded training; this process's MLflow is the one that holds its record."""
    from lakevision.registry import tracking

    tracking.start(recorded.cfg, workspace.places(recorded.cfg))
    return recorded


@pytest.fixture
def now(trained):
    """The settings of today: they name the lakehouse, and have nothing else of the run."""
    return config.load("local", [f"storage.root={trained.cfg.storage.root}"])
