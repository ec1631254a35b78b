"""Cache, feed and the training loop, on real engines and few images; the ranks are in test_ranks.py."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from device.model import transform
from lakevision.dataset import cache, feed, split, split_table
from lakevision.notebook import samples
from lakevision.training import loop


def test_the_cache_holds_the_transforms_own_pixels(spark, cached, arrays):
    cfg, places, placements, built = cached
    content = {row.sha256: bytes(row.content) for row in spark.table(places.table("images")).collect()}
    labels = placements.set_index("sha256")["label"]
    assert sum(len(side) for side in arrays.values()) == len(placements) == 64
    for side in arrays.values():
        for pixels, target, key in zip(side.pixels, side.targets, side.keys):
            assert (
                pixels.tobytes() == transform.pixels(content[key], built.transform)
                and built.classes[target] == labels[key]
            )


def test_a_cache_is_found_again_by_its_content_and_never_stale(spark, cached):
    cfg, places, placements, built = cached
    assert cache.build(spark, cfg, places, placements.sample(frac=1), built.delta_version).folder == built.folder
    relabelled = placements.assign(
        label=np.where(placements["path"] == placements["path"].iloc[0], "package", placements["label"])
    )
    relabelled.loc[relabelled["path"] == placements["path"].iloc[0], "label"] = (
        "empty" if placements["label"].iloc[0] == "package" else "package"
    )
    assert cache.build(spark, cfg, places, relabelled, built.delta_version).folder != built.folder


def test_half_a_cache_is_made_anew(spark, cached):
    cfg, places, placements, built = cached
    subset = placements.iloc[::2]
    first = cache.build(spark, cfg, places, subset, built.delta_version)
    (Path(first.folder).parent / "manifest.json").unlink()
    again = cache.build(spark, cfg, places, subset, built.delta_version)
    assert again.folder != first.folder and len(feed.load(again, "train")) == again.counts["train"]
    assert cache.sweep(places, again, cfg.cache) == [] and Path(first.folder).exists()  # somebody may be writing it
    assert (
        cache.sweep(places, again, cfg.cache, time.time() + 2 * 86400) == [Path(first.folder).name]
        and Path(again.folder).exists()
    )


def test_row_groups_are_alike_and_ranks_share_them_without_a_rest(cached, arrays):
    _, _, placements, built = cached
    for side in split.SPLIT_NAMES:
        groups = list(feed.exact(built, side))
        assert len(groups) == built.groups[side] and len(groups) % 2 == 0
        counts = np.array([np.bincount(group.targets, minlength=2) for group in groups])
        assert (
            np.ptp(counts, axis=0).max() <= 1
            and np.ptp(counts.sum(1)) <= 1
            and counts.sum(0).tolist() == built.labels[side]
        )
        shards = [[key for group in feed.exact(built, side, rank, 2) for key in group.keys] for rank in range(2)]
        assert sorted(sum(shards, [])) == sorted(arrays[side].keys)


@pytest.mark.parametrize(
    "count, side, ranks, groups",
    [
        pytest.param(1000, 96, 2, 4, id="small: two for each rank"),
        pytest.param(100_000, 224, 2, 1796, id="large: 8 MB each"),
        pytest.param(3, 96, 2, 2, id="few"),
        pytest.param(2, 96, 4, 2, id="fewer than ranks"),
        pytest.param(0, 96, 2, 0, id="none"),
    ],
)
def test_number_of_row_groups(count, side, ranks, groups):
    assert cache.row_groups(count, side, ranks) == groups


@pytest.mark.parametrize("size", [1, 2])
def test_a_stream_gives_equal_steps_all_images_and_the_same_order_again(cached, arrays, size):
    stream = feed.Stream(cached[3], "train")
    target = {pixels.tobytes(): target for pixels, target in zip(arrays["train"].pixels, arrays["train"].targets)}

    def epoch(number):
        return [
            [(pixels.tobytes(), targets.tolist()) for pixels, targets in stream.epoch(5, 1, number, rank, size)]
            for rank in range(size)
        ]

    first = epoch(0)
    assert {len(shard) for shard in first} == {feed.steps_of(len(stream), 5, size)} and first == epoch(0) != epoch(1)
    seen = set()
    for pixels, targets in sum(first, []):
        images = [pixels[start : start + 32 * 32 * 3] for start in range(0, len(pixels), 32 * 32 * 3)]
        assert len(images) == len(targets) == 5 and [target[image] for image in images] == targets
        seen.update(images)
    assert seen == set(target)


def test_a_streams_rank_without_an_image_says_so(cached):
    with pytest.raises(Exception, match="fewer ranks|shard"):
        list(feed.Stream(cached[3], "validation").epoch(4, 1, 0, rank=63, ranks=64))


def test_what_fits_is_held_in_memory_and_the_choice_is_said(cached):
    said = []
    assert isinstance(feed.opened(cached[3], "train", 1, said.append), feed.Arrays)
    assert isinstance(feed.opened(cached[3], "train", 0, said.append), feed.Stream)
    assert "in memory" in said[0] and "streamed" in said[1]


def test_what_a_thread_raises_is_raised_where_its_batches_are_read():
    def broken():
        yield 1
        raise KeyError("row group")

    batches = feed.ahead(broken())
    assert next(batches) == 1
    with pytest.raises(KeyError, match="row group"):
        next(batches)


def test_old_caches_are_swept_by_age_and_by_budget(tmp_path, cached):
    cfg, _, _, built = cached
    places, now = SimpleNamespace(cache=str(tmp_path)), time.time()
    old, large, young, used_name = (letter * 16 for letter in "abcd")
    for days, name in ((40, old), (20, large), (10, young), (50, used_name), (400, "photographs of somebody")):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "pixels").write_bytes(bytes(3_000_000 if name == large else 1_000_000))
        (tmp_path / name / "manifest.json").write_text(json.dumps({"folder": str(tmp_path / name / "x")}))
        os.utime(tmp_path / name / "manifest.json", (now - days * 86400,) * 2)
    used = replace(built, folder=str(tmp_path / used_name / "x"))
    settings = replace(cfg.cache, keep_days=30.0, budget_gb=0.0035)
    (tmp_path / "photographs of somebody" / "holiday").mkdir()
    (tmp_path / "notes.txt").touch()
    os.utime(tmp_path / "photographs of somebody" / "holiday", (0, 0))
    assert cache.sweep(places, used, settings, now) == [old, large]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        young,
        used_name,
        "notes.txt",
        "photographs of somebody",
    ]
    assert (tmp_path / "photographs of somebody" / "holiday").exists()


@pytest.mark.parametrize(
    "options",
    [pytest.param("size=64k", id="no room"), pytest.param("size=64m,nr_inodes=9", id="full while it is written")],
)
def test_a_full_disk_under_the_cache(spark, cached, tmp_path, options):
    from lakevision.platform import workspace

    cfg, _, placements, built = cached
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk takes root")
    try:
        small = replace(cfg, cache=replace(cfg.cache, folder=str(tmp_path)))
        with pytest.raises(cache.Full, match=r"cache\.folder"):
            cache.build(spark, small, workspace.places(small), placements.iloc[1:], built.delta_version)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)  # a failed job's other task may still hold its file open


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
    one, two = (loop.fit(arrays["train"], arrays["validation"], setting) for _ in range(2))
    assert one.digest == two.digest and one.history == two.history
    assert loop.fit(arrays["train"], arrays["validation"], replace(setting, seed=9)).digest != one.digest


def test_a_loss_that_is_no_number_stops_with_the_learning_rate(arrays, setting):
    with pytest.raises(loop.NotFinite, match="learning rate"):
        loop.fit(arrays["train"], arrays["validation"], replace(setting, learning_rate=float("inf")))


def test_a_training_that_was_cut_short_ends_with_the_same_weights(arrays, setting, tmp_path):
    setting = replace(setting, epochs=4, augment=True, dropout=0.3)
    whole = loop.fit(arrays["train"], arrays["validation"], setting)

    def stop(epoch, figures):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(arrays["train"], arrays["validation"], setting, on_epoch=stop, kept_at=str(tmp_path / "kept"))
    later = []
    again = loop.fit(
        arrays["train"],
        arrays["validation"],
        setting,
        on_epoch=lambda epoch, _: later.append(epoch),
        kept_at=str(tmp_path / "kept"),
    )
    assert later == [2, 3] and again.digest == whole.digest and again.history == whole.history
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_patience_stops_and_keeps_the_best_epoch(arrays, setting):
    wild = replace(setting, epochs=12, learning_rate=0.3, patience=2)
    result = loop.fit(arrays["train"], arrays["validation"], wild)
    losses = [epoch["val_loss"] for epoch in result.history]
    best = int(np.argmin(losses))
    assert len(losses) == min(12, best + 3)
    network = loop.with_weights(wild, result.weights)
    found = loop.judge(lambda pixels: network(pixels, training=False), arrays["validation"])
    assert found[0] == pytest.approx(losses[best], rel=1e-4)


def test_a_stream_trains_and_is_judged_as_memory_is(cached, arrays, setting):
    network = loop.with_weights(
        setting, loop.fit(feed.Stream(cached[3], "train"), arrays["validation"], setting).weights
    )
    forward = lambda pixels: network(pixels, training=False)  # noqa: E731
    assert loop.judge(forward, feed.Stream(cached[3], "validation")) == pytest.approx(
        loop.judge(forward, arrays["validation"]), rel=1e-5
    )


def test_mixed_precision_keeps_weights_and_probabilities_in_float32(arrays, setting):
    import keras

    result = loop.fit(arrays["train"], arrays["validation"], replace(setting, epochs=1, mixed_precision=True))
    assert all(weight.dtype == np.float32 for weight in result.weights if weight.dtype.kind == "f") and np.isfinite(
        result.history[0]["loss"]
    )
    assert keras.config.dtype_policy().name == "float32"


def test_class_weights_make_classes_count_alike():
    weights = loop.class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0])


def test_augmentation_keeps_shape_and_range_and_moves_something():
    import tensorflow as tf

    images = tf.cast(tf.random.stateless_uniform((4, 32, 32, 3), (1, 2), 0, 256, tf.int32), tf.float32)
    changed = loop.augment(images, tf.random.Generator.from_seed(1))
    assert changed.shape == images.shape and float(tf.reduce_min(changed)) >= 0 and float(tf.reduce_max(changed)) <= 255
    assert float(tf.reduce_mean(tf.abs(changed - images))) > 5


def test_feed_notices_missing_rows(cached):
    built = cached[3]
    with pytest.raises(ValueError, match="its manifest says 9999"):
        feed.load(replace(built, counts={**built.counts, "test": 9999}), "test")


def test_placements_are_kept_once_for_each_image_and_found_again(spark, cached):
    cfg, places, placements, built = cached
    scheme = split.scheme(cfg.split)
    images = split_table.metadata(spark, places, built.delta_version)
    first, _ = split.assign(images.iloc[:50], cfg.split)
    split_table.keep_split(spark, places, first, scheme, 1)
    later, _ = split.assign(images, cfg.split, split_table.earlier_split(spark, places, scheme))
    split_table.keep_split(spark, places, later, scheme, 2)
    kept = spark.table(places.table("splits")).toPandas().set_index("path")
    assert len(kept) == 64 and (kept["reason"] != "").all() and set(kept["scheme"]) == {scheme}
    assert (kept.loc[first["path"], "split"].to_numpy() == first["split"].to_numpy()).all()
    assert kept["delta_version"].value_counts().to_dict() == {1: 50, 2: 14}
    assert split_table.earlier_split(spark, places, "another scheme").empty
    held_out = samples.held_out(spark, places, scheme, built.delta_version, 5)
    assert len(held_out) == 5 and (kept.loc[held_out["path"], "split"] == "test").all()


def test_metadata_without_pixels_is_what_the_driver_reads(spark, cached):
    _, places, placements, built = cached
    frame = split_table.metadata(spark, places, built.delta_version)
    assert isinstance(frame, pd.DataFrame) and "content" not in frame and len(frame) == 64
