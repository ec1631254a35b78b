"""Shared by the tests of cache, training loop and ranks: one small lakehouse with its cache."""

from dataclasses import replace

import pytest

from lakevision.dataset import cache, feed, split, split_table
from lakevision.ingest import capture, stream, tables
from lakevision.training import loop


@pytest.fixture(scope="session")
def cached(spark, tmp_path_factory):
    """(cfg, places, sides, Cache) of 64 simulated photographs."""
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('train')}",
            "storage.schema=test_training",
            "capture.photographs=64",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
        ],
    )
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    return cfg, places, placements, cache.build(spark, cfg, places, placements, version)


@pytest.fixture(scope="session")
def arrays(cached):
    return {side: feed.load(cached[3], side) for side in split.SPLIT_NAMES}


@pytest.fixture
def setting(cached):
    return replace(loop.first_setting(cached[0], cached[3]), epochs=2, width=4)
