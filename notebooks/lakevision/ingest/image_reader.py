"""Work of Spark's workers on landed files: open, describe and hash each, and read good ones.

Workers read the files themselves. Through the JVM, the bytes of a photograph would cost more than the decoding, and
every worker can reach the landing zone (a volume on a cluster).
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import functions as F

from device import memory
from lakevision.ingest import landing, metadata, quality, tables

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.accumulators import Accumulator

LARGEST = 200_000_000  # bytes; a larger file is not a photograph, and needs too much memory beside its pixels
ROWS = 32  # photographs in one Arrow batch: small, so that each batch reuses the cached memory of the previous batch
LISTED = "path string, modified_at timestamp, length bigint"
# Columns of images that depend on one photograph only; the driver adds the columns that depend on others.
ALONE = tuple(
    column
    for column in tables.IMAGES
    if column.name
    not in (
        "path",
        "content",
        "length",
        "sha256",
        "duplicate_of",
        "near_duplicate_of",
        "modified_at",
        "quality",
        "ingested_at",
    )
)
SCORES = tuple(quality.GLOBAL)
DESCRIBED = ", ".join(
    [
        LISTED,
        "sha256 string",
        "signature string",
        "error string",
        "kept binary",
        *(f"{column.name} {column.type}" for column in ALONE),
        *(f"score_{issue} double" for issue in SCORES),
    ]
)


def describer(root: str, zone: str) -> "Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]":
    """The function for mapInArrow from LISTED to DESCRIBED.

    kept: the bytes of a rejected file; signature: size and modification time of the file at the time of reading.
    root: the landing zone; zone: the setting ingest.timezone. A file that has been removed gives no row.
    """
    schema = _arrow(DESCRIBED)

    def describe(batches):
        import pyarrow as pa

        memory.keep()
        for whole in batches:
            for start in range(0, whole.num_rows, ROWS):
                batch = whole.slice(start, ROWS)
                paths, times = batch.column(0).to_pylist(), batch.column(1).to_pylist()
                rows = [
                    row
                    for path, modified_at in zip(paths, times, strict=True)
                    if (row := _describe(root, path, modified_at, zone)) is not None
                ]
                yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return describe


def _describe(root: str, path: str, modified_at: datetime, zone: str, keep: bool = False) -> dict[str, Any] | None:
    modified_at = modified_at.astimezone(UTC)
    row: dict[str, Any] = {"path": path, "modified_at": modified_at}
    try:
        signature, data = _read(root, path)
    except FileNotFoundError:
        return None  # removed from the landing zone after the listing
    except OSError as error:
        return {**row, "length": 0, "error": f"cannot be read: {error.strerror or error}; the next run will try again"}
    if data is None:
        return {
            **row,
            "length": int(signature.split()[0]),
            "signature": signature,
            "error": f"too large: {signature.split()[0]} bytes, {LARGEST:,} at most",
        }
    photo = vars(metadata.describe(path, data, modified_at, zone))  # asdict() would copy a thousand counts
    scores = photo.pop("scores") or {}
    photo["exif"] = None if photo["exif"] is None else list(photo["exif"].items())
    return {
        **row,
        "length": len(data),
        "signature": signature,
        "sha256": hashlib.sha256(data).hexdigest(),
        "kept": data if keep or photo["error"] else None,
        **photo,
        **{f"score_{issue}": value for issue, value in scores.items()},
    }


def _read(root: str, path: str) -> tuple[str, bytes | None]:
    """(signature: size and time of the last change, bytes of the file or None if larger than LARGEST)."""
    with open(landing.address(root, path), "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read() if status.st_size <= LARGEST else None
        return f"{status.st_size} {status.st_mtime_ns}", data


def reader(root: str, changed: "Accumulator[list[str]]") -> Callable:
    """The pandas UDF (path, signature) -> bytes.

    If the file has changed since describer() read it, the bytes are null and the accumulator `changed` gets the path.
    """

    @F.pandas_udf("binary")
    def read(paths: pd.Series, signatures: pd.Series) -> pd.Series:
        memory.keep()
        contents = []
        for path, signature in zip(paths, signatures, strict=True):
            try:
                now, data = _read(root, path)
            except OSError:
                now, data = "", None
            if now != signature:
                changed.add([path])
            contents.append(data if now == signature else None)
        return pd.Series(contents, dtype=object)

    # Otherwise Spark evaluates the UDF twice, for the filter on null and for the column: it would read each file twice,
    # perhaps with different bytes.
    return read.asNondeterministic()


def _arrow(ddl: str) -> "pa.Schema":
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import _parse_datatype_string

    return to_arrow_schema(_parse_datatype_string(ddl))
