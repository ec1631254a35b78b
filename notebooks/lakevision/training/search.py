"""Hyperopt's search for the setting with the lowest validation loss: TPE in waves of trials.

Each trial is a nested MLflow run. A wave has as many trials as run at the same time. The suggestion for a trial depends
only on the seed, its number and the results of earlier waves. So the same seed and kind of trials give the same search,
whichever trial ends first and however often the driver died. A killed search resumes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lakevision.platform import spark_session
from lakevision.training import search_store, trial, trial_placement
from lakevision.training.search_store import Record
from lakevision.training.trial import SEARCHED

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places
    from lakevision.training.setting import Setting


@dataclass
class Search:
    """A finished search.

    best: the setting with the lowest validation loss. trials: one dict each (number, status, loss, accuracy, seconds,
    the searched values, run_id; reason and traceback of a failed trial; resumed: from a search whose driver died).
    kind: where the trials ran, and why.
    """

    best: Setting
    trials: list[Record]
    kind: trial_placement.Kind


class AllFailed(RuntimeError):
    """Every trial failed; the message holds the first one's traceback."""


def tune(
    spark: SparkSession,
    cfg: Config,
    places: Places,
    cache: Cache,
    setting: Setting,
    experiment_id: str,
    parent: str,
    fit: Callable | None = None,
) -> Search:  # 8 parameters: a search needs all of them, and notebooks call it once
    """Searches the space of cfg.tuning, and resumes an unfinished search of the same key (search_store.key).

    setting: the setting to start from. parent: id of the MLflow run to nest under. fit: the training function, loop.fit
    if None. Raises AllFailed, search_store.SearchRuns.
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
            print(f"resuming an unfinished search: {len(records)} trials are done")
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


def _kind(
    spark: SparkSession, cfg: Config, header: dict[str, Any], job: trial.Job, load: Callable, left: int
) -> trial_placement.Kind:
    """The kind of the remaining trials. A resumed search keeps the kind of its start."""
    if cfg.tuning.trials_on == "auto" and "kind" in header:
        return trial_placement.Kind(
            header["kind"], header["slots"], f"as at the start of this search: {header['why']}", {}
        )
    slots = min(cfg.tuning.parallelism, spark_session.slots(spark), cfg.tuning.trials)
    try:
        return trial_placement.choose(
            cfg,
            left,
            slots,
            lambda: trial_placement.trial_seconds(load()[0], load()[1], job.setting, job.fit, warm=True),
            lambda: trial_placement.on_spark(spark, slots, job),
        )
    except Exception as error:
        # The trials will most likely fail in the same way, each with its traceback. The driver shows that soonest.
        return trial_placement.Kind(
            "driver",
            1,
            f"the measurement of a few steps failed with {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            {},
        )


def _search(spark: SparkSession, cfg: Config, job: trial.Job, slots: int, records: dict[int, Record]) -> None:
    """Runs waves until the budget or the patience is spent, and adds the trials to records."""
    total = cfg.tuning.trials
    for first in range(0, total, slots):
        wave = [number for number in range(first, min(first + slots, total)) if number not in records]
        if out_of_patience(records, first, cfg.tuning.patience):
            print(f"stopped after {first} trials: the last {cfg.tuning.patience} finished trials brought no lower loss")
            return
        if wave:
            earlier = {number: record for number, record in records.items() if number < first}
            records.update(_wave(spark, cfg, job, wave, earlier))
        for number in wave:
            print(f"trial {number + 1} of {total}: {_summary(records[number])}")


def out_of_patience(records: dict[int, Record], upto: int, patience: int) -> bool:
    """True if the last `patience` finished trials below number `upto` brought no lower loss.

    Failed trials do not count. A patience of 0 never ends a search.
    """
    losses = [
        records[number]["loss"] for number in sorted(records) if number < upto and records[number]["status"] == "ok"
    ]
    return bool(patience and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience)


def _wave(
    spark: SparkSession, cfg: Config, job: trial.Job, wave: list[int], earlier: dict[int, Record]
) -> dict[int, Record]:
    """Runs the trials of these numbers at the same time through Hyperopt. Returns their records."""
    from hyperopt import SparkTrials, Trials, fmin, hp
    from hyperopt.exceptions import AllTrialsFailed

    docs = suggestions(cfg, wave, earlier)
    for doc, number in zip(docs, wave, strict=True):
        # The number travels with the values. TPE ignores it; the trial reads it.
        doc["misc"]["idxs"]["number"], doc["misc"]["vals"]["number"] = [number], [number]
    trials = SparkTrials(parallelism=len(wave), spark_session=spark) if job.kind == "spark" else Trials()
    with _messages_of_hyperopt() as messages, suppress(AllTrialsFailed):  # each record holds its own reason
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
    kept = search_store.read(job.folder)
    for doc, number in zip(docs, wave, strict=True):
        if kept.get(number, {"status": "running"})["status"] == "running":
            values = {name: _value(cfg, name, doc["misc"]["vals"][name][0]) for name in SEARCHED}
            about = "\n".join(
                line
                for message in messages
                if message.startswith(f"trial task {number} ")
                for line in message.splitlines()
                if not line.lstrip().startswith(("at ", "..."))
            )  # the frames of the JVM explain nothing
            kept[number] = trial.lost(job, kept.get(number, {"number": number, "kind": job.kind, **values}), about)
    return {number: kept[number] for number in wave}


def space(cfg: Config) -> dict[str, Any]:
    """Hyperopt's search space of cfg.tuning."""
    from hyperopt import hp

    low, high = np.log(cfg.tuning.learning_rate)
    return {
        "learning_rate": hp.loguniform("learning_rate", low, high),
        "dropout": hp.uniform("dropout", *cfg.tuning.dropout),
        "width": hp.choice("width", cfg.tuning.width),
    }


def suggestions(cfg: Config, numbers: list[int] | range, earlier: dict[int, Record]) -> list[dict[str, Any]]:
    """Hyperopt's documents for trials of these numbers, by TPE from the records of earlier trials.

    The seed of each depends only on its number. The first third is drawn at random, at least 2 and at most TPE's own
    20, because those 20 would use up a small budget.
    """
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


def _value(cfg: Config, name: str, sampled: Any) -> float:
    return cfg.tuning.width[sampled] if name == "width" else float(sampled)


def _best(done: list[Record]) -> Record:
    """The record with the lowest loss. Prints a line for each failed trial. Raises AllFailed."""
    failed, finished = ([record for record in done if record["status"] == status] for status in ("fail", "ok"))
    if failed:
        print(f"{len(failed)} of {len(done)} trials failed:")
        print(*[f"  trial {record['number'] + 1}: {_summary(record)}" for record in failed], sep="\n")
    if not finished:
        raise AllFailed(f"every trial failed ({len(failed)}); traceback of the first:\n{failed[0]['traceback']}")
    return min(finished, key=lambda record: record["loss"])


def _summary(record: Record) -> str:
    at = f"learning rate {record['learning_rate']:.2g}, dropout {record['dropout']:.2f}, width {record['width']}"
    if record["status"] == "fail":
        return f"failed, {record['reason']} ({at})"
    return f"loss {record['loss']:.3f}, accuracy {record['accuracy']:.3f}, {record['seconds']:.1f} s ({at})"


@contextmanager
def _messages_of_hyperopt() -> Iterator[list[str]]:
    """Yields a list that receives Hyperopt's log messages: the only information about a worker that died.

    They are shown once, in the report of the trial.
    """
    logger, messages = logging.getLogger("hyperopt-spark"), []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before, logger.handlers, logger.propagate = logger.handlers, [handler], False
    try:
        yield messages
    finally:
        logger.handlers, logger.propagate = before, True
