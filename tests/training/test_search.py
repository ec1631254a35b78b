"""The search: real SparkTrials and Trials on few images, with trials and drivers that die."""

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lakevision.notebook import plots
from lakevision.training import loop, search

ROOT = Path(__file__).resolve().parents[2]


FINE, NAN, RAISES, SLOW, KILLED = 4, 5, 6, 7, 8  # widths that a fit of these tests reads as orders


@pytest.fixture
def run_search(spark, prepared):
    """(fit, settings of cfg.tuning) -> (search.Search, parent's id); run_search.parent stays if the search raises."""
    import mlflow

    def run(fit=None, **tuning):
        cfg, places, built, setting, experiment = prepared
        with mlflow.start_run(experiment_id=experiment) as run.parent:
            return search.tune(
                spark, tuned(cfg, **tuning), places, built, setting, experiment, run.parent.info.run_id, fit
            ), run.parent.info.run_id

    return run


def tuned(cfg, **tuning):
    return replace(cfg, tuning=replace(cfg.tuning, **tuning))


def orders():
    """A fit that follows the width. Workers get it by value, because it is defined inside a function."""

    def fit(training, validation, setting, on_epoch=None):
        import os
        import signal
        import time
        from dataclasses import replace

        from lakevision.training import loop

        if setting.width == 6:
            raise LookupError("no such network")
        if setting.width == 7:
            for _ in range(600):
                time.sleep(0.1)
        if setting.width == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        rate = float("inf") if setting.width == 5 else setting.learning_rate
        return loop.fit(training, validation, replace(setting, learning_rate=rate, width=4), on_epoch=on_epoch)

    return fit


def seed_for(cfg, widths):
    """A tuning seed whose first trials, drawn at random, have just these widths, in any order; and the settings that
    go with it.
    """
    settings = {"width": tuple(sorted(set(widths))), "trials": max(2, len(widths))}
    for seed in range(1000):
        drawn = tuned(cfg, **settings, seed=seed)
        docs = search.suggestions(drawn, range(len(widths)), {})
        if sorted(settings["width"][doc["misc"]["vals"]["width"][0]] for doc in docs) == sorted(widths):
            return {**settings, "seed": seed}
    raise AssertionError(f"no seed gives {widths}")


def nested(experiment, parent):
    import mlflow

    return (
        mlflow.search_runs([experiment], filter_string=f"tags.`mlflow.parentRunId` = '{parent}'")
        .sort_values("params.learning_rate")
        .reset_index()
    )


def test_spark_trials_are_nested_runs_and_nan_is_named(run_search, prepared, capsys):
    import mlflow

    found, parent = run_search(orders(), trials_on="spark", **seed_for(prepared[0], (FINE, NAN)))
    good, bad = sorted(found.trials, key=lambda record: record["status"] != "ok")
    assert (good["status"], good["width"], bad["status"], bad["width"]) == (
        "ok",
        FINE,
        "fail",
        NAN,
    ) and found.best.width == FINE
    assert (
        bad["reason"].startswith("NotFinite: the loss is nan")
        and "at learning rate" in bad["reason"]
        and "Traceback" in bad["traceback"]
    )
    assert "1 of 2 trials failed" in capsys.readouterr().out
    runs = nested(prepared[4], parent).set_index("run_id")
    assert runs.loc[good["run_id"], "status"] == "FINISHED" and runs.loc[bad["run_id"], "status"] == "FAILED"
    assert "NotFinite" in runs.loc[bad["run_id"], "tags.traceback"] and set(runs["params.trials_on"]) == {"spark"}
    assert float(runs.loc[good["run_id"], "params.learning_rate"]) == good["learning_rate"]
    history = mlflow.MlflowClient(prepared[1].mlflow_uri).get_metric_history(good["run_id"], "val_loss")
    assert [point.step for point in history] == [0, 1] and history[-1].value == good["loss"]


def test_killed_and_slow_workers_cost_only_their_trials(run_search, prepared):
    with pytest.raises(search.AllFailed, match="every trial failed .2."):
        run_search(orders(), trials_on="spark", trial_timeout_s=2.0, **seed_for(prepared[0], (SLOW, KILLED)))
    runs = nested(prepared[4], run_search.parent.info.run_id)
    assert list(runs["status"]) == ["FAILED"] * 2
    slow, killed = sorted(runs["tags.reason"])
    assert slow == "TimedOut: the trial took longer than tuning.trial_timeout_s, 2 s" and killed.startswith(
        "the trial's process died"
    )
    slow, killed = runs.sort_values("tags.reason")["tags.traceback"]
    assert "time.sleep(0.1)" in slow and "trial task" in killed and "orker" in killed  # what Spark says of the worker


def test_failed_driver_trial_costs_only_itself(run_search, prepared, capsys):
    import mlflow

    found, parent = run_search(orders(), trials_on="driver", **seed_for(prepared[0], (FINE, RAISES)))
    good, bad = sorted(found.trials, key=lambda record: record["status"] != "ok")
    assert (good["width"], bad["width"], found.best.width) == (FINE, RAISES, FINE)
    assert bad["reason"] == "LookupError: no such network" and "Traceback" in bad["traceback"]
    assert "1 of 2 trials failed" in capsys.readouterr().out
    client = mlflow.MlflowClient(prepared[1].mlflow_uri)
    assert [point.step for point in client.get_metric_history(good["run_id"], "val_loss")] == [0, 1]
    assert (
        client.get_run(bad["run_id"]).data.tags["traceback"] == bad["traceback"]
        and client.get_run(bad["run_id"]).info.status == "FAILED"
    )
    assert client.get_run(parent).data.tags["trials_on"] == "driver"
    assert {file.path for file in client.list_artifacts(parent)} == {"search.json", "trial_kind.json"}
    picture = plots.search(found.trials, "The search")
    assert [axis.get_title() for axis in picture.axes[:2]] == [
        "Validation loss by trial",
        "Searched values and their losses (dashed: failed)",
    ]


def fake(losses):
    """A fit that takes no time and ends with the next of these losses; None takes for ever."""
    left = iter(losses)

    def fit(training, validation, setting, on_epoch=None):
        loss = next(left)
        while loss is None:
            time.sleep(0.01)
        return loop.Result([], [{"loss": 1.0, "accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5}])

    return fit


def test_patience_counts_finished_trials_only(run_search, capsys):
    found, _ = run_search(
        fake([0.5, 0.4, float("nan"), 0.6, None, 0.7, 0.1]),
        trials_on="driver",
        trials=7,
        patience=2,
        trial_timeout_s=0.5,
    )
    assert [record["status"] for record in found.trials] == ["ok", "ok", "fail", "ok", "fail", "ok"] and found.trials[
        1
    ]["loss"] == 0.4
    assert "stopped after 6 trials" in capsys.readouterr().out
    assert "the validation loss is nan at learning rate" in found.trials[2]["reason"]
    assert (
        "TimedOut" in found.trials[4]["reason"] and "time.sleep(0.01)" in found.trials[4]["traceback"]
    )  # where it was
    records = {record["number"]: record for record in found.trials}
    assert (
        search.out_of_patience(records, 6, 2)
        and not search.out_of_patience(records, 6, 0)
        and not search.out_of_patience(records, 5, 2)
    )


def drawn(trials):
    return [[record[name] for name in search.SEARCHED] for record in trials]


def test_seed_fixes_the_search_and_start_up_fits_budget(run_search, prepared):
    one, two, other = (
        drawn(run_search(fake(losses), trials_on="driver", trials=5, seed=5)[0].trials)
        for losses in ([0.5, 0.4, 0.3, 0.6, 0.2], [0.5, 0.4, 0.3, 0.6, 0.2], [0.9, 0.1, 0.8, 0.2, 0.9])
    )
    assert one == two
    # After the start-up trials what is suggested hangs on the losses, before that it does not.
    assert other[:2] == one[:2] and other[2:] != one[2:]
    first, second = (search.suggestions(tuned(prepared[0], seed=seed), [0], {})[0]["misc"]["vals"] for seed in (5, 6))
    assert first["learning_rate"] == [one[0][0]] != second["learning_rate"]


def test_auto_placement_is_measured_and_explained(run_search, prepared, capsys):
    import mlflow

    found, parent = run_search(trials_on="auto", trials=2, width=(4,))
    figures = found.kind.figures  # which of the two is quicker hangs on the machine, and on what else runs on it
    assert found.kind.name == ("spark" if figures.get("spark_s", float("inf")) < figures["driver_s"] else "driver")
    assert f"trials on {found.kind.name}: {found.kind.why}" in capsys.readouterr().out
    logged = mlflow.artifacts.load_dict(f"runs:/{parent}/trial_kind.json")
    assert logged["driver_trial_s"] == found.kind.figures["driver_trial_s"] > 0 and logged["why"] == found.kind.why


KILLER = """
import os, pickle, signal, sys
sys.path[:0] = {paths!r}
import mlflow
from lakevision.platform import workspace
from lakevision.training import search
cfg, places, built, setting, experiment = pickle.load(open({job!r}, "rb"))
driver, begun = os.getpid(), {begun!r}

def fit(training, validation, setting, on_epoch=None):
    import os, signal, uuid
    from lakevision.training import loop
    open(os.path.join(begun, uuid.uuid4().hex), "w").close()
    if len(os.listdir(begun)) > 2:  # the third trial, and with it all
        os.kill(driver, signal.SIGKILL)
    return loop.Result([], [dict(loss=1.0, accuracy=0.5, val_loss=100 * setting.learning_rate, val_accuracy=0.5)])

spark = workspace.spark(cfg)
mlflow.set_tracking_uri(places.mlflow_uri)
with mlflow.start_run(experiment_id=experiment) as run:
    print(run.info.run_id, flush=True)
    search.tune(spark, cfg, places, built, setting, experiment, run.info.run_id, fit)
"""


def by_rate():
    """A fit whose loss is a hundred times the learning rate, as that of KILLER."""

    def fit(training, validation, setting, on_epoch=None):
        from lakevision.training import loop

        return loop.Result(
            [], [{"loss": 1.0, "accuracy": 0.5, "val_loss": 100 * setting.learning_rate, "val_accuracy": 0.5}]
        )

    return fit


@pytest.mark.parametrize("kind", ["driver", "spark"])
def test_search_resumes_after_killed_driver(run_search, prepared, tmp_path, kind):
    import mlflow

    cfg, places, built, setting, experiment = prepared
    tuning = {"trials": 4, "trials_on": kind, "seed": 21, "width": (4, 6)}
    begun, job = tmp_path / "begun", tmp_path / "job.pickle"
    begun.mkdir()
    job.write_bytes(pickle.dumps((tuned(cfg, **tuning), places, built, setting, experiment)))
    code = KILLER.format(paths=[str(ROOT / "notebooks"), str(ROOT)], job=str(job), begun=str(begun))
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert died.returncode == -9, died.stderr[-3000:]
    old = died.stdout.split()[0]
    before = nested(experiment, old)
    assert sorted(before["status"]).count("FINISHED") == 2 and "RUNNING" in set(before["status"])

    found, parent = run_search(by_rate(), **tuning)
    assert [bool(record.get("resumed")) for record in found.trials] == [True, True, False, False]
    assert [record["status"] for record in found.trials] == ["ok"] * 4
    client = mlflow.MlflowClient(places.mlflow_uri)
    assert client.get_run(old).info.status == "KILLED" and set(nested(experiment, old)["status"]) == {"KILLED"}
    after = nested(experiment, parent)
    assert (
        set(after["status"]) == {"FINISHED"} and len(after) == 4 and set(after["tags.resumed_from"].dropna()) == {old}
    )
    assert {record["run_id"] for record in found.trials} == set(after["run_id"])
    if kind == "driver":  # the same from the start, in one piece; a finished search is not gone on with
        whole, _ = run_search(by_rate(), **tuning)
        assert not any("resumed" in record for record in whole.trials) and drawn(whole.trials) == drawn(found.trials)


def test_interrupted_search_repeats_no_trial(run_search, prepared):
    done, losses = [], iter([0.5, 0.4, None])

    def fit(training, validation, setting, on_epoch=None):
        loss = next(losses, 0.3)
        if loss is None:
            raise KeyboardInterrupt
        done.append(loss)
        return loop.Result([], [{"loss": 1.0, "accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5}])

    with pytest.raises(KeyboardInterrupt):
        run_search(fit, trials_on="driver", trials=4, seed=31)
    assert sorted(nested(prepared[4], run_search.parent.info.run_id)["status"]) == ["FINISHED", "FINISHED", "KILLED"]
    found, _ = run_search(fit, trials_on="driver", trials=4, seed=31)
    assert [record["loss"] for record in found.trials] == [0.5, 0.4, 0.3, 0.3] and done == [0.5, 0.4, 0.3, 0.3]
