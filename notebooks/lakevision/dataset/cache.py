"""The Petastorm cache: images decoded once and kept as raw pixels in Parquet files.

The cache key is a hash of the content (images, labels, splits, transform), not of the query: the same rows give the
same folder, changed rows another folder. The manifest is written last. A folder without a manifest is an unfinished
cache and is built again. The driver holds no part of a cache in memory: another session or a rank opens the folder.

Settings are imported for their types only: Spark workers import this module, and pydantic takes 0.1 s to load.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import PIL
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from device import files, memory
from device.model import transform
from lakevision.dataset.split import SPLIT_NAMES
from lakevision.ingest import landing, tables
from lakevision.platform import spark_session, workspace
from lakevision.platform.workspace import Places

if TYPE_CHECKING:
    from lakevision.platform import config_sections
    from lakevision.platform.config import Config

ROW_GROUP_BYTES = 8 * 2**20  # of pixels: large enough to read fast, small enough to shuffle well
KEY = re.compile("[0-9a-f]{16}")  # the name of a cache's folder
BUILD_NAME = re.compile("[0-9a-f]{8}")  # the name of the folder inside it that build() writes
UNFINISHED_DAYS = 1.0  # a younger folder without a manifest may still be written by another process


@dataclass(frozen=True)
class Cache:
    """One cache.

    folder: absolute; classes: the labels, in the order of the model's outputs; counts: images of each split;
    groups: row groups of each split; labels: {split: images of each class}.
    """

    folder: str
    classes: tuple
    counts: dict
    transform: str
    delta_version: int
    groups: dict
    labels: dict

    def url(self, split: str) -> str:
        """The address at which petastorm reads one split."""
        return f"file://{self.folder}/split={split}"

    def bytes(self, split: str) -> int:
        """The size of one split's pixels."""
        return self.counts[split] * transform.image_size(self.transform) ** 2 * 3


class Full(OSError):
    """The cache's disk is full; the message gives the bytes needed and the setting for another disk."""


def build(spark: SparkSession, cfg: "Config", places: Places, placements: pd.DataFrame, delta_version: int) -> Cache:
    """Builds the cache of a split, or opens it if it exists.

    placements: DataFrame of path, sha256, label, episode, split; delta_version: of images. Raises Full.
    """
    line, classes = cfg.training.transform, tuple(sorted(placements["label"].unique()))
    ranks = cfg.training.ranks or spark_session.slots(spark)
    counts = {split: int((placements["split"] == split).sum()) for split in SPLIT_NAMES}
    groups = {split: row_groups(counts[split], transform.image_size(line), ranks) for split in SPLIT_NAMES}
    key = _key(line, classes, placements, groups)
    manifest = Path(places.cache) / key / "manifest.json"
    if manifest.exists() and os.path.isdir(json.loads(manifest.read_text())["folder"]):
        # Write the manifest again: its time marks the last use for sweep(), and a Databricks volume has no utime.
        files.write_atomically(manifest, manifest.read_text())
        return replace(opened(json.loads(manifest.read_text())["folder"]), delta_version=delta_version)
    folder = manifest.parent / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    placements = placements.assign(target=placements["label"].map(classes.index).astype("int32"))
    labels = {
        split: np.bincount(placements.loc[placements["split"] == split, "target"], minlength=len(classes)).tolist()
        for split in SPLIT_NAMES
    }
    cache = Cache(str(folder), classes, counts, line, delta_version, groups, labels)
    try:
        _demand_room(cache)
        with workspace.small_batches(spark):
            _write(spark, places, cache, _dealt(placements, groups, cfg.training.seed))
        files.write_atomically(manifest, json.dumps(_manifest(cache, key), indent=2))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)  # without a manifest it would only take up room
        if not isinstance(error, Full) and ("No space left on device" in str(error) or _no_inodes(manifest.parent)):
            raise _full(cache) from error
        raise
    return cache


def row_groups(count: int, image_size: int, ranks: int) -> int:
    """The number of row groups of a split with `count` images of image_size x image_size pixels.

    Each rank gets equally many row groups, at least two, and none is empty. With fewer images than ranks, each image is
    a row group.
    """
    wanted = max(2, -(-count * image_size**2 * 3 // ROW_GROUP_BYTES // ranks)) * ranks
    return min(wanted, count // ranks * ranks) or count


def opened(folder: str) -> Cache:
    """The Cache in a folder that build() wrote. Raises FileNotFoundError if it has been swept."""
    kept = json.loads((Path(folder).parent / "manifest.json").read_text())
    return Cache(
        kept["folder"],
        tuple(kept["classes"]),
        kept["counts"],
        kept["transform"],
        kept["delta_version"],
        kept["groups"],
        kept["labels"],
    )


def _manifest(cache: Cache, key: str) -> dict:
    return {
        "folder": cache.folder,
        "classes": cache.classes,
        "counts": cache.counts,
        "transform": cache.transform,
        "delta_version": cache.delta_version,
        "key": key,
        "groups": cache.groups,
        "labels": cache.labels,
        "bytes": sum(map(cache.bytes, SPLIT_NAMES)),
        "pillow": PIL.__version__,
        "made_at": time.time(),
    }


def _key(line: str, classes: tuple, placements: pd.DataFrame, groups: dict) -> str:
    """The cache's name: SHA-256 of its content and of the source code that turns bytes into pixels."""
    rows = "\n".join(sorted(f"{row.sha256} {row.split} {row.label}" for row in placements.itertuples()))
    code = Path(transform.__file__).read_text() if os.path.exists(transform.__file__) else ""
    return hashlib.sha256(
        f"{line}\n{classes}\n{groups}\nPillow {PIL.__version__}\n{code}\n{rows}".encode()
    ).hexdigest()[:16]


def _dealt(placements: pd.DataFrame, groups: dict, seed: int) -> pd.DataFrame:
    """Deals the images of each split out to its row groups, like cards.

    All row groups of a split hold the same number of images of each class, give or take one, in random order. Returns a
    DataFrame of path, split, target, group (numbered over all splits) and place (the position in the split).
    """
    random, first, parts = np.random.default_rng(seed), 0, []
    for split in SPLIT_NAMES:
        part = (
            placements[placements["split"] == split]
            .sort_values("sha256")
            .sample(frac=1, random_state=seed)
            .sort_values("target", kind="stable")
        )
        part = part.assign(
            group=first + np.arange(len(part)) % max(1, groups[split]), place=random.permutation(len(part))
        )
        first += groups[split]
        parts.append(part)
    return pd.concat(parts)[["path", "split", "target", "group", "place"]]


def _write(spark: SparkSession, places: Places, cache: Cache, dealt: pd.DataFrame) -> None:
    """Writes each row group as one Parquet file. dealt: as of _dealt()."""
    total = sum(cache.groups.values())
    # Spark's repartition hashes the key. For each partition, find a number that hashes to it.
    partition = F.expr(f"pmod(hash(id), {total})").alias("partition")
    numbers = spark.range(32 * total + 64).select("id", partition).groupBy("partition").agg(F.min("id"))
    number_of = {row[0]: row[1] for row in numbers.collect()}
    chosen = spark.createDataFrame(
        dealt.assign(group=dealt["group"].map(number_of)),
        "path string, split string, target int, group bigint, place bigint",
    )
    images = tables.at(spark, places, "images", cache.delta_version).select("path", "sha256", "content")
    pixels = transformer(cache.transform, places.landing)("path", "sha256", "content").alias("pixels")
    (
        images.join(F.broadcast(chosen), "path")
        .select("sha256", "split", "target", "group", "place", pixels)
        .repartition(total, "group")
        .sortWithinPartitions("place")
        .drop("group", "place")
        .write.mode("overwrite")
        .option("compression", "none")
        .partitionBy("split")
        .parquet(_for_spark(cache.folder))
    )
    for split in SPLIT_NAMES:
        Path(cache.folder, f"split={split}").mkdir(exist_ok=True)  # for a split without images


def transformer(line: str, root: str) -> Callable[..., Column]:
    """A pandas UDF of the columns path, sha256 and content (bytes or null) that returns raw pixels.

    line: the transform; root: the landing zone, for rows without content. Raises transform.BadTransform.
    """
    transform.parse(line)

    @F.pandas_udf("binary")
    def to_pixels(path: pd.Series, sha256: pd.Series, content: pd.Series) -> pd.Series:
        memory.keep()
        rows = zip(path, sha256, content, strict=True)
        return pd.Series([transform.pixels(landing.content(root, *row), line) for row in rows], dtype=object)

    return to_pixels


def _for_spark(folder: str) -> str:
    """The address at which Spark writes a folder: petastorm's /dbfs/... on Databricks is dbfs:/... for Spark."""
    return "dbfs:/" + folder.removeprefix("/dbfs/") if folder.startswith("/dbfs/") else folder


def _demand_room(cache: Cache) -> None:
    free = workspace.free_bytes(cache.folder)
    if free is not None and free < 1.2 * sum(map(cache.bytes, SPLIT_NAMES)):
        raise _full(cache)


def _no_inodes(folder: Path) -> bool:
    """True if a disk can hold no further file.

    After a failed build its bytes are free again, so only the free inodes are counted.
    """
    return os.statvfs(folder).f_files > 0 and os.statvfs(folder).f_favail < 16


def _full(cache: Cache) -> Full:
    needed, root = sum(map(cache.bytes, SPLIT_NAMES)), Path(cache.folder).parent.parent
    free = shutil.disk_usage(root).free
    return Full(
        f"the cache needs {needed / 1e6:.0f} MB at {root}, but {free / 1e6:.0f} MB are free: "
        "make room, or set cache.folder to another disk"
    )


def sweep(places: Places, keep: Cache, settings: "config_sections.Cache", now: float | None = None) -> list[str]:
    """Removes old caches. Returns the names of the removed folders.

    First the caches unused for settings.keep_days go, then the longest unused ones until the rest fits
    settings.budget_gb. Unfinished caches go after UNFINISHED_DAYS. keep: the cache in use, which stays; now: Unix time.
    """
    now, removed, caches = now or time.time(), [], []
    in_use = Path(keep.folder).parent
    # Others may use cache.folder, too: touch only folders that have a name of build()'s pattern.
    for folder in (path for path in Path(places.cache).iterdir() if path.is_dir() and KEY.fullmatch(path.name)):
        manifest = folder / "manifest.json"
        finished = json.loads(manifest.read_text())["folder"] if manifest.exists() else None
        for part in folder.iterdir():
            unfinished = part.is_dir() and BUILD_NAME.fullmatch(part.name) and str(part) != finished
            if unfinished and now - part.stat().st_mtime > UNFINISHED_DAYS * 86400:
                removed.append(_removed(part))
        if finished:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            caches.append((manifest.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in caches)
    for last_used, size, folder in sorted(caches):
        too_old, too_much = now - last_used > settings.keep_days * 86400, total > settings.budget_gb * 1e9
        if folder != in_use and (too_old or too_much):
            removed.append(_removed(folder))
            total -= size
    return removed


def _removed(folder: Path) -> str:
    shutil.rmtree(folder)
    return folder.name
