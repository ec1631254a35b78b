"""Spark scores images with a registered version, through MLflow's own UDF: new ones as a stream, any others as a batch. Predictions are appended.

Exactly once: the stream follows the change feed of images, and what predictions holds already of a version is left out of each batch. So a run
that was killed, a lost checkpoint and a second run add nothing twice. Memory is bounded by the batches that Spark sends to a worker.
"""

import time
from dataclasses import asdict, dataclass

import pandas as pd
from pyspark.sql import Window
from pyspark.sql import functions as F
from tqdm import tqdm

from lakevision import labels, landing, registry, tables, workspace

RESULT = "label string, probability double, scores array<double>, error string"


@dataclass
class Scored:
    """Rows that a run added to predictions, of them with an error, by which version, in how many seconds."""

    images: int
    errors: int
    version: str
    seconds: float

    def figures(self):
        return asdict(self)

    def in_words(self):
        if not self.version:
            return "no version serves: nothing was scored"
        if not self.images:
            return f"version {self.version} has scored every photograph already"
        return (f"version {self.version} scored {self.images} photographs in {self.seconds:.0f} s ({self.images / self.seconds:.0f} a second), "
                f"{self.errors} with an error")


def all_new(spark, cfg, where, version):
    """What 05_score does: the stream, and with score.rescore the older images. version: MLflow's, or None where none serves. Returns Scored."""
    if version is None:
        return Scored(0, 0, "", 0.0)
    new = stream(spark, cfg, where, version)
    if not cfg.score.rescore:
        return new
    old = batch(spark, cfg, where, version)
    return Scored(new.images + old.images, new.errors + old.errors, new.version, new.seconds + old.seconds)


def function(spark, model_uri):
    """The UDF of a registered version: a struct with a field `image` (bytes) -> RESULT."""
    import mlflow

    return mlflow.pyfunc.spark_udf(spark, model_uri, result_type=RESULT, env_manager="local")


def few(spark, model_uri, images):
    """Scores of a list of bytes by Spark: a list of lists of floats, None for an image that can't be scored."""
    frame = spark.createDataFrame([(place, bytearray(image)) for place, image in enumerate(images)], "place int, image binary")
    with workspace.small_batches(spark):
        rows = frame.select("place", function(spark, model_uri)(F.struct("image"))["scores"].alias("scores")).collect()
    found = {row["place"]: row["scores"] for row in rows}
    return [found[place] for place in range(len(images))]


def stream(spark, cfg, where, version):
    """Scores the images that no earlier run of the stream has seen. version: MLflow's model version. Returns Scored."""
    images = (spark.readStream.format("delta").option("readChangeFeed", "true").option("maxBytesPerTrigger", f"{cfg.score.batch_mb}m")
              .table(where.table("images")).where("_change_type IN ('insert', 'update_postimage')"))
    began, added, counted = time.monotonic(), [], spark.table(where.table("images")).count()
    scorer = function(spark, _uri(cfg, version))
    with tqdm(total=counted, desc=f"scoring with version {version.version}", unit="photo", mininterval=1) as bar:
        def write(batch, number):
            added.append(_append(batch.sparkSession, cfg, where, version, scorer, batch))
            bar.update(added[-1][0])

        query = images.writeStream.foreachBatch(write).option("checkpointLocation", f"{where.checkpoints}/score").trigger(availableNow=True).start()
        query.awaitTermination()
        bar.total = bar.n
    return _scored(added, version, began)


def batch(spark, cfg, where, version, condition="true"):
    """Scores the images that a condition (SQL, over the columns of images) picks and this version has not scored yet. Returns Scored."""
    began = time.monotonic()
    chosen = spark.table(where.table("images")).where(condition)
    return _scored([_append(spark, cfg, where, version, function(spark, _uri(cfg, version)), chosen)], version, began)


def by_label(spark, where):
    """How often each class was said, by what the photograph is labelled, pandas: label (of `labels`), said, photographs, mean probability."""
    rows = latest(spark, where).withColumnRenamed("label", "said").join(labels.latest(spark, where).select("path", "label"), "path", "left")
    figures = (F.count("*").alias("photographs"), F.round(F.avg("probability"), 3).alias("mean probability"))
    return rows.groupBy("label", "said").agg(*figures).orderBy("label", "said").limit(100).toPandas()


def _append(spark, cfg, where, version, scorer, images):
    """Writes the predictions that a version has not made yet of a DataFrame with the columns of images. Returns (rows, of them with an error)."""
    keys = images.select("path", "sha256").distinct()
    done = (spark.table(where.table("predictions")).where((F.col("version") == version.version) & (F.col("model") == version.name))
            .join(F.broadcast(keys), ["path", "sha256"]).select("path", "sha256"))
    # Small, so the photographs' bytes are not sent about for the join.
    todo = images.join(F.broadcast(done), ["path", "sha256"], "left_anti")
    image = F.col("content")
    if not cfg.ingest.keep_content:
        image = F.coalesce(image, _fetched(where.landing)("path", "sha256"))
    said = scorer(F.struct(image.alias("image")))
    before = tables.version(spark, where, "predictions")
    with workspace.small_batches(spark):
        (todo.withColumn("said", said).select("path", "sha256", "said.*", F.lit(version.name).alias("model"), F.lit(version.version).alias("version"),
                                              F.lit("spark").alias("scored_by"), F.current_timestamp().alias("scored_at"))
         .write.format("delta").mode("append").saveAsTable(where.table("predictions")))
    return _written(spark, where, before)


def _written(spark, where, before):
    now = tables.version(spark, where, "predictions")
    if now == before:
        return 0, 0
    fresh = (spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", before + 1).option("endingVersion", now)
             .table(where.table("predictions")))
    row = fresh.agg(F.count("*").alias("rows"), F.count("error").alias("errors")).first()
    return row["rows"], row["errors"]


def _fetched(root):
    """The pandas UDF (path, sha256) -> bytes from the landing zone; null where the file is gone or another one now, and the model then says so."""
    @F.pandas_udf("binary")
    def fetch(path: pd.Series, sha256: pd.Series) -> pd.Series:
        def one(path, sha256):
            try:
                return landing.content(root, path, sha256, None)
            except landing.Changed:
                return None

        return pd.Series([one(*row) for row in zip(path, sha256)], dtype=object)

    return fetch


def _uri(cfg, version):
    return f"models:/{registry.name(cfg)}/{version.version}"


def _scored(added, version, began):
    return Scored(sum(rows for rows, _ in added), sum(errors for _, errors in added), version.version, time.monotonic() - began)


def latest(spark, where):
    """The newest prediction of each image, as a DataFrame: predictions joined with device and captured_at of images."""
    newest = F.row_number().over(Window.partitionBy("path").orderBy(F.col("scored_at").desc()))
    rows = spark.table(where.table("predictions")).withColumn("place", newest).where("place = 1").drop("place")
    return rows.join(spark.table(where.table("images")).select("path", "device", "captured_at"), "path")
