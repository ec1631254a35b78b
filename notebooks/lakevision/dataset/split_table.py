"""The placements of images on train, validation and test: what a split may use, what earlier runs decided, and the table `splits`."""

from pyspark.sql import functions as F

from lakevision.ingest import labels, tables


def metadata(spark, places, number, labels_version=None):
    """What training may know of each image without its bytes, pandas: path, sha256, label, device, captured_at, captured_from, width, height, exif,
    brightness, contrast, entropy, phash, near_duplicate_of, quality (dict of scores). Second copies of the same bytes are left out.

    number: the version of images; labels_version: of labels, the newest if None.
    """
    said = labels.latest(spark, places, labels_version).select("path", "label")
    return (
        tables.at(spark, places, "images", number)
        .where("duplicate_of IS NULL")
        .join(said, "path", "left")
        .select(
            "path",
            "sha256",
            "label",
            "device",
            "captured_at",
            "captured_from",
            "width",
            "height",
            "exif",
            "statistics.brightness",
            "statistics.contrast",
            "statistics.entropy",
            "phash",
            "near_duplicate_of",
            "quality",
        )
        .toPandas()
        .assign(quality=lambda frame: frame["quality"].map(lambda row: row.asDict()))
    )


def earlier_split(spark, places, scheme):
    """The placements that earlier runs have kept under a scheme (see split.scheme), pandas: path, episode, split, reason."""
    return (
        spark.table(places.table("splits"))
        .where(F.col("scheme") == scheme)
        .select("path", "episode", "split", "reason")
        .toPandas()
    )


def keep_split(spark, places, placed, scheme, number):
    """Writes placements (DataFrame of split.assign) into splits: new images are added, rows that say something else than before are updated."""
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
