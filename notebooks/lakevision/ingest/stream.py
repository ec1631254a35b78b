"""Landing zone -> Delta: each file becomes one row of images or of rejected_images, once, however often this runs and whenever it is killed.

A stream finds what has landed; it carries names only. Then, chunk by chunk, Spark's workers open the files and describe them (one decode each),
the driver compares them with what is known (copies, the camera's history), and the rows are written with the bytes, while the next chunk is
being described: a Delta commit and a job's start cost as much as a hundred photographs, and this hides them.

Exactly once: a batch that was cut short comes again as the first batch of the next run, and only then. So the first batch of a run, and every
batch after a lost checkpoint, leaves out what images holds already. What rejected_images holds is always known, since a file that was
rejected and has changed since deserves a second look. What that look writes the stream may list later, as any file that it had not seen: the next run
then checks every batch.
"""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, timedelta
from pathlib import Path

import pandas as pd
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import functions as F
from tqdm import tqdm

from lakevision.ingest import autoloader, duplicates, image_reader, labels, landing, lease, quality, tables
from lakevision.platform import spark_session, workspace

FILE = "path string, modificationTime timestamp, length bigint, content binary"  # a file stream needs its schema given
CHUNK = 2048  # files for each core that are described, judged and written together; a commit costs half a second of a laptop
SLICES = 2  # tasks for each core in a chunk: photographs differ in size, and a task costs a tenth of a second to start
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
class Ingested:
    """Rows in the tables after a run; files in the landing zone (None where they are not counted); rows that this run added, in how many seconds;
    labels that ingest.label_source added, and up to 20 paths it names that are no photograph of ours."""

    images: int
    rejected: int
    landed: int
    new: int
    seconds: float
    labels_added: int = 0
    labels_unknown: list = field(default_factory=list)

    def figures(self):
        return asdict(self)

    def in_words(self):
        """What a person wants to know, in a few lines."""
        lines = [f"{self.new} files in {self.seconds:.1f} s ({self.new / self.seconds:.0f} a second)"]
        if self.landed is not None:
            missing = self.landed - self.images - self.rejected
            lines.append(
                f"{self.landed} landed = {self.images} images + {self.rejected} rejected"
                + (
                    f" + {missing} that landed meanwhile: run again"
                    if missing > 0
                    else f" - {-missing} that have been removed from the landing zone since"
                    if missing < 0
                    else ""
                )
            )
        if self.labels_added:
            lines.append(f"{self.labels_added} labels from ingest.label_source")
        if self.labels_unknown:
            lines.append(f"ingest.label_source names photographs that have not landed: {self.labels_unknown[:5]}")
        return "\n".join(lines)


@dataclass
class Run:
    """What a run carries from chunk to chunk. known: Future of Known."""

    spark: object
    cfg: object
    places: object
    bar: object
    known: object
    check: object  # raises lease.Lost before a write that another ingest may be making
    suspect: Path  # a file that stands there while any batch may hold files that images has; without it only the first one of a run
    checked: bool = True  # whether the next batch may


@dataclass
class Known:
    """What the tables held as the run began: Seen photographs, {device: quality.History}, {path: row} of rejected_images; rows of both."""

    seen: object
    histories: dict
    rejected: dict
    rows: int


def ingest(spark, cfg, places):
    """Ingests what has landed since the last run, then stops. Waits for another one that is at it. Returns Ingested. Raises lease.Lost."""
    with lease.held(spark, cfg, places, "ingest") as check:
        tables.create(spark, places)
        return _run(spark, cfg, places, check)


def _run(spark, cfg, places, check):
    began = time.monotonic()
    checkpoint, suspect = Path(places.checkpoints, "ingest"), Path(places.checkpoints, "ingest-checks-every-batch")
    with (
        workspace.small_batches(spark),
        ThreadPoolExecutor(1) as background,
        tqdm(desc="ingesting", unit="photo", bar_format="{desc} {n_fmt} photographs, {elapsed}, {rate_fmt}") as bar,
    ):
        this = Run(spark, cfg, places, bar, background.submit(_load, spark, places), check, suspect)
        _heal(this, checkpoint)

        def batch(listed, _):
            if not this.known.result().rows:
                suspect.unlink(missing_ok=True)  # tables and checkpoint begin together
                this.checked = False
            _take(
                this,
                [
                    landing.File(
                        landing.relative(places.landing, row.path), row.modificationTime.astimezone(UTC), row.length
                    )
                    for row in listed.collect()
                ],
            )
            this.checked = suspect.exists()

        (
            _stream(spark, cfg, places)
            .writeStream.trigger(availableNow=True)
            .option("checkpointLocation", str(checkpoint))
            .foreachBatch(batch)
            .start()
            .awaitTermination()
        )
        suspect.unlink(missing_ok=True)
        before = this.known.result().rows
        landed, (images, rejected) = _second_look(this) if cfg.ingest.count_landed else (None, _count(spark, places))
    added, unknown = (
        labels.add_from_source(spark, places, cfg.ingest.label_source) if cfg.ingest.label_source else (0, [])
    )
    return Ingested(images, rejected, landed, images + rejected - before, time.monotonic() - began, added, unknown)


def _count(spark, places):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: spark.table(places.table(name)).count(), ("images", "rejected_images")))


def _heal(this, checkpoint):
    """A checkpoint and tables that don't belong together: dropped tables make the checkpoint worthless, a lost one makes every batch suspect."""
    if not (checkpoint / "metadata").exists():
        _suspect(this.suspect)
    elif not this.known.result().rows:
        shutil.rmtree(checkpoint)


def _suspect(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _stream(spark, cfg, places):
    if workspace.has_autoloader():
        reader = autoloader.reader(spark, cfg)
    else:
        # By default a stream forgets about files a week older than the newest it has seen: a device that was offline for longer would lose them.
        reader = (
            spark.readStream.format("binaryFile")
            .option("maxFilesPerTrigger", cfg.ingest.max_files_per_batch)
            .option("maxFileAge", "36500d")
        )
    # Recursive lookup also keeps Spark from reading device=.../date=... as partition columns.
    return (
        reader.schema(FILE)
        .option("recursiveFileLookup", "true")
        .load(places.landing)
        .select("path", "modificationTime", "length")
    )


def _load(spark, places):
    """Known, from narrow columns of the tables."""
    if not any(_count(spark, places)):
        return Known(duplicates.Seen(), {}, {}, 0)
    images = spark.table(places.table("images"))
    first = images.where("duplicate_of IS NULL").select(
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
    bad = (
        spark.table(places.table("rejected_images"))
        .select("path", "modified_at", "length", "sha256", "ingested_at")
        .orderBy("ingested_at")
    )
    with ThreadPoolExecutor(3) as pool:
        bad, rows, first = (pool.submit(job) for job in (bad.collect, devices.collect, first.toPandas))
    rows, first = rows.result(), first.result()
    histories = {row["device"]: quality.History(row["count"], {name: row[name] for name in scores}) for row in rows}
    rejected, stale = {}, []
    for row in bad.result():
        if row["path"] in rejected:
            stale.append(
                rejected[row["path"]]
            )  # a run that was killed between writing the newer row and removing this one
        rejected[row["path"]] = row
    _remove(spark, places, stale)
    return Known(
        duplicates.Seen(first["path"], first["digest"], first["phash"], first["brightness"], first["leads"]),
        histories,
        rejected,
        sum(row["count"] for row in rows) + len(bad.result()) - len(stale),
    )


def _take(this, files):
    """Ingests files, list of landing.File, chunk after chunk; the one before is written while the next is described."""
    known = this.known.result()
    files = [file for file in files if file.path not in known.rejected or _changed(file, known.rejected[file.path])]
    if this.checked and files:
        listed = this.spark.createDataFrame([(file.path,) for file in files], "path string")
        images = this.spark.table(this.places.table("images")).select("path")
        there = {row["path"] for row in images.join(F.broadcast(listed), "path", "left_semi").collect()}
        labels.add_from_paths(
            this.spark,
            this.places,
            [file[:2] for file in files if file.path in there],
            this.cfg.ingest.labels,
            check=True,
        )
        _forget(this, there)
        files = [file for file in files if file.path not in there]
    files.sort(key=lambda file: (file.modified_at, file.path))  # the first copy of two is the earlier one
    size = CHUNK * spark_session.slots(this.spark)
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for start in range(0, len(files), size):
            described, frames = _describe(this, files[start : start + size])
            if writing:
                writing.result()
            writing = writer.submit(_write, this, described, frames, this.checked)
        if writing:
            writing.result()


def _changed(file, row):
    """Whether a file that was rejected is another one now, or could not be read then."""
    if row["sha256"] is None and row["length"] <= image_reader.LARGEST:
        return True
    # Spark's listing knows milliseconds, the file system nanoseconds.
    return file.length != row["length"] or abs(file.modified_at - row["modified_at"].astimezone(UTC)) > timedelta(
        milliseconds=1
    )


def _describe(this, files):
    """(DataFrame of image_reader.DESCRIBED, persisted; the thin columns in pandas with the driver's judgement of each photograph)."""
    spark, known = this.spark, this.known.result()
    slices = min(len(files), SLICES * spark_session.slots(spark))
    listed = spark.createDataFrame([tuple(file) for file in files], image_reader.LISTED).repartition(slices)
    described = listed.mapInArrow(
        image_reader.describer(this.places.landing, this.cfg.ingest.timezone), image_reader.DESCRIBED
    ).persist()
    scores = [f"score_{issue}" for issue in image_reader.SCORES]
    frames = pd.DataFrame(
        [
            {**row.asDict(), "modified_at": row["modified_at"].astimezone(UTC)}
            for row in described.select(*THIN, *scores).collect()
        ],
        columns=[name.split(".")[-1] for name in THIN] + scores,
        dtype=object,
    )
    # Never phash: beside one rejected file its column would be float64, and of 63 bits 53 would be left.
    frames = frames.astype(
        {
            name: float
            for name in frames.columns
            if name in ("width", "height", "brightness") or name.startswith("score_")
        }
    )
    frames = frames.sort_values(["modified_at", "path"], ignore_index=True)
    good = frames["error"].isna()
    looks = [
        known.seen.look(row.path, row.sha256, int(row.phash), row.brightness) if ok else (None, None, None)
        for row, ok in zip(frames.itertuples(), good)
    ]
    frames[["duplicate_of", "near_duplicate_of", "distance"]] = pd.DataFrame(
        looks, columns=["a", "b", "c"], index=frames.index, dtype=object
    )
    frames["side"] = (frames["width"] * frames["height"]) ** 0.5
    judged = quality.judge(frames[good].astype({"distance": float}), known.histories)
    return described, frames.join(judged)


def _write(this, described, frames, checked):
    """Writes one chunk: good rows with their bytes to images, the others to rejected_images, labels by path."""
    this.check()
    spark, places, cfg = this.spark, this.places, this.cfg
    good, bad = frames[frames["error"].isna()], frames[frames["error"].notna()]
    changed = spark.sparkContext.accumulator([], _Paths())
    try:
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(_write_images, spark, cfg, places, described, good, changed)] if len(good) else []
            if len(bad):
                rejected = (
                    described.where("error IS NOT NULL")
                    .withColumnRenamed("error", "reason")
                    .withColumnRenamed("kept", "content")
                )
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
                    "reason": F.lit(
                        "changed while it was being read: is it written in place? It is tried again in the next run"
                    ),
                }
            )
            _write_rejected(moving, places)
        _forget(this, frames["path"])
    finally:
        described.unpersist()
    this.bar.update(len(frames))


def _write_images(spark, cfg, places, described, good, changed):
    issues = [name for issue in quality.ISSUES for name in (f"{issue}_score", f"is_{issue}_issue")]
    rows = [
        (row.path, row.duplicate_of, row.near_duplicate_of, tuple(getattr(row, name) for name in issues))
        for row in good.itertuples()
    ]
    verdict = spark.createDataFrame(
        rows, f"path string, duplicate_of string, near_duplicate_of string, quality {tables.QUALITY}"
    )
    images = (
        described.where("error IS NULL")
        .join(F.broadcast(verdict), "path")
        .withColumn("ingested_at", F.current_timestamp())
    )
    if cfg.ingest.keep_content:
        images = images.withColumn("content", image_reader.reader(places.landing, changed)("path", "signature")).where(
            "content IS NOT NULL"
        )
    else:
        images = images.withColumn("content", F.lit(None).cast("binary"))
    _append(images, places, "images")


def _write_rejected(rows, places):
    _append(rows.withColumn("ingested_at", F.current_timestamp()), places, "rejected_images")


def _append(rows, places, name):
    # Photographs are compressed already: another round costs as much time as the writing itself and gains nothing.
    rows.select([column.name for column in tables.TABLES[name].columns]).writeTo(places.table(name)).option(
        "compression", "none"
    ).append()


def _forget(this, paths):
    """Removes what rejected_images said earlier of files that have a newer row by now."""
    rejected = this.known.result().rejected
    _remove(this.spark, this.places, [rejected.pop(path) for path in paths if path in rejected])


def _remove(spark, places, old):
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


def _second_look(this):
    """Takes what the stream passes over, files that were rejected and have changed since, and whatever else has no row.

    Returns (number of files that have landed, [rows of images, of rejected_images])."""
    landed, again = 0, []
    rejected = this.known.result().rejected
    for file in landing.walk(this.places.landing):
        landed += 1
        if file.path in rejected or landing.passed_over(file):
            again.append(file)
    _take_checked(this, again)
    rows = _count(this.spark, this.places)
    if landed != sum(rows):
        _take_checked(this, _missing(this))
        rows = _count(this.spark, this.places)
    return landed, rows


def _take_checked(this, files):
    if files:
        _suspect(this.suspect)
        this.checked = True
        _take(this, files)


def _missing(this):
    """Files that have no row, though the checkpoint may know them: a table was dropped, or they landed after the stream had looked."""
    files = list(landing.walk(this.places.landing))
    names = this.spark.createDataFrame([(file.path,) for file in files], "path string")
    for table in ("images", "rejected_images"):
        names = names.join(this.spark.table(this.places.table(table)).select("path"), "path", "left_anti")
    names = {row["path"] for row in names.collect()}
    return [file for file in files if file.path in names]


class _Paths(AccumulatorParam):
    """A list of paths that workers add to."""

    def zero(self, value):
        return []

    def addInPlace(self, value, more):
        return value + more
