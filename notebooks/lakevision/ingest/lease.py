"""One ingest at a time: two jobs that shared a stream's checkpoint would each finish the other's batch, and every photograph of it would be there twice.

On one machine a file lock, which ends with the process that holds it. Between machines a row of a Delta table, whose commits are atomic on every
storage that the tables can lie on; it is renewed while its holder lives, and free EXPIRES after it died.
"""

import fcntl
import hashlib
import os
import socket
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import functions as F

from lakevision.ingest import tables
from lakevision.platform import workspace

EXPIRES = timedelta(minutes=5)
RENEW_S, POLL_S, TRIES = 60.0, 5.0, 10


class Lost(RuntimeError):
    """A lease was not renewed in time, and another has it: what was going on must not write any more. Nothing is lost, the other takes it up."""


@contextmanager
def held(spark, cfg, places, name):
    """Holds a lease of a lakehouse, and waits for who has it. name: what must not happen twice at a time, such as ingest.

    Yields a function to call before each write; it raises Lost.
    """
    if not workspace.on_one_machine(cfg):
        with by_table(spark, places, name) as check:
            yield check
    else:
        with by_lock(places, name) as check:
            yield check


@contextmanager
def by_lock(places, name):
    """A lease among the processes of this machine."""
    digest = hashlib.sha256(str(Path(places.root).resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"lakevision-{name}-{os.getuid()}-{digest}.lock"
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            _waiting(name, file.read())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(_myself())
        file.flush()
        yield lambda: None


@contextmanager
def by_table(spark, places, name, expires=EXPIRES, renew_s=RENEW_S, poll_s=POLL_S):
    """A lease among machines: the row `name` of the table leases. Raises Lost where another took it over meanwhile."""
    _make(spark, places)
    table, holder, told = places.table("leases"), f"{_myself()} ({uuid.uuid4().hex[:8]})", False
    while True:
        asked = time.monotonic()  # the lease runs from before the request
        if (other := _take(spark, table, name, holder, expires)) == holder:
            break
        if not told:
            _waiting(name, other)
            told = True
        time.sleep(poll_s)
    until, ended = [asked + expires.total_seconds()], threading.Event()

    def renew():
        while not ended.wait(renew_s):
            asked = time.monotonic()
            if _take(spark, table, name, holder, expires) == holder:
                until[0] = asked + expires.total_seconds()

    def check():
        if time.monotonic() > until[0]:
            raise Lost(
                f"this {name} could not renew its lease for {expires}; what it had not written yet, the next run takes up"
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


def _make(spark, places):
    """Makes the table of leases, of which two may be the first user at once."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return tables.create(spark, places, {"leases": tables.LEASES})
        except Exception as error:
            if not (left and _two_at_once(error)):
                raise
        time.sleep(1)  # the other is making it


def _take(spark, table, name, holder, expires):
    """Takes or renews a lease if it is free, expired or the holder's own. Returns who has it now; "" where two tried at once."""
    row = (
        spark.table(table)
        .where(F.col("name") == name)
        .select("holder", (F.col("until") > F.lit(datetime.now(UTC))).alias("taken"))
        .first()
    )
    if row and row["taken"] and row["holder"] != holder:
        return row[
            "holder"
        ]  # asked first: a MERGE that changes nothing is a commit, too, and would keep the holder from giving it back
    return _merge(spark, table, name, holder, expires)


def _merge(spark, table, name, holder, expires):
    """As _take(), which may have seen it free a moment ago: Delta looks again and writes in one."""
    now = datetime.now(UTC)
    mine = spark.createDataFrame(
        [(name, holder, now, now + expires)], "name string, holder string, now timestamp, until timestamp"
    )
    mine.createOrReplaceTempView(view := f"lease_{uuid.uuid4().hex}")
    try:
        spark.sql(
            f"MERGE INTO {table} AS there USING {view} AS mine ON there.name = mine.name "
            "WHEN MATCHED AND (there.until <= mine.now OR there.holder = mine.holder) THEN UPDATE SET holder = mine.holder, until = mine.until "
            "WHEN NOT MATCHED THEN INSERT (name, holder, until) VALUES (mine.name, mine.holder, mine.until)"
        )
        return spark.table(table).where(F.col("name") == name).first()["holder"]
    except Exception as error:
        if not _two_at_once(error):
            raise
        return ""
    finally:
        spark.catalog.dropTempView(view)


def _two_at_once(error):
    """Whether Delta says that another commit came between; its exceptions have no class of their own in common."""
    return any(
        word in str(error)
        for word in (
            "Concurrent",
            "DELTA_PROTOCOL_CHANGED",
            "DELTA_METADATA_CHANGED",
            "NON_EMPTY_LOCATION",
            "ALREADY_EXISTS",
        )
    )


def _myself():
    return f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _waiting(name, other):
    print(f"another {name} on this lakehouse is running ({other or 'it has just begun'}): waiting for it", flush=True)
