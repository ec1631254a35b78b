"""One chunk of landed files: describe on the workers, judge on the driver, write to the tables.

Spark's workers open the files and describe them (one decode each). The driver compares the photographs with earlier
ones (copies, history of the camera). Then the rows are written with the bytes, while the next chunk is being described:
a Delta commit and the start of a job cost as much as a hundred photographs, and this hides them.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import functions as F

from lakevision.ingest import duplicates, image_reader, labels, landing, quality, tables
from lakevision.platform import spark_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.accumulators import Accumulator
    from pyspark.sql import DataFrame, Row, SparkSession
    from tqdm import tqdm

    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places

CHUNK = 2048  # files per core that are processed together; a commit costs half a second of a laptop
SLICES = 2  # tasks per core in a chunk: photographs differ in size, and a task costs a tenth of a second to start
# Columns of image_reader.DESCRIBED that the driver needs.
THIN = (
    "path",
    "modified_at",
    "length",
    "sha256",
    "error",
    "device",
    "width",
    "height",
    "phash",
    "statistics.brightness",
)


@dataclass
class Known:
    """Content of the tables at the start of a run.

    rejected: {path: row of rejected_images}; rows: number of rows of images and rejected_images together.
    """

    seen: duplicates.Seen
    histories: dict[str, quality.History]
    rejected: dict[str, Row]
    rows: int


@dataclass
class Run:
    """State that a run carries from chunk to chunk."""

    spark: SparkSession
    cfg: Config
    places: Places
    bar: tqdm
    known: Future[Known]
    check: Callable[[], None]  # raises lease.Lost; called before each write
    checked: bool = True  # if the next batch is checked for files that already have a row in images


def count(spark: SparkSession, places: Places) -> list[int]:
    """[rows of images, rows of rejected_images]."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: spark.table(places.table(name)).count(), ("images", "rejected_images")))


def load(spark: SparkSession, places: Places) -> Known:
    """Reads Known from narrow columns of the tables."""
    if not any(count(spark, places)):
        return Known(duplicates.Seen(), {}, {}, 0)
    images = spark.table(places.table("images"))
    first_copies = images.where("duplicate_of IS NULL").select(
        "path",
        F.substring("sha256", 1, 16).alias("digest"),
        "phash",
        "statistics.brightness",
        F.col("near_duplicate_of").isNull().alias("leads"),
    )
    scores = {issue: F.col(f"quality.{issue}_score") for issue in quality.GLOBAL} | {
        "side": F.sqrt(F.col("width").cast("double") * F.col("height"))
    }
    points = F.array(*(F.lit(float(point)) for point in quality.POINTS))
    devices = images.groupBy("device").agg(
        F.count("*").alias("count"),
        *(F.percentile_approx(column, points).alias(name) for name, column in scores.items()),
    )
    rejections = (
        spark.table(places.table("rejected_images"))
        .select("path", "modified_at", "length", "sha256", "ingested_at")
        .orderBy("ingested_at")
    )
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(job) for job in (rejections.collect, devices.collect, first_copies.toPandas)]
    rejected_rows, device_rows, first = (job.result() for job in jobs)
    histories = {
        row["device"]: quality.History(row["count"], {name: row[name] for name in scores}) for row in device_rows
    }
    rejected: dict[str, Row] = {}
    stale = []  # left by a run that was killed after it wrote the newer row and before it removed the older row
    for row in rejected_rows:
        if row["path"] in rejected:
            stale.append(rejected[row["path"]])
        rejected[row["path"]] = row
    _remove(spark, places, stale)
    return Known(
        duplicates.Seen(first["path"], first["digest"], first["phash"], first["brightness"], first["leads"]),
        histories,
        rejected,
        sum(row["count"] for row in device_rows) + len(rejected),
    )


def take(run: Run, files: Iterable[landing.File]) -> None:
    """Ingests files chunk by chunk. Each chunk is written while the next one is being described."""
    known = run.known.result()
    files = [file for file in files if file.path not in known.rejected or _changed(file, known.rejected[file.path])]
    if run.checked and files:
        files = _without_rows(run, files)
    files.sort(key=lambda file: (file.modified_at, file.path))  # the earlier of two copies is the first copy
    size = CHUNK * spark_session.slots(run.spark)
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for start in range(0, len(files), size):
            described, frames = _describe(run, files[start : start + size])
            if writing:
                writing.result()
            writing = writer.submit(_write, run, described, frames, run.checked)
        if writing:
            writing.result()


def _changed(file: landing.File, row: Row) -> bool:
    """True if a rejected file has changed since its rejection, or could not be read then."""
    if row["sha256"] is None and row["length"] <= image_reader.LARGEST:
        return True
    # Spark's listing has milliseconds, the file system has nanoseconds.
    difference = abs(file.modified_at - row["modified_at"].astimezone(UTC))
    return file.length != row["length"] or difference > timedelta(milliseconds=1)


def _without_rows(run: Run, files: list[landing.File]) -> list[landing.File]:
    """The files without a row in images. The others get the missing rest: their labels, no row in rejected_images."""
    listed = run.spark.createDataFrame([(file.path,) for file in files], "path string")
    images = run.spark.table(run.places.table("images")).select("path")
    ingested = {row["path"] for row in images.join(F.broadcast(listed), "path", "left_semi").collect()}
    pairs = [(file.path, file.modified_at) for file in files if file.path in ingested]
    labels.add_from_paths(run.spark, run.places, pairs, run.cfg.ingest.labels, check=True)
    _forget(run, ingested)
    return [file for file in files if file.path not in ingested]


def _describe(run: Run, files: list[landing.File]) -> tuple[DataFrame, pd.DataFrame]:
    """(persisted Spark DataFrame of image_reader.DESCRIBED, pandas DataFrame of THIN with the driver's judgement)."""
    spark = run.spark
    slices = min(len(files), SLICES * spark_session.slots(spark))
    listed = spark.createDataFrame([tuple(file) for file in files], image_reader.LISTED).repartition(slices)
    describer = image_reader.describer(run.places.landing, run.cfg.ingest.timezone)
    described = listed.mapInArrow(describer, image_reader.DESCRIBED).persist()
    scores = [f"score_{issue}" for issue in image_reader.SCORES]
    rows: list[dict[str, Any]] = [
        {**row.asDict(), "modified_at": row["modified_at"].astimezone(UTC)}
        for row in described.select(*THIN, *scores).collect()
    ]
    frames = pd.DataFrame(rows, columns=[name.split(".")[-1] for name in THIN] + scores, dtype=object)
    # Leave phash an object: with one rejected file its column would become float64, which keeps 53 of the 63 bits.
    frames = frames.astype({name: float for name in ("width", "height", "brightness", *scores)})
    frames = frames.sort_values(["modified_at", "path"], ignore_index=True)
    return described, _judge(frames, run.known.result())


def _judge(frames: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Adds duplicate_of, near_duplicate_of, distance, side and the quality issues; updates known."""
    good = frames["error"].isna()
    looks = [
        known.seen.look(row.path, row.sha256, int(row.phash), row.brightness) if decodes else (None, None, None)
        for row, decodes in zip(frames.itertuples(), good, strict=True)
    ]
    frames[["duplicate_of", "near_duplicate_of", "distance"]] = pd.DataFrame(
        looks, columns=["a", "b", "c"], index=frames.index, dtype=object
    )
    frames["side"] = (frames["width"] * frames["height"]) ** 0.5
    return frames.join(quality.judge(frames[good].astype({"distance": float}), known.histories))


def _write(run: Run, described: DataFrame, frames: pd.DataFrame, checked: bool) -> None:
    """Writes one chunk: good rows with their bytes to images, the others to rejected_images, labels from paths."""
    run.check()
    spark, places, cfg = run.spark, run.places, run.cfg
    good, bad = frames[frames["error"].isna()], frames[frames["error"].notna()]
    changed = spark.sparkContext.accumulator([], _Paths())
    try:
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(_write_images, spark, cfg, places, described, good, changed)] if len(good) else []
            if len(bad):
                rejected = described.where("error IS NOT NULL")
                rejected = rejected.withColumnRenamed("error", "reason").withColumnRenamed("kept", "content")
                jobs.append(pool.submit(_write_rejected, rejected, places))
            pairs = [(row.path, row.modified_at) for row in good.itertuples()]
            jobs.append(pool.submit(labels.add_from_paths, spark, places, pairs, cfg.ingest.labels, checked))
            for job in jobs:
                job.result()
        if changed.value:
            moving = described.where(F.col("path").isin(changed.value)).withColumns(
                {
                    "content": F.lit(None).cast("binary"),
                    "sha256": F.lit(None).cast("string"),
                    "reason": F.lit("changed while it was being read (written in place?); the next run will try again"),
                }
            )
            _write_rejected(moving, places)
        _forget(run, frames["path"])
    finally:
        described.unpersist()
    run.bar.update(len(frames))


def _write_images(
    spark: SparkSession,
    cfg: Config,
    places: Places,
    described: DataFrame,
    good: pd.DataFrame,
    changed: Accumulator[list[str]],
) -> None:
    issues = [name for issue in quality.ISSUES for name in (f"{issue}_score", f"is_{issue}_issue")]
    rows = [
        (row.path, row.duplicate_of, row.near_duplicate_of, tuple(getattr(row, name) for name in issues))
        for row in good.itertuples()
    ]
    judgement = spark.createDataFrame(
        rows, f"path string, duplicate_of string, near_duplicate_of string, quality {tables.QUALITY}"
    )
    images = described.where("error IS NULL").join(F.broadcast(judgement), "path")
    images = images.withColumn("ingested_at", F.current_timestamp())
    if cfg.ingest.keep_content:
        content = image_reader.reader(places.landing, changed)("path", "signature")
        images = images.withColumn("content", content).where("content IS NOT NULL")
    else:
        images = images.withColumn("content", F.lit(None).cast("binary"))
    _append(images, places, "images")


def _write_rejected(rows: DataFrame, places: Places) -> None:
    _append(rows.withColumn("ingested_at", F.current_timestamp()), places, "rejected_images")


def _append(rows: DataFrame, places: Places, name: str) -> None:
    # Photographs are compressed already: another compression would double the time of the write and gain nothing.
    rows = rows.select([column.name for column in tables.TABLES[name].columns])
    rows.writeTo(places.table(name)).option("compression", "none").append()


def _forget(run: Run, paths: Iterable[str]) -> None:
    """Removes the older rows in rejected_images of files that have a newer row in either table."""
    rejected = run.known.result().rejected
    _remove(run.spark, run.places, [rejected.pop(path) for path in paths if path in rejected])


def _remove(spark: SparkSession, places: Places, old: list[Row]) -> None:
    if old:
        from delta.tables import DeltaTable

        times = spark.createDataFrame(
            [(row["path"], row["ingested_at"]) for row in old], "path string, ingested_at timestamp"
        )
        (
            DeltaTable.forName(spark, places.table("rejected_images"))
            .alias("old")
            .merge(times.alias("gone"), "old.path = gone.path AND old.ingested_at = gone.ingested_at")
            .whenMatchedDelete()
            .execute()
        )


class _Paths(AccumulatorParam):
    """An accumulator to which workers add paths."""

    def zero(self, value):
        return []

    def addInPlace(self, value, more):
        return value + more
