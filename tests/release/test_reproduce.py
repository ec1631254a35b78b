"""A training is repeated from its MLflow record alone, on real engines and few images."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lakevision.dataset import cache, feed, split, split_table
from lakevision.ingest import capture, stream, tables
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.release import reproduce, run_record
from lakevision.training import horovod_ranks, loop, training_record


@pytest.fixture(scope="module")
def trained(spark, tmp_path_factory):
    """(cfg, run id, Trained) of a training as 03_train makes and records it, of two ranks at 32 px; its record says another Pillow."""
    import mlflow

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('repeat')}",
            "storage.schema=test_repeat",
            "capture.photographs=64",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
            "evaluation.purpose=" + "x" * 7000,
        ],
    )  # a param is cut at 6000 characters
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    pixels = cache.build(spark, cfg, places, placements, version)
    setting = replace(loop.first_setting(cfg, pixels), epochs=2, width=4, dropout=0.123)
    experiment = tracking.start(cfg, places)
    real = tracking.versions
    with pytest.MonkeyPatch.context() as patched, mlflow.start_run(experiment_id=experiment) as run:
        patched.setattr(tracking, "versions", lambda: {**real(), "pillow": "9.0.0"})
        tracking.record(cfg, version, placements, labels_version=tables.version(spark, places, "labels"))
        done = horovod_ranks.train(spark, cfg, places, pixels, setting)
        training_record.record_training(setting, done)
        tracking.record_network(loop.with_weights(setting, done.result.weights))
    return cfg, run.info.run_id, done


@pytest.fixture
def now(trained):
    """Today's configuration: it knows where the lakehouse is and nothing else of the run."""
    return config.load("local", [f"storage.root={trained[0].storage.root}"])


def test_the_record_holds_all_that_the_training_was_made_from(trained, now, tmp_path):
    cfg, run_id, done = trained
    record = run_record.read(run_id, now, tmp_path)
    assert record.cfg == cfg and record.notes == []
    assert (
        record.setting.dropout == 0.123
        and record.setting.width == 4
        and record.training["history"] == done.result.history
    )
    assert len(record.placements) == 64 and set(record.placements["split"]) == set(split.SPLIT_NAMES)


def test_a_repeat_ends_with_the_same_weights_though_the_table_has_moved_on(spark, trained, now, command):
    import mlflow

    cfg, run_id, done = trained
    places = workspace.places(cfg)
    first, second = sorted(Path(places.landing).rglob("*.jpg"))[:2]
    before = first.read_bytes()
    shutil.copyfile(second, first)  # another photograph under an old name, later than the training
    os.utime(first, (2e9, 2e9))
    first.with_name("new_" + first.name).write_bytes(before + b" ")
    stream.ingest(spark, cfg, places)
    assert tables.version(spark, places, "images") > int(mlflow.get_run(run_id).data.tags["delta_version"])
    shutil.rmtree(places.cache)

    result = command("--repeat", run_id, "--set", f"storage.root={cfg.storage.root}")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    pillow = tracking.versions()["pillow"]
    assert f"differs: pillow: 9.0.0 then, {pillow} now" in result.stdout and "weights equal to the bit" in result.stdout
    for number, figures in enumerate(done.result.history, start=1):
        assert (
            f"epoch {number:>3}  validation loss {figures['val_loss']:.6f}, repeated {figures['val_loss']:.6f}"
            in result.stdout
        )

    own = mlflow.search_runs(search_all_experiments=True, filter_string=f"tags.repeats = '{run_id}'").iloc[0]
    assert own["tags.agrees"] == "True" and own["metrics.probabilities_apart"] == 0 and own["status"] == "FINISHED"
    assert not mlflow.MlflowClient().search_registered_models() and not Path(places.figures, "train.json").exists()


def test_what_does_not_agree_says_how_far_it_is_apart(spark, trained, now, tmp_path):
    _, run_id, done = trained
    record = run_record.read(run_id, now, tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    network = loop.with_weights(record.setting, done.result.weights)
    said = loop.predict(network, pixels).argmax(1).astype(np.int32)
    test = feed.Arrays(pixels, said, [])
    assert reproduce.compare(record, done, network, test).agrees
    kernel, bias = network.get_layer("probabilities").get_weights()
    network.get_layer("probabilities").set_weights([-kernel, -bias])
    other = replace(done, result=replace(done.result, weights=network.get_weights()))
    found = reproduce.compare(record, other, network, test)
    assert (
        not found.agrees and found.accuracy_now == 0 and found.accuracy_then == 1 and found.probabilities_apart > 0.02
    )
    assert found.weights_apart == pytest.approx(2 * float(np.abs(kernel).max()))
    assert "DOES NOT AGREE" in found.lines()[-1] and "not equal" in found.lines()[-2]


def test_a_run_that_is_not_there_or_was_no_training(trained, now, tmp_path, command):
    import mlflow

    with pytest.raises(reproduce.NotRepeatable, match="not in this lakehouse's MLflow.*storage.root"):
        run_record.read("0" * 32, now, tmp_path)
    with mlflow.start_run(experiment_id=tracking.start(trained[0], workspace.places(trained[0]))) as bare:
        mlflow.set_tag("delta_version", 1)
    with pytest.raises(reproduce.NotRepeatable, match="has no config.json"):
        run_record.read(bare.info.run_id, now, tmp_path)
    refused = command("--repeat", trained[1], "--set", "training.epochs=3")
    assert refused.returncode == 2 and "takes all settings from the record" in refused.stderr


def test_settings_that_only_one_side_knows_are_said(trained, now):
    from dataclasses import asdict

    values = asdict(trained[0])
    values["training"]["old"] = 1
    del values["training"]["swap"]
    made, notes = config.of_record(values, now)
    assert made == trained[0]
    assert notes == [
        "training.old = 1 was recorded; this code has no such setting",
        "training.swap was not recorded; it is 0.0 now",
    ]


def test_another_lakehouse_is_noticed(spark, trained, now, tmp_path):
    record = run_record.read(trained[1], now, tmp_path)
    strange = replace(record, placements=record.placements.assign(sha256="0" * 64))
    with pytest.raises(reproduce.NotRepeatable, match="holds 0 of the 64 photographs"):
        reproduce.demand_images(spark, workspace.places(record.cfg), strange)


def test_a_version_that_vacuum_has_taken_is_said(spark, trained, now, tmp_path):
    cfg, run_id, _ = trained
    places = workspace.places(cfg)
    record = run_record.read(run_id, now, tmp_path)
    reproduce.demand_images(spark, places, record)
    spark.sql(f"UPDATE {places.table('images')} SET ingested_at = current_timestamp()")
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    spark.conf.set(check, "false")
    try:
        spark.sql(f"VACUUM {places.table('images')} RETAIN 0 HOURS")
    finally:
        spark.conf.unset(check)
    spark.catalog.clearCache()
    with pytest.raises(reproduce.NotRepeatable, match="VACUUM has removed.*ingest.retention_days"):
        reproduce.demand_images(spark, places, record)
    with pytest.raises(reproduce.NotRepeatable, match="version 999 of images can't be read"):
        reproduce.demand_images(spark, places, replace(record, delta_version=999))
