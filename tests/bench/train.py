"""Cost of training against the common way, and of Horovod's ranks against independent processes.

    python tests/bench/train.py [FOLDER]         # 10 minutes on 2 cores; FOLDER of JPEGs, else simulated ones

vs_common             seconds of the common way over ours: cache, search and final model on 2,000 photographs, at equal
                      trials, epochs, network and augmentation. The common way: petastorm over JPEG bytes with a decode
                      in each epoch, Keras' fit, trials one after the other
ranks_of_independent  images/s of two Horovod ranks of one thread each over those of two processes of one thread that
                      never talk: the limit
ranks_vs_threads      images/s of the two ranks over those of one process with two threads

The last two are of whole epochs after the first, on pixels from the cache. The last line is JSON.
"""

import io
import os
import pickle
import shutil
import statistics
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, TRIALS, TRIAL_EPOCHS, EPOCHS = 2000, 4, 6, 16
STEADY = 5  # epochs that are timed, the first of which warms


def lakehouse(scratch, folder):
    """(Spark session, Config, Places, placements, Delta version) of COUNT photographs; a tenth is in validation."""
    from lakevision.dataset import split_table
    from lakevision.ingest import stream, tables
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={scratch / 'lake'}",
            "storage.schema=bench_train",
            f"tuning.trials={TRIALS}",
            f"tuning.epochs={TRIAL_EPOCHS}",
            f"training.epochs={EPOCHS}",
        ],
    )
    places = workspace.places(cfg)
    if folder:
        found = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    else:
        from device.simulation import porch

        found = [porch.jpeg(scene) for scene in porch.plan(240)]
    for name in "ab":
        Path(places.landing, name).mkdir()
    for index in range(COUNT):
        Path(places.landing, "ab"[index % 2], f"{index:05d}.jpg").write_bytes(found[index % len(found)] + b"%d" % index)
    spark = workspace.spark(cfg)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split_table.metadata(spark, places, version)[["path", "sha256", "label"]].sort_values(
        "path", ignore_index=True
    )
    placements["split"] = ["validation" if index % 10 == 0 else "train" for index in range(len(placements))]
    return spark, cfg, places, placements, version


def ours(spark, cfg, places, placements, version):
    """(seconds of cache, search and final model; the cache; the Setting that won)."""
    import mlflow

    from lakevision.dataset import cache
    from lakevision.registry import tracking
    from lakevision.training import loop, ranks, search

    experiment = tracking.start(cfg, places)
    began = time.monotonic()
    pixels = cache.build(spark, cfg, places, placements, version)
    with mlflow.start_run(experiment_id=experiment) as run:
        found = search.tune(spark, cfg, places, pixels, loop.first_setting(cfg, pixels), experiment, run.info.run_id)
        best = loop.longer(found.best, EPOCHS)
        trained = ranks.train(spark, cfg, places, pixels, best)
    seconds = f"start-up {trained.start_seconds:.0f} s, training {trained.train_seconds:.0f} s"
    print(f"trials on {found.kind.name}; ranks' {seconds}", flush=True)
    return time.monotonic() - began, pixels, best


def common(folder, counts, setting, cfg):
    """Seconds of the common way, in a process of its own: as many trials, then the final model."""
    # 80 lines: the common way is shown whole, as a notebook has it.
    import functools

    import numpy as np
    import tensorflow as tf
    from hyperopt import Trials, fmin, hp, tpe
    from petastorm import TransformSpec, make_batch_reader
    from petastorm.tf_utils import make_petastorm_dataset
    from PIL import Image

    from lakevision.training import loop, networks

    side, random = setting.side, tf.random.Generator.from_seed(1)

    def decode(frame):
        images = [
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((side, side)))
            for content in frame["content"]
        ]
        return frame.assign(image=images)[["image", "target"]].copy()

    fields = [("image", np.uint8, (side, side, 3), False), ("target", np.int32, (), False)]
    spec = TransformSpec(decode, edit_fields=fields, selected_fields=["image", "target"])

    def fit(values, epochs):
        network = networks.build(
            setting.model, side, setting.classes, int(values["width"]), values["dropout"], setting.seed
        )
        network.compile(tf.keras.optimizers.Adam(values["learning_rate"]), "sparse_categorical_crossentropy")
        last = []

        def read(part, epochs):
            return make_batch_reader(f"file://{folder}/{part}", num_epochs=epochs, transform_spec=spec, workers_count=2)

        def rows(reader):
            return (
                make_petastorm_dataset(reader).map(lambda row: (tf.cast(row.image, tf.float32), row.target)).unbatch()
            )

        def judge(*_):
            with read("validation", 1) as reader:
                last.append(network.evaluate(rows(reader).batch(128), verbose=0))

        with read("train", None) as reader:
            batches = (
                rows(reader)
                .shuffle(256)
                .batch(setting.batch_size)
                .map(lambda images, targets: (loop.augment(images, random), targets))
            )
            network.fit(
                batches.prefetch(2),
                epochs=epochs,
                steps_per_epoch=-(-counts["train"] // setting.batch_size),
                verbose=0,
                callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=judge)],
            )
        return last[-1]

    began = time.monotonic()
    low, high = np.log(cfg.tuning.learning_rate)
    space = {
        "learning_rate": hp.loguniform("learning_rate", low, high),
        "dropout": hp.uniform("dropout", *cfg.tuning.dropout),
        "width": hp.choice("width", cfg.tuning.width),
    }
    fmin(
        lambda values: fit(values, TRIAL_EPOCHS),
        space,
        algo=functools.partial(tpe.suggest, n_startup_jobs=2),
        max_evals=TRIALS,
        trials=Trials(),
        rstate=np.random.default_rng(cfg.tuning.seed),
        show_progressbar=False,
        verbose=False,
    )
    fit({"learning_rate": setting.learning_rate, "dropout": setting.dropout, "width": setting.width}, EPOCHS)
    return time.monotonic() - began


def steady(cache, setting, threads, hvd=None):
    """Images/s of a process in each epoch after the first, start-up and compiling left out."""
    from lakevision.dataset import feed
    from lakevision.training import loop

    loop.limit_threads(threads)
    if hvd is not None:
        import horovod.tensorflow as hvd

        hvd.init()
    arrays = feed.load(cache, "train")
    ends = []
    watched = feed.Arrays(arrays.pixels[:2], arrays.targets[:2], arrays.keys[:2])
    loop.fit(
        arrays, watched, loop.longer(setting, STEADY), hvd=hvd, on_epoch=lambda *_: ends.append(time.perf_counter())
    )
    return [len(arrays) / (after - before) for before, after in zip(ends, ends[1:])]


def on_ranks(cache, setting):
    """steady() on two Horovod ranks: the rates of rank 0, for both ranks together."""
    import horovod.spark

    from lakevision.platform import workspace

    def rank_main(library, bench, job):
        import os
        import pickle
        import sys
        import tempfile

        os.environ.setdefault("HOROVOD_CYCLE_TIME", "1")
        path = os.path.join(tempfile.mkdtemp(), "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path[:0] = [path, bench]
        import train as bench_train

        return bench_train.steady(*pickle.loads(job), threads=1, hvd=True)

    rates = horovod.spark.run(
        rank_main,
        args=(workspace.library(), str(Path(__file__).parent), pickle.dumps((cache, setting))),
        num_proc=2,
        use_gloo=True,
        verbose=0,
        stdout=open(os.devnull, "w"),
        stderr=open(os.devnull, "w"),
    )
    return rates[0]


def apart(processes, threads, cache, setting):
    """Images/s of so many processes together that never talk."""
    with get_context("spawn").Pool(processes) as pool:
        return [
            sum(rates) for rates in zip(*pool.starmap(steady, [(cache, setting, threads)] * processes, chunksize=1))
        ]


def write_jpegs(spark, places, placements, folder):
    """JPEG bytes and targets as Parquet, a folder for each split: what the common way reads."""
    rows = spark.table(places.table("images")).selectExpr("content", "path")
    chosen = spark.createDataFrame(
        placements.assign(target=(placements["label"] == "b").astype("int32"))[["path", "split", "target"]]
    )
    for name in ("train", "validation"):
        part = rows.join(chosen.where(f"split = '{name}'"), "path")
        part.selectExpr("content", "cast(target as int) target").repartition(8).write.parquet(str(folder / name))


def main(folder=None):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with rig.scratch_folder() as scratch:
        spark, cfg, places, placements, version = lakehouse(scratch, folder)
        seconds, cache, setting = ours(spark, cfg, places, placements, version)
        print(f"ours {seconds:.0f} s", flush=True)
        write_jpegs(spark, places, placements, scratch / "jpeg")
        ranks_rate = statistics.median(on_ranks(cache, setting))
        spark.stop()
        alone = statistics.median(apart(2, 1, cache, setting))
        threads = statistics.median(apart(1, 2, cache, setting))
        print(
            f"two ranks {ranks_rate:.0f}, two independent processes {alone:.0f}, two threads {threads:.0f} images/s",
            flush=True,
        )
        with get_context("spawn").Pool(1) as pool:
            theirs = pool.apply(common, (str(scratch / "jpeg"), cache.counts, setting, cfg))
        print(f"the common way {theirs:.0f} s", flush=True)
        shutil.rmtree(scratch / "jpeg")
    figures = {
        "trials": TRIALS,
        "trial_epochs": TRIAL_EPOCHS,
        "epochs": EPOCHS,
        "ours_s": round(seconds),
        "common_s": round(theirs),
        "ranks_per_s": round(ranks_rate),
        "independent_per_s": round(alone),
        "threads_per_s": round(threads),
    }
    rig.print_result(
        "train",
        {
            "vs_common": round(theirs / seconds, 3),
            "ranks_of_independent": round(ranks_rate / alone, 3),
            "ranks_vs_threads": round(ranks_rate / threads, 3),
        },
        **figures,
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
