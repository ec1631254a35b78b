"""Scoring in Spark: what the model says in process, once for each image and version, whatever is killed, lost or run again."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rest_service  # noqa: E402

from device.simulation import porch  # noqa: E402
from lakevision.ingest import lease, stream
from lakevision.notebook import samples
from lakevision.platform.workspace import REPOSITORY  # noqa: E402
from lakevision.registry import model_registry
from lakevision.serving.spark import model as spark_model  # noqa: E402
from lakevision.serving.spark import score


def land(places, first, count):
    for scene in porch.plan(first + count, size=(64, 64))[first:]:
        path = Path(places.landing, porch.key(scene))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(porch.jpeg(scene))


@pytest.fixture
def scored(lakehouse, tmp_path):
    """(settings) -> (spark, cfg, where, {number: pyfunc}) of 24 ingested photographs and a registry with versions 1 (champion) and 2."""
    spark, make = lakehouse

    def prepare(*settings):
        models = rest_service.registered(tmp_path)[1]
        cfg, places = make(*settings)
        land(places, 0, 24)
        stream.ingest(spark, cfg, places)
        return spark, cfg, places, models

    return prepare


def predictions(spark, places):
    return spark.table(places.table("predictions")).toPandas()


def test_scoring_holds_a_lease_and_asks_before_it_writes(scored, monkeypatch):
    from contextlib import contextmanager

    spark, cfg, places, _ = scored()
    champion, asked = model_registry.version_of(cfg, "champion"), []

    @contextmanager
    def lost(spark, cfg, places, name):
        def check():
            asked.append(name)
            raise lease.Lost("taken over")

        yield check

    with monkeypatch.context() as patch:
        patch.setattr(lease, "held", lost)
        with pytest.raises(Exception, match="taken over"):
            score.all_new(spark, cfg, places, champion)
    assert asked == ["score"] and len(predictions(spark, places)) == 0
    assert score.all_new(spark, cfg, places, champion).images == 24


def test_new_images_are_scored_once_as_the_model_says_in_process(scored):
    spark, cfg, places, models = scored()
    champion = model_registry.version_of(cfg, "champion")
    first = score.all_new(spark, cfg, places, champion)
    assert (first.images, first.errors, first.version) == (24, 0, "1") and "scored 24 photographs" in first.in_words()
    found = predictions(spark, places).set_index("path")
    images = spark.table(places.table("images")).select("path", "sha256", "content").toPandas().set_index("path")
    assert (
        found.index.is_unique
        and set(found.index) == set(images.index)
        and (found["sha256"] == images["sha256"].loc[found.index]).all()
    )
    said = models["1"].predict(images.loc[found.index][["content"]].rename(columns={"content": "image"}))
    assert list(found["label"]) == list(said["label"])
    for one, other in zip(found["scores"], said["scores"]):
        assert list(one) == pytest.approx(other, abs=1e-6)
    assert (
        (found["model"] == "lakevision").all() and (found["version"] == "1").all() and found["scored_at"].notna().all()
    )
    assert score.all_new(spark, cfg, places, champion).images == 0
    sure = [float(caption.split()[1]) for _, caption in samples.least_sure(spark, places, 6)]
    assert sure == sorted(sure) and max(sure) <= found["probability"].nsmallest(6).max() + 0.01

    land(places, 24, 6)
    stream.ingest(spark, cfg, places)
    assert score.all_new(spark, cfg, places, champion).images == 6
    shutil.rmtree(Path(places.checkpoints, "score"))  # a lost checkpoint: the stream begins anew
    assert score.all_new(spark, cfg, places, champion).images == 0 and len(predictions(spark, places)) == 30

    # Another champion scores what is new from then on; the old ones on demand.
    model_registry.set_alias(cfg, "champion", "2")
    later = model_registry.version_of(cfg, "champion")
    assert score.all_new(spark, cfg, places, later).images == 0
    camera = spark.table(places.table("images")).first()["device"]
    some = score.batch(spark, cfg, places, later, f"device = '{camera}'")
    assert some.images > 0 and score.batch(spark, cfg, places, later).images == 30 - some.images
    assert (
        predictions(spark, places).groupby(["path", "version"]).size().max() == 1
        and len(predictions(spark, places)) == 60
    )
    newest = score.latest(spark, places).toPandas()
    assert len(newest) == 30 and (newest["version"] == "2").all()
    assert score.by_label(spark, places)["photographs"].sum() == 30


def test_spark_says_what_mlflows_own_udf_says_and_keeps_nulls_null(scored):
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
            row["name"]: row["said"]
            for row in frame.select("name", udf(F.struct(F.col("content").alias("image"))).alias("said")).collect()
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


def test_a_worker_has_little_to_tidy_between_two_tasks(scored):
    """Neither garbage nor zips: see spark_model._settle. Asked of the same worker, after a task that scored."""

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


@pytest.mark.parametrize("keys", [pytest.param(0, id="Spark chooses the join"), pytest.param(200_000, id="broadcast")])
def test_what_a_version_has_scored_is_left_out_however_spark_joins(scored, monkeypatch, keys):
    spark, cfg, places, _ = scored()
    monkeypatch.setattr(score, "BROADCAST", keys)
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1" if keys == 0 else "10m")
    try:
        version = model_registry.version_of(cfg, "champion")
        camera = spark.table(places.table("images")).first()["device"]
        some = score.batch(spark, cfg, places, version, f"device = '{camera}'")
        assert 0 < some.images < 24 and score.batch(spark, cfg, places, version).images == 24 - some.images
        assert score.batch(spark, cfg, places, version).images == 0
    finally:
        spark.conf.unset("spark.sql.autoBroadcastJoinThreshold")
    found = predictions(spark, places)
    assert len(found) == 24 and found["path"].is_unique


def test_without_the_bytes_in_the_table_a_file_that_changed_is_one_row_with_a_reason(scored):
    spark, cfg, places, _ = scored("ingest.keep_content=false")
    victim = sorted(Path(places.landing).rglob("*.jpg"))[3]
    victim.write_bytes(victim.read_bytes() + b" ")
    done = score.all_new(spark, cfg, places, model_registry.version_of(cfg, "champion"))
    assert (done.images, done.errors) == (24, 1)
    found = predictions(spark, places).set_index("path")
    wrong = found[found["error"].notna()]
    assert (
        list(wrong.index) == [victim.relative_to(places.landing).as_posix()]
        and "no image" in wrong["error"].iloc[0]
        and wrong["label"].isna().all()
    )


def test_where_no_version_serves_nothing_is_scored_and_that_is_said(scored):
    spark, cfg, places, _ = scored()
    nothing = score.all_new(spark, cfg, places, None)
    assert (
        nothing.images == 0
        and nothing.in_words() == "no version serves: nothing was scored"
        and predictions(spark, places).empty
    )


SCORER = """
import pickle, sys
from lakevision.ingest import tables
from lakevision.platform import workspace
from lakevision.registry import model_registry, tracking
from lakevision.serving.spark import score
cfg, where = pickle.load(open(sys.argv[1], "rb"))
tracking.start(cfg, where)
spark = workspace.spark(cfg)
tables.create(spark, where)
score.all_new(spark, cfg, where, model_registry.version_of(cfg, "champion"))
"""


def test_a_kill_between_a_batchs_rows_and_its_checkpoint_adds_nothing_twice(scored, tmp_path):
    spark, cfg, places, _ = scored()
    (tmp_path / "job").write_bytes(pickle.dumps((cfg, places)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "notebooks"), str(REPOSITORY)])}
    log = Path(places.warehouse, "predictions", "_delta_log")
    before = len(list(log.glob("*.json")))
    process = subprocess.Popen(
        [sys.executable, "-c", SCORER, str(tmp_path / "job")],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(log.glob("*.json"))) == before:
        assert process.poll() is None, "the scorer ended before its rows were there"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(Path(places.checkpoints, "score", "commits").glob("0")), "killed too late to show anything"
    again = score.all_new(spark, cfg, places, model_registry.version_of(cfg, "champion"))
    found = spark.read.format("delta").load(f"{places.warehouse}/predictions").toPandas()
    assert again.images == 0 and len(found) == 24 and found["path"].is_unique
