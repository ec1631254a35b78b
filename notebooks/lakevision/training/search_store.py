"""What a search keeps on disk while it runs, so that one whose driver died goes on: a JSON file for each trial, written as it begins and ends.

A search is found again by what decides its outcome (cache content, space, start setting, seed, epochs), whatever run it was started from.
Only an unfinished one is ever resumed: a finished search goes into its MLflow run as search.json, its folder goes, and the next one begins anew.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


class SearchRuns(RuntimeError):
    """The same search runs in another process of this machine."""


def key(cfg, cache, setting):
    """16 hexadecimal digits for what decides a search's outcome. setting: loop.Setting with the trials' epochs."""
    parts = {
        "cache": Path(cache.folder).parent.name,
        "transform": cache.transform,
        "classes": cache.classes,
        "counts": cache.counts,
        "setting": dataclasses.asdict(setting),
        "seed": cfg.tuning.seed,
        "space": [cfg.tuning.learning_rate, cfg.tuning.dropout, cfg.tuning.width],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def opened(root, name):
    """The folder (text) of the search of a key, held by this process alone. root: seen by driver and workers alike. Raises SearchRuns.

    The lock lies on this machine's own disk, where it ends with the process that holds it; a search on another machine is not noticed.
    """
    folder = Path(root) / "searches" / name
    lock = (
        Path(tempfile.gettempdir())
        / f"lakevision-search-{os.getuid()}-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.lock"
    )
    with open(lock, "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchRuns(
                "the same search (images, space, start, seed, epochs) runs in another process: wait for it, "
                "or set another tuning.seed"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder)


def write(folder, record):
    """Keeps a trial's record (a dict of JSON values with its number), whole or not at all."""
    _replace(Path(folder, f"trial-{record['number']:04d}.json"), record)


def read(folder):
    """{number: record} of the trials that have begun."""
    records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("trial-*.json"))]
    return {record["number"]: record for record in records}


def forget(folder, number):
    """Removes the record of a trial, which is then run again."""
    Path(folder, f"trial-{number:04d}.json").unlink(missing_ok=True)


def header(folder):
    """What keep_header() kept, {} for a search that is new."""
    path = Path(folder, "search.json")
    return json.loads(path.read_text()) if path.exists() else {}


def keep_header(folder, values):
    """Keeps what a search that goes on must know: parent, kind, slots, interrupted ({number: times that a trial did not outlive the driver})."""
    _replace(Path(folder, "search.json"), values)


def resume(folder, client, parent):
    """Takes over what a dead driver left: finished trials move under the new parent run, those that ran are killed in MLflow and run again.

    Returns ({number: record} of the finished, the header). A trial that ran in the driver both times that the driver died counts as failed.
    """
    kept, found = header(folder), read(folder)
    interrupted = dict(kept.get("interrupted", {}))
    for number, record in found.items():
        if record["status"] != "running":
            _tag(client, record["run_id"], {"mlflow.parentRunId": parent, "resumed_from": kept.get("parent", "")})
            record["resumed"] = True
            continue
        _terminate(client, record["run_id"], "KILLED")
        interrupted[str(number)] = times = interrupted.get(str(number), 0) + 1
        if record["kind"] == "driver" and times > 1:
            reason = f"the driver died {times} times while this trial ran in it"
            record.update(status="fail", reason=reason, traceback=reason, seconds=0.0, resumed=True)
            write(folder, record)
        else:
            forget(folder, number)
    if kept.get("parent") not in (None, parent):
        _terminate(client, kept["parent"], "KILLED")
    kept.update(parent=parent, interrupted=interrupted)
    keep_header(folder, kept)
    return {number: record for number, record in found.items() if record["status"] != "running"}, kept


def interrupted(uri, run_id, reason):
    """Marks a trial's MLflow run as killed, and says why."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    _tag(client, run_id, {"reason": reason})
    _terminate(client, run_id, "KILLED")


def archive(folder, client, parent, records):
    """Logs a finished search into its MLflow run as search.json and removes its folder."""
    client.log_dict(parent, {**header(folder), "trials": records}, "search.json")
    shutil.rmtree(folder)


def _replace(path, values):
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(values, indent=2))
    os.replace(partial, path)


def _tag(client, run_id, tags):
    from mlflow.exceptions import MlflowException

    try:
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
    except MlflowException as error:
        print(f"the MLflow run {run_id} of a resumed trial is gone: {error.message}")


def _terminate(client, run_id, status):
    """Ends a run that its process left behind; one that is over, or gone, stays as it is."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, status)
    except MlflowException as error:
        print(f"the MLflow run {run_id} of an interrupted trial is gone: {error.message}")
