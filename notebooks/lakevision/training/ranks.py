"""The final training on Horovod ranks over Spark."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakevision.platform import spark_session, workspace
from lakevision.training.loop import Result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places
    from lakevision.training.setting import Setting

# Messages of a rank whose neighbour went away during an operation: from Horovod, or from the connection below.
NEIGHBOUR_GONE = ("HorovodInternalError", "Horovod has been shut down", "gloo/transport")


@dataclass
class Trained:
    """A finished training.

    result: of rank 0. digests: of each rank's weights, all equal. seconds: start-up and training.
    """

    result: Result
    digests: list[str]
    start_seconds: float
    train_seconds: float

    def figures(self) -> dict[str, Any]:
        """What MLflow keeps as ranks.json."""
        return {"digests": self.digests, "start_seconds": self.start_seconds, "train_seconds": self.train_seconds}


class RankFailed(RuntimeError):
    """A Horovod rank failed; the message holds its traceback."""


class RankLost(RankFailed):
    """A Horovod rank ended without a traceback: its process or its machine went away. The checkpoint remains."""


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
    """Trains a setting on cfg.training.ranks Horovod ranks, one in each Spark slot.

    A training that was killed, with or without its driver, resumes after its last whole epoch. on_epoch_log: {"uri",
    "run_id"} of the MLflow run for the figures of each epoch. Raises RankFailed, RankLost, Diverged, and ValueError if
    Spark has too few slots.
    """
    import time

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
        "ranks": count,
        "memory_mb": cfg.training.memory_mb,
    }
    began = time.time()
    results = _launch_with_retries(job, cfg.training.retries)
    shutil.rmtree(run_folder, ignore_errors=True)
    digests = [digest for digest, _, _ in results]
    if len(set(digests)) > 1:
        raise Diverged(f"the ranks' weights differ: {[digest[:12] for digest in digests]}")
    result, first_step = results[0][1], results[0][2]
    if later and on_epoch_log:
        log = _logger(on_epoch_log)
        for epoch, figures in enumerate(result.history):
            log(epoch, figures)
    return Trained(result, digests, first_step - began, time.time() - first_step)


def key(cache: Cache, setting: Setting, ranks: int) -> str:
    """Hash of everything that decides the weights of a training. An interrupted training is found by its key."""
    return hashlib.sha256(
        f"{Path(cache.folder).parent.name} {setting} {ranks} {workspace.commit()}".encode()
    ).hexdigest()[:16]


def _launch_with_retries(job: dict[str, Any], retries: int) -> list[Any]:
    """As _launch(). A lost rank costs a restart of all ranks, so many times."""
    for left in range(retries, 0, -1):
        try:
            return _launch(job)
        except RankLost as error:
            tries = f"{left} more {'tries' if left > 1 else 'try'}"
            print(f"{str(error).splitlines()[0]}: the ranks restart from the last whole epoch ({tries})")
    return _launch(job)


def _launch(job: dict[str, Any]) -> list[Any]:
    """Starts the ranks and waits for them. Returns the result of work() of each rank. Raises RankFailed, RankLost."""
    import horovod.spark

    scratch = Path(job["folder"], uuid.uuid4().hex[:8])
    scratch.mkdir()
    job = {**job, "scratch": str(scratch)}
    try:
        with open(scratch / "stdout", "w") as out, open(scratch / "stderr", "w") as err:
            results = horovod.spark.run(
                entry(),
                args=(workspace.library(), pickle.dumps((work, job))),
                num_proc=job["ranks"],
                use_gloo=True,
                verbose=0,
                start_timeout=120,
                stdout=out,
                stderr=err,
            )
    except Exception as error:
        reports = [path.read_text() for path in sorted(scratch.glob("rank-*.error"))]
        own = [report for report in reports if not any(word in report for word in NEIGHBOUR_GONE)]
        if own:
            raise RankFailed("\n".join([str(error), *own])) from None
        last_words = (scratch / "stderr").read_text()[-3000:]
        message = f"a rank ended without a traceback (killed, or out of memory): {error}\n{last_words}"
        raise RankLost(message) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [pickle.loads(result) for result in results]


def entry() -> Callable[[bytes, bytes], bytes]:
    """The function that a rank starts with: (library, pickle of (function, argument)) -> pickle of the result.

    A rank is a process that cannot import our modules. So this function brings the library as a zip. The function is
    defined inside this one, so that it is sent by value, and it takes and returns pickles, not objects of our classes.
    """

    def rank_main(library: bytes, task: bytes) -> bytes:
        import atexit
        import os
        import pickle
        import shutil
        import sys
        import tempfile

        folder = tempfile.mkdtemp(prefix="lakevision-rank-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = os.path.join(folder, "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path.insert(0, path)
        function, argument = pickle.loads(task)
        return pickle.dumps(function(argument))

    return rank_main


def work(job: dict[str, Any]) -> tuple[str, Result | None, float]:
    """The work of a rank. Returns (digest of its weights, Result on rank 0 else None, time of its first step)."""
    import os
    import time
    import traceback

    os.environ.setdefault("HOROVOD_CYCLE_TIME", "1")  # ms; the default of 5 doubles the time of a small allreduce
    name = f"rank-{os.environ.get('HOROVOD_RANK', 'unknown')}.error"
    try:
        from lakevision.dataset import feed
        from lakevision.training import backbone, loop

        loop.limit_threads(1)
        import horovod.tensorflow as hvd

        hvd.init()
        if hvd.size() != job["ranks"]:
            raise RuntimeError(f"{job['ranks']} ranks were asked for, Horovod started {hvd.size()}")
        own_a_gpu(hvd.local_rank())
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
            hvd=hvd,
            features_of=features,
            on_epoch=_logger(job["log"]) if job["log"] else None,
            kept_at=str(Path(job["folder"], "checkpoint")),
        )
        return result.digest, result if hvd.rank() == 0 else None, began
    except Exception:
        # The driver sees only "non-zero status", so it shows this file.
        Path(job["scratch"], name).write_text(traceback.format_exc())
        raise


def own_a_gpu(local_rank: int) -> None:
    """Gives each rank a GPU of its own if the machine has GPUs, and lets its memory grow as needed."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        gpu = gpus[local_rank % len(gpus)]
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)


def _logger(log: dict[str, str]) -> Callable[[int, dict[str, float]], None]:
    from mlflow import MlflowClient

    client = MlflowClient(log["uri"])

    def on_epoch(epoch: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            client.log_metric(log["run_id"], key, value, step=epoch)

    return on_epoch
