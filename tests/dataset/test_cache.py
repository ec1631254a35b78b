"""The cache holds the transform's pixels, is never stale, deals out equal row groups, and is swept by age and size."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from device.model import transform
from lakevision.dataset import cache, feed, split


def test_cache_holds_the_pixels_of_the_transform(spark, cached, arrays):
    cfg, places, placements, built = cached
    content = {row.sha256: bytes(row.content) for row in spark.table(places.table("images")).collect()}
    labels = placements.set_index("sha256")["label"]
    assert sum(len(part) for part in arrays.values()) == len(placements) == 64
    for part in arrays.values():
        for pixels, target, key in zip(part.pixels, part.targets, part.keys):
            assert (
                pixels.tobytes() == transform.pixels(content[key], built.transform)
                and built.classes[target] == labels[key]
            )


def test_same_content_reuses_a_cache_and_other_labels_do_not(spark, cached):
    cfg, places, placements, built = cached
    assert cache.build(spark, cfg, places, placements.sample(frac=1), built.delta_version).folder == built.folder
    relabelled = placements.assign(
        label=np.where(placements["path"] == placements["path"].iloc[0], "package", placements["label"])
    )
    relabelled.loc[relabelled["path"] == placements["path"].iloc[0], "label"] = (
        "empty" if placements["label"].iloc[0] == "package" else "package"
    )
    assert cache.build(spark, cfg, places, relabelled, built.delta_version).folder != built.folder


def test_unfinished_cache_is_built_again(spark, cached):
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


def test_row_groups_are_balanced_and_divide_among_ranks(cached, arrays):
    _, _, placements, built = cached
    for name in split.SPLIT_NAMES:
        groups = list(feed.exact(built, name))
        assert len(groups) == built.groups[name] and len(groups) % 2 == 0
        counts = np.array([np.bincount(group.targets, minlength=2) for group in groups])
        assert (
            np.ptp(counts, axis=0).max() <= 1
            and np.ptp(counts.sum(1)) <= 1
            and counts.sum(0).tolist() == built.labels[name]
        )
        shards = [[key for group in feed.exact(built, name, rank, 2) for key in group.keys] for rank in range(2)]
        assert sorted(sum(shards, [])) == sorted(arrays[name].keys)


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
def test_full_disk_raises_full_and_leaves_no_files(spark, cached, tmp_path, options):
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
