"""One trial of the search, in a Spark worker or in the driver: it fits one setting, is a nested MLflow run, and keeps what came out at once."""

import ctypes
import functools
import gc
import math
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lakevision.registry import tracking
from lakevision.training import search_store

SEARCHED = ("learning_rate", "dropout", "width")
ATTEMPTS = 2  # of a trial whose worker dies; the second time it is most likely the trial's own doing


@dataclass(frozen=True)
class Job:
    """What every trial of a search shares; it travels to the workers. kind: spark or driver; folder: of the search's records; timeout_s: 0 is never;
    fit: what trains, with the signature of loop.fit; arrays: (train, validation) as feed.Arrays, or None where the trial reads them itself."""

    cache: object
    setting: object
    kind: str
    folder: str
    experiment_id: str
    parent: str
    uri: str
    timeout_s: float
    fit: object
    arrays: tuple = None


class TimedOut(RuntimeError):
    """A trial took longer than tuning.trial_timeout_s."""


def attempt(job, sampled):
    """Runs a trial. sampled: {learning_rate, dropout, width, number} of Hyperopt. Returns its record, as search_store.write() kept it: a dict with
    status (ok, fail) and, of an ok one, the loss; a trial that raises is a failed one, not an exception."""
    number = int(sampled["number"])
    values = {
        "learning_rate": float(sampled["learning_rate"]),
        "dropout": float(sampled["dropout"]),
        "width": int(sampled["width"]),
    }
    earlier = search_store.read(job.folder).get(number)
    if earlier and earlier["status"] != "running":
        return earlier
    attempt = 1
    if earlier:  # a cluster gives the task of a worker that died to another: the machine may have gone, or the trial takes more memory than there is
        attempt = earlier["attempt"] + 1
        if attempt > ATTEMPTS:
            return lost(job, earlier, f"Spark gave the trial to {ATTEMPTS} workers, and each died")
        search_store.interrupted(job.uri, earlier["run_id"], f"its worker died; attempt {attempt} is a run of its own")
    began = time.monotonic()
    client, run_id = tracking.child(
        job.uri, job.experiment_id, job.parent, f"trial {number + 1}", {**values, "trials_on": job.kind}
    )
    record = {"number": number, "attempt": attempt, "status": "running", "kind": job.kind, "run_id": run_id, **values}
    search_store.write(job.folder, record)
    try:
        last = _fit(job, replace(job.setting, **values), number, client, run_id)
    except Exception as error:
        # Hyperopt would show the exception's text alone, and only in the executor's log.
        return _failed(
            job, client, record, f"{type(error).__name__}: {error}", traceback.format_exc(), time.monotonic() - began
        )
    except BaseException:
        # Interrupted by hand: the trial neither finished nor failed, a search that goes on makes it anew.
        search_store.forget(job.folder, number)
        client.set_terminated(run_id, "KILLED")
        raise
    finally:
        gc.collect()  # of the driver's memory, too: the next trial's network comes on top
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


def _fit(job, setting, number, client, run_id):
    """The last epoch's figures. Raises loop.NotFinite and whatever training raises."""
    from device import memory
    from lakevision.dataset import feed
    from lakevision.training import backbone, loop

    if job.kind == "spark":
        from lakevision.training import horovod_ranks

        loop.limit_threads(1)
        horovod_ranks.own_a_gpu(number)
    memory.keep()
    log = functools.partial(tracking.log_epoch, client, run_id)
    frozen = backbone.frozen(setting) and not setting.swap
    if frozen:  # their features are computed once, by the driver: a trial trains the head alone
        placements = [backbone.kept(job.cache, setting, side) for side in ("train", "validation")]
    else:
        placements = job.arrays or [feed.load(job.cache, side) for side in ("train", "validation")]
    # The clock starts here: a worker's start-up, which the driver has not, would make the limit mean two things.
    with deadline(job.timeout_s):
        if frozen:
            _, result = backbone.fit_head(
                *placements,
                setting,
                lambda train, validation, own, network, on_epoch: job.fit(
                    train, validation, own, on_epoch=on_epoch, network=network
                ),
                log,
            )
        else:
            result = job.fit(*placements, replace(setting, fine_tune_epochs=0), on_epoch=log)
    last = result.history[-1]
    if not math.isfinite(last["val_loss"]):
        raise loop.NotFinite(
            f"the validation loss is {last['val_loss']} at learning rate {setting.learning_rate:.2g}: lower it"
        )
    return last


def lost(job, record, detail):
    """The record of a trial whose process ended without a word, kept and told to MLflow. record: its own, or one without run_id."""
    from mlflow import MlflowClient

    reason = "the trial's process died (killed, or out of memory)"
    return _failed(
        job,
        MlflowClient(job.uri),
        record,
        reason,
        f"{reason}; no traceback came back.\n{detail}",
        record.get("seconds", 0.0),
    )


def _failed(job, client, record, reason, report, seconds):
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
def deadline(seconds):
    """Raises TimedOut in this thread, any thread, once so many seconds have passed; 0 is never. It comes between two Python instructions: a call
    into TensorFlow ends first, so a trial stops at its next step, not at its next epoch."""
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
        if state["late"]:  # TensorFlow may have wrapped what came
            raise TimedOut(f"the trial took longer than tuning.trial_timeout_s, {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        with lock:
            state["over"] = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                thread, None
            )  # one that was sent and has not come yet must not hit what follows
