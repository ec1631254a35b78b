"""The final model on Horovod ranks over Spark, with gradients that are averaged in truth."""

import hashlib
import pickle
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from lakevision.platform import spark_session, workspace
from lakevision.training.loop import Result

# What a rank says whose neighbour went away in the middle of an operation: Horovod's own words, or those of the connection below it.
NEIGHBOUR_GONE = ("HorovodInternalError", "Horovod has been shut down", "gloo/transport")


@dataclass
class Trained:
    """result: loop.Result of rank 0; digests: of each rank's weights, all equal; seconds: start-up and training apart."""

    result: Result
    digests: list
    start_seconds: float
    train_seconds: float

    def figures(self):
        return {"digests": self.digests, "start_seconds": self.start_seconds, "train_seconds": self.train_seconds}


class RankFailed(RuntimeError):
    """A Horovod rank failed; the message holds its traceback."""


class RankLost(RankFailed):
    """A Horovod rank ended without a traceback of its own: its process or its machine was taken away. Its checkpoint is still there."""


class Diverged(RuntimeError):
    """The ranks ended with different weights: their gradients were not averaged."""


def train(spark, cfg, places, cache, setting, on_epoch_log=None):
    """Trains a setting on cfg.training.ranks Horovod ranks, one Spark slot each. Returns Trained. Raises RankFailed, RankLost, Diverged.

    The same training that was killed before, driver and all, goes on after its last whole epoch.

    on_epoch_log: {"uri", "run_id"}: where each epoch's figures are logged.
    """
    import time

    count = cfg.training.ranks or spark_session.slots(spark)
    if count > (slots := spark_session.slots(spark, count)):
        raise ValueError(f"training.ranks is {count}, but Spark has {slots} slots; the ranks would wait for ever")
    run_folder = Path(places.root) / "ranks" / key(cache, setting, count)  # seen by all ranks, as the cache is
    run_folder.mkdir(parents=True, exist_ok=True)
    # On Databricks a rank has nothing of the notebook's login: there the driver logs, at the end.
    later = bool(on_epoch_log) and on_epoch_log["uri"].startswith("databricks")
    job = {
        "cache": cache,
        "setting": setting,
        "folder": str(run_folder),
        "log": None if later else on_epoch_log,
        "ranks": count,
        "memory_mb": cfg.training.memory_mb,
    }
    began = time.time()
    for left in range(cfg.training.retries, -1, -1):
        try:
            results = _launch(job)
            break
        except RankLost as error:
            if not left:
                raise
            print(
                f"{str(error).splitlines()[0]}: the ranks start again from the last whole epoch ({left} more {'tries' if left > 1 else 'try'})"
            )
    shutil.rmtree(run_folder, ignore_errors=True)
    digests = [digest for digest, _, _ in results]
    if len(set(digests)) > 1:
        raise Diverged(f"the ranks' weights differ: {[digest[:12] for digest in digests]}")
    result, first_step = results[0][1], results[0][2]
    if later:
        log = _logger(on_epoch_log)
        for epoch, figures in enumerate(result.history):
            log(epoch, figures)
    return Trained(result, digests, first_step - began, time.time() - first_step)


def key(cache, setting, ranks):
    """The name of a training: what decides its weights. A training that was cut short is found by it, and goes on."""
    return hashlib.sha256(
        f"{Path(cache.folder).parent.name} {setting} {ranks} {workspace.commit()}".encode()
    ).hexdigest()[:16]


def _launch(job):
    """Starts the ranks and waits. Returns what work() returned on each. Raises RankFailed, RankLost."""
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
        raise RankLost(
            f"a rank went away without a word (killed, or out of memory): {error}\n{(scratch / 'stderr').read_text()[-3000:]}"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [pickle.loads(result) for result in results]


def entry():
    """The function a rank starts in: (library, pickle of (function, its argument)) -> pickle of what the function returned.

    A rank is a process of its own that can import nothing of ours; so this function carries the library along as a zip, is defined in here so that
    it is sent by value, and takes and gives pickles, not objects of our classes.
    """

    def rank_main(library, task):
        import os
        import pickle
        import sys
        import tempfile

        path = os.path.join(tempfile.mkdtemp(prefix="lakevision-rank-"), "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path.insert(0, path)
        function, argument = pickle.loads(task)
        return pickle.dumps(function(argument))

    return rank_main


def work(job):
    """What a rank does. Returns (digest of its weights, Result on rank 0 else None, time of its first step)."""
    import os
    import time
    import traceback

    os.environ.setdefault("HOROVOD_CYCLE_TIME", "1")  # ms; the default of 5 doubles the time of an allreduce this small
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
        placements = [feed.opened(job["cache"], side, job["memory_mb"]) for side in ("train", "validation")]
        frozen = backbone.frozen(job["setting"])
        features = (
            [backbone.kept(job["cache"], job["setting"], side) for side in ("train", "validation")] if frozen else None
        )
        began = time.time()
        result = loop.fit(
            *placements,
            job["setting"],
            hvd=hvd,
            features_of=features,
            on_epoch=_logger(job["log"]) if job["log"] else None,
            kept_at=str(Path(job["folder"], "checkpoint")),
        )
        return result.digest, result if hvd.rank() == 0 else None, began
    except Exception:
        # The driver sees "non-zero status" only; this file is what it shows.
        Path(job["scratch"], name).write_text(traceback.format_exc())
        raise


def own_a_gpu(local_rank):
    """On a machine with GPUs each rank takes its own, and no more of its memory than it needs."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        gpu = gpus[local_rank % len(gpus)]
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)


def _logger(log):
    from mlflow import MlflowClient

    client = MlflowClient(log["uri"])

    def on_epoch(epoch, figures):
        for key, value in figures.items():
            client.log_metric(log["run_id"], key, value, step=epoch)

    return on_epoch
