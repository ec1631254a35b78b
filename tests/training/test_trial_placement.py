"""Placement of the trials: the rule, and its measurements."""

from dataclasses import replace

import pytest

from lakevision.training import loop, trial, trial_placement


@pytest.mark.parametrize(
    "figures, kind",
    [
        pytest.param((4, 2, 20.0, 5.0, 36.0), "driver", id="two cores, short"),
        pytest.param((16, 2, 60.0, 5.0, 108.0), "spark", id="two cores, long"),
        pytest.param((16, 2, 60.0, 5.0, 120.0), "driver", id="threads as good as processes"),
        pytest.param((3, 2, 60.0, 5.0, 100.0), "driver", id="a wave half empty"),
        pytest.param((16, 16, 20.0, 30.0, 100.0), "spark", id="a cluster with slow start-up"),
    ],
)
def test_placement_follows_the_measured_seconds(figures, kind):
    chosen = trial_placement.predicted(*figures)
    assert chosen.name == kind and (chosen.figures["spark_s"] < chosen.figures["driver_s"]) == (kind == "spark")
    assert (
        chosen.slots == (figures[1] if kind == "spark" else 1) and f"{chosen.figures['driver_s']:.0f} s" in chosen.why
    )


def tuned(cfg, **tuning):
    return replace(cfg, tuning=replace(cfg.tuning, **tuning))


@pytest.mark.parametrize(
    "setting, trials, slots, driver_s, asked, kind",
    [
        pytest.param("spark", 8, 2, 1.0, [], "spark", id="forced: nothing is measured"),
        pytest.param("auto", 8, 1, 1.0, [], "driver", id="one slot: nothing is measured"),
        pytest.param("auto", 1, 4, 1.0, [], "driver", id="one trial left: nothing is measured"),
        pytest.param("auto", 8, 2, 1.9, ["driver"], "driver", id="short trials: no worker is started"),
        pytest.param("auto", 8, 2, 60.0, ["driver", "spark"], "spark", id="long trials: both are measured"),
    ],
)
def test_only_decisive_figures_are_measured(prepared, setting, trials, slots, driver_s, asked, kind):
    measured = []
    chosen = trial_placement.choose(
        tuned(prepared[0], trials_on=setting),
        trials,
        slots,
        lambda: measured.append("driver") or driver_s,
        lambda: measured.append("spark") or (5.0, 1.5 * driver_s),
    )
    assert chosen.name == kind and measured == asked


def test_spark_workers_are_measured_on_spark(spark, prepared):
    cfg, places, built, setting, experiment = prepared
    job = trial.Job(
        built, replace(setting, width=4, epochs=50), "spark", "", experiment, "", places.mlflow_uri, 0.0, loop.fit
    )
    start, seconds = trial_placement.on_spark(spark, 2, job)
    assert start > 0.5 and 0.05 < seconds < 60  # TensorFlow alone takes longer to import; 50 epochs of 5 steps
    assert (
        trial_placement.on_spark(spark, 2, job)[0] == start
    )  # the same workers again, with TensorFlow: no start-up of a new one
