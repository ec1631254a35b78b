"""A registered version in Spark's Python workers: the same predictions as MLflow's UDF, little overhead per task."""

import pytest
import rest_service

from device.simulation import porch
from lakevision.registry import model_registry
from lakevision.serving.spark import model as spark_model
from lakevision.serving.spark import score

pytestmark = pytest.mark.spark


def test_scorer_predicts_like_mlflows_udf_and_keeps_nulls(scored):
    import mlflow
    from pyspark.sql import functions as F

    spark, cfg, places, _ = scored()
    images = [(name, bytearray(data)) for name, data in [*rest_service.GOOD.items(), *rest_service.BAD.items()]] + [
        ("nothing", None)
    ]
    frame = spark.createDataFrame(images, "name string, content binary")
    uri = f"models:/{model_registry.name(cfg)}/1"
    small = {"spark.sql.execution.arrow.maxRecordsPerBatch": "32", "spark.sql.files.maxPartitionBytes": "32m"}
    usual = {key: spark.conf.get(key) for key in small}
    with spark_model.small_tasks(spark):
        assert {key: spark.conf.get(key) for key in small} == small
        ours = {row["name"]: row for row in spark_model.scorer(spark, uri)(frame).collect()}
        udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=spark_model.RESULT, env_manager="local")
        theirs = {
            row["name"]: row["row"]
            for row in frame.select("name", udf(F.struct(F.col("content").alias("image"))).alias("row")).collect()
        }
    assert {key: spark.conf.get(key) for key in small} == usual
    assert ours.keys() == theirs.keys() == {name for name, _ in images}
    for name in rest_service.GOOD:
        assert ours[name]["label"] == theirs[name]["label"] and ours[name]["error"] is None
        assert [ours[name]["probability"], *ours[name]["scores"]] == pytest.approx(
            [theirs[name]["probability"], *theirs[name]["scores"]], abs=1e-6
        )
    for name in [*rest_service.BAD, "nothing"]:
        assert ours[name]["error"] and ours[name]["error"] == theirs[name]["error"]
        assert ours[name]["label"] is None and ours[name]["probability"] is None and ours[name]["scores"] is None


def test_worker_has_little_to_tidy_between_two_tasks(scored):
    """No garbage and no zip files to reread: see spark_model._settle. Measured in a worker that has scored before."""

    def tidy(batches):
        import gc
        import sys
        import zipimport

        import pyarrow as pa

        for _ in batches:
            zips = sum(isinstance(finder, zipimport.zipimporter) for finder in sys.path_importer_cache.values())
            yield pa.RecordBatch.from_pydict(
                {
                    "zips": [zips],
                    "frozen": [gc.get_freeze_count()],
                    "tracked": [len(gc.get_objects())],
                    "loaded": ["tensorflow" in sys.modules],
                }
            )

    spark, cfg, _, _ = scored()
    score.few(spark, f"models:/{model_registry.name(cfg)}/1", [porch.jpeg(porch.plan(1)[0])] * 8)
    rows = (
        spark.range(2, numPartitions=2)
        .mapInArrow(tidy, "zips long, frozen long, tracked long, loaded boolean")
        .where("loaded")
        .collect()
    )
    assert rows and all(row["zips"] == 0 and row["frozen"] > 10 * row["tracked"] for row in rows), rows
