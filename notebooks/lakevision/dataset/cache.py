"""The Petastorm cache: what the model sees, decoded once, as raw pixels in Parquet that petastorm reads.

A cache is found again by what is in it (images, labels, sides, transform), never by a query's plan: the same rows give the
same folder, changed rows another. Its manifest is written last; a folder without one is half a cache and is made anew.
Nothing of it lives in the driver: another session, or a rank, opens the folder.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from pyspark.sql import functions as F

from device import memory
from device.model import transform
from lakevision.dataset.split import SPLIT_NAMES
from lakevision.ingest import landing, tables
from lakevision.platform import spark_session, workspace

ROW_GROUP_BYTES = 8 * 2**20  # of pixels: large enough to read fast, small enough to mix
NAME, HALF_NAME = (
    re.compile("[0-9a-f]{16}"),
    re.compile("[0-9a-f]{8}"),
)  # of a cache: its key; of what build() writes in it
HALF_DAYS = 1.0  # a folder without a manifest may be one that somebody is writing


@dataclass(frozen=True)
class Cache:
    """folder: of one cache, absolute; classes: the labels, in the order of the model's outputs; counts: images of each side; groups: row groups of
    each side; labels: {side: images of each class}."""

    folder: str
    classes: tuple
    counts: dict
    transform: str
    delta_version: int
    groups: dict
    labels: dict

    def url(self, side):
        """The address that petastorm reads one side at."""
        return f"file://{self.folder}/split={side}"

    def bytes(self, side):
        """Bytes of one side's pixels."""
        return self.counts[side] * transform.image_size(self.transform) ** 2 * 3


class Full(OSError):
    """The cache's disk has no room; the message says how much is needed and which setting moves it."""


def build(spark, cfg, places, placements, delta_version):
    """Makes or finds the cache of a split. placements: DataFrame of path, sha256, label, episode, split (pandas). Returns Cache. Raises Full."""
    line, classes = cfg.training.transform, tuple(sorted(placements["label"].unique()))
    ranks = cfg.training.ranks or spark_session.slots(spark)
    counts = {side: int((placements["split"] == side).sum()) for side in SPLIT_NAMES}
    groups = {side: row_groups(counts[side], transform.image_size(line), ranks) for side in SPLIT_NAMES}
    key = _key(line, classes, placements, groups)
    manifest = Path(places.cache) / key / "manifest.json"
    if manifest.exists() and os.path.isdir(json.loads(manifest.read_text())["folder"]):
        _keep(manifest, manifest.read_text())  # what is used is swept last; a volume has no utime
        return replace(opened(json.loads(manifest.read_text())["folder"]), delta_version=delta_version)
    folder = manifest.parent / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    placements = placements.assign(target=placements["label"].map(classes.index).astype("int32"))
    labels = {
        side: np.bincount(placements.loc[placements["split"] == side, "target"], minlength=len(classes)).tolist()
        for side in SPLIT_NAMES
    }
    cache = Cache(str(folder), classes, counts, line, delta_version, groups, labels)
    needed = sum(map(cache.bytes, SPLIT_NAMES))
    try:
        _room(folder, needed)
        with workspace.small_batches(spark):
            _write(spark, cfg, places, cache, _dealt(placements, groups, cfg.training.seed))
        kept = {
            "folder": str(folder),
            "classes": classes,
            "counts": counts,
            "transform": line,
            "delta_version": delta_version,
            "key": key,
            "groups": groups,
            "labels": labels,
            "bytes": needed,
            "pillow": PIL.__version__,
            "made_at": time.time(),
        }
        _keep(manifest, json.dumps(kept, indent=2))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)  # as it is no cache without its manifest, it would only take up room
        if not isinstance(error, Full) and ("No space left on device" in str(error) or _exhausted(manifest.parent)):
            raise _full(folder, needed) from error
        raise
    return cache


def _keep(manifest, text):
    partial = manifest.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
    partial.write_text(text)
    os.replace(partial, manifest)


def row_groups(count, side, ranks):
    """How many row groups a side is dealt to: as many for each rank, at least two, none empty (fewer images than ranks: one for each image)."""
    wanted = max(2, -(-count * side**2 * 3 // ROW_GROUP_BYTES // ranks)) * ranks
    return min(wanted, count // ranks * ranks) or count


def _key(line, classes, placements, groups):
    """The cache's name: SHA-256 over its content and over the code that makes pixels of bytes."""
    rows = "\n".join(sorted(f"{row.sha256} {row.split} {row.label}" for row in placements.itertuples()))
    code = Path(transform.__file__).read_text() if os.path.exists(transform.__file__) else ""
    return hashlib.sha256(
        f"{line}\n{classes}\n{groups}\nPillow {PIL.__version__}\n{code}\n{rows}".encode()
    ).hexdigest()[:16]


def _dealt(placements, groups, seed):
    """sides with columns group (numbered over all sides) and place within it: dealt out like cards, so that each row group of a side holds as many
    images of each class as the next, give or take one, and in random order."""
    random, first, parts = np.random.default_rng(seed), 0, []
    for side in SPLIT_NAMES:
        part = (
            placements[placements["split"] == side]
            .sort_values("sha256")
            .sample(frac=1, random_state=seed)
            .sort_values("target", kind="stable")
        )
        part = part.assign(
            group=first + np.arange(len(part)) % max(1, groups[side]), place=random.permutation(len(part))
        )
        first += groups[side]
        parts.append(part)
    return pd.concat(parts)[["path", "split", "target", "group", "place"]]


def _write(spark, cfg, places, cache, dealt):
    total = sum(cache.groups.values())
    # repartition() sends a value where its hash says: for each partition one number that arrives there.
    numbers = (
        spark.range(32 * total + 64)
        .select("id", F.expr(f"pmod(hash(id), {total})").alias("partition"))
        .groupBy("partition")
        .agg(F.min("id"))
    )
    numbers = {row[0]: row[1] for row in numbers.collect()}
    chosen = spark.createDataFrame(
        dealt.assign(group=dealt["group"].map(numbers)),
        "path string, split string, target int, group bigint, place bigint",
    )
    images = tables.at(spark, places, "images", cache.delta_version).select("path", "sha256", "content")
    seen = transformer(cache.transform, places.landing)("path", "sha256", "content").alias("pixels")
    (
        images.join(F.broadcast(chosen), "path")
        .select("sha256", "split", "target", "group", "place", seen)
        .repartition(total, "group")
        .sortWithinPartitions("place")
        .drop("group", "place")
        .write.mode("overwrite")
        .option("compression", "none")
        .partitionBy("split")
        .parquet(_for_spark(cache.folder))
    )
    for side in SPLIT_NAMES:
        Path(cache.folder, f"split={side}").mkdir(exist_ok=True)  # a side without an image


def _for_spark(folder):
    """The address that Spark writes a folder at: on Databricks petastorm reads /dbfs/..., which to Spark is dbfs:/..."""
    return "dbfs:/" + folder.removeprefix("/dbfs/") if folder.startswith("/dbfs/") else folder


def _exhausted(folder):
    """Whether a disk takes no further file; asked after what was written there has been removed, so files are counted, not bytes."""
    return os.statvfs(folder).f_files > 0 and os.statvfs(folder).f_favail < 16


def _room(folder, needed):
    free = workspace.free_bytes(folder)
    if free is not None and free < 1.2 * needed:
        raise _full(folder, needed)


def _full(folder, needed):
    free = shutil.disk_usage(Path(folder).parent).free
    return Full(
        f"the cache needs {needed / 1e6:.0f} MB at {Path(folder).parent.parent}, where {free / 1e6:.0f} MB are free: "
        "make room, or set cache.folder to another disk"
    )


def opened(folder):
    """The Cache in a folder that build() made. Raises FileNotFoundError where it has been swept."""
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


def sweep(places, keep, settings, now=None):
    """Removes caches unused for settings.keep_days, then the longest unused ones until all fit settings.budget_gb; half caches after a day.

    keep: the Cache in use, which stays; settings: of the section cache. Returns the names of what went.
    """
    now, gone, found = now or time.time(), [], []
    used = Path(keep.folder).parent
    # cache.folder may be a place that others use, too: nothing is touched that does not bear a name of build()'s.
    for folder in (path for path in Path(places.cache).iterdir() if path.is_dir() and NAME.fullmatch(path.name)):
        manifest = folder / "manifest.json"
        whole = json.loads(manifest.read_text())["folder"] if manifest.exists() else None
        for part in folder.iterdir():
            if (
                part.is_dir()
                and HALF_NAME.fullmatch(part.name)
                and str(part) != whole
                and now - part.stat().st_mtime > HALF_DAYS * 86400
            ):
                gone.append(_removed(part))
        if whole:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found.append((manifest.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in found)
    for last, size, folder in sorted(found):
        if folder != used and (now - last > settings.keep_days * 86400 or total > settings.budget_gb * 1e9):
            gone.append(_removed(folder))
            total -= size
    return gone


def _removed(folder):
    shutil.rmtree(folder)
    return folder.name


def transformer(line, root):
    """The pandas UDF (path, sha256, content or null) -> raw pixels of the transform. root: of the landing zone, for rows that keep no bytes."""
    transform.parse(line)

    @F.pandas_udf("binary")
    def to_pixels(path: pd.Series, sha256: pd.Series, content: pd.Series) -> pd.Series:
        memory.keep()
        return pd.Series(
            [transform.pixels(landing.content(root, *row), line) for row in zip(path, sha256, content)], dtype=object
        )

    return to_pixels
