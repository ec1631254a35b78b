"""What Spark costs around the model: 05_score's batch against a plain loop of Pillow and TensorFlow in two processes.

    python tests/bench/score.py [FOLDER]        # 4 minutes on 2 cores; FOLDER of JPEGs, else simulated ones

of_plain_loop   images/s of score.batch (read from Delta, UDF, rows appended to predictions) over those of two plain processes that decode, transform
                and predict the same bytes in batches of 64 and keep the answers in memory: the limit

Both warm, the same registered model, one thread for each process; COUNT photographs, in turns. The last line is JSON.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, TURNS = 2000, 3


def prepare(scratch, folder):
    """(Spark session, Config, Places, MLflow version, JPEGs) of COUNT ingested photographs and a registered default network."""
    import mlflow

    from device import simulated, transform
    from lakevision import config, ingest, model, registry, tables, tracking, workspace

    cfg = config.load("local", [f"storage.root={scratch}", "storage.schema=bench_score"])
    where = workspace.places(cfg)
    spark = workspace.spark(cfg)
    experiment = tracking.start(cfg, where)
    tables.create(spark, where)
    found = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))] if folder else [simulated.jpeg(scene) for scene in simulated.plan(240)]
    jpegs = [found[index % len(found)] + b"%d" % index for index in range(COUNT)]
    for index, jpeg in enumerate(jpegs):
        Path(where.landing, f"{index:05d}_{'ab'[index % 2]}.jpg").write_bytes(jpeg)
    ingest.run(spark, cfg, where)
    network = model.build("small_cnn", transform.side(cfg.training.transform), 2, 24, 0.2, 1)
    with mlflow.start_run(experiment_id=experiment):
        uri = registry.log(network, {"classes": ["a", "b"], "transform": cfg.training.transform, "threshold": 0.5}, jpegs[0])
    number = registry.register(cfg, uri, {})
    registry.set_alias(cfg, "champion", number)
    return spark, cfg, where, registry.version_of(cfg, "champion"), jpegs


def plain(work, done, folder):
    """A process that scores what it is given, again and again: (list of bytes) -> seconds."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import numpy as np
    import tensorflow as tf

    from device import transform
    from lakevision import memory, train

    train.limit_threads(1)
    memory.keep()
    loaded = tf.saved_model.load(str(Path(folder, "artifacts", "saved_model")))  # kept: its functions die with it
    line = json.loads(Path(folder, "artifacts", "card.json").read_text())["transform"]
    side = transform.side(line)
    for jpegs in iter(work.get, None):
        answers = []
        for start in range(0, len(jpegs), 64):
            pixels = b"".join(transform.pixels(jpeg, line) for jpeg in jpegs[start:start + 64])
            answers += loaded.serve(np.frombuffer(pixels, np.uint8).reshape(-1, side, side, 3).astype(np.float32)).numpy().tolist()
        done.put(len(answers))


def main(folder=None):
    import mlflow

    from lakevision import registry, score

    local = ROOT / ".local"
    local.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=local) as scratch:
        spark, cfg, where, version, jpegs = prepare(Path(scratch), folder)
        files = mlflow.artifacts.download_artifacts(f"models:/{registry.name(cfg)}/{version.version}")
        context = get_context("spawn")
        work, done = context.Queue(), context.Queue()
        processes = [context.Process(target=plain, args=(work, done, files), daemon=True) for _ in range(2)]
        for process in processes:
            process.start()
        rates = {"ours": [], "plain": []}
        for turn in range(TURNS + 1):  # the first warms
            began = time.monotonic()
            for part in (jpegs[::2], jpegs[1::2]):
                work.put(part)
            assert done.get(timeout=120) + done.get(timeout=120) == COUNT
            rates["plain"].append(COUNT / (time.monotonic() - began))
            spark.sql(f"DELETE FROM {where.table('predictions')}")
            began = time.monotonic()
            scored = score.batch(spark, cfg, where, version)
            assert (scored.images, scored.errors) == (COUNT, 0)
            rates["ours"].append(COUNT / (time.monotonic() - began))
            print(f"{'warming' if turn == 0 else f'turn {turn}'} { {name: round(values[-1]) for name, values in rates.items()} } images/s", flush=True)
        for _ in processes:
            work.put(None)
        spark.stop()
    ours, theirs = (statistics.median(rates[name][1:]) for name in ("ours", "plain"))
    rig = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), "images": COUNT, "ours_per_s": round(ours),
           "plain_per_s": round(theirs)}
    print(json.dumps({"bench": "score", "ratios": {"of_plain_loop": round(ours / theirs, 3)}, "rig": rig}))


if __name__ == "__main__":
    main(*sys.argv[1:2])
