"""The records of a running search on disk, so that a search resumes if its driver dies.

A trial is a JSON file, written at its start and at its end. The key of a search is a hash of everything that decides
its outcome (cache content, space, start setting, seed, epochs), independent of the MLflow run. Only an unfinished
search is resumed: a finished one goes into its MLflow run as search.json, and its folder is removed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device import files
from lakevision.platform import locks

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config
    from lakevision.training.setting import Setting

Record = dict[str, Any]  # of a trial: number, status, kind, run_id, the searched values, and its outcome


class SearchRuns(RuntimeError):
    """The same search runs in another process of this machine."""


def key(cfg: Config, cache: Cache, setting: Setting) -> str:
    """Hash of everything that decides the outcome of a search, 16 hexadecimal digits.

    setting: with the trials' epochs.
    """
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
def opened(root: str, name: str) -> Iterator[str]:
    """Yields the folder of a search, locked by this process. Raises SearchRuns.

    root: a folder that driver and workers see. name: of key(). The lock is a file on this machine's own disk, so it
    ends with the process. A search on another machine goes unnoticed.
    """
    folder = Path(root) / "searches" / name
    lock = (
        locks.folder() / f"lakevision-search-{os.getuid()}-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.lock"
    )
    with open(lock, "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.path.exists(lock) and os.path.samestat(os.fstat(held.fileno()), os.stat(lock))
        except BlockingIOError:
            current = False
        if not current:  # another process holds the lock, or removed this very file a moment ago
            raise SearchRuns(
                "the same search (images, space, start, seed, epochs) runs in another process: wait for its end, "
                "or set another tuning.seed"
            )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield str(folder)
        finally:
            lock.unlink(missing_ok=True)  # while locked, so no other process loses a lock of its own


def write(folder: str | Path, record: Record) -> None:
    """Writes the record of a trial, whole or not at all."""
    _write(Path(folder, f"trial-{record['number']:04d}.json"), record)


def read(folder: str | Path) -> dict[int, Record]:
    """{number: record} of all trials that have started."""
    records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("trial-*.json"))]
    return {record["number"]: record for record in records}


def forget(folder: str | Path, number: int) -> None:
    """Removes the record of a trial, so that the trial runs again."""
    Path(folder, f"trial-{number:04d}.json").unlink(missing_ok=True)


def header(folder: str | Path) -> dict[str, Any]:
    """The values of keep_header(), {} for a new search."""
    path = Path(folder, "search.json")
    return json.loads(path.read_text()) if path.exists() else {}


def keep_header(folder: str | Path, values: dict[str, Any]) -> None:
    """Keeps what a resumed search needs: parent, kind, slots, interrupted ({number: how often the driver died in
    it}).
    """
    _write(Path(folder, "search.json"), values)


def resume(folder: str | Path, client: Any, parent: str) -> tuple[dict[int, Record], dict[str, Any]]:
    """Resumes a search whose driver died. Returns ({number: record} of the finished trials, the header).

    Finished trials move under the new parent run. Trials that were running are marked as killed in MLflow and run
    again. A trial in which the driver died twice counts as failed. client: MlflowClient.
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


def interrupted(uri: str, run_id: str, reason: str) -> None:
    """Marks the MLflow run of a trial as killed, with the reason as a tag."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    _tag(client, run_id, {"reason": reason})
    _terminate(client, run_id, "KILLED")


def archive(folder: str | Path, client: Any, parent: str, records: list[Record]) -> None:
    """Logs a finished search into its MLflow run as search.json and removes its folder."""
    client.log_dict(parent, {**header(folder), "trials": records}, "search.json")
    shutil.rmtree(folder)


def _write(path: Path, values: dict[str, Any]) -> None:
    files.write_atomically(path, json.dumps(values, indent=2))


def _tag(client: Any, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
    except MlflowException as error:
        print(f"the MLflow run {run_id} of a resumed trial is gone: {error.message}")


def _terminate(client: Any, run_id: str, status: str) -> None:
    """Ends a run that a dead process left as running. A finished or deleted run stays as it is."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, status)
    except MlflowException as error:
        print(f"the MLflow run {run_id} of an interrupted trial is gone: {error.message}")
