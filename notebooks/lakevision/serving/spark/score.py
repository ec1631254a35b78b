"""Scores images in Spark with a registered version: new images as a stream, older ones as a batch.

Each prediction is appended exactly once. The stream follows the change feed of `images`, and every batch leaves out
images that `predictions` already holds for the version. So a killed run, a lost checkpoint and a second run add no
duplicates. The batches that Spark sends to a worker bound its memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Observation, Window
from pyspark.sql import functions as F
from tqdm import tqdm

from lakevision.ingest import labels, lease
from lakevision.registry import model_registry
from lakevision.serving.spark import model as spark_model

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame, SparkSession

    from lakevision.platform import config, workspace

KEY = ["path", "sha256"]
# Up to this many keys (26 MB) go to each executor, so a join does not move photographs.
BROADCAST = 200_000


@dataclass
class Scored:
    """The result of a run. images: rows added to `predictions`; errors: those with an error; version: "" if none."""

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


def all_new(spark: SparkSession, cfg: config.Config, places: workspace.Places, version: ModelVersion | None) -> Scored:
    """Scores new images, and with the setting score.rescore also older ones.

    version: MLflow's model version, None if no version serves. Then nothing is scored.
    """
    if version is None:
        return Scored(0, 0, "", 0.0)
    with lease.held(spark, cfg, places, "score") as check:  # the jobs score and tour share a checkpoint
        new = stream(spark, cfg, places, version, check)
        if not cfg.score.rescore:
            return new
        check()
        old = batch(spark, cfg, places, version)
    return Scored(new.images + old.images, new.errors + old.errors, new.version, new.seconds + old.seconds)


def few(spark: SparkSession, model_uri: str, images: list[bytes]) -> list[list[float] | None]:
    """Scores image files in Spark. Returns the scores of each: a list of floats, None if the image has an error."""
    frame = spark.createDataFrame(
        [(number, bytearray(image)) for number, image in enumerate(images)], "number int, content binary"
    )
    with spark_model.small_tasks(spark):
        rows = spark_model.scorer(spark, model_uri)(frame).select("number", "scores").collect()
    scores = {row["number"]: row["scores"] for row in rows}
    return [scores[number] for number in range(len(images))]


def stream(
    spark: SparkSession,
    cfg: config.Config,
    places: workspace.Places,
    version: ModelVersion,
    check: Callable[[], None] = lambda: None,
) -> Scored:
    """Scores the images that are new to the stream.

    version: MLflow's model version; check: called before each write, raises lease.Lost to stop (see lease.py).
    """
    # Select columns here: each micro-batch has its own plan, in which Spark prunes no columns.
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


def batch(
    spark: SparkSession, cfg: config.Config, places: workspace.Places, version: ModelVersion, condition: str = "true"
) -> Scored:
    """Scores images that match an SQL condition, except those that the version has already scored.

    version: MLflow's model version; condition: on the columns of `images`.
    """
    began = time.monotonic()
    chosen = spark.table(places.table("images")).where(condition).select(*KEY, "content")
    with spark_model.small_tasks(spark):
        return _scored([_append(spark, places, version, _scorer(spark, cfg, places, version), chosen)], version, began)


def by_label(spark: SparkSession, places: workspace.Places) -> pd.DataFrame:
    """Counts the newest predictions by label and predicted class.

    Columns: label (from `labels`), prediction (class), photographs, mean probability. At most 100 rows.
    """
    rows = (
        latest(spark, places)
        .withColumnRenamed("label", "prediction")
        .join(labels.latest(spark, places).select("path", "label"), "path", "left")
    )
    figures = (F.count("*").alias("photographs"), F.round(F.avg("probability"), 3).alias("mean probability"))
    return rows.groupBy("label", "prediction").agg(*figures).orderBy("label", "prediction").limit(100).toPandas()


def _append(spark, places, version, scores, images):
    """Appends the missing predictions of images (path, sha256, content). Returns (rows, rows with an error)."""
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
    """Returns the keys (path, sha256) of the images that a version has scored, None if it has scored none."""
    made = spark.table(places.table("predictions")).where(
        (F.col("version") == str(version.version)) & (F.col("model") == version.name)
    )
    if made.isEmpty():
        return None  # isEmpty() reads Delta's statistics only; a new version's first batch needs no join
    return made.select(*KEY).join(images.select(*KEY), KEY, "left_semi")


def _without(images, done):
    """Removes the images with the keys `done`. Up to BROADCAST keys are broadcast, otherwise Spark chooses the join."""
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


def latest(spark: SparkSession, places: workspace.Places) -> DataFrame:
    """Returns each image's newest prediction: the columns of `predictions`, and device and captured_at of `images`."""
    newest = F.row_number().over(Window.partitionBy("path").orderBy(F.col("scored_at").desc()))
    rows = spark.table(places.table("predictions")).withColumn("rank", newest).where("rank = 1").drop("rank")
    return rows.join(spark.table(places.table("images")).select("path", "device", "captured_at"), "path")
