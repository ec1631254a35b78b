"""One trial of the search: one setting, one nested MLflow run, one record."""

from __future__ import annotations

import ctypes
import functools
import gc
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lakevision.registry import tracking
from lakevision.training import search_store
from lakevision.training.search_store import Record

if TYPE_CHECKING:
    from lakevision.dataset import feed
    from lakevision.dataset.cache import Cache
    from lakevision.training.setting import Setting

SEARCHED = ("learning_rate", "dropout", "width")
ATTEMPTS = 2  # of a trial whose worker dies; the second time the trial itself is the likely cause


@dataclass(frozen=True)
class Job:
    """What all trials of a search share; it is sent to the workers.

    kind: spark or driver. folder: of the search's records. timeout_s: seconds, 0 is never. fit: the training function,
    with the signature of loop.fit. arrays: (train, validation), or None if the trial reads them itself.
    """

    cache: Cache
    setting: Setting
    kind: str
    folder: str
    experiment_id: str
    parent: str
    uri: str
    timeout_s: float
    fit: Callable
    arrays: tuple[feed.Arrays, ...] | None = None


class TimedOut(RuntimeError):
    """A trial took longer than tuning.trial_timeout_s."""


def attempt(job: Job, sampled: dict[str, Any]) -> Record:
    """Runs a trial. Returns its record, as search_store.write() kept it.

    sampled: {learning_rate, dropout, width, number} of Hyperopt. The record has a status (ok or fail) and, if ok, the
    loss. A trial that raises gives a failed record, not an exception.
    """
    number = int(sampled["number"])
    kinds: dict[str, Any] = {"learning_rate": float, "dropout": float, "width": int}
    values: dict[str, Any] = {name: kind(sampled[name]) for name, kind in kinds.items()}
    earlier = search_store.read(job.folder).get(number)
    if earlier and earlier["status"] != "running":
        return earlier
    attempt = 1
    if earlier:
        # A cluster hands the task of a dead worker to another worker. Either the machine went away, or the trial needs
        # more memory than there is.
        attempt = earlier["attempt"] + 1
        if attempt > ATTEMPTS:
            return lost(job, earlier, f"Spark gave the trial to {ATTEMPTS} workers, and each died")
        search_store.interrupted(job.uri, earlier["run_id"], f"its worker died; attempt {attempt} is a run of its own")
    began = time.monotonic()
    params = {**values, "trials_on": job.kind}
    client, run_id = tracking.child(job.uri, job.experiment_id, job.parent, f"trial {number + 1}", params)
    record = {"number": number, "attempt": attempt, "status": "running", "kind": job.kind, "run_id": run_id, **values}
    search_store.write(job.folder, record)
    try:
        last = _fit(job, replace(job.setting, **values), number, client, run_id)
    except Exception as error:
        # Hyperopt would show only the text of the exception, and only in the executor's log.
        reason, seconds = f"{type(error).__name__}: {error}", time.monotonic() - began
        return _failed(job, client, record, reason, traceback.format_exc(), seconds)
    except BaseException:
        # Interrupted by hand: the trial neither finished nor failed. A resumed search runs it again.
        search_store.forget(job.folder, number)
        client.set_terminated(run_id, "KILLED")
        raise
    finally:
        gc.collect()  # the next trial's network would come on top of this one in the driver's memory
    record = {
        **record,
        "status": "ok",
        "loss": last["val_loss"],
        "accuracy": last["val_accuracy"],
        "seconds": time.monotonic() - began,
    }
    search_store.write(job.folder, record)
    client.set_terminated(run_id)
    return record


def _fit(job: Job, setting: Setting, number: int, client: Any, run_id: str) -> dict[str, float]:
    """The figures of the last epoch. Raises loop.NotFinite and any exception of the training."""
    from device import memory
    from lakevision.dataset import feed
    from lakevision.training import backbone, loop

    if job.kind == "spark":
        loop.limit_threads(1)
        loop.own_a_gpu(number)
    memory.keep()
    log = functools.partial(tracking.log_epoch, client, run_id)
    frozen = backbone.frozen(setting) and not setting.swap
    if frozen:  # the driver has computed the features once; a trial trains only the head
        train, validation = (backbone.kept(job.cache, setting, split) for split in ("train", "validation"))
    else:
        train, validation = job.arrays or (feed.load(job.cache, split) for split in ("train", "validation"))

    def fit_network(train: Any, validation: Any, own: Setting, network: Any, on_epoch: Any) -> Any:
        return job.fit(train, validation, own, on_epoch=on_epoch, network=network)

    # Start the timer after worker start-up, so the limit means the same on Spark and in the driver.
    with deadline(job.timeout_s):
        if frozen:
            _, result = backbone.fit_head(train, validation, setting, fit_network, log)
        else:
            result = job.fit(train, validation, replace(setting, fine_tune_epochs=0), on_epoch=log)
    last = result.history[-1]
    if not math.isfinite(last["val_loss"]):
        raise loop.NotFinite(
            f"the validation loss is {last['val_loss']} at learning rate {setting.learning_rate:.2g}: lower it"
        )
    return last


def lost(job: Job, record: Record, detail: str) -> Record:
    """The record of a trial whose process died without a traceback, written to disk and to MLflow.

    record: the trial's own, or one without run_id if the trial never started.
    """
    from mlflow import MlflowClient

    reason = "the trial's process died (killed, or out of memory)"
    return _failed(
        job,
        MlflowClient(job.uri),
        record,
        reason,
        f"{reason}; there is no traceback.\n{detail}",
        record.get("seconds", 0.0),
    )


def _failed(job: Job, client: Any, record: Record, reason: str, report: str, seconds: float) -> Record:
    record = {
        **record,
        "status": "fail",
        "reason": reason.strip().splitlines()[0][:300],
        "traceback": report,
        "seconds": seconds,
    }
    search_store.write(job.folder, record)
    if record.get("run_id"):
        client.set_tag(record["run_id"], "traceback", report[-4000:])
        client.set_tag(record["run_id"], "reason", record["reason"])
        client.set_terminated(record["run_id"], "FAILED")
    return record


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimedOut in this thread after so many seconds; 0 is never. Works in any thread.

    The exception comes between two Python instructions. A running call into TensorFlow ends first, so a trial stops at
    its next step, not at its next epoch.
    """
    if not seconds:
        yield
        return
    thread, lock, state = ctypes.c_ulong(threading.get_ident()), threading.Lock(), {"over": False, "late": False}

    def expire():
        with lock:
            if not state["over"]:
                state["late"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimedOut))

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if state["late"]:  # TensorFlow may have wrapped the exception
            raise TimedOut(f"the trial took longer than tuning.trial_timeout_s, {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        with lock:
            state["over"] = True
            # An exception that was sent but has not arrived must not hit the code after this block.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
