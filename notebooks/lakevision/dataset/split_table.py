"""What a split is made from, and the table `splits` that keeps its placements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakevision.ingest import labels, tables

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from lakevision.platform.workspace import Places

COLUMNS = (
    *("path", "sha256", "label", "device", "captured_at", "captured_from", "width", "height", "exif"),
    *("statistics.brightness", "statistics.contrast", "statistics.entropy", "phash", "near_duplicate_of", "quality"),
)


def metadata(spark: SparkSession, places: Places, number: int, labels_version: int | None = None) -> pd.DataFrame:
    """What training uses of each image besides its pixels. Second copies of the same bytes are left out.

    number: the version of images; labels_version: the version of labels, the newest if None.
    Returns a DataFrame of path, sha256, label, device, captured_at, captured_from, width, height, exif, brightness,
    contrast, entropy, phash, near_duplicate_of and quality (dict of scores).
    """
    newest = labels.latest(spark, places, labels_version).select("path", "label")
    return (
        tables.at(spark, places, "images", number)
        .where("duplicate_of IS NULL")
        .join(newest, "path", "left")
        .select(*COLUMNS)
        .toPandas()
        .assign(quality=lambda frame: frame["quality"].map(lambda row: row.asDict()))
    )


def earlier_split(spark: SparkSession, places: Places, scheme: str) -> pd.DataFrame:
    """The placements that earlier runs kept: DataFrame of path, episode, split, reason. scheme: see split.scheme."""
    return (
        spark.table(places.table("splits"))
        .where(F.col("scheme") == scheme)
        .select("path", "episode", "split", "reason")
        .toPandas()
    )


def keep_split(spark: SparkSession, places: Places, placed: pd.DataFrame, scheme: str, number: int) -> None:
    """Writes placements into `splits`: adds the rows of new images and updates rows that have changed.

    placed: DataFrame of split.assign; scheme: see split.scheme; number: the version of images.
    """
    from delta.tables import DeltaTable

    columns = [column.name for column in tables.SPLITS]
    frame = placed.assign(scheme=scheme, delta_version=number)[columns].astype({"label": object})
    rows = spark.createDataFrame(
        frame.where(frame.notna(), None), ", ".join(f"{column.name} {column.type}" for column in tables.SPLITS)
    )
    differs = " OR ".join(f"NOT (old.{name} <=> new.{name})" for name in ("label", "episode", "split", "reason"))
    (
        DeltaTable.forName(spark, places.table("splits"))
        .alias("old")
        .merge(rows.alias("new"), "old.scheme = new.scheme AND old.path = new.path")
        .whenMatchedUpdateAll(differs)
        .whenNotMatchedInsertAll()
        .execute()
    )
