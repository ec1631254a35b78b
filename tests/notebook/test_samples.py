"""Samples of the landing zone and of the tables, on a small lakehouse that has been ingested and split."""

from pathlib import Path

import pytest

from device.simulation import porch
from lakevision.dataset import split
from lakevision.ingest import quality, tables
from lakevision.notebook import samples
from lakevision.platform import config, workspace


def test_landing_sample_skips_files_that_do_not_decode(tmp_path):
    places = workspace.places(config.load("local", [f"storage.root={tmp_path}"]))
    for scene in porch.plan(6, size=(64, 64)):
        path = Path(places.landing, porch.key(scene))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(porch.jpeg(scene))
    Path(places.landing, "broken.jpg").write_bytes(b"no image")
    sample = samples.of_landing(places, 100)
    assert len(sample) == 6 and all(data[:2] == b"\xff\xd8" for data, _ in sample)
    assert all(caption.split("\n")[1] in porch.LABELS for _, caption in sample)


@pytest.mark.spark
def test_camera_table_counts_every_photograph(spark, cached):
    table = samples.by_camera(spark, cached[1])
    assert table["photographs"].sum() == 64 and set(table["device"]) <= set(porch.CAMERAS)


@pytest.mark.spark
def test_issue_table_has_a_row_for_each_issue(spark, cached):
    table = samples.issues(spark, cached[1])
    assert list(table["issue"]) == list(quality.ISSUES)
    assert (table["lowest score"] <= table["median score"]).all() and table["share"].between(0, 1).all()


@pytest.mark.spark
def test_pictures_of_the_table_are_whole_photographs(spark, cached):
    for sample in (samples.spread(spark, cached[1], 5), samples.worst(spark, cached[1], 5)):
        assert 0 < len(sample) <= 5 and all(data[:2] == b"\xff\xd8" and "\n" in caption for data, caption in sample)
    assert len(samples.light(spark, cached[1])) == 64


@pytest.mark.spark
def test_held_out_sample_comes_from_the_test_split(spark, cached):
    from lakevision.dataset import split_table

    cfg, places, placements, _ = cached
    version, scheme = tables.version(spark, places, "images"), split.scheme(cfg.split)
    split_table.keep_split(
        spark, places, split.assign(split_table.metadata(spark, places, version), cfg.split)[0], scheme, version
    )
    sample = samples.held_out(spark, places, scheme, version, 4)
    test = set(placements.loc[placements["split"] == "test", "path"])
    assert 0 < len(sample) <= 4 and set(sample["path"]) <= test
    assert all(bytes(image)[:2] == b"\xff\xd8" for image in sample["image"])
    assert samples.first(spark, places, version)[:2] == b"\xff\xd8"
