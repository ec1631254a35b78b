"""The Petastorm cache: what the model sees, decoded once, as raw pixels in Parquet that petastorm reads.

A cache is found again by what is in it (images, labels, sides, transform), never by a query's plan: the same rows give the
same folder, changed rows another. Its manifest is written last; a folder without one is half a cache and is made anew.
"""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from device import transform
from lakevision import landing, tables
from lakevision.split import SIDES

ROW_GROUP_BYTES = 8 * 2**20  # of pixels: large enough to read fast, small enough to mix


@dataclass(frozen=True)
class Cache:
    """folder: of one cache, absolute; classes: the labels, in the order of the model's outputs; counts: images of each side."""

    folder: str
    classes: tuple
    counts: dict
    transform: str
    delta_version: int

    def url(self, side):
        """The address that petastorm reads one side at."""
        return f"file://{self.folder}/{side}"


def build(spark, cfg, where, sides, delta_version):
    """Makes or finds the cache of a split. sides: DataFrame of path, sha256, label, episode, split (pandas). Returns Cache."""
    line, classes = cfg.training.transform, tuple(sorted(sides["label"].unique()))
    rows = "\n".join(sorted(f"{row.sha256} {row.split} {row.label}" for row in sides.itertuples()))
    key = hashlib.sha256(f"{line}\n{classes}\n{rows}".encode()).hexdigest()[:16]
    manifest = Path(where.cache) / key / "manifest.json"
    if manifest.exists():
        found = json.loads(manifest.read_text())["folder"]
        if os.path.isdir(found):
            return replace(opened(found), delta_version=delta_version)
    folder = manifest.parent / uuid.uuid4().hex[:8]
    shutil.rmtree(manifest.parent, ignore_errors=True)
    folder.mkdir(parents=True)

    chosen = spark.createDataFrame(sides.assign(target=sides["label"].map(classes.index).astype("int32"))[["path", "split", "target"]],
                                   "path string, split string, target int")
    images = tables.at(spark, where, "images", delta_version).select("path", "sha256", "content")
    seen = transformer(line, where.landing)("path", "sha256", "content").alias("pixels")
    pixels = images.join(F.broadcast(chosen), "path").select("sha256", "split", "target", seen)
    pixels = pixels.persist()
    try:
        counts = {}
        for side in SIDES:
            counts[side] = int((sides["split"] == side).sum())
            groups = max(4, -(-counts[side] * transform.side(line) ** 2 * 3 // ROW_GROUP_BYTES))
            # The random order within each row group mixes the labels; petastorm shards by row group.
            (pixels.where(F.col("split") == side).repartition(groups, F.rand(cfg.training.seed))
             .sortWithinPartitions(F.rand(cfg.training.seed + 1)).drop("split")
             .write.option("compression", "none").parquet(f"{folder}/{side}"))
    finally:
        pixels.unpersist()
    kept = {"folder": str(folder), "classes": classes, "counts": counts, "transform": line, "delta_version": delta_version, "key": key}
    partial = manifest.with_suffix(".part")
    partial.write_text(json.dumps(kept, indent=2))
    os.replace(partial, manifest)
    return Cache(str(folder), classes, counts, line, delta_version)


def opened(folder):
    """The Cache in a folder that build() made. Raises FileNotFoundError where it has been swept."""
    kept = json.loads((Path(folder).parent / "manifest.json").read_text())
    return Cache(kept["folder"], tuple(kept["classes"]), kept["counts"], kept["transform"], kept["delta_version"])


def transformer(line, root):
    """The pandas UDF (path, sha256, content or null) -> raw pixels of the transform. root: of the landing zone, for rows that keep no bytes."""
    transform.parse(line)

    @F.pandas_udf("binary")
    def to_pixels(path: pd.Series, sha256: pd.Series, content: pd.Series) -> pd.Series:
        return pd.Series([transform.pixels(landing.content(root, *row), line) for row in zip(path, sha256, content)], dtype=object)

    return to_pixels
