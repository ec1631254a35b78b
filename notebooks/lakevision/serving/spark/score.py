"""Scores images in Spark with a registered version: new images as a stream, older ones as a batch.

Each prediction is appended exactly once. The stream follows the change feed of `images`, and every batch leaves out
images that `predictions` already holds for the version. So a killed run, a lost checkpoint and a second run add no
duplicates. Memory is bounded by the batches that Spark sends to a worker.
"""

import time
from dataclasses import asdict, dataclass

from pyspark.sql import Observation, Window
from pyspark.sql import functions as F
from tqdm import tqdm

from lakevision.ingest import labels, lease
from lakevision.registry import model_registry
from lakevision.serving.spark import model as spark_model

KEY = ["path", "sha256"]
BROADCAST = 200_000  # keys, 26 MB: sent to each executor, so that a join does not move photographs


@dataclass
class Scored:
    """Rows that a run added to predictions, rows with an error, the version and the seconds."""

    images: int
    errors: int
    version: str
    seconds: float

    def figures(self) -> dict:
        """The fields as a dict."""
        return asdict(self)

    def in_words(self) -> str:
        """The result as a sentence."""
        if not self.version:
            return "no version serves: nothing was scored"
        if not self.images:
            return f"version {self.version} has scored every photograph already"
        rate = self.images / self.seconds
        return (
            f"version {self.version} scored {self.images} photographs in {self.seconds:.0f} s ({rate:.0f} a second), "
            f"{self.errors} with an error"
        )


def all_new(spark, cfg, places, version):
    """Scores new images, and older ones with score.rescore. version: MLflow's, None if none serves. Returns Scored."""
    if version is None:
        return Scored(0, 0, "", 0.0)
    with lease.held(spark, cfg, places, "score") as check:  # the jobs score and tour share a checkpoint
        new = stream(spark, cfg, places, version, check)
        if not cfg.score.rescore:
            return new
        check()
        old = batch(spark, cfg, places, version)
    return Scored(new.images + old.images, new.errors + old.errors, new.version, new.seconds + old.seconds)


def few(spark, model_uri, images):
    """Scores of a list of bytes by Spark: a list of lists of floats, None for an image that can't be scored."""
    frame = spark.createDataFrame(
        [(place, bytearray(image)) for place, image in enumerate(images)], "place int, content binary"
    )
    with spark_model.small_tasks(spark):
        rows = spark_model.scorer(spark, model_uri)(frame).select("place", "scores").collect()
    found = {row["place"]: row["scores"] for row in rows}
    return [found[place] for place in range(len(images))]


def stream(spark, cfg, places, version, check=lambda: None):
    """Scores the images that are new to the stream. Returns Scored.

    version: MLflow's model version; check: called before each write, see lease.py.
    """
    # Selected here: a micro-batch is a plan of its own, in which nothing is pruned.
    images = (
        spark.readStream.format("delta")
        .option("readChangeFeed", "true")
        .option("maxBytesPerTrigger", f"{cfg.score.batch_mb}m")
        .table(places.table("images"))
        .where("_change_type IN ('insert', 'update_postimage')")
        .select(*KEY, "content")
    )
    began, added, counted = time.monotonic(), [], spark.table(places.table("images")).count()
    scores = _scorer(spark, cfg, places, version)
    with (
        spark_model.small_tasks(spark),
        tqdm(total=counted, desc=f"scoring with version {version.version}", unit="photo", mininterval=1) as bar,
    ):

        def write(batch, number):
            check()
            added.append(_append(batch.sparkSession, places, version, scores, batch))
            bar.update(added[-1][0])

        query = (
            images.writeStream.foreachBatch(write)
            .option("checkpointLocation", f"{places.checkpoints}/score")
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        bar.total = bar.n
    return _scored(added, version, began)


def batch(spark, cfg, places, version, condition="true"):
    """Scores images that match an SQL condition and that this version has not scored. Returns Scored."""
    began = time.monotonic()
    chosen = spark.table(places.table("images")).where(condition).select(*KEY, "content")
    with spark_model.small_tasks(spark):
        return _scored([_append(spark, places, version, _scorer(spark, cfg, places, version), chosen)], version, began)


def by_label(spark, places):
    """Predictions by label, pandas: label (of `labels`), said, photographs, mean probability."""
    rows = (
        latest(spark, places)
        .withColumnRenamed("label", "said")
        .join(labels.latest(spark, places).select("path", "label"), "path", "left")
    )
    figures = (F.count("*").alias("photographs"), F.round(F.avg("probability"), 3).alias("mean probability"))
    return rows.groupBy("label", "said").agg(*figures).orderBy("label", "said").limit(100).toPandas()


def _append(spark, places, version, scores, images):
    """Appends a version's missing predictions of images (path, sha256, content). Returns (rows, rows with an error)."""
    counted = Observation()
    (
        scores(_without(images, _done(spark, places, version, images)))
        .select(
            *KEY,
            "label",
            "probability",
            "scores",
            "error",
            F.lit(version.name).alias("model"),
            F.lit(str(version.version)).alias("version"),
            F.lit("spark").alias("scored_by"),
            F.current_timestamp().alias("scored_at"),
        )
        .observe(counted, F.count(F.lit(1)).alias("rows"), F.count("error").alias("errors"))
        .write.format("delta")
        .mode("append")
        .saveAsTable(places.table("predictions"))
    )
    return counted.get["rows"], counted.get["errors"]


def _done(spark, places, version, images):
    """Keys (path, sha256) of the images that a version has scored. None if the version has scored no image."""
    made = spark.table(places.table("predictions")).where(
        (F.col("version") == str(version.version)) & (F.col("model") == version.name)
    )
    if made.isEmpty():
        return None  # read from Delta's statistics: a new version's first batch needs no join
    return made.select(*KEY).join(images.select(*KEY), KEY, "left_semi")


def _without(images, done):
    """Images without the keys `done`. Up to BROADCAST keys go to each executor; beyond, Spark chooses the join."""
    many = done.count() if done is not None else 0
    if not many:
        return images
    return images.join(F.broadcast(done) if many <= BROADCAST else done, KEY, "left_anti")


def _scorer(spark, cfg, places, version):
    root = "" if cfg.ingest.keep_content else places.landing
    return spark_model.scorer(spark, f"models:/{model_registry.name(cfg)}/{version.version}", root)


def _scored(added, version, began):
    return Scored(
        sum(rows for rows, _ in added),
        sum(errors for _, errors in added),
        str(version.version),
        time.monotonic() - began,
    )


def latest(spark, places):
    """The newest prediction of each image, as a DataFrame: predictions joined with device and captured_at of images."""
    newest = F.row_number().over(Window.partitionBy("path").orderBy(F.col("scored_at").desc()))
    rows = spark.table(places.table("predictions")).withColumn("place", newest).where("place = 1").drop("place")
    return rows.join(spark.table(places.table("images")).select("path", "device", "captured_at"), "path")
