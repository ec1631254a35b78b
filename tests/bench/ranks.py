"""Speed of two connected ranks against two processes that never communicate, for both engines.

    python tests/bench/ranks.py            # 3 minutes on 2 cores

horovod_of_independent      steps/s of two Horovod ranks over those of two independent processes: the limit
collectives_of_independent  the same for two ranks over TensorFlow's collectives

All processes have one thread and train the default network on the same random pixels, so content plays no role. The
figures are medians over the epochs after the first, in rounds by turn. Start-up is the time from the launch to the
first step; it is in `rig`. The last line is JSON.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
IMAGES, EPOCHS, ROUNDS = 960, 6, 3
ENGINES, INDEPENDENT = ("horovod", "collectives"), "independent"


def work(job):
    """Trains in one rank. Returns (time of the first step, seconds of each epoch after the first)."""
    import time

    import numpy as np

    engine, images, setting = job
    from lakevision.dataset import feed
    from lakevision.training import loop
    from lakevision.training.engines import choice

    loop.limit_threads(1)
    connected = choice.module(engine).connect() if engine else None
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (images, setting.side, setting.side, 3), np.uint8)
    arrays = feed.Arrays(pixels, np.arange(images, dtype=np.int32) % setting.classes, [])
    watched = feed.Arrays(pixels[:2], arrays.targets[:2], [])
    began, ends = time.time(), []
    loop.fit(arrays, watched, setting, hvd=connected, on_epoch=lambda *_: ends.append(time.perf_counter()))
    return began, [after - before for before, after in zip(ends, ends[1:], strict=False)]


def measure(spark, engine, setting, folder):
    """(steps/s of one rank, seconds of start-up)."""
    from lakevision.training.engines import choice, collective_ranks

    connected = engine if engine != INDEPENDENT else ""
    launcher = choice.module(connected) if connected else collective_ranks
    # A connected rank sees half of the images in an epoch, an independent process all of its own.
    images = IMAGES if connected else IMAGES // 2
    began = time.time()
    results = launcher.launch(spark, work, (connected, images, setting), 2, folder / "output")
    steps = IMAGES // 2 // setting.batch_size
    rates = [steps / statistics.median(seconds) for _, seconds in results if seconds]
    return statistics.mean(rates), max(first for first, _ in results) - began


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from lakevision.platform import config, workspace
    from lakevision.training.setting import Setting

    with rig.scratch_folder() as scratch:
        cfg = config.load("local", [f"storage.root={scratch / 'lake'}"])
        spark = workspace.spark(cfg)
        setting = Setting(
            model="small_cnn",
            side=96,
            classes=2,
            width=16,
            dropout=0.2,
            learning_rate=0.002,
            batch_size=16,
            epochs=EPOCHS,
            augment=True,
            seed=3,
        )
        rates, starts = {}, {}
        for _ in range(ROUNDS):
            for engine in (*ENGINES, INDEPENDENT):
                rate, start = measure(spark, engine, setting, scratch)
                rates.setdefault(engine, []).append(rate)
                starts.setdefault(engine, []).append(start)
                print(f"{engine}: {rate:.1f} steps/s, start-up {start:.1f} s", flush=True)
        spark.stop()
    middle = {engine: statistics.median(values) for engine, values in rates.items()}
    rig.print_result(
        "ranks",
        {f"{engine}_of_independent": round(middle[engine] / middle[INDEPENDENT], 3) for engine in ENGINES},
        **{f"{engine}_steps_per_s": round(value, 1) for engine, value in middle.items()},
        **{f"{engine}_start_s": round(statistics.median(values), 1) for engine, values in starts.items()},
    )


if __name__ == "__main__":
    main()
