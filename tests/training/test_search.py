"""The search: real SparkTrials and Trials on few images, trials and drivers that die, and the rule that chooses between the two kinds."""

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lakevision.dataset import cache, split, split_table
from lakevision.ingest import capture, stream, tables
from lakevision.notebook import plots
from lakevision.registry import tracking
from lakevision.training import loop, search, search_store, trial, trial_placement

ROOT = Path(__file__).resolve().parents[2]
FINE, NAN, RAISES, SLOW, KILLED = 4, 5, 6, 7, 8  # widths that a fit of these tests reads as orders


@pytest.fixture(scope="module")
def prepared(spark, tmp_path_factory):
    """(cfg, places, Cache, Setting, experiment) of 48 simulated photographs at 32 pixels."""
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('tune')}",
            "storage.schema=test_tune",
            "capture.photographs=48",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
            "tuning.epochs=2",
        ],
    )
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    built = cache.build(spark, cfg, places, placements, version)
    return cfg, places, built, loop.first_setting(cfg, built), tracking.start(cfg, places)


@pytest.fixture
def run_search(spark, prepared):
    """(fit, settings of cfg.tuning) -> (search.Search, parent's id); the parent stays in run_search.parent where it raises."""
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
    """A fit that does what the width says; it is defined in here so that workers get it by value."""

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
    """A tuning seed whose first trials, drawn at random, have just these widths, in any order; and the settings that go with it."""
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
def test_only_what_can_change_the_choice_is_measured(prepared, setting, trials, slots, driver_s, asked, kind):
    measured = []
    chosen = trial_placement.choose(
        tuned(prepared[0], trials_on=setting),
        trials,
        slots,
        lambda: measured.append("driver") or driver_s,
        lambda: measured.append("spark") or (5.0, 1.5 * driver_s),
    )
    assert chosen.name == kind and measured == asked


def test_workers_are_measured_where_they_run(spark, prepared):
    cfg, places, built, setting, experiment = prepared
    job = trial.Job(
        built, replace(setting, width=4, epochs=50), "spark", "", experiment, "", places.mlflow_uri, 0.0, loop.fit
    )
    start, seconds = trial_placement.on_spark(spark, 2, job)
    assert start > 0.5 and 0.05 < seconds < 60  # TensorFlow alone takes longer to import; 50 epochs of 5 steps
    assert (
        trial_placement.on_spark(spark, 2, job)[0] == start
    )  # the same workers again, with TensorFlow: no start-up of a new one


def test_trials_on_spark_are_nested_runs_and_one_without_a_loss_names_its_learning_rate(run_search, prepared, capsys):
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


def test_a_killed_worker_costs_its_trial_only_and_a_slow_one_is_stopped(run_search, prepared):
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


def test_a_trial_in_the_driver_fails_alone(run_search, prepared, capsys):
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
        "Searched values and what came of them (dashed: failed)",
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


def test_one_seed_suggests_one_search_and_start_up_fits_the_budget(run_search, prepared):
    one, two, other = (
        drawn(run_search(fake(losses), trials_on="driver", trials=5, seed=5)[0].trials)
        for losses in ([0.5, 0.4, 0.3, 0.6, 0.2], [0.5, 0.4, 0.3, 0.6, 0.2], [0.9, 0.1, 0.8, 0.2, 0.9])
    )
    assert one == two
    # After the start-up trials what is suggested hangs on the losses, before that it does not.
    assert other[:2] == one[:2] and other[2:] != one[2:]
    first, second = (search.suggestions(tuned(prepared[0], seed=seed), [0], {})[0]["misc"]["vals"] for seed in (5, 6))
    assert first["learning_rate"] == [one[0][0]] != second["learning_rate"]


def test_auto_measures_chooses_and_says_why(run_search, prepared, capsys):
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
cfg, where, built, setting, experiment = pickle.load(open({job!r}, "rb"))
driver, begun = os.getpid(), {begun!r}

def fit(training, validation, setting, on_epoch=None):
    import os, signal, uuid
    from lakevision.training import loop
    open(os.path.join(begun, uuid.uuid4().hex), "w").close()
    if len(os.listdir(begun)) > 2:  # the third trial, and with it all
        os.kill(driver, signal.SIGKILL)
    return loop.Result([], [dict(loss=1.0, accuracy=0.5, val_loss=100 * setting.learning_rate, val_accuracy=0.5)])

spark = workspace.spark(cfg)
mlflow.set_tracking_uri(where.mlflow_uri)
with mlflow.start_run(experiment_id=experiment) as run:
    print(run.info.run_id, flush=True)
    search.tune(spark, cfg, where, built, setting, experiment, run.info.run_id, fit)
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
def test_a_search_whose_driver_was_killed_goes_on_as_if_nothing_had_been(run_search, prepared, tmp_path, kind):
    import mlflow

    cfg, places, built, setting, experiment = prepared
    tuning = {"trials": 4, "trials_on": kind, "seed": 21, "width": (4, 6)}
    begun, job = tmp_path / "begun", tmp_path / "job.pickle"
    begun.mkdir()
    job.write_bytes(pickle.dumps((tuned(cfg, **tuning), places, built, setting, experiment)))
    died = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLER.format(paths=[str(ROOT / "notebooks"), str(ROOT)], job=str(job), begun=str(begun)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
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


def test_a_search_stopped_by_hand_keeps_its_trials_and_runs_none_twice(run_search, prepared):
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


def test_the_key_follows_what_decides_the_outcome(prepared):
    cfg, _, built, setting, _ = prepared
    name = search_store.key(cfg, built, setting)
    assert search_store.key(tuned(cfg, trials=99, parallelism=1, patience=3, trials_on="spark"), built, setting) == name
    other = [
        (tuned(cfg, seed=99), built, setting),
        (tuned(cfg, width=(1, 2)), built, setting),
        (cfg, built, replace(setting, epochs=9)),
        (cfg, replace(built, folder=built.folder.replace(Path(built.folder).parent.name, "0123456789abcdef")), setting),
    ]
    assert len({name, *(search_store.key(*parts) for parts in other)}) == 5


def test_a_trial_that_takes_the_driver_along_twice_is_not_tried_again(prepared, tmp_path):
    import mlflow

    _, places, _, _, experiment = prepared
    client = mlflow.MlflowClient(places.mlflow_uri)
    parent = client.create_run(experiment).info.run_id
    for times in (1, 2):
        run = client.create_run(experiment).info.run_id
        search_store.write(
            tmp_path,
            {
                "number": 0,
                "status": "running",
                "kind": "driver",
                "run_id": run,
                "learning_rate": 1e-3,
                "dropout": 0.0,
                "width": 4,
            },
        )
        records, _ = search_store.resume(tmp_path, client, parent)
        assert client.get_run(run).info.status == "KILLED" and len(records) == times - 1
    assert records[0]["status"] == "fail" and "died 2 times" in records[0]["reason"]


@pytest.mark.parametrize("deaths, status", [pytest.param(1, "ok", id="once"), pytest.param(2, "fail", id="twice")])
def test_a_cluster_gives_a_trial_whose_worker_died_one_more_attempt(prepared, tmp_path, deaths, status):
    import mlflow

    _, places, built, setting, experiment = prepared
    client = mlflow.MlflowClient(places.mlflow_uri)
    run = client.create_run(experiment).info.run_id
    values = {"learning_rate": 1e-3, "dropout": 0.0, "width": FINE}
    search_store.write(
        tmp_path, {"number": 3, "attempt": deaths, "status": "running", "kind": "spark", "run_id": run, **values}
    )
    # In this process TensorFlow may have started, and a worker's one thread can't be set any more.
    job = trial.Job(built, setting, "driver", str(tmp_path), experiment, run, places.mlflow_uri, 0.0, orders())
    record = trial.attempt(job, {**values, "number": 3})
    assert (record["status"], record["attempt"]) == (status, 2)
    first = client.get_run(run)
    if deaths == 1:
        assert record["run_id"] != run and first.info.status == "KILLED" and "attempt 2" in first.data.tags["reason"]
    else:
        assert first.info.status == "FAILED" and "2 workers" in record["traceback"]
    assert trial.attempt(job, {**values, "number": 3}) == record, "what is over is not run again"
