"""One ingest at a time on a lakehouse: a lease, held by a file lock or by a row of a Delta table.

Two jobs on one stream checkpoint would each finish the other's batch, and every photograph of the batch would get two
rows. On one machine a file lock prevents this; the lock ends with the process. Between machines the lease is a row of
a Delta table, because Delta commits are atomic on every supported storage. The holder renews the row while the process
lives; EXPIRES after its death the lease is free.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pyspark.sql import functions as F

from lakevision.ingest import tables
from lakevision.platform import locks, workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places

EXPIRES = timedelta(minutes=5)
RENEW_S, POLL_S, TRIES = 60.0, 5.0, 10


class Lost(RuntimeError):
    """The lease was not renewed in time and may have a new holder, so this process must stop writing.

    Nothing is lost: the new holder continues the work.
    """


@contextmanager
def held(spark: SparkSession, cfg: Config, places: Places, name: str) -> Iterator[Callable[[], None]]:
    """Holds the lease `name` of a lakehouse; waits while another process holds the lease.

    name: the exclusive work, such as ingest. Yields a function to call before each write; the function raises Lost.
    """
    if not workspace.on_one_machine(cfg):
        with by_table(spark, places, name) as check:
            yield check
    else:
        with by_lock(places, name) as check:
            yield check


@contextmanager
def by_lock(places: Places, name: str) -> Iterator[Callable[[], None]]:
    """A lease among the processes of this machine. The lock file is removed when the lease ends.

    The file is in the temporary folder, because not every network file system of a lakehouse supports flock.
    """
    digest = hashlib.sha256(str(Path(places.root).resolve()).encode()).hexdigest()[:16]
    path = locks.folder() / f"lakevision-{name}-{os.getuid()}-{digest}.lock"
    file = _locked(path, name)
    try:
        file.truncate(0)
        file.write(_myself())
        file.flush()
        yield lambda: None
    finally:
        path.unlink(missing_ok=True)  # while the lock is held: _locked() relies on this order
        file.close()


def _locked(path: Path, name: str) -> TextIO:
    """Opens and locks the file.

    A holder removes the file before its lock ends. A waiting process then has the lock of a removed file, which a third
    process cannot see, so the process must start again with the file that is now at the path.
    """
    while True:
        file = open(path, "a+")  # noqa: SIM115 (by_lock closes the file, and with it the lock)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                _print_waiting(name, file.read())
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def by_table(
    spark: SparkSession,
    places: Places,
    name: str,
    expires: timedelta = EXPIRES,
    renew_s: float = RENEW_S,
    poll_s: float = POLL_S,
) -> Iterator[Callable[[], None]]:
    """A lease among machines: the row `name` of the table leases.

    renew_s, poll_s: seconds between renewals, and between attempts to get a lease that another process holds. Yields a
    function that raises Lost if the lease has expired.
    """
    _make(spark, places)
    table, holder, announced = places.table("leases"), f"{_myself()} ({uuid.uuid4().hex[:8]})", False
    while True:
        requested = time.monotonic()  # the lease counts from before the request
        if (other := _take(spark, table, name, holder, expires)) == holder:
            break
        if not announced:
            _print_waiting(name, other)
            announced = True
        time.sleep(poll_s)
    until, ended = [requested + expires.total_seconds()], threading.Event()

    def renew() -> None:
        while not ended.wait(renew_s):
            requested = time.monotonic()
            if _take(spark, table, name, holder, expires) == holder:
                until[0] = requested + expires.total_seconds()

    def check() -> None:
        if time.monotonic() > until[0]:
            raise Lost(
                f"this {name} could not renew its lease within {expires}; the next run takes up the remaining work"
            )

    renewer = threading.Thread(target=renew, daemon=True)
    renewer.start()
    try:
        yield check
    finally:
        ended.set()
        renewer.join()
        while _take(spark, table, name, holder, timedelta(0)) == "":
            time.sleep(poll_s / 10)


def _make(spark: SparkSession, places: Places) -> None:
    """Creates the table of leases. Two processes may try this at the same time; the loser tries again."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return tables.create(spark, places, {"leases": tables.LEASES})
        except Exception as error:
            if not (left and _is_conflict(error)):
                raise
        time.sleep(1)  # the other process is creating the table


def _take(spark: SparkSession, table: str, name: str, holder: str, expires: timedelta) -> str:
    """Takes or renews a lease that is free, expired or the holder's own.

    Returns the present holder, or "" if two processes tried at the same time.
    """
    row = (
        spark.table(table)
        .where(F.col("name") == name)
        .select("holder", (F.col("until") > F.lit(datetime.now(UTC))).alias("taken"))
        .first()
    )
    # Read before the MERGE: a MERGE without changes is a commit, too, and would stop the holder from giving back.
    if row and row["taken"] and row["holder"] != holder:
        return row["holder"]
    return _merge(spark, table, name, holder, expires)


def _merge(spark: SparkSession, table: str, name: str, holder: str, expires: timedelta) -> str:
    """Takes the lease as _take() does. The row may have changed since _take() read it; the MERGE checks again."""
    now = datetime.now(UTC)
    mine = spark.createDataFrame(
        [(name, holder, now, now + expires)], "name string, holder string, now timestamp, until timestamp"
    )
    mine.createOrReplaceTempView(view := f"lease_{uuid.uuid4().hex}")
    try:
        spark.sql(
            f"MERGE INTO {table} AS present USING {view} AS mine ON present.name = mine.name "
            "WHEN MATCHED AND (present.until <= mine.now OR present.holder = mine.holder) "
            "THEN UPDATE SET holder = mine.holder, until = mine.until "
            "WHEN NOT MATCHED THEN INSERT (name, holder, until) VALUES (mine.name, mine.holder, mine.until)"
        )
        return spark.table(table).where(F.col("name") == name).first()["holder"]
    except Exception as error:
        if not _is_conflict(error):
            raise
        return ""
    finally:
        spark.catalog.dropTempView(view)


def _is_conflict(error: Exception) -> bool:
    """True if another Delta commit came between. Delta's conflict exceptions have no common class."""
    words = ("Concurrent", "DELTA_PROTOCOL_CHANGED", "DELTA_METADATA_CHANGED", "NON_EMPTY_LOCATION", "ALREADY_EXISTS")
    return any(word in str(error) for word in words)


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _print_waiting(name: str, other: str) -> None:
    print(f"another {name} on this lakehouse is running ({other or 'just started'}): waiting for it to end", flush=True)
