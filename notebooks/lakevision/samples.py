"""Small looks into the landing zone and the tables, for pictures and checks."""

from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from lakevision import labels, landing, metadata, tables


def of_landing(where, count):
    """count photographs spread evenly over the landing zone's names, as (bytes, caption); files that don't decode are passed over."""
    paths = sorted(path for path in Path(where.landing).rglob("*") if path.suffix.lower() in landing.SUFFIXES)
    chosen = []
    for path in paths[:: max(1, len(paths) // count)]:
        data = path.read_bytes()
        relative = path.relative_to(where.landing).as_posix()
        described = metadata.describe(relative, data, pd.Timestamp(path.stat().st_mtime, unit="s", tz="UTC"))
        if not described.error:
            chosen.append((data, f"{described.device[:22]} {described.captured_at:%d %b %H:%M}\n{labels.of_path(relative)[0] or 'no label'}"))
    return chosen[:count]


def light(spark, where):
    """captured_at, label, device and brightness of the images, pandas, 20,000 rows at most."""
    return (spark.table(where.table("images")).join(labels.latest(spark, where).select("path", "label"), "path", "left")
            .select("captured_at", "label", "device", "statistics.brightness").limit(20_000).toPandas())


def first(spark, where, version):
    """The bytes of one image, an example for the model's record."""
    row = tables.at(spark, where, "images", version).orderBy("path").select("path", "sha256", "content").first()
    return landing.content(where.landing, row["path"], row["sha256"], row["content"])


def held_out(spark, where, scheme, version, count):
    """Up to count images of the test side of a split (see split.scheme), of those that a version of images holds, in a fixed order that spreads
    over it: DataFrame of path, label, image (bytes)."""
    of_test = (F.col("scheme") == scheme) & (F.col("split") == "test") & (F.col("delta_version") <= version)
    splits = spark.table(where.table("splits")).where(of_test).select("path", "label")
    chosen = splits.orderBy(F.sha2("path", 256)).limit(count)
    rows = tables.at(spark, where, "images", version).select("path", "sha256", "content").join(F.broadcast(chosen), "path")
    frame = rows.toPandas().sort_values("path", ignore_index=True)
    frame["image"] = [landing.content(where.landing, *row) for row in frame[["path", "sha256", "content"]].itertuples(index=False)]
    return frame[["path", "label", "image"]]
