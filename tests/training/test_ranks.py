"""Horovod ranks over Spark: averaged gradients, a killed rank, a killed driver, and more ranks than images."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lakevision.dataset import cache
from lakevision.platform.workspace import REPOSITORY
from lakevision.training import loop, ranks


def test_two_ranks_end_with_equal_averaged_weights(spark, cached, arrays, setting):
    cfg, places, _, built = cached
    trained = ranks.train(spark, cfg, places, built, setting)
    assert len(trained.digests) == 2 and len(set(trained.digests)) == 1
    assert trained.result.digest == trained.digests[0]
    # One rank's share alone, with no exchange: what both ranks would have ended with, each its own, had nothing been
    # averaged.
    alone = loop.fit(arrays["train"], arrays["validation"], setting)
    assert alone.digest != trained.digests[0]
    assert (
        all(np.isfinite(weight).all() for weight in trained.result.weights)
        and len(trained.result.history) == setting.epochs
    )


def test_gradients_are_averaged(spark):
    import horovod.spark

    from lakevision.platform import workspace

    def probe(library):
        import os
        import sys
        import tempfile

        path = os.path.join(tempfile.mkdtemp(), "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path.insert(0, path)
        import horovod.tensorflow as hvd
        import tensorflow as tf

        from lakevision.training import loop

        hvd.init()
        mine = [tf.fill((2, 3), 1.0 + hvd.rank()), tf.fill((4,), 10.0 * hvd.rank())]
        return [gradient.numpy().tolist() for gradient in loop._average(mine, hvd)]

    results = horovod.spark.run(probe, args=(workspace.library(),), num_proc=2, use_gloo=True, verbose=0)
    assert results == [[[[1.5] * 3] * 2, [5.0] * 4]] * 2


def test_killed_rank_costs_a_retry_and_no_weight(spark, cached, setting, capsys):
    cfg, places, _, built = cached
    setting = replace(setting, epochs=40)
    folder = Path(places.root, "ranks", ranks.key(built, setting, 2))
    killed = []

    def kill():
        while not killed:
            time.sleep(0.05)
            if (folder / "checkpoint").exists():
                for process in Path("/proc").glob("[0-9]*"):
                    try:
                        if b"HOROVOD_RANK=1" in (process / "environ").read_bytes().split(b"\0") and not killed:
                            os.kill(int(process.name), signal.SIGKILL)
                            killed.append(process.name)
                    except OSError:
                        continue  # ended meanwhile

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    trained = ranks.train(spark, cfg, places, built, setting)
    watcher.join(10)
    assert killed and "restart from the last whole epoch" in capsys.readouterr().out
    assert len(trained.result.history) == 40 and len(set(trained.digests)) == 1 and not folder.exists()
    assert ranks.train(spark, cfg, places, built, setting).digests == trained.digests


def test_failing_rank_shows_its_traceback(spark, cached, setting):
    cfg, places, _, built = cached
    with pytest.raises(ranks.RankFailed, match="no_such_network"):
        ranks.train(spark, cfg, places, built, replace(setting, model="no_such_network"))


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


def test_training_resumes_to_same_weights_after_kill(spark, cached, setting, tmp_path):
    cfg, places, _, built = cached
    setting = replace(setting, epochs=30)
    whole = ranks.train(spark, cfg, places, built, setting)
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
    assert kept and done.stdout.split()[-2:] == [whole.result.digest, "30"]


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
