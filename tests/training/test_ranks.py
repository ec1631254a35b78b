"""Ranks over Spark on both engines: equal weights, a killed rank, a killed driver, and more ranks than images."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from lakevision.dataset import cache
from lakevision.platform.workspace import REPOSITORY
from lakevision.training import loop, ranks

ENGINES = ("horovod", "collectives")
VARIABLE = {"horovod": "HOROVOD_RANK", "collectives": "TF_CONFIG"}  # in the environment of a rank
RANK_1 = {"horovod": "^1$", "collectives": '"index": 1'}
LONG = 40  # epochs: time to kill a rank between the first and the last


def on(engine, cfg):
    return replace(cfg, training=replace(cfg.training, engine=engine))


@pytest.fixture(scope="module")
def whole(spark, cached):
    """The training of LONG epochs that nothing interrupts."""
    cfg, places, _, built = cached
    setting = replace(loop.first_setting(cfg, built), epochs=LONG, width=4)
    return setting, ranks.train(spark, on("horovod", cfg), places, built, setting)


def test_both_engines_end_with_equal_averaged_weights(spark, cached, arrays, setting):
    cfg, places, _, built = cached
    first, second = (ranks.train(spark, on(engine, cfg), places, built, setting) for engine in ENGINES)
    assert (first.engine, second.engine) == ENGINES
    assert len(first.digests) == 2 and set(first.digests) == set(second.digests) == {first.result.digest}
    assert first.result.history == second.result.history and len(first.result.history) == setting.epochs
    # One rank's share alone, with no exchange: what both ranks would have ended with, each its own, had nothing been
    # averaged.
    alone = loop.fit(arrays["train"], arrays["validation"], setting)
    assert alone.digest != first.digests[0]
    assert all(np.isfinite(weight).all() for weight in first.result.weights)


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_rank_costs_a_retry_and_no_weight(spark, cached, whole, engine, capsys):
    cfg, places, _, built = cached
    setting, uninterrupted = whole
    folder = Path(places.root, "ranks", ranks.key(built, setting, 2))
    killed, own = [], psutil.Process()  # other tests, which run beside this one, have ranks too

    def kill():
        while not killed:
            time.sleep(0.05)
            if (folder / "checkpoint").exists():
                for process in own.children(recursive=True):
                    try:
                        if re.search(RANK_1[engine], process.environ().get(VARIABLE[engine], "")) and not killed:
                            process.kill()
                            killed.append(process.pid)
                    except psutil.NoSuchProcess:
                        continue  # ended meanwhile

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    trained = ranks.train(spark, on(engine, cfg), places, built, setting)
    watcher.join(10)
    assert killed and "restart from the last whole epoch" in capsys.readouterr().out
    assert trained.digests == uninterrupted.digests and not folder.exists()
    assert trained.result.history == uninterrupted.result.history


@pytest.mark.parametrize("engine", ENGINES)
def test_failing_rank_shows_its_traceback(spark, cached, setting, engine):
    cfg, places, _, built = cached
    with pytest.raises(ranks.RankFailed, match="no_such_network"):
        ranks.train(spark, on(engine, cfg), places, built, replace(setting, model="no_such_network"))


def test_more_ranks_than_slots_fails_at_once(spark, cached, setting):
    from lakevision.platform import config

    cfg, places, _, built = cached
    more = config.load("local", [f"storage.root={places.root}", "training.ranks=64"])
    with pytest.raises(ValueError, match="64"):
        ranks.train(spark, more, places, built, setting)


DRIVER = """
import pickle, sys
from lakevision.platform import workspace
from lakevision.training import ranks
cfg, where, built, setting = pickle.load(open(sys.argv[1], "rb"))
trained = ranks.train(workspace.spark(cfg), cfg, where, built, setting)
print(trained.result.digest, len(trained.result.history))
"""


def test_training_resumes_to_same_weights_after_kill(cached, whole, tmp_path):
    cfg, places, _, built = cached
    setting, uninterrupted = whole
    (tmp_path / "job").write_bytes(pickle.dumps((cfg, places, built, setting)))
    folder = Path(places.root, "ranks", ranks.key(built, setting, 2))
    driver = [sys.executable, "-c", DRIVER, str(tmp_path / "job")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "notebooks"), str(REPOSITORY)])}
    process = subprocess.Popen(
        driver, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (folder / "checkpoint").exists():
        assert process.poll() is None, "the driver ended before its first epoch"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = (folder / "checkpoint").stat().st_size
    done = subprocess.run(driver, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert kept and done.stdout.split()[-2:] == [uninterrupted.result.digest, str(LONG)]


def part(spark, cfg, places, placements, version, train_images, one_of=None):
    """The Cache of a few training images, all others left out; one_of: a class of which one alone stays."""
    chosen = placements[placements["split"] == "train"].sort_values("sha256")
    chosen = chosen.drop(chosen[chosen["label"] == one_of].index[1:]) if one_of else chosen.groupby("label").head(1)
    return cache.build(
        spark, cfg, places, pd.concat([chosen.head(train_images), placements[placements["split"] != "train"]]), version
    )


def test_single_image_of_a_class_reaches_all_ranks(spark, cached, setting):
    cfg, places, placements, built = cached
    few = part(spark, cfg, places, placements, built.delta_version, 64, one_of="package")
    assert few.labels["train"][1] == 1 < few.labels["train"][0]
    trained = ranks.train(spark, cfg, places, few, setting)
    assert len(set(trained.digests)) == 1 and np.isfinite([epoch["loss"] for epoch in trained.result.history]).all()


def test_fewer_images_than_ranks_still_train(spark, cached, setting):
    """Each rank still makes its step: the one image is seen by both."""
    cfg, places, placements, built = cached
    one = part(spark, cfg, places, placements, built.delta_version, 1)
    assert one.counts["train"] == 1
    trained = ranks.train(spark, cfg, places, one, setting)
    assert len(set(trained.digests)) == 1 and len(trained.result.history) == setting.epochs
