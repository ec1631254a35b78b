"""Landing zone -> Delta: each file becomes one row of images or of rejected_images, once, however often this runs."""

import os
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import pandas as pd
from pyspark.sql import functions as F

from lakevision import metadata, tables, workspace

FILE = "path string, modificationTime timestamp, length bigint, content binary"
DESCRIBED = tuple(column for column in tables.IMAGES if column.name not in
                  ("path", "content", "length", "sha256", "modified_at", "ingested_at"))
PHOTO = "struct<error: string, " + ", ".join(f"{column.name}: {column.type}" for column in DESCRIBED) + ">"


@dataclass
class Ingested:
    """Rows in the tables after a run, files in the landing zone, and what this run added in how many seconds."""

    landed: int
    images: int
    rejected: int
    new: int
    seconds: float

    def figures(self):
        return asdict(self)


def run(spark, cfg, where):
    """Ingests what has landed since the last run, then stops. Returns Ingested."""
    tables.create(spark, where)
    began = time.monotonic()
    before = spark.table(where.table("images")).count() + spark.table(where.table("rejected_images")).count()
    stream = (_files(spark, cfg, where).writeStream.trigger(availableNow=True)
              .option("checkpointLocation", f"{where.checkpoints}/ingest")
              .foreachBatch(lambda batch, _: _write(spark, cfg, where, batch)).start())
    stream.awaitTermination()
    landed, empty = _listing(where.landing)
    _reject_empty(spark, where, empty)
    seconds = time.monotonic() - began
    images = spark.table(where.table("images")).count()
    rejected = spark.table(where.table("rejected_images")).count()
    return Ingested(landed=landed, images=images, rejected=rejected, new=images + rejected - before, seconds=seconds)


def _files(spark, cfg, where):
    if workspace.ON_DATABRICKS:
        reader = (spark.readStream.format("cloudFiles").option("cloudFiles.format", "binaryFile")
                  .option("cloudFiles.maxFilesPerTrigger", cfg.ingest.max_files_per_batch))
    else:
        reader = spark.readStream.format("binaryFile").option("maxFilesPerTrigger", cfg.ingest.max_files_per_batch)
    # Recursive lookup also keeps Spark from reading device=.../date=... as partition columns.
    return reader.schema(FILE).option("recursiveFileLookup", "true").load(where.landing)


def _listing(landing):
    """(number of files in the landing zone, [(relative path, time it was written)] of those that are empty); hidden names are no files to Spark either."""
    landed, empty = 0, []
    for folder, subfolders, names in os.walk(landing):
        subfolders[:] = [name for name in subfolders if name[0] not in "._"]
        for name in names:
            if name[0] in "._":
                continue
            landed += 1
            path = os.path.join(folder, name)
            status = os.stat(path)
            if status.st_size == 0:
                empty.append((os.path.relpath(path, landing), datetime.fromtimestamp(status.st_mtime, timezone.utc)))
    return landed, empty


def _reject_empty(spark, where, empty):
    """Spark's scan passes over files of zero bytes without a word; here they become rows of rejected_images like any other bad file."""
    if not empty:
        return
    rows = (spark.createDataFrame(empty, "path string, modified_at timestamp")
            .withColumn("content", F.lit(b"")).withColumn("length", F.lit(0).cast("bigint")).withColumn("sha256", F.sha2("content", 256))
            .withColumn("reason", F.lit("empty file (0 bytes)")).withColumn("ingested_at", F.current_timestamp()))
    _add(spark, where.table("rejected_images"), rows.select([column.name for column in tables.REJECTED_IMAGES]))


def describer(labels, zone):
    """The pandas UDF (path, content, modified_at) -> PHOTO. The content goes in and never comes back: returning it costs more than decoding."""

    @F.pandas_udf(PHOTO)
    def describe(path: pd.Series, content: pd.Series, modified_at: pd.Series) -> pd.DataFrame:
        times = modified_at.dt.tz_localize(timezone.utc) if modified_at.dt.tz is None else modified_at
        rows = [asdict(metadata.describe(*row, labels, zone)) for row in zip(path, content, times)]
        frame = pd.DataFrame(rows, columns=["error", *(column.name for column in DESCRIBED)])
        frame["captured_at"] = pd.to_datetime(frame["captured_at"], utc=True).astype("datetime64[ns, UTC]")
        frame[["width", "height"]] = frame[["width", "height"]].astype("Int32")
        return frame

    return describe


def _write(spark, cfg, where, batch):
    # 64 photographs an Arrow batch: the default of 10,000 would hold gigabytes.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "64")
    relative = F.regexp_replace("path", f"^(file:|dbfs:)?/*{_escape(where.landing.strip('/'))}/", "")
    described = (batch.select(relative.alias("path"), "content", "length", F.col("modificationTime").alias("modified_at"))
                 .withColumn("photo", describer(cfg.ingest.labels, cfg.ingest.timezone)("path", "content", "modified_at"))
                 .withColumn("sha256", F.sha2("content", 256)).withColumn("ingested_at", F.current_timestamp()))
    # Both tables read the same batch: without this every photograph would be decoded twice.
    described.persist()
    try:
        good = described.where("photo.error is null").select("*", "photo.*")
        bad = described.where("photo.error is not null").withColumn("reason", F.col("photo.error"))
        any_bad = not bad.select("path").isEmpty()  # this fills the cache, too; a MERGE of nothing still costs seconds
        for name, rows in (("images", good), ("rejected_images", bad))[:1 + any_bad]:
            _add(spark, where.table(name), rows.select([column.name for column in tables.TABLES[name][0]]))
    finally:
        described.unpersist()


def _add(spark, table, rows):
    """Insert-only MERGE by path: a batch that was written, but not checkpointed, before a crash is not written again."""
    from delta.tables import DeltaTable

    (DeltaTable.forName(spark, table).alias("old").merge(rows.alias("new"), "old.path = new.path")
     .whenNotMatchedInsertAll().execute())


def _escape(text):
    return "".join(f"\\{character}" if not character.isalnum() and character != "/" else character for character in text)
