"""Landing zone -> Delta: each file becomes one row of images or of rejected_images, exactly once.

A stream lists the names of landed files; chunk.py turns them into rows. This holds for any number of runs, and if a run
is killed at any time.

Exactly once: Spark repeats an interrupted batch as the first batch of the next run, and never later. Each first batch,
and every batch after a lost checkpoint, is therefore checked for files with a row in images. We always load
rejected_images, because a rejected file may have been fixed. The stream may later list a file that the second look
ingested, as any new file; the next run therefore checks every batch.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lakevision.ingest import autoloader, chunk, labels, landing, lease, tables
from lakevision.platform import workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places

FILE = "path string, modificationTime timestamp, length bigint, content binary"  # a file stream needs a schema


@dataclass
class Ingested:
    """Result of a run.

    images, rejected: rows in the tables after the run; landed: files in the landing zone (None if not counted); new:
    rows that the run added; labels_added: labels from ingest.label_source; labels_unknown: up to 20 of its paths that
    are not in images.
    """

    images: int
    rejected: int
    landed: int | None
    new: int
    seconds: float
    labels_added: int = 0
    labels_unknown: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The fields as {name: value}."""
        return asdict(self)

    def in_words(self) -> str:
        """A summary of a few lines."""
        lines = [f"{self.new} files in {self.seconds:.1f} s ({self.new / self.seconds:.0f} a second)"]
        if self.landed is not None:
            missing = self.landed - self.images - self.rejected
            rest = ""
            if missing > 0:
                rest = f" + {missing} that landed during this run: run again"
            elif missing < 0:
                rest = f" - {-missing} that have since been removed from the landing zone"
            lines.append(f"{self.landed} landed = {self.images} images + {self.rejected} rejected{rest}")
        if self.labels_added:
            lines.append(f"{self.labels_added} labels from ingest.label_source")
        if self.labels_unknown:
            lines.append(f"ingest.label_source names photographs that have not landed: {self.labels_unknown[:5]}")
        return "\n".join(lines)


def ingest(spark: SparkSession, cfg: Config, places: Places) -> Ingested:
    """Ingests the files that have landed since the last run, then stops.

    Waits while another ingest of this lakehouse is running. Raises lease.Lost.
    """
    with lease.held(spark, cfg, places, "ingest") as check:
        tables.create(spark, places)
        return _run(spark, cfg, places, check)


def _run(spark: SparkSession, cfg: Config, places: Places, check: Callable[[], None]) -> Ingested:
    began = time.monotonic()
    checkpoint, suspect = Path(places.checkpoints, "ingest"), _marker(places)
    with (
        workspace.small_batches(spark),
        ThreadPoolExecutor(1) as background,
        tqdm(desc="ingesting", unit="photo", bar_format="{desc} {n_fmt} photographs, {elapsed}, {rate_fmt}") as bar,
    ):
        run = chunk.Run(spark, cfg, places, bar, background.submit(chunk.load, spark, places), check)
        _heal(run, checkpoint)

        def batch(listed: DataFrame, _: int) -> None:
            if not run.known.result().rows:
                suspect.unlink(missing_ok=True)  # tables and checkpoint begin together
                run.checked = False
            chunk.take(run, _files(listed, places))
            run.checked = suspect.exists()

        (
            _stream(spark, cfg, places)
            .writeStream.trigger(availableNow=True)
            .option("checkpointLocation", str(checkpoint))
            .foreachBatch(batch)
            .start()
            .awaitTermination()
        )
        suspect.unlink(missing_ok=True)
        before = run.known.result().rows
        landed, (images, rejected) = (
            _second_look(run) if cfg.ingest.count_landed else (None, chunk.count(spark, places))
        )
    added, unknown = (
        labels.add_from_source(spark, places, cfg.ingest.label_source) if cfg.ingest.label_source else (0, [])
    )
    return Ingested(images, rejected, landed, images + rejected - before, time.monotonic() - began, added, unknown)


def _marker(places: Places) -> Path:
    """Marker file: while it exists, every batch is checked for rows already in images, not only a run's first one."""
    return Path(places.checkpoints, "ingest-checks-every-batch")


def _heal(run: chunk.Run, checkpoint: Path) -> None:
    """Handles a checkpoint and tables that do not belong together.

    Without rows in the tables the checkpoint is worthless. Without a checkpoint every batch must be checked.
    """
    if not (checkpoint / "metadata").exists():
        _check_every_batch(run.places)
    elif not run.known.result().rows:
        shutil.rmtree(checkpoint)


def _check_every_batch(places: Places) -> None:
    marker = _marker(places)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _stream(spark: SparkSession, cfg: Config, places: Places) -> DataFrame:
    if workspace.has_autoloader():
        reader = autoloader.reader(spark, cfg)
    else:
        # By default a stream ignores files a week older than the newest file, so the photographs of a device that was
        # offline for longer would be lost.
        reader = (
            spark.readStream.format("binaryFile")
            .option("maxFilesPerTrigger", cfg.ingest.max_files_per_batch)
            .option("maxFileAge", "36500d")
        )
    # Recursive lookup also prevents Spark from reading device=.../date=... as partition columns.
    return (
        reader.schema(FILE)
        .option("recursiveFileLookup", "true")
        .load(places.landing)
        .select("path", "modificationTime", "length")
    )


def _files(listed: DataFrame, places: Places) -> list[landing.File]:
    return [
        landing.File(landing.relative(places.landing, row.path), row.modificationTime.astimezone(UTC), row.length)
        for row in listed.collect()
    ]


def _second_look(run: chunk.Run) -> tuple[int, list[int]]:
    """Ingests files that the stream skips, rejected files that have changed, and all other files without a row.

    Returns (number of files that have landed, [rows of images, rows of rejected_images]).
    """
    landed, again = 0, []
    rejected = run.known.result().rejected
    for file in landing.walk(run.places.landing):
        landed += 1
        if file.path in rejected or landing.passed_over(file):
            again.append(file)
    _take_checked(run, again)
    rows = chunk.count(run.spark, run.places)
    if landed != sum(rows):
        _take_checked(run, _missing(run))
        rows = chunk.count(run.spark, run.places)
    return landed, rows


def _take_checked(run: chunk.Run, files: list[landing.File]) -> None:
    if files:
        _check_every_batch(run.places)
        run.checked = True
        chunk.take(run, files)


def _missing(run: chunk.Run) -> list[landing.File]:
    """Files without a row that the checkpoint may contain: a table was dropped, or they landed after the listing."""
    files = list(landing.walk(run.places.landing))
    names = run.spark.createDataFrame([(file.path,) for file in files], "path string")
    for table in ("images", "rejected_images"):
        names = names.join(run.spark.table(run.places.table(table)).select("path"), "path", "left_anti")
    missing = {row["path"] for row in names.collect()}
    return [file for file in files if file.path in missing]
