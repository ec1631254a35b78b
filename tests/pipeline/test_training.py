"""Cache and Horovod ranks, on real engines and few images."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from device import transform
from lakevision import cache, capture, feed, ingest, ranks, samples, split, tables, train


@pytest.fixture(scope="module")
def cached(spark, tmp_path_factory):
    """(cfg, where, sides, Cache) of 64 simulated photographs."""
    from lakevision import config, workspace

    cfg = config.load("local", [f"storage.root={tmp_path_factory.mktemp('train')}", "storage.schema=test_training", "capture.photographs=64",
                                "capture.size=96", "training.transform=decode|upright|rgb|resize(32)", "training.batch_size=8"])
    where = workspace.places(cfg)
    capture.land(cfg, where)
    ingest.run(spark, cfg, where)
    version = tables.version(spark, where, "images")
    sides = split.used(split.assign(tables.metadata(spark, where, version), cfg.split)[0])
    return cfg, where, sides, cache.build(spark, cfg, where, sides, version)


@pytest.fixture(scope="module")
def arrays(cached):
    return {side: feed.load(cached[3], side) for side in split.SIDES}


@pytest.fixture
def setting(cached):
    return replace(train.first_setting(cached[0], cached[3]), epochs=2, width=4)


def test_the_cache_holds_the_transforms_own_pixels(spark, cached, arrays):
    cfg, where, sides, built = cached
    content = {row.sha256: bytes(row.content) for row in spark.table(where.table("images")).collect()}
    labels = sides.set_index("sha256")["label"]
    assert sum(len(side) for side in arrays.values()) == len(sides) == 64
    for side in arrays.values():
        for pixels, target, key in zip(side.pixels, side.targets, side.keys):
            assert pixels.tobytes() == transform.pixels(content[key], built.transform) and built.classes[target] == labels[key]


def test_a_cache_is_found_again_by_its_content_and_never_stale(spark, cached):
    cfg, where, sides, built = cached
    assert cache.build(spark, cfg, where, sides.sample(frac=1), built.delta_version).folder == built.folder
    relabelled = sides.assign(label=np.where(sides["path"] == sides["path"].iloc[0], "package", sides["label"]))
    relabelled.loc[relabelled["path"] == sides["path"].iloc[0], "label"] = "empty" if sides["label"].iloc[0] == "package" else "package"
    assert cache.build(spark, cfg, where, relabelled, built.delta_version).folder != built.folder


def test_half_a_cache_is_made_anew(spark, cached):
    from pathlib import Path

    cfg, where, sides, built = cached
    subset = sides.iloc[::2]
    first = cache.build(spark, cfg, where, subset, built.delta_version)
    (Path(first.folder).parent / "manifest.json").unlink()
    again = cache.build(spark, cfg, where, subset, built.delta_version)
    assert again.folder != first.folder and not Path(first.folder).exists()
    assert len(feed.load(again, "train")) == again.counts["train"]


def test_feed_is_repeatable(cached, arrays):
    again = feed.load(cached[3], "train")
    assert again.keys == arrays["train"].keys and np.array_equal(again.pixels, arrays["train"].pixels)


@pytest.mark.parametrize("count, batch, size", [(64, 8, 1), (64, 8, 2), (37, 8, 2), (5, 8, 3), (100, 7, 4)])
def test_batches_are_equal_steps_and_every_image_is_seen(count, batch, size):
    shards = [feed.batches(count, batch, seed=1, epoch=0, rank=rank, ranks=size) for rank in range(size)]
    assert len({shard.shape for shard in shards}) == 1 and shards[0].shape[1] == batch
    assert set(np.concatenate([shard.ravel() for shard in shards])) == set(range(count))
    one = feed.batches(count, batch * size, seed=1, epoch=0)
    assert [sorted(row) for row in np.concatenate(shards, axis=1)] == [sorted(row) for row in one]
    assert not np.array_equal(one, feed.batches(count, batch * size, seed=1, epoch=1))


def test_training_repeats_itself(arrays, setting):
    one, two = (train.fit(arrays["train"], arrays["validation"], setting) for _ in range(2))
    assert one.digest == two.digest and one.history == two.history
    assert train.fit(arrays["train"], arrays["validation"], replace(setting, seed=9)).digest != one.digest


def test_a_loss_that_is_no_number_stops_with_the_learning_rate(arrays, setting):
    with pytest.raises(train.NotFinite, match="learning rate"):
        train.fit(arrays["train"], arrays["validation"], replace(setting, learning_rate=float("inf")))


def test_class_weights_make_classes_count_alike():
    weights = train.class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0])


def test_augmentation_keeps_shape_and_range_and_moves_something():
    import tensorflow as tf

    images = tf.cast(tf.random.stateless_uniform((4, 32, 32, 3), (1, 2), 0, 256, tf.int32), tf.float32)
    changed = train.augment(images, tf.random.Generator.from_seed(1))
    assert changed.shape == images.shape and 0 <= float(tf.reduce_min(changed)) and float(tf.reduce_max(changed)) <= 255
    assert float(tf.reduce_mean(tf.abs(changed - images))) > 5


def test_two_ranks_end_with_equal_weights_that_differ_from_a_run_without_horovod(spark, cached, arrays, setting):
    cfg, where, _, built = cached
    trained = ranks.run(spark, cfg, where, built, setting)
    assert len(trained.digests) == 2 and len(set(trained.digests)) == 1
    assert trained.result.digest == trained.digests[0]
    # One rank's share alone, with no exchange: what both ranks would have ended with, each its own, had nothing been averaged.
    alone = train.fit(arrays["train"], arrays["validation"], setting)
    assert alone.digest != trained.digests[0]
    assert all(np.isfinite(weight).all() for weight in trained.result.weights) and len(trained.result.history) == setting.epochs


def test_gradients_are_averaged_neither_summed_nor_left_alone(spark):
    import horovod.spark

    from lakevision import workspace

    def probe(library):
        import os
        import sys
        import tempfile

        path = os.path.join(tempfile.mkdtemp(), "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path.insert(0, path)
        import horovod.tensorflow as hvd
        import tensorflow as tf

        from lakevision import train

        hvd.init()
        mine = [tf.fill((2, 3), 1.0 + hvd.rank()), tf.fill((4,), 10.0 * hvd.rank())]
        return [gradient.numpy().tolist() for gradient in train._average(mine, hvd)]

    results = horovod.spark.run(probe, args=(workspace.library(),), num_proc=2, use_gloo=True, verbose=0)
    assert results == [[[[1.5] * 3] * 2, [5.0] * 4]] * 2


def test_a_failing_rank_shows_its_own_traceback(spark, cached, setting):
    cfg, where, _, built = cached
    with pytest.raises(ranks.RankFailed, match="no_such_network"):
        ranks.run(spark, cfg, where, built, replace(setting, model="no_such_network"))


def test_more_ranks_than_slots_is_said_before_anything_waits(spark, cached, setting):
    from lakevision import config

    cfg, where, _, built = cached
    more = config.load("local", [f"storage.root={where.root}", "training.ranks=64"])
    with pytest.raises(ValueError, match="64"):
        ranks.run(spark, more, where, built, setting)


def test_feed_notices_missing_rows(cached):
    built = cached[3]
    with pytest.raises(ValueError, match="its manifest says 9999"):
        feed.load(replace(built, counts={**built.counts, "test": 9999}), "test")


def test_placements_are_kept_once_for_each_image_and_found_again(spark, cached):
    cfg, where, sides, built = cached
    scheme = split.scheme(cfg.split)
    images = tables.metadata(spark, where, built.delta_version)
    first, _ = split.assign(images.iloc[:50], cfg.split)
    tables.keep_split(spark, where, first, scheme, 1)
    later, _ = split.assign(images, cfg.split, tables.earlier_split(spark, where, scheme))
    tables.keep_split(spark, where, later, scheme, 2)
    kept = spark.table(where.table("splits")).toPandas().set_index("path")
    assert len(kept) == 64 and (kept["reason"] != "").all() and set(kept["scheme"]) == {scheme}
    assert (kept.loc[first["path"], "split"].to_numpy() == first["split"].to_numpy()).all()
    assert kept["delta_version"].value_counts().to_dict() == {1: 50, 2: 14}
    assert tables.earlier_split(spark, where, "another scheme").empty
    held_out = samples.held_out(spark, where, scheme, built.delta_version, 5)
    assert len(held_out) == 5 and (kept.loc[held_out["path"], "split"] == "test").all()


def test_metadata_without_pixels_is_what_the_driver_reads(spark, cached):
    _, where, sides, built = cached
    frame = tables.metadata(spark, where, built.delta_version)
    assert isinstance(frame, pd.DataFrame) and "content" not in frame and len(frame) == 64
