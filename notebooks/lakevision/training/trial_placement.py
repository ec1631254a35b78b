"""Placement of the trials: in waves on Spark's executors, or one after the other in the driver.

On Spark each trial is a process with one thread; in the driver a trial has all threads. Waves win with many slots or
long trials. With few cores and short trials their start-up costs more than they gain. The rule measures a few training
steps in the driver and, if they do not decide, runs one Spark job. It predicts both totals and takes the lower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device import memory

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.dataset import feed
    from lakevision.platform.config import Config
    from lakevision.training.setting import Setting
    from lakevision.training.trial import Job

# hyperopt.spark 0.2.7 polls for new trials once a second, starting a second after fmin (1.0). fmin polls for finished
# trials once a second (0.5 on average) and then joins the dispatcher, which sleeps up to a second (0.5).
POLLS_S = 2.0
# The measurement: steps in an epoch, epochs at most, and seconds after the first epoch at most.
STEPS, EPOCHS, ENOUGH_S = 8, 6, 1.5
_starts: dict[str, float] = {}  # Spark application: start-up seconds of its workers


@dataclass(frozen=True)
class Kind:
    """A placement.

    name: spark or driver. slots: trials at a time. why: a sentence. figures: the rule's inputs, seconds.
    """

    name: str
    slots: int
    why: str
    figures: dict[str, Any]


class _Enough(Exception):
    """Ends a measurement."""


def choose(
    cfg: Config, trials: int, slots: int, in_driver: Callable[[], float], on_spark: Callable[[], tuple[float, float]]
) -> Kind:
    """The placement for so many trials.

    in_driver() returns the seconds of a trial there. on_spark() returns (start-up seconds, seconds of a trial). Each is
    called only if tuning.trials_on is auto and the choice depends on the result.
    """
    if cfg.tuning.trials_on != "auto":
        return _kind(cfg.tuning.trials_on, slots, "set by tuning.trials_on", {})
    if slots == 1 or trials <= 1:
        return _kind(
            "driver",
            slots,
            f"{trials} trials on {slots} slots: nothing can run at the same time",
            {"trials": trials, "slots": slots},
        )
    driver_trial_s = in_driver()
    known = settled(trials, slots, driver_trial_s)
    return known or predicted(trials, slots, driver_trial_s, *on_spark())


def settled(trials: int, slots: int, driver_trial_s: float) -> Kind | None:
    """The driver if Spark cannot win, else None.

    Upper bound for Spark: no start-up cost and one thread as fast as the whole driver. If Spark still loses, skip
    measuring.
    """
    waves = -(-trials // slots)
    driver_s, least_s = trials * driver_trial_s, waves * (POLLS_S + driver_trial_s)
    if driver_s > least_s:
        return None
    return _kind(
        "driver",
        slots,
        f"{trials} trials of {driver_trial_s:.1f} s take {driver_s:.0f} s in the driver, "
        f"{waves} waves at least {least_s:.0f} s on Spark",
        {
            "trials": trials,
            "slots": slots,
            "waves": waves,
            "driver_trial_s": driver_trial_s,
            "driver_s": driver_s,
            "spark_at_least_s": least_s,
        },
    )


def predicted(trials: int, slots: int, driver_trial_s: float, start_s: float, spark_trial_s: float) -> Kind:
    """The placement with the lower predicted total.

    start_s: start-up of a worker; *_trial_s: a trial after that, seconds.
    """
    waves = -(-trials // slots)
    driver_s, spark_s = trials * driver_trial_s, waves * (start_s + POLLS_S + spark_trial_s)
    figures = {
        "trials": trials,
        "slots": slots,
        "waves": waves,
        "start_s": start_s,
        "polls_s": POLLS_S,
        "driver_trial_s": driver_trial_s,
        "spark_trial_s": spark_trial_s,
        "driver_s": driver_s,
        "spark_s": spark_s,
    }
    why = (
        f"{trials} trials of {driver_trial_s:.1f} s take {driver_s:.0f} s in the driver, "
        f"{waves} waves of {start_s:.1f} s start-up, {POLLS_S:.0f} s of Hyperopt's polling "
        f"and {spark_trial_s:.1f} s training {spark_s:.0f} s on Spark"
    )
    return _kind("spark" if spark_s < driver_s else "driver", slots, why, figures)


def _kind(name: str, slots: int, why: str, figures: dict[str, Any]) -> Kind:
    return Kind(name, slots if name == "spark" else 1, why, {key: round(value, 3) for key, value in figures.items()})


def trial_seconds(
    train: feed.Arrays, validation: feed.Arrays, setting: Setting, fit: Callable, warm: bool = False
) -> float:
    """Predicted seconds of a trial in this process, from a few steps on a part of its images.

    warm: predict a trial after the first one, for which TensorFlow has already started.
    """
    import tensorflow  # noqa: F401  the import is part of a worker's start-up, not of a trial in the driver

    memory.keep()
    steps = -(-len(train) // setting.batch_size)
    share = min(1.0, STEPS / steps)
    some = _part(train, setting.batch_size * STEPS), _part(validation, max(1, round(len(validation) * share)))
    if warm:
        fit(*some, replace(setting, epochs=1))
    ends = [time.monotonic()]

    def on_epoch(epoch: int, figures: dict[str, float]) -> None:
        ends.append(time.monotonic())
        if len(ends) > 2 and ends[-1] - ends[1] > ENOUGH_S:
            raise _Enough

    with suppress(_Enough):
        fit(*some, replace(setting, epochs=EPOCHS), on_epoch=on_epoch)
    epoch = float(np.median(np.diff(ends)[1:]))
    build = max(0.0, ends[1] - ends[0] - epoch)  # building the network and tracing its graph
    return build + setting.epochs * epoch / share


def _part(arrays: feed.Arrays, count: int) -> feed.Arrays:
    index = np.linspace(0, len(arrays) - 1, min(count, len(arrays))).astype(int)
    return replace(
        arrays, pixels=arrays.pixels[index], targets=arrays.targets[index], keys=[arrays.keys[place] for place in index]
    )


def on_spark(spark: SparkSession, slots: int, job: Job) -> tuple[float, float]:
    """(start-up seconds of workers, seconds of a trial after that), measured with every slot busy, as in a wave.

    Each trial of SparkTrials starts in a new process, but this job may get a process that has loaded TensorFlow. So the
    start-up is kept from the session's first measurement.
    """

    def measure(_: object) -> Iterator[tuple[bool, float, float]]:
        import sys

        fresh = "tensorflow" not in sys.modules
        from lakevision.dataset import feed
        from lakevision.training import loop, trial_placement

        loop.limit_threads(1)
        train, validation = (feed.load(job.cache, split) for split in ("train", "validation"))
        began = time.monotonic()
        seconds = trial_placement.trial_seconds(train, validation, job.setting, job.fit)
        yield fresh, time.monotonic() - began, seconds

    began = time.monotonic()
    measured = spark.sparkContext.parallelize(range(slots), slots).mapPartitions(measure).collect()
    start = max(0.0, time.monotonic() - began - max(spent for _, spent, _ in measured))
    session = spark.sparkContext.applicationId
    if all(fresh for fresh, _, _ in measured):
        _starts[session] = start
    return _starts.get(session, start), float(np.mean([seconds for _, _, seconds in measured]))
