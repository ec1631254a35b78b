"""Shared by the tests of cache, training loop and ranks: one small lakehouse with its cache."""

from dataclasses import replace

import pytest

from lakevision.dataset import cache, feed, split
from lakevision.ingest import capture, stream, tables
from lakevision.training import loop


@pytest.fixture(scope="session")
def cached(spark, tmp_path_factory):
    """(cfg, where, sides, Cache) of 64 simulated photographs."""
    from lakevision.platform import config, workspace

    cfg = config.load("local", [f"storage.root={tmp_path_factory.mktemp('train')}", "storage.schema=test_training", "capture.photographs=64",
                                "capture.size=96", "training.transform=decode|upright|rgb|resize(32)", "training.batch_size=8"])
    where = workspace.places(cfg)
    capture.land(cfg, where)
    stream.run(spark, cfg, where)
    version = tables.version(spark, where, "images")
    sides = split.used(split.assign(tables.metadata(spark, where, version), cfg.split)[0])
    return cfg, where, sides, cache.build(spark, cfg, where, sides, version)


@pytest.fixture(scope="session")
def arrays(cached):
    return {side: feed.load(cached[3], side) for side in split.SIDES}


@pytest.fixture
def setting(cached):
    return replace(loop.first_setting(cached[0], cached[3]), epochs=2, width=4)
