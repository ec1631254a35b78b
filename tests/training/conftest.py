"""A small lakehouse with its cache, built once, for the tests of the search."""

import pytest

from lakevision.dataset import cache, split, split_table
from lakevision.ingest import capture, stream, tables
from lakevision.registry import tracking
from lakevision.training import loop


@pytest.fixture(scope="session")
def small_cache(spark, tmp_path_factory):
    """(cfg, places, Cache, Setting) of 48 simulated photographs at 32 pixels."""
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('tune')}",
            "storage.schema=test_tune",
            "capture.photographs=48",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
            "tuning.epochs=2",
        ],
    )
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    built = cache.build(spark, cfg, places, placements, version)
    return cfg, places, built, loop.first_setting(cfg, built)


@pytest.fixture(scope="module")
def prepared(small_cache):
    """(cfg, places, Cache, Setting, experiment), with MLflow pointed at the lakehouse."""
    cfg, places, *_ = small_cache
    return *small_cache, tracking.start(cfg, places)
