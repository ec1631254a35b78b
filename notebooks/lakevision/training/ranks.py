"""The final training on several ranks over Spark, connected by the engine of training.engine."""

from __future__ import annotations

import hashlib
import shutil
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakevision.platform import spark_session, workspace
from lakevision.training.engines import choice
from lakevision.training.loop import Result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places
    from lakevision.training.setting import Setting


@dataclass
class Trained:
    """A finished training.

    result: of rank 0. engine: "horovod" or "collectives". digests: of each rank's weights, all equal. seconds: start-up
    and training.
    """

    result: Result
    engine: str
    digests: list[str]
    start_seconds: float
    train_seconds: float

    def figures(self) -> dict[str, Any]:
        """What MLflow keeps as ranks.json."""
        return {name: value for name, value in vars(self).items() if name != "result"}


class RankFailed(RuntimeError):
    """A rank failed; the message holds its traceback."""


class RankLost(RankFailed):
    """A rank ended without a traceback: its process or its machine went away. The checkpoint remains."""


class Diverged(RuntimeError):
    """The ranks ended with different weights: their gradients were not averaged."""


def train(
    spark: SparkSession,
    cfg: Config,
    places: Places,
    cache: Cache,
    setting: Setting,
    on_epoch_log: dict[str, str] | None = None,
) -> Trained:
    """Trains a setting on cfg.training.ranks ranks, one in each Spark slot.

    A training that was killed, with or without its driver, resumes after its last whole epoch. on_epoch_log: {"uri",
    "run_id"} of the MLflow run for the figures of each epoch. Raises RankFailed, RankLost, Diverged,
    choice.EngineMissing, and ValueError if Spark has too few slots.
    """
    engine = choice.chosen(cfg.training.engine)
    count = cfg.training.ranks or spark_session.slots(spark)
    if count > (slots := spark_session.slots(spark, count)):
        raise ValueError(f"training.ranks is {count}, but Spark has {slots} slots; the ranks would wait without end")
    run_folder = Path(places.root) / "ranks" / key(cache, setting, count)  # seen by all ranks, as the cache is
    run_folder.mkdir(parents=True, exist_ok=True)
    # On Databricks a rank has no login, so the driver logs at the end.
    later = on_epoch_log is not None and on_epoch_log["uri"].startswith("databricks")
    job = {
        "cache": cache,
        "setting": setting,
        "folder": str(run_folder),
        "log": None if later else on_epoch_log,
        "engine": engine,
        "ranks": count,
        "memory_mb": cfg.training.memory_mb,
    }
    began = time.time()
    results = _launch_with_retries(spark, job, cfg.training.retries)
    shutil.rmtree(run_folder, ignore_errors=True)
    digests = [digest for digest, _, _ in results]
    if len(set(digests)) > 1:
        raise Diverged(f"the ranks' weights differ: {[digest[:12] for digest in digests]}")
    result, first_step = results[0][1], results[0][2]
    if later and on_epoch_log:
        log = _logger(on_epoch_log)
        for epoch, figures in enumerate(result.history):
            log(epoch, figures)
    return Trained(result, engine, digests, first_step - began, time.time() - first_step)


def key(cache: Cache, setting: Setting, ranks: int) -> str:
    """Hash of everything that decides the weights of a training. An interrupted training is found by its key."""
    return hashlib.sha256(
        f"{Path(cache.folder).parent.name} {setting} {ranks} {workspace.commit()}".encode()
    ).hexdigest()[:16]


def _launch_with_retries(spark: SparkSession, job: dict[str, Any], retries: int) -> list[Any]:
    """As _launch(). A lost rank costs a restart of all ranks, so many times."""
    for left in range(retries, 0, -1):
        try:
            return _launch(spark, job)
        except RankLost as error:
            tries = f"{left} more {'tries' if left > 1 else 'try'}"
            print(f"{str(error).splitlines()[0]}: the ranks restart from the last whole epoch ({tries})")
    return _launch(spark, job)


def _launch(spark: SparkSession, job: dict[str, Any]) -> list[Any]:
    """Starts the ranks and waits for them. Returns the result of work() of each rank. Raises RankFailed, RankLost."""
    engine = choice.module(job["engine"])
    scratch = Path(job["folder"], uuid.uuid4().hex[:8])
    scratch.mkdir()
    log = scratch / "output"
    try:
        return engine.launch(spark, work, {**job, "scratch": str(scratch)}, job["ranks"], log)
    except Exception as error:
        reports = [path.read_text() for path in sorted(scratch.glob("rank-*.error"))]
        own = [report for report in reports if not any(word in report for word in engine.NEIGHBOUR_GONE)]
        if own:
            raise RankFailed("\n".join([str(error), *own])) from None
        last_words = log.read_text()[-3000:] if log.exists() else ""
        message = f"a rank ended without a traceback (killed, or out of memory): {error}\n{last_words}"
        raise RankLost(message) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def work(job: dict[str, Any]) -> tuple[str, Result | None, float]:
    """The work of a rank. Returns (digest of its weights, Result on rank 0 else None, time of its first step)."""
    engine = choice.module(job["engine"])
    try:
        from lakevision.dataset import feed
        from lakevision.training import backbone, loop

        loop.limit_threads(1)
        connected = engine.connect()
        if connected.size() != job["ranks"]:
            raise RuntimeError(f"{job['ranks']} ranks were asked for, {connected.size()} were started")
        splits = [feed.opened(job["cache"], split, job["memory_mb"]) for split in ("train", "validation")]
        frozen = backbone.frozen(job["setting"])
        features = (
            [backbone.kept(job["cache"], job["setting"], split) for split in ("train", "validation")]
            if frozen
            else None
        )
        began = time.time()
        result = loop.fit(
            splits[0],
            splits[1],
            job["setting"],
            hvd=connected,
            features_of=features,
            on_epoch=_logger(job["log"]) if job["log"] else None,
            kept_at=str(Path(job["folder"], "checkpoint")),
        )
        return result.digest, result if connected.rank() == 0 else None, began
    except Exception:
        # The driver sees only how the process ended, so it shows this file.
        Path(job["scratch"], f"rank-{engine.own_rank()}.error").write_text(traceback.format_exc())
        raise


def _logger(log: dict[str, str]) -> Callable[[int, dict[str, float]], None]:
    from mlflow import MlflowClient

    client = MlflowClient(log["uri"])

    def on_epoch(epoch: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            client.log_metric(log["run_id"], key, value, step=epoch)

    return on_epoch
