"""A trial: its deadline, and attempts on a cluster."""

import time
from dataclasses import replace

import pytest

from lakevision.training import loop, search_store, trial


def test_met_deadline_raises_nothing_later():
    with trial.deadline(0.05):
        pass
    for _ in range(20):
        time.sleep(0.01)
    with pytest.raises(trial.TimedOut, match="0.1 s"), trial.deadline(0.1):
        while True:
            time.sleep(0.01)


FINE, NAN, RAISES, SLOW, KILLED = 4, 5, 6, 7, 8  # widths that a fit of these tests reads as orders


def orders():
    """A fit that does what the width says; it is defined in here so that workers get it by value."""

    def fit(training, validation, setting, on_epoch=None):
        import os
        import signal
        import time

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


@pytest.mark.parametrize("deaths, status", [pytest.param(1, "ok", id="once"), pytest.param(2, "fail", id="twice")])
def test_trial_of_dead_worker_gets_one_more_attempt(prepared, tmp_path, deaths, status):
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
