"""Hyperopt's search for the setting with the lowest validation loss: TPE in waves, each trial a nested MLflow run; a search that was killed goes on.

A wave is as many trials as run at a time. A trial's suggestion depends on the seed, its number and the results of earlier waves alone: the same seed
and kind of trials suggest the same, whichever trial ends first and however often the driver died in between.
"""

import functools
import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from lakevision.platform import spark_session
from lakevision.training import search_store, trial, trial_placement
from lakevision.training.trial import SEARCHED


@dataclass
class Search:
    """best: the Setting with the lowest validation loss; trials: one dict each (number, status, loss, accuracy, seconds, the searched values, run_id;
    reason and traceback of a failed one; resumed: taken over from a search whose driver died); kind: the trial_placement.Kind."""

    best: object
    trials: list
    kind: trial_placement.Kind


class AllFailed(RuntimeError):
    """Every trial failed; the message holds the first one's traceback."""


def tune(spark, cfg, places, cache, setting, experiment_id, parent, fit=None):
    """Searches cfg.tuning's space. setting: loop.Setting to start from; parent: the MLflow run to nest under; fit: what trains, None is loop.fit.

    Goes on with the unfinished search of the same images, space, start setting, seed and epochs, if there is one. Returns Search; raises AllFailed,
    search_store.SearchRuns.
    """
    from mlflow import MlflowClient

    from lakevision.dataset import feed
    from lakevision.training import loop

    client, setting = MlflowClient(places.mlflow_uri), replace(setting, epochs=cfg.tuning.epochs)
    with search_store.opened(places.root, search_store.key(cfg, cache, setting)) as folder:
        records, header = search_store.resume(folder, client, parent)
        job = trial.Job(
            cache,
            setting,
            "spark",
            folder,
            experiment_id,
            parent,
            places.mlflow_uri,
            cfg.tuning.trial_timeout_s,
            fit or loop.fit,
        )
        if records:
            print(f"a search that did not finish goes on: {len(records)} trials are there already")
        load = functools.cache(lambda: tuple(feed.load(cache, side) for side in ("train", "validation")))
        kind = _kind(spark, cfg, header, job, load, cfg.tuning.trials - len(records))
        print(f"trials on {kind.name}: {kind.why}")
        search_store.keep_header(folder, {**header, "kind": kind.name, "slots": kind.slots, "why": kind.why})
        client.set_tag(parent, "trials_on", kind.name)
        client.log_dict(
            parent, {"trials_on": kind.name, "slots": kind.slots, "why": kind.why, **kind.figures}, "trial_kind.json"
        )
        job = replace(job, kind=kind.name, arrays=load() if kind.name == "driver" else None)
        _search(spark, cfg, job, kind.slots, records)
        done = [records[number] for number in sorted(records)]
        search_store.archive(folder, client, parent, done)
    best = _best(done)
    return Search(replace(setting, **{name: best[name] for name in SEARCHED}), done, kind)


def _kind(spark, cfg, header, job, load, left):
    """The trial_placement.Kind of the trials that are left; a search that goes on keeps the one it began with."""
    if cfg.tuning.trials_on == "auto" and "kind" in header:
        return trial_placement.Kind(header["kind"], header["slots"], f"as this search began: {header['why']}", {})
    slots = min(cfg.tuning.parallelism, spark_session.slots(spark), cfg.tuning.trials)
    try:
        return trial_placement.choose(
            cfg,
            left,
            slots,
            lambda: trial_placement.trial_seconds(*load(), job.setting, job.fit, warm=True),
            lambda: trial_placement.on_spark(spark, slots, job),
        )
    except (
        Exception
    ) as error:  # the trials will most likely fail likewise, each with its traceback; the driver gets there soonest
        return trial_placement.Kind(
            "driver",
            1,
            f"a few steps to measure failed with {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            {},
        )


def _search(spark, cfg, job, slots, records):
    """Runs waves until the budget or the patience is spent; adds to records, {number: record}."""
    total = cfg.tuning.trials
    for first in range(0, total, slots):
        wave = [number for number in range(first, min(first + slots, total)) if number not in records]
        if out_of_patience(records, first, cfg.tuning.patience):
            print(f"stopped after {first} trials: the last {cfg.tuning.patience} finished ones brought no lower loss")
            return
        if wave:
            earlier = {number: record for number, record in records.items() if number < first}
            records.update(_wave(spark, cfg, job, wave, earlier))
        for number in wave:
            print(f"trial {number + 1} of {total}: {_told(records[number])}")


def out_of_patience(records, upto, patience):
    """Whether the last `patience` of the finished trials with numbers below upto brought no lower loss; failed ones do not count. 0 is never."""
    losses = [
        records[number]["loss"] for number in sorted(records) if number < upto and records[number]["status"] == "ok"
    ]
    return bool(patience and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience)


def _wave(spark, cfg, job, wave, earlier):
    """Runs trials of these numbers at the same time through Hyperopt. Returns their records."""
    from hyperopt import SparkTrials, Trials, fmin, hp
    from hyperopt.exceptions import AllTrialsFailed

    docs = suggestions(cfg, wave, earlier)
    for doc, number in zip(
        docs, wave
    ):  # the number rides along with the values: TPE knows nothing of it, the trial does
        doc["misc"]["idxs"]["number"], doc["misc"]["vals"]["number"] = [number], [number]
    trials = SparkTrials(parallelism=len(wave), spark_session=spark) if job.kind == "spark" else Trials()
    with _said_by_spark() as said:
        try:
            fmin(
                functools.partial(trial.attempt, job),
                {"number": hp.uniform("number", 0, 1), **space(cfg)},
                algo=lambda *_: docs,
                max_evals=len(wave),
                max_queue_len=len(wave),
                trials=trials,
                rstate=np.random.default_rng(cfg.tuning.seed),
                show_progressbar=False,
                verbose=False,
                return_argmin=False,
            )
        except AllTrialsFailed:
            pass  # the records say why
    kept = search_store.read(job.folder)
    for doc, number in zip(docs, wave):
        if kept.get(number, {"status": "running"})["status"] == "running":
            values = {name: _value(cfg, name, doc["misc"]["vals"][name][0]) for name in SEARCHED}
            about = "\n".join(
                line
                for message in said
                if message.startswith(f"trial task {number} ")
                for line in message.splitlines()
                if not line.lstrip().startswith(("at ", "..."))
            )  # the JVM's own frames tell nothing
            kept[number] = trial.lost(job, kept.get(number, {"number": number, "kind": job.kind, **values}), about)
    return {number: kept[number] for number in wave}


def space(cfg):
    """Hyperopt's search space of cfg.tuning."""
    from hyperopt import hp

    low, high = np.log(cfg.tuning.learning_rate)
    return {
        "learning_rate": hp.loguniform("learning_rate", low, high),
        "dropout": hp.uniform("dropout", *cfg.tuning.dropout),
        "width": hp.choice("width", cfg.tuning.width),
    }


def suggestions(cfg, numbers, earlier):
    """Hyperopt's documents for trials of these numbers, by TPE from the records of earlier ones, {number: record}. The seed of each depends on
    its number alone. The first third are drawn at random, at least 2 and at most TPE's own 20: those 20 would be all of a small budget."""
    from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Trials, tpe
    from hyperopt.base import Domain

    domain, history = Domain(lambda values: 0.0, space(cfg)), Trials()
    for number, record in sorted(earlier.items()):
        values = {name: cfg.tuning.width.index(record[name]) if name == "width" else record[name] for name in SEARCHED}
        result = {"status": STATUS_OK, "loss": record["loss"]} if record["status"] == "ok" else {"status": STATUS_FAIL}
        misc = {
            "tid": number,
            "cmd": domain.cmd,
            "idxs": {name: [number] for name in values},
            "vals": {name: [value] for name, value in values.items()},
        }
        (doc,) = history.new_trial_docs([number], [None], [result], [misc])
        history.insert_trial_doc({**doc, "state": JOB_STATE_DONE})
    history.refresh()
    start_up = min(20, max(2, cfg.tuning.trials // 3))
    seeds = {number: int(np.random.default_rng((cfg.tuning.seed, number)).integers(2**31 - 1)) for number in numbers}
    return [
        tpe.suggest([number], domain, history, seeds[number], n_startup_jobs=start_up, verbose=False)[0]
        for number in numbers
    ]


def _value(cfg, name, sampled):
    return cfg.tuning.width[sampled] if name == "width" else float(sampled)


def _best(done):
    """The record with the lowest loss; prints the failed ones in short. Raises AllFailed."""
    failed, finished = ([record for record in done if record["status"] == status] for status in ("fail", "ok"))
    if failed:
        print(f"{len(failed)} of {len(done)} trials failed:")
        print(*[f"  trial {record['number'] + 1}: {_told(record)}" for record in failed], sep="\n")
    if not finished:
        raise AllFailed(f"every trial failed ({len(failed)}); the first one's traceback:\n{failed[0]['traceback']}")
    return min(finished, key=lambda record: record["loss"])


def _told(record):
    at = f"learning rate {record['learning_rate']:.2g}, dropout {record['dropout']:.2f}, width {record['width']}"
    if record["status"] == "fail":
        return f"failed, {record['reason']} ({at})"
    return f"loss {record['loss']:.3f}, accuracy {record['accuracy']:.3f}, {record['seconds']:.1f} s ({at})"


@contextmanager
def _said_by_spark():
    """A list that fills with what Hyperopt logs of a lost trial: all that is known of a worker that died. Shown once, in the trial's own report."""
    logger, said = logging.getLogger("hyperopt-spark"), []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())
    before, logger.handlers, logger.propagate = logger.handlers, [handler], False
    try:
        yield said
    finally:
        logger.handlers, logger.propagate = before, True
