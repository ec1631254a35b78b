"""Cost of Spark around the model: 05_score's batch against a plain loop in two processes.

    python tests/bench/score.py [FOLDER]        # 4 minutes on 2 cores; FOLDER of JPEGs, else simulated ones

of_plain_loop   images/s of score.batch (read from Delta, predict, rows appended to predictions) over those of two plain
                processes that hold the same bytes, decode, transform and predict them in batches of 64 and keep the
                answers in memory: the limit
of_mlflow_udf   the same reading and predicting, nothing written, over MLflow's own UDF with the same settings

All warm, the same registered model, one thread for each process; COUNT photographs, in alternating order. The last line
is JSON.
"""

import json
import os
import statistics
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, TURNS = 2000, 3


def prepare(scratch, folder):
    """(Spark session, Config, Places, MLflow version, JPEGs) of COUNT ingested photographs and a registered default
    network.
    """
    import mlflow

    from device.model import transform
    from device.simulation import porch
    from lakevision.ingest import stream, tables
    from lakevision.platform import config, workspace
    from lakevision.registry import model_registry, tracking
    from lakevision.training import networks

    cfg = config.load("local", [f"storage.root={scratch}", "storage.schema=bench_score"])
    places = workspace.places(cfg)
    spark = workspace.spark(cfg)
    experiment = tracking.start(cfg, places)
    tables.create(spark, places)
    found = (
        [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
        if folder
        else [porch.jpeg(scene) for scene in porch.plan(240)]
    )
    jpegs = [found[index % len(found)] + b"%d" % index for index in range(COUNT)]
    for index, jpeg in enumerate(jpegs):
        Path(places.landing, f"{index:05d}_{'ab'[index % 2]}.jpg").write_bytes(jpeg)
    stream.ingest(spark, cfg, places)
    network = networks.build("small_cnn", transform.image_size(cfg.training.transform), 2, 24, 0.2, 1)
    with mlflow.start_run(experiment_id=experiment):
        uri = model_registry.log(
            network, {"classes": ["a", "b"], "transform": cfg.training.transform, "threshold": 0.5}, jpegs[0]
        )
    number = model_registry.register(cfg, uri, {})
    model_registry.set_alias(cfg, "champion", number)
    return spark, cfg, places, model_registry.version_of(cfg, "champion"), jpegs


def plain(jpegs, go, done, folder):
    """A process that holds a list of bytes and scores all of them each time it is told to."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import numpy as np
    import tensorflow as tf

    from device.model import transform
    from lakevision.training import loop

    loop.limit_threads(1)
    loaded = tf.saved_model.load(str(Path(folder, "artifacts", "saved_model")))  # kept: its functions die with it
    line = json.loads(Path(folder, "artifacts", "card.json").read_text())["transform"]
    side = transform.image_size(line)
    while go.get():
        answers = []
        for start in range(0, len(jpegs), 64):
            pixels = b"".join(transform.pixels(jpeg, line) for jpeg in jpegs[start : start + 64])
            answers += (
                loaded.serve(np.frombuffer(pixels, np.uint8).reshape(-1, side, side, 3).astype(np.float32))
                .numpy()
                .tolist()
            )
        done.put(len(answers))


def contenders(spark, cfg, places, version, processes):
    """{name: function that scores COUNT photographs once}. processes: list of (go, done) queues of plain()."""
    import mlflow
    from pyspark.sql import functions as F

    from lakevision.registry import model_registry
    from lakevision.serving.spark import model as spark_model
    from lakevision.serving.spark import score

    uri, images = f"models:/{model_registry.name(cfg)}/{version.version}", spark.table(places.table("images"))
    udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=spark_model.RESULT, env_manager="local")

    def loop():
        for go, _ in processes:
            go.put(True)
        assert sum(done.get(timeout=300) for _, done in processes) == COUNT

    def ours():
        scored = score.batch(spark, cfg, places, version)
        assert (scored.images, scored.errors) == (COUNT, 0)

    def unwritten(frame):
        with spark_model.small_tasks(spark):
            frame().write.format("noop").mode("overwrite").save()

    return {
        "plain": loop,
        "ours": ours,
        "ours unwritten": lambda: unwritten(
            lambda: spark_model.scorer(spark, uri)(images.select("path", "sha256", "content"))
        ),
        "mlflow unwritten": lambda: unwritten(
            lambda: images.select("path", "sha256", udf(F.struct(F.col("content").alias("image"))))
        ),
    }


def main(folder=None):
    import mlflow

    from lakevision.registry import model_registry

    with rig.scratch_folder() as scratch:
        spark, cfg, places, version, jpegs = prepare(scratch, folder)
        files = mlflow.artifacts.download_artifacts(f"models:/{model_registry.name(cfg)}/{version.version}")
        context = get_context("spawn")
        processes = [(context.Queue(), context.Queue()) for _ in range(2)]
        for number, queues in enumerate(processes):
            context.Process(target=plain, args=(jpegs[number::2], *queues, files), daemon=True).start()
        runs = contenders(spark, cfg, places, version, processes)
        rates = {name: [] for name in runs}
        for turn in range(TURNS + 1):  # the first warms
            for name in list(runs)[:: 1 if turn % 2 else -1]:
                spark.sql(f"DELETE FROM {places.table('predictions')}")
                began = time.monotonic()
                runs[name]()
                rates[name].append(COUNT / (time.monotonic() - began))
            last = {name: round(values[-1]) for name, values in rates.items()}
            print(f"turn {turn}" if turn else "warming", last, "images/s", flush=True)
        for go, _ in processes:
            go.put(False)
        spark.stop()
    middle = {name: statistics.median(values[1:]) for name, values in rates.items()}
    ratios = {
        "of_plain_loop": round(middle["ours"] / middle["plain"], 3),
        "of_mlflow_udf": round(middle["ours unwritten"] / middle["mlflow unwritten"], 3),
    }
    figures = {"images": COUNT, "per_s": {name: round(value) for name, value in middle.items()}}
    rig.print_result("score", ratios, **figures)


if __name__ == "__main__":
    main(*sys.argv[1:2])
