"""Where the trials run: in waves of processes on Spark's executors, one thread each, or one after the other in the driver, with all its threads.

Waves win with many slots or long trials; with few cores and short trials their start-up costs more than they gain. The rule measures here what it
needs, predicts both totals and takes the lower. It costs a few steps of training in the driver and, where that does not settle it, one Spark job.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from device import memory

# hyperopt.spark 0.2.7 looks for new trials once a second, a second after fmin has begun (1.0), fmin for finished ones once a second (0.5 on average),
# and then it joins the dispatcher, which sleeps up to a second (0.5).
POLLS_S = 2.0
STEPS, EPOCHS, ENOUGH_S = (
    8,
    6,
    1.5,
)  # what is timed: so many steps an epoch, up to so many epochs, or so many seconds after the first
_starts = {}  # Spark application: seconds that its workers took to start


@dataclass(frozen=True)
class Kind:
    """name: spark or driver; slots: trials at a time; why: a sentence; figures: what the rule knew, seconds."""

    name: str
    slots: int
    why: str
    figures: dict


class _Enough(Exception):
    pass


def choose(cfg, trials, slots, in_driver, on_spark):
    """The Kind for so many trials. in_driver: () -> seconds of a trial there; on_spark: () -> (start-up seconds, seconds of a trial there); each
    is called only if tuning.trials_on is auto and the choice hangs on it."""
    if cfg.tuning.trials_on != "auto":
        return _kind(cfg.tuning.trials_on, slots, "tuning.trials_on says so", {})
    if slots == 1 or trials <= 1:
        return _kind(
            "driver",
            slots,
            f"{trials} trials on {slots} slots leave nothing to run at the same time",
            {"trials": trials, "slots": slots},
        )
    driver_trial_s = in_driver()
    known = settled(trials, slots, driver_trial_s)
    return known or predicted(trials, slots, driver_trial_s, *on_spark())


def settled(trials, slots, driver_trial_s):
    """The Kind where a trial's seconds in the driver decide alone, else None: waves can't win where they would lose even if a worker's one thread
    were as fast as all of the driver's and started in no time."""
    waves = -(-trials // slots)
    driver_s, least_s = trials * driver_trial_s, waves * (POLLS_S + driver_trial_s)
    if driver_s > least_s:
        return None
    return _kind(
        "driver",
        slots,
        f"{trials} trials of {driver_trial_s:.1f} s take {driver_s:.0f} s in the driver, {waves} waves at least {least_s:.0f} s on Spark",
        {
            "trials": trials,
            "slots": slots,
            "waves": waves,
            "driver_trial_s": driver_trial_s,
            "driver_s": driver_s,
            "spark_at_least_s": least_s,
        },
    )


def predicted(trials, slots, driver_trial_s, start_s, spark_trial_s):
    """The Kind with the lower predicted total. start_s: until a worker is ready to train; *_trial_s: of a trial after that."""
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
        f"{trials} trials of {driver_trial_s:.1f} s take {driver_s:.0f} s in the driver, {waves} waves of {start_s:.1f} s start-up, "
        f"{POLLS_S:.0f} s of Hyperopt's polling and {spark_trial_s:.1f} s training {spark_s:.0f} s on Spark"
    )
    return _kind("spark" if spark_s < driver_s else "driver", slots, why, figures)


def _kind(name, slots, why, figures):
    return Kind(name, slots if name == "spark" else 1, why, {key: round(value, 3) for key, value in figures.items()})


def trial_seconds(train, validation, setting, fit, warm=False):
    """Seconds that a trial would take in this process, as it is set up, from a few steps on a part of its images. train, validation: feed.Arrays;
    warm: as one after the first does, for which TensorFlow has started."""
    import tensorflow  # noqa: F401  its import is part of a worker's start-up, and none of a trial in the driver

    memory.keep()
    steps = -(-len(train) // setting.batch_size)
    share = min(1.0, STEPS / steps)
    some = _part(train, setting.batch_size * STEPS), _part(validation, max(1, round(len(validation) * share)))
    if warm:
        fit(*some, replace(setting, epochs=1))
    ends = [time.monotonic()]

    def on_epoch(epoch, figures):
        ends.append(time.monotonic())
        if len(ends) > 2 and ends[-1] - ends[1] > ENOUGH_S:
            raise _Enough

    try:
        fit(*some, replace(setting, epochs=EPOCHS), on_epoch=on_epoch)
    except _Enough:
        pass
    epoch = float(np.median(np.diff(ends)[1:]))
    build = max(0.0, ends[1] - ends[0] - epoch)  # the network, the tracing of its graph
    return build + setting.epochs * epoch / share


def _part(arrays, count):
    index = np.linspace(0, len(arrays) - 1, min(count, len(arrays))).astype(int)
    return replace(
        arrays, pixels=arrays.pixels[index], targets=arrays.targets[index], keys=[arrays.keys[place] for place in index]
    )


def on_spark(spark, slots, job):
    """(seconds until workers are ready to train, seconds of a trial then), with every slot busy, as in a wave. job: trial.Job.

    Each trial of SparkTrials starts in a new process, this job may get one that has TensorFlow: the start-up is kept from the session's first time.
    """

    def measure(_):
        import sys

        fresh = "tensorflow" not in sys.modules
        from lakevision.dataset import feed
        from lakevision.training import loop, trial_placement

        loop.limit_threads(1)
        arrays = [feed.load(job.cache, side) for side in ("train", "validation")]
        began = time.monotonic()
        seconds = trial_placement.trial_seconds(*arrays, job.setting, job.fit)
        yield fresh, time.monotonic() - began, seconds

    began = time.monotonic()
    measured = spark.sparkContext.parallelize(range(slots), slots).mapPartitions(measure).collect()
    start = max(0.0, time.monotonic() - began - max(spent for _, spent, _ in measured))
    session = spark.sparkContext.applicationId
    if all(fresh for fresh, _, _ in measured):
        _starts[session] = start
    return _starts.get(session, start), float(np.mean([seconds for _, _, seconds in measured]))
