"""Small samples of the landing zone and of the tables, for pictures and checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql import functions as F

from lakevision.ingest import labels, landing, metadata, quality, tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

    from lakevision.platform.workspace import Places

Photograph = tuple[bytes, str]  # the bytes of a file, and a caption


def of_landing(places: Places, count: int) -> list[Photograph]:
    """Up to count photographs, spread evenly over the names in the landing zone. Skips files that do not decode."""
    paths = sorted(path for path in Path(places.landing).rglob("*") if path.suffix.lower() in landing.SUFFIXES)
    chosen = []
    for path in paths[:: max(1, len(paths) // count)]:
        data = path.read_bytes()
        relative = path.relative_to(places.landing).as_posix()
        described = metadata.describe(relative, data, pd.Timestamp(path.stat().st_mtime, unit="s", tz="UTC"))
        if not described.error:
            label = labels.of_path(relative)[0] or "no label"
            chosen.append((data, f"{str(described.device)[:22]} {described.captured_at:%d %b %H:%M}\n{label}"))
    return chosen[:count]


def by_camera(spark: SparkSession, places: Places) -> pd.DataFrame:
    """One row for each camera and label: photographs, copies, first and last time. 50 rows at most."""
    rows = spark.table(places.table("images")).join(
        labels.latest(spark, places).select("path", "label"), "path", "left"
    )
    figures = (
        F.count("*").alias("photographs"),
        F.count("duplicate_of").alias("second copies"),
        F.count("near_duplicate_of").alias("near copies"),
        F.min("captured_at").alias("first"),
        F.max("captured_at").alias("last"),
    )
    return rows.groupBy("device", "label").agg(*figures).orderBy("device", "label").limit(50).toPandas()


def spread(spark: SparkSession, places: Places, count: int) -> list[Photograph]:
    """Up to count photographs, spread over the table by a hash of their path."""
    rows = (
        spark.table(places.table("images"))
        .select("path", "device", "captured_at", "sha256")
        .orderBy(F.xxhash64("path"))
        .limit(count)
    )
    return [
        (data, f"{row['device'][:22]}\n{row['captured_at']:%d %b %H:%M}")
        for row, data in _with_bytes(spark, places, rows)
    ]


def issues(spark: SparkSession, places: Places) -> pd.DataFrame:
    """One row for each quality issue: flagged photographs, their share, lowest and median score."""
    images = spark.table(places.table("images"))
    found = images.agg(
        F.count("*").alias("all"),
        *(
            expression
            for issue in quality.ISSUES
            for expression in (
                F.sum(F.col(f"quality.is_{issue}_issue").cast("int")).alias(f"{issue} n"),
                F.min(f"quality.{issue}_score").alias(f"{issue} low"),
                F.percentile_approx(f"quality.{issue}_score", 0.5).alias(f"{issue} mid"),
            )
        ),
    ).first()
    if not found["all"]:
        return pd.DataFrame(columns=["issue", "flagged"])
    return pd.DataFrame(
        [
            {
                "issue": issue,
                "flagged": found[f"{issue} n"],
                "share": round(found[f"{issue} n"] / found["all"], 3),
                "lowest score": round(found[f"{issue} low"], 3),
                "median score": round(found[f"{issue} mid"], 3),
            }
            for issue in quality.ISSUES
        ]
    )


def worst(spark: SparkSession, places: Places, count: int) -> list[Photograph]:
    """The two photographs with the lowest score of each issue except near_duplicate. count at most."""
    shown: list[Photograph] = []
    images = spark.table(places.table("images"))
    for issue in quality.ISSUES[:-1]:
        rows = (
            images.select(
                "path",
                "device",
                "captured_at",
                "sha256",
                F.col(f"quality.{issue}_score").alias("score"),
                F.col(f"quality.is_{issue}_issue").alias("flagged"),
            )
            .where("score < 1")
            .orderBy("score", "path")
            .limit(2)
        )
        for row, data in _with_bytes(spark, places, rows):
            caption = f"{issue.replace('_', ' ')} {row['score']:.2f}{' flagged' if row['flagged'] else ''}"
            shown.append((data, f"{caption}\n{row['device'][:14]} {row['captured_at']:%d %b %H:%M}"))
    return shown[:count]


def _with_bytes(spark: SparkSession, places: Places, chosen_rows: DataFrame) -> list[tuple[Row, bytes]]:
    """(row, bytes) of a few rows of images, in their order. The bytes of the other rows are never read."""
    rows = chosen_rows.collect()
    chosen = spark.table(places.table("images")).where(F.col("path").isin([row["path"] for row in rows]))
    content = {row["path"]: row["content"] for row in chosen.select("path", "content").collect()}
    return [(row, landing.content(places.landing, row["path"], row["sha256"], content[row["path"]])) for row in rows]


def least_sure(spark: SparkSession, places: Places, count: int) -> list[Photograph]:
    """The photographs with the least certain newest prediction, the least certain first."""
    from lakevision.serving.spark import score

    chosen = (
        score.latest(spark, places)
        .where("error IS NULL")
        .orderBy("probability", "path")
        .select("path", "label", "probability")
        .limit(count)
    )
    predictions = chosen.toPandas().set_index("path")
    rows = (
        spark.table(places.table("images"))
        .where(F.col("path").isin(list(predictions.index)))
        .select("path", "device", "captured_at", "sha256")
        .orderBy("path")
    )
    photographs = {}
    for row, data in _with_bytes(spark, places, rows):
        prediction = predictions.loc[row["path"]]
        caption = f"{prediction['label']} {prediction['probability']:.2f}"
        photographs[row["path"]] = (data, f"{caption}\n{row['device'][:14]} {row['captured_at']:%d %b %H:%M}")
    return [photographs[path] for path in predictions.index if path in photographs]


def light(spark: SparkSession, places: Places) -> pd.DataFrame:
    """captured_at, label, device and brightness (0 to 1) of the images. 20,000 rows at most."""
    return (
        spark.table(places.table("images"))
        .join(labels.latest(spark, places).select("path", "label"), "path", "left")
        .select("captured_at", "label", "device", "statistics.brightness")
        .limit(20_000)
        .toPandas()
    )


def first(spark: SparkSession, places: Places, version: int) -> bytes:
    """The bytes of one image of a version of `images`: the example that MLflow keeps with a model."""
    row = tables.at(spark, places, "images", version).orderBy("path").select("path", "sha256", "content").first()
    return landing.content(places.landing, row["path"], row["sha256"], row["content"])


def held_out(spark: SparkSession, places: Places, scheme: str, version: int, count: int) -> pd.DataFrame:
    """Up to count test images of a split, in a fixed order that spreads over the split.

    scheme: of split.scheme. version: of `images`; only its images are chosen. Returns path, label and image (bytes).
    """
    of_test = (F.col("scheme") == scheme) & (F.col("split") == "test") & (F.col("delta_version") <= version)
    splits = spark.table(places.table("splits")).where(of_test).select("path", "label")
    chosen = splits.orderBy(F.sha2("path", 256)).limit(count)
    rows = (
        tables.at(spark, places, "images", version)
        .select("path", "sha256", "content")
        .join(F.broadcast(chosen), "path")
    )
    frame = rows.toPandas().sort_values("path", ignore_index=True)
    frame["image"] = [
        landing.content(places.landing, *row) for row in frame[["path", "sha256", "content"]].itertuples(index=False)
    ]
    return frame[["path", "label", "image"]]
