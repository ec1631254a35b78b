"""Small looks into the landing zone and the tables, for pictures and checks."""

from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from lakevision.ingest import labels, landing, metadata, quality, tables


def of_landing(places, count):
    """count photographs spread evenly over the landing zone's names, as (bytes, caption); files that don't decode are passed over."""
    paths = sorted(path for path in Path(places.landing).rglob("*") if path.suffix.lower() in landing.SUFFIXES)
    chosen = []
    for path in paths[:: max(1, len(paths) // count)]:
        data = path.read_bytes()
        relative = path.relative_to(places.landing).as_posix()
        described = metadata.describe(relative, data, pd.Timestamp(path.stat().st_mtime, unit="s", tz="UTC"))
        if not described.error:
            chosen.append(
                (
                    data,
                    f"{described.device[:22]} {described.captured_at:%d %b %H:%M}\n{labels.of_path(relative)[0] or 'no label'}",
                )
            )
    return chosen[:count]


def by_camera(spark, places):
    """One row for each camera and label, pandas: photographs, copies, first and last time. 50 rows at most."""
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


def spread(spark, places, count):
    """count photographs spread over the table by a hash of their path, as (bytes, caption)."""
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


def issues(spark, places):
    """One row for each issue of quality, pandas: photographs flagged, their share, and the lowest and the middle score."""
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


def worst(spark, places, count):
    """The photographs with the lowest score of each issue but near_duplicate, two of each, as (bytes, caption); count at most."""
    shown = []
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


def _with_bytes(spark, places, rows):
    """(row, bytes) of a few rows of images, in their order; the bytes are fetched only once it is known which."""
    rows = rows.collect()
    chosen = spark.table(places.table("images")).where(F.col("path").isin([row["path"] for row in rows]))
    content = {row["path"]: row["content"] for row in chosen.select("path", "content").collect()}
    return [(row, landing.content(places.landing, row["path"], row["sha256"], content[row["path"]])) for row in rows]


def least_sure(spark, places, count):
    """The photographs whose newest prediction is least sure, the least first, as (bytes, caption)."""
    from lakevision.serving.spark import score

    chosen = (
        score.latest(spark, places)
        .where("error IS NULL")
        .orderBy("probability", "path")
        .select("path", "label", "probability")
        .limit(count)
    )
    said = chosen.toPandas().set_index("path")
    rows = (
        spark.table(places.table("images"))
        .where(F.col("path").isin(list(said.index)))
        .select("path", "device", "captured_at", "sha256")
        .orderBy("path")
    )
    found = {
        row["path"]: (
            data,
            f"{said.loc[row['path'], 'label']} {said.loc[row['path'], 'probability']:.2f}\n{row['device'][:14]} "
            f"{row['captured_at']:%d %b %H:%M}",
        )
        for row, data in _with_bytes(spark, places, rows)
    }
    return [found[path] for path in said.index if path in found]


def light(spark, places):
    """captured_at, label, device and brightness of the images, pandas, 20,000 rows at most."""
    return (
        spark.table(places.table("images"))
        .join(labels.latest(spark, places).select("path", "label"), "path", "left")
        .select("captured_at", "label", "device", "statistics.brightness")
        .limit(20_000)
        .toPandas()
    )


def first(spark, places, version):
    """The bytes of one image, an example for the model's record."""
    row = tables.at(spark, places, "images", version).orderBy("path").select("path", "sha256", "content").first()
    return landing.content(places.landing, row["path"], row["sha256"], row["content"])


def held_out(spark, places, scheme, version, count):
    """Up to count images of the test side of a split (see split.scheme), of those that a version of images holds, in a fixed order that spreads
    over it: DataFrame of path, label, image (bytes)."""
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
