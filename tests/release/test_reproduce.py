"""A training is repeated from its MLflow record alone, on real engines and few images."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.ingest import stream, tables
from lakevision.platform import workspace
from lakevision.registry import tracking
from lakevision.release import reproduce, run_record
from lakevision.training import loop

pytestmark = pytest.mark.spark


def test_repeat_gives_equal_weights_after_the_table_has_changed(spark, trained, now, command):
    import mlflow

    cfg, run_id, done = trained.cfg, trained.run_id, trained.result
    places = workspace.places(cfg)
    first, second = sorted(Path(places.landing).rglob("*.jpg"))[:2]
    before = first.read_bytes()
    shutil.copyfile(second, first)  # another photograph under an old name, later than the training
    os.utime(first, (2e9, 2e9))
    first.with_name("new_" + first.name).write_bytes(before + b" ")
    stream.ingest(spark, cfg, places)
    assert tables.version(spark, places, "images") > int(mlflow.get_run(run_id).data.tags["delta_version"])
    shutil.rmtree(places.cache)

    result = command("repeat", run_id, "--set", f"storage.root={cfg.storage.root}")
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


def test_comparison_measures_how_far_two_models_are_apart(spark, trained, now, tmp_path):
    run_id, done = trained.run_id, trained.result
    record = run_record.read(run_id, now, tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    network = loop.with_weights(record.setting, done.result.weights)
    predicted = loop.predict(network, pixels).argmax(1).astype(np.int32)
    test = feed.Arrays(pixels, predicted, [])
    assert reproduce.compare(record, done, network, test).agrees
    kernel, bias = network.get_layer("probabilities").get_weights()
    network.get_layer("probabilities").set_weights([-kernel, -bias])
    other = replace(done, result=replace(done.result, weights=network.get_weights()))
    apart = reproduce.compare(record, other, network, test)
    assert (
        not apart.agrees and apart.accuracy_now == 0 and apart.accuracy_then == 1 and apart.probabilities_apart > 0.02
    )
    assert apart.weights_apart == pytest.approx(2 * float(np.abs(kernel).max()))
    assert "DOES NOT AGREE" in apart.lines()[-1] and "not equal" in apart.lines()[-2]


def test_other_photographs_are_refused(spark, trained, now, tmp_path):
    record = run_record.read(trained.run_id, now, tmp_path)
    strange = replace(record, placements=record.placements.assign(sha256="0" * 64))
    with pytest.raises(reproduce.NotRepeatable, match="holds 0 of the 64 photographs"):
        reproduce.demand_images(spark, workspace.places(record.cfg), strange)


def test_version_removed_by_vacuum_is_refused(spark, trained, now, tmp_path):
    cfg, run_id = trained.cfg, trained.run_id
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
