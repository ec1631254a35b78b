"""Scoring in Spark: each image once per version, even after a kill, a lost checkpoint or a second run."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from spark_photos import land, predictions

from lakevision.ingest import lease, stream
from lakevision.notebook import samples
from lakevision.platform.workspace import REPOSITORY
from lakevision.registry import model_registry
from lakevision.serving.spark import score

pytestmark = pytest.mark.spark


def test_scoring_holds_a_lease_and_stops_once_it_is_lost(scored, monkeypatch):
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


def test_images_are_scored_once_like_the_model_in_process(scored):
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
    wanted = models["1"].predict(images.loc[found.index][["content"]].rename(columns={"content": "image"}))
    assert list(found["label"]) == list(wanted["label"])
    for scores, wanted_scores in zip(found["scores"], wanted["scores"]):
        assert list(scores) == pytest.approx(wanted_scores, abs=1e-6)
    assert (
        (found["model"] == "lakevision").all() and (found["version"] == "1").all() and found["scored_at"].notna().all()
    )
    assert score.all_new(spark, cfg, places, champion).images == 0
    sure = [float(caption.split()[1]) for _, caption in samples.least_sure(spark, places, 6)]
    assert sure == sorted(sure) and max(sure) <= found["probability"].nsmallest(6).max() + 0.01

    land(places, 24, 6)
    stream.ingest(spark, cfg, places)
    assert score.all_new(spark, cfg, places, champion).images == 6
    shutil.rmtree(Path(places.checkpoints, "score"))  # a lost checkpoint: the stream starts from the beginning
    assert score.all_new(spark, cfg, places, champion).images == 0 and len(predictions(spark, places)) == 30

    # A later champion scores new images, and older ones only on demand.
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
    by_label = score.by_label(spark, places)
    assert list(by_label) == ["label", "prediction", "photographs", "mean probability"]
    assert by_label["photographs"].sum() == 30


@pytest.mark.parametrize("keys", [pytest.param(0, id="Spark chooses the join"), pytest.param(200_000, id="broadcast")])
def test_scored_images_are_left_out_with_either_join(scored, monkeypatch, keys):
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


def test_changed_file_becomes_an_error_without_kept_content(scored):
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


def test_nothing_is_scored_without_a_champion(scored):
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
cfg, places = pickle.load(open(sys.argv[1], "rb"))
tracking.start(cfg, places)
spark = workspace.spark(cfg)
tables.create(spark, places)
score.all_new(spark, cfg, places, model_registry.version_of(cfg, "champion"))
"""


@pytest.mark.kill
def test_kill_before_the_checkpoint_adds_no_duplicates(scored, tmp_path):
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
        assert process.poll() is None, "the scorer ended before it wrote rows"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(Path(places.checkpoints, "score", "commits").glob("0")), "killed too late to show anything"
    again = score.all_new(spark, cfg, places, model_registry.version_of(cfg, "champion"))
    found = spark.read.format("delta").load(f"{places.warehouse}/predictions").toPandas()
    assert again.images == 0 and len(found) == 24 and found["path"].is_unique
