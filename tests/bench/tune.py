"""What the search costs on either kind of trials, and whether the rule takes the quicker one.

    python tests/bench/tune.py        # 8 minutes on 2 cores

chosen_of_other   seconds of the kind that the rule chose over those of the other, the worst of 4, 8 and 16 trials,
                  short and long
with_measuring    the same with the seconds that the rule took to measure on the chosen side

Real searches of 16 trials through tune.run on the default network at 96 pixels, one of each kind and length; the clock
is read after 4, 8 and 16 trials. All trials have one width, so that both kinds do the same work. Short and long trials
differ in epochs, set to take SHORT_S and LONG_S in the driver: the long ones lie near where the two kinds meet on 2
cores, the hard case for the rule. The last line is JSON.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNTS, SHORT_S, LONG_S = (4, 8, 16), 1.0, 10.0


def prepare(scratch):
    """(spark, cfg, places, Cache, Setting, experiment) of 240 simulated photographs."""
    from lakevision.dataset import cache, split, split_table
    from lakevision.ingest import capture, stream, tables
    from lakevision.platform import config, workspace
    from lakevision.registry import tracking
    from lakevision.training import loop

    cfg = config.load(
        "local",
        [
            f"storage.root={scratch}",
            "capture.photographs=240",
            "capture.size=192",
            f"tuning.trials={COUNTS[-1]}",
            "tuning.width=[16]",
        ],
    )
    places = workspace.places(cfg)
    spark = workspace.spark(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    built = cache.build(spark, cfg, places, placements, version)
    return spark, cfg, places, built, loop.first_setting(cfg, built), tracking.start(cfg, places)


def clocked(spark, cfg, places, built, setting, experiment, kind):
    """{count: seconds until so many trials were done} of one search."""
    import mlflow

    from lakevision.training import search

    wave, ends = search._wave, {}

    def timed(*args):
        records = wave(*args)
        ends[max(records) + 1] = time.monotonic() - began
        return records

    search._wave = timed
    try:
        with mlflow.start_run(experiment_id=experiment) as run:
            began = time.monotonic()
            found = search.tune(
                spark,
                replace(cfg, tuning=replace(cfg.tuning, trials_on=kind)),
                places,
                built,
                setting,
                experiment,
                run.info.run_id,
            )
    finally:
        search._wave = wave
    assert all(record["status"] == "ok" for record in found.trials), found.trials
    return {count: ends[count] for count in COUNTS}


def choices(cfg, slots, in_driver, on_spark, title):
    """({count: what the rule chose}, {count: seconds that measuring took}). in_driver, on_spark: measure one trial."""
    from lakevision.training import trial_placement

    chosen, measuring = {}, {}
    for count in COUNTS:
        at = time.monotonic()
        chosen[count] = trial_placement.choose(cfg, count, slots, in_driver, on_spark)
        measuring[count] = time.monotonic() - at
        rule = f"measured in {measuring[count]:.1f} s: {chosen[count].name}: {chosen[count].why}"
        print(f"{count} {title}, {rule}", flush=True)
    return chosen, measuring


def main():
    from lakevision.dataset import feed
    from lakevision.training import loop, trial, trial_placement

    began, ratios, told = time.monotonic(), {"chosen_of_other": [], "with_measuring": []}, {}
    with rig.scratch_folder() as scratch:
        spark, cfg, places, built, setting, experiment = prepare(scratch)
        arrays = tuple(feed.load(built, side) for side in ("train", "validation"))
        build, hundred = (
            trial_placement.trial_seconds(*arrays, replace(setting, epochs=epochs), loop.fit, warm=True)
            for epochs in (0, 100)
        )
        for length, target in (("short", SHORT_S), ("long", LONG_S)):
            epochs = max(1, round((target - build) / (hundred - build) * 100))
            tuned, start = replace(cfg, tuning=replace(cfg.tuning, epochs=epochs)), replace(setting, epochs=epochs)
            job = trial.Job(built, start, "spark", "", experiment, "", places.mlflow_uri, 0.0, loop.fit)
            slots = min(cfg.tuning.parallelism, spark.sparkContext.defaultParallelism)
            in_driver = lambda: trial_placement.trial_seconds(*arrays, start, loop.fit, warm=True)  # noqa: E731
            on_spark = lambda: trial_placement.on_spark(spark, slots, job)  # noqa: E731
            chosen, measuring = choices(tuned, slots, in_driver, on_spark, f"{length} trials of {epochs} epochs")
            taken = {
                kind: clocked(spark, tuned, places, built, setting, experiment, kind) for kind in ("driver", "spark")
            }
            for count in COUNTS:
                mine, other = chosen[count].name, {"driver": "spark", "spark": "driver"}[chosen[count].name]
                ratios["chosen_of_other"].append(taken[mine][count] / taken[other][count])
                ratios["with_measuring"].append((taken[mine][count] + measuring[count]) / taken[other][count])
                told[f"{length}_{count}"] = {
                    "driver_s": round(taken["driver"][count], 1),
                    "spark_s": round(taken["spark"][count], 1),
                    "chosen": mine,
                    "predicted": chosen[count].figures,
                    "measuring_s": round(measuring[count], 1),
                }
                print(count, length, told[f"{length}_{count}"], flush=True)
        spark.stop()
    worst = {name: round(max(values), 3) for name, values in ratios.items()}
    rig.print_result("tune", worst, seconds=round(time.monotonic() - began), **told)


if __name__ == "__main__":
    main()
