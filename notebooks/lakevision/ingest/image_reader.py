"""What Spark's workers do with a landed file: open it, describe it, hash it; and open it once more for its bytes.

Workers read the files themselves. Sent through the JVM, a photograph's bytes cost more than its decoding; and the landing zone is a folder that
every worker sees (a volume on a cluster).
"""

import hashlib
import os
from datetime import UTC

import pandas as pd
from pyspark.sql import functions as F

from device import memory
from lakevision.ingest import landing, metadata, quality, tables

LARGEST = 200_000_000  # bytes; a larger file is no photograph, and would not fit a worker's memory beside its pixels
ROWS = 32  # of one Arrow batch, photographs' bytes included: the next one finds the memory of the last in the caches
LISTED = "path string, modified_at timestamp, length bigint"
# Columns of images that a photograph alone decides; the driver adds what it takes the others to know.
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


def describer(root, zone):
    """The function for mapInArrow from LISTED to DESCRIBED. kept: the bytes of a file that is rejected; signature: how the file was when it was read.

    root: of the landing zone; zone: the setting ingest.timezone. A file that is gone gives no row.
    """
    schema = _arrow(DESCRIBED)

    def run(batches):
        import pyarrow as pa

        memory.keep()
        for whole in batches:
            for start in range(0, whole.num_rows, ROWS):
                batch = whole.slice(start, ROWS)
                rows = [
                    row
                    for path, modified_at in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist())
                    if (row := _describe(root, path, modified_at, zone)) is not None
                ]
                yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return run


def _describe(root, path, modified_at, zone, keep=False):
    modified_at = modified_at.astimezone(UTC)
    row = {"path": path, "modified_at": modified_at}
    try:
        signature, data = _read(root, path)
    except FileNotFoundError:
        return None  # removed from the landing zone since it was listed
    except OSError as error:
        return {
            **row,
            "length": 0,
            "error": f"cannot be read: {error.strerror or error}; it is tried again in the next run",
        }
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


def _read(root, path):
    """(signature of the file: size and time of its last change, its bytes or None where they are too many)."""
    with open(landing.address(root, path), "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read() if status.st_size <= LARGEST else None
        return f"{status.st_size} {status.st_mtime_ns}", data


def reader(root, changed):
    """The pandas UDF (path, signature) -> bytes; null where the file is no longer as it was described, and the path goes to the accumulator `changed`."""

    @F.pandas_udf("binary")
    def read(paths: pd.Series, signatures: pd.Series) -> pd.Series:
        memory.keep()
        found = []
        for path, signature in zip(paths, signatures):
            try:
                now, data = _read(root, path)
            except OSError:
                now, data = "", None
            if now != signature:
                changed.add([path])
            found.append(data if now == signature else None)
        return pd.Series(found, dtype=object)

    # Else Spark computes it twice, once for the filter on null and once for the column: each file read twice, and perhaps not the same.
    return read.asNondeterministic()


def _arrow(ddl):
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import _parse_datatype_string

    return to_arrow_schema(_parse_datatype_string(ddl))
