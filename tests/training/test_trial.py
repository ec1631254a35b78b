"""What surrounds a trial: the rule that says where trials run, a search's lock, a trial's deadline."""

import time

import pytest

from lakevision.training import search_store, trial, trial_placement


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
def test_the_rule_follows_the_figures(figures, kind):
    chosen = trial_placement.predicted(*figures)
    assert chosen.name == kind and (chosen.figures["spark_s"] < chosen.figures["driver_s"]) == (kind == "spark")
    assert (
        chosen.slots == (figures[1] if kind == "spark" else 1) and f"{chosen.figures['driver_s']:.0f} s" in chosen.why
    )


def test_one_search_runs_once_at_a_time(tmp_path):
    with search_store.opened(tmp_path, "key"):
        with pytest.raises(search_store.SearchRuns, match="tuning.seed"):
            with search_store.opened(tmp_path, "key"):
                pass
        with search_store.opened(tmp_path, "another"):
            pass
    with search_store.opened(tmp_path, "key"):
        pass


def test_a_deadline_that_was_met_hits_nothing_later():
    with trial.deadline(0.05):
        pass
    for _ in range(20):
        time.sleep(0.01)
    with pytest.raises(trial.TimedOut, match="0.1 s"):
        with trial.deadline(0.1):
            while True:
                time.sleep(0.01)
