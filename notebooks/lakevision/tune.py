"""Hyperopt over Spark: waves of trials, each a process of its own on an executor, each a nested MLflow run."""

import traceback
from dataclasses import dataclass, replace

import numpy as np

from lakevision import tracking

SEARCHED = ("learning_rate", "dropout", "width")


@dataclass
class Search:
    """best: the Setting with the lowest validation loss; trials: one dict each (number, loss, accuracy, seconds, status, the searched values)."""

    best: object
    trials: list


class AllFailed(RuntimeError):
    """Every trial failed; the message holds the first one's traceback."""


def run(cfg, cache, setting, experiment_id, parent, uri):
    """Searches cfg.tuning's space with TPE for the lowest validation loss. setting: train.Setting to start from;
    parent: the MLflow run to nest under; uri: of the tracking server, reachable from workers. Returns Search; raises AllFailed."""
    from hyperopt import SparkTrials, fmin, hp, tpe
    from hyperopt.exceptions import AllTrialsFailed

    low, high = np.log(cfg.tuning.learning_rate)
    space = {"learning_rate": hp.loguniform("learning_rate", low, high), "dropout": hp.uniform("dropout", *cfg.tuning.dropout),
             "width": hp.choice("width", cfg.tuning.width)}
    trials = SparkTrials(parallelism=cfg.tuning.parallelism)
    start_up = max(2, cfg.tuning.trials // 3)  # TPE's own 20 random trials would be all of a small budget
    try:
        fmin(objective(cache, replace(setting, epochs=cfg.tuning.epochs), experiment_id, parent, uri), space,
             algo=lambda *args, **more: tpe.suggest(*args, n_startup_jobs=start_up, **more), max_evals=cfg.tuning.trials,
             trials=trials, rstate=np.random.default_rng(cfg.tuning.seed), show_progressbar=True, return_argmin=False)
    except AllTrialsFailed:
        pass_on = [result.get("traceback") for result in trials.results if result.get("traceback")]
        raise AllFailed("every trial failed; the first one's traceback:\n" + (pass_on or ["(none came back: see the Spark logs)"])[0]) from None
    done = [dict(result, number=number) for number, result in enumerate(trials.results)]
    finished = [trial for trial in done if trial["status"] == "ok"]
    if not finished:
        raise AllFailed("every trial failed; the first one's traceback:\n" + done[0].get("traceback", "(none)"))
    best = min(finished, key=lambda trial: trial["loss"])
    return Search(replace(setting, **{name: best[name] for name in SEARCHED}), done)


def objective(cache, setting, experiment_id, parent, uri):
    """The function that Hyperopt sends to workers: sampled values -> {loss, status, ...}. A failing trial says why and costs nothing but itself."""

    def trial(sampled):
        import time

        from hyperopt import STATUS_FAIL, STATUS_OK

        from lakevision import feed, train

        began = time.monotonic()
        values = {"learning_rate": float(sampled["learning_rate"]), "dropout": float(sampled["dropout"]), "width": int(sampled["width"])}
        client, run_id = tracking.child(uri, experiment_id, parent, f"trial lr={values['learning_rate']:.2g} width={values['width']}", values)
        try:
            train.limit_threads(1)
            tried = replace(setting, **values)

            def log(epoch, figures):
                for key, value in figures.items():
                    client.log_metric(run_id, key, value, step=epoch)

            result = train.fit(feed.load(cache, "train"), feed.load(cache, "validation"), tried, on_epoch=log)
        except Exception:
            # Hyperopt would show the exception's text alone, and only in the executor's log.
            report = traceback.format_exc()
            client.set_tag(run_id, "traceback", report[-4000:])
            client.set_terminated(run_id, "FAILED")
            return {"status": STATUS_FAIL, "traceback": report, "seconds": time.monotonic() - began, **values}
        client.set_terminated(run_id)
        last = result.history[-1]
        return {"status": STATUS_OK, "loss": last["val_loss"], "accuracy": last["val_accuracy"], "seconds": time.monotonic() - began, **values}

    return trial
