"""The table `splits` keeps each image's placement; metadata holds no pixels."""

import pandas as pd

from lakevision.dataset import split, split_table
from lakevision.notebook import samples


def test_placements_are_kept_once_and_read_back(spark, cached):
    cfg, places, placements, built = cached
    scheme = split.scheme(cfg.split)
    images = split_table.metadata(spark, places, built.delta_version)
    images = images.sort_values(["captured_at", "path"])  # whole episodes first; Spark's rows have no order
    first, _ = split.assign(images.iloc[:50], cfg.split)
    spark.sql(f"DELETE FROM {places.table('splits')}")  # other modules share this lakehouse and keep splits in it
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


def test_metadata_holds_no_pixels(spark, cached):
    _, places, placements, built = cached
    frame = split_table.metadata(spark, places, built.delta_version)
    assert isinstance(frame, pd.DataFrame) and "content" not in frame and len(frame) == 64
