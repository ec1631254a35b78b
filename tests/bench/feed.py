"""How fast the cache feeds TensorFlow at 224 px, beside three other ways, in the same run.

    python tests/bench/feed.py [FOLDER]         # 4 minutes on 2 cores; FOLDER of JPEGs, else simulated ones

vs_transform_spec  images/s over those of petastorm's common example: JPEG bytes in Parquet, decode and resize in a
                   TransformSpec, each epoch
vs_tfdata_jpeg     over tf.data that reads, decodes and resizes JPEG files each epoch
of_fixed_records   over tf.data on one file of fixed-length records of the same pixels, shuffled likewise: the limit
stream_of_fixed_records   the same for the streamed feed, which a side too large for memory takes
wait_share         share of an epoch of the default training (small_cnn, batch 16, at 224 px) in which TensorFlow waits
                   for its next batch

All give shuffled batches of 32 uint8 images as tensors. 896 photographs, three turns, the middle ratio counts. The last
line is JSON.
"""

import io
import os
import statistics
import sys
import time
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, SIDE, BATCH, TURNS = 896, 224, 32, 3


def photographs(folder):
    """COUNT JPEGs as bytes."""
    if folder:
        found = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    else:
        from device.simulation import porch

        found = [porch.jpeg(scene) for scene in porch.plan(224)]
    return [
        found[index % len(found)] + b"%d" % index for index in range(COUNT)
    ]  # each of its own bytes: a number behind the JPEG's end


def cached(scratch, photos):
    """(Spark session, cache.Cache) of the photographs, all of them in train."""
    import hashlib

    import pandas as pd

    from lakevision.dataset import cache
    from lakevision.ingest import stream, tables
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={scratch / 'lake'}",
            "storage.schema=bench_feed",
            f"training.transform=decode|upright|rgb|resize({SIDE})",
        ],
    )
    places = workspace.places(cfg)
    for index, data in enumerate(photos):
        folder = Path(places.landing, "ab"[index % 2])
        folder.mkdir(exist_ok=True)
        (folder / f"{index:04d}.jpg").write_bytes(data)
    spark = workspace.spark(cfg)
    stream.ingest(spark, cfg, places)
    placements = pd.DataFrame(
        [
            {
                "path": f"{'ab'[index % 2]}/{index:04d}.jpg",
                "sha256": hashlib.sha256(data).hexdigest(),
                "label": "ab"[index % 2],
                "split": "train",
            }
            for index, data in enumerate(photos)
        ]
    )
    return spark, places, cache.build(spark, cfg, places, placements, tables.version(spark, places, "images"))


def drained(batches):
    """Images/s of an iterable of (pixels, targets), each turned into tensors; checks that an epoch's worth came."""
    import tensorflow as tf

    began, seen = time.perf_counter(), 0
    for pixels, targets in batches:
        seen += int(tf.convert_to_tensor(pixels).shape[0])
        tf.convert_to_tensor(targets)
    assert seen >= COUNT, seen
    return seen / (time.perf_counter() - began)


def transform_spec(folder):
    """The common example: petastorm over JPEG bytes, decoded and resized by a TransformSpec in each epoch."""
    import numpy as np
    import tensorflow as tf
    from petastorm import TransformSpec, make_batch_reader
    from petastorm.tf_utils import make_petastorm_dataset
    from PIL import Image

    def decode(frame):
        images = [
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((SIDE, SIDE)))
            for content in frame["content"]
        ]
        return frame.assign(image=images)[["image", "target"]].copy()

    fields = [("image", np.uint8, (SIDE, SIDE, 3), False), ("target", np.int32, (), False)]
    spec = TransformSpec(decode, edit_fields=fields, selected_fields=["image", "target"])
    with make_batch_reader(f"file://{folder}", num_epochs=1, transform_spec=spec, workers_count=2) as reader:
        rows = (
            make_petastorm_dataset(reader)
            .map(lambda row: (row.image, row.target))
            .unbatch()
            .shuffle(256)
            .batch(BATCH)
            .prefetch(tf.data.AUTOTUNE)
        )
        return drained(rows)


def tfdata_jpeg(files):
    import tensorflow as tf

    def decode(path, target):
        image = tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), 3), (SIDE, SIDE), antialias=True)
        return tf.cast(image, tf.uint8), target

    rows = tf.data.Dataset.from_tensor_slices((files, [index % 2 for index in range(len(files))])).shuffle(COUNT)
    return drained(rows.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))


def fixed_records(path):
    import tensorflow as tf

    size = SIDE * SIDE * 3

    def parse(record):
        raw = tf.io.decode_raw(record, tf.uint8)
        return tf.reshape(raw[:, :size], (-1, SIDE, SIDE, 3)), tf.cast(raw[:, size], tf.int32)

    rows = tf.data.FixedLengthRecordDataset(path, size + 1).shuffle(256)
    return drained(rows.batch(BATCH).map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))


def wait_share(arrays):
    """Share of one epoch of the default network's training that passes in waiting for batches."""
    import tensorflow as tf

    from lakevision.dataset import feed
    from lakevision.training import loop

    setting = loop.Setting("small_cnn", SIDE, 2, 2, 16, 0.003, 0.1, 16, True, 3)
    some = feed.Arrays(arrays.pixels[:320], arrays.targets[:320], arrays.keys[:320])
    waited, ends = [], []
    real = feed.Arrays.epoch

    def timed(self, *arguments):
        batches, total = real(self, *arguments), 0.0
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            total += time.perf_counter() - began
            if batch is None:
                waited.append(total)
                return
            yield batch

    feed.Arrays.epoch = timed
    try:
        loop.fit(
            some,
            feed.Arrays(some.pixels[:1], some.targets[:1], some.keys[:1]),
            setting,
            on_epoch=lambda *_: ends.append(time.perf_counter()),
        )
    finally:
        feed.Arrays.epoch = real
    tf.keras.backend.clear_session()
    return waited[1] / (ends[1] - ends[0])


def in_turns(ways):
    """{name: images/s of each turn}. ways: {name: function of the turn's number}; a first turn warms all."""
    rates = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        now = {name: way(turn) for name, way in ways.items()}
        shown = {name: round(rate) for name, rate in now.items()}
        print(f"turn {turn}" if turn else "warming", shown, "images/s", flush=True)
        for name in rates:
            rates[name] += [now[name]] * (turn > 0)
    return rates


def main(folder=None):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from device import memory
    from lakevision.dataset import feed

    memory.keep()
    photos = photographs(folder)
    with rig.scratch_folder() as scratch:
        spark, places, cache = cached(scratch, photos)
        files = sorted(str(path) for path in Path(places.landing).rglob("*.jpg"))
        rows = spark.table(places.table("images")).selectExpr("content", "cast(substr(path, 1, 1) = 'b' as int) target")
        rows.repartition(8).write.parquet(str(scratch / "jpeg"))
        arrays = feed.load(cache, "train")
        (scratch / "records").write_bytes(
            b"".join(image.tobytes() + bytes([target]) for image, target in zip(arrays.pixels, arrays.targets))
        )
        spark.stop()
        stream = feed.Stream(cache, "train")
        rates = in_turns(
            {
                "ours": lambda turn: drained(arrays.epoch(BATCH, 1, turn)),
                "stream": lambda turn: drained(stream.epoch(BATCH, 1, turn)),
                "transform_spec": lambda turn: transform_spec(scratch / "jpeg"),
                "tfdata_jpeg": lambda turn: tfdata_jpeg(files),
                "fixed_records": lambda turn: fixed_records(str(scratch / "records")),
            }
        )
        waiting = wait_share(arrays)
    ratio = lambda mine, other: round(statistics.median(a / b for a, b in zip(rates[mine], rates[other])), 3)  # noqa: E731
    ratios = {
        "vs_transform_spec": ratio("ours", "transform_spec"),
        "vs_tfdata_jpeg": ratio("ours", "tfdata_jpeg"),
        "of_fixed_records": ratio("ours", "fixed_records"),
        "stream_of_fixed_records": ratio("stream", "fixed_records"),
        "stream_vs_transform_spec": ratio("stream", "transform_spec"),
        "wait_share": round(waiting, 4),
    }
    per_s = {f"{name}_per_s": round(statistics.median(values)) for name, values in rates.items()}
    rig.print_result("feed", ratios, **per_s)


if __name__ == "__main__":
    main(*sys.argv[1:2])
