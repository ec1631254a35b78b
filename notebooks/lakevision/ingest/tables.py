"""The Delta tables: each schema written once, a comment on each column, and those comments are in the table too."""

import os
from collections import namedtuple
from functools import cache

import pandas as pd

from lakevision.ingest import quality

Column = namedtuple("Column", "name type comment")

BAND = "struct<band: string, mean: double, median: double, stddev: double, min: int, max: int, entropy: double, histogram: array<int>>"
STATISTICS = f"struct<bands: array<{BAND}>, luma: {BAND}, brightness: double, contrast: double, entropy: double, sharpness: double>"
QUALITY = "struct<" + ", ".join(f"{issue}_score: double, is_{issue}_issue: boolean" for issue in quality.ISSUES) + ">"

IMAGES = (
    Column("path", "string NOT NULL", "where the file landed, relative to the landing zone; the key of this table"),
    Column(
        "content",
        "binary",
        "the file's bytes, unchanged; null where ingest.keep_content is false: they are in the landing zone then",
    ),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string NOT NULL", "SHA-256 of the bytes, hexadecimal"),
    Column(
        "duplicate_of",
        "string",
        "path of the first photograph with the same bytes; null for that one itself. Training leaves out what is not null",
    ),
    Column(
        "near_duplicate_of",
        "string",
        "path of the nearest earlier photograph that looks nearly the same; null where there is none",
    ),
    Column("modified_at", "timestamp", "when the file was last written"),
    Column("captured_at", "timestamp", "when the photograph was taken, UTC"),
    Column("captured_from", "string", "what captured_at rests on: exif, name or file (its modification time)"),
    Column("device", "string", "the camera: its id in the path or in EXIF, else make and model"),
    Column("width", "int", "pixels, as stored: before the EXIF orientation is applied"),
    Column("height", "int", "pixels, as stored"),
    Column("mode", "string", "Pillow's mode: RGB, L, CMYK, ..."),
    Column("format", "string", "the decoder that took it: JPEG, PNG, ..."),
    Column("frames", "int", "pictures in the file; the first one is used"),
    Column("dpi", "double", "dots per inch along the width, from EXIF or the file's header"),
    Column("orientation", "int", "EXIF orientation, 1 to 8; 6: turn clockwise by 90 degrees to see it upright"),
    Column("make", "string", "maker of the camera"),
    Column("model", "string", "model of the camera"),
    Column("exposure_s", "double", "exposure time in seconds"),
    Column("aperture", "double", "f-number"),
    Column("iso", "int", "ISO sensitivity"),
    Column("focal_mm", "double", "focal length in millimetres"),
    Column("latitude", "double", "degrees, north positive"),
    Column("longitude", "double", "degrees, east positive"),
    Column("altitude_m", "double", "metres above sea level"),
    Column(
        "exif",
        "map<string, string>",
        "all EXIF tags by their standard name, as text; _error says what could not be read",
    ),
    Column(
        "statistics",
        STATISTICS,
        "of the pixels, per band and of luma, 0 to 255; entropy in bits; brightness, contrast and sharpness 0 to 1",
    ),
    Column(
        "phash",
        "bigint",
        "perceptual hash, 63 bits: compare by the number of bits that differ; 4 or fewer is nearly the same picture",
    ),
    Column(
        "quality",
        QUALITY,
        "<issue>_score from 0 to 1, lower is worse, and is_<issue>_issue, judged by the camera's own history where there is one",
    ),
    Column("ingested_at", "timestamp", "when the row was written"),
)

REJECTED_IMAGES = (
    Column("path", "string NOT NULL", "where the file landed, relative to the landing zone; the key of this table"),
    Column(
        "content",
        "binary",
        "the file's bytes, kept so that nothing is lost; null above 200 MB, where they are in the landing zone only",
    ),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string", "SHA-256 of the bytes, hexadecimal; null where they could not be read"),
    Column("modified_at", "timestamp", "when the file was last written"),
    Column("reason", "string", "why it can't be used, in words"),
    Column("ingested_at", "timestamp", "when the row was written"),
)

LABELS = (
    Column("path", "string NOT NULL", "the image, as in images"),
    Column("label", "string", "its class; null takes the label away"),
    Column(
        "source",
        "string NOT NULL",
        "who says so: folder or name (the path), csv, table; what was written down outranks the path",
    ),
    Column("labelled_at", "timestamp", "when it was said; of each path the newest row holds"),
    Column("author", "string", "the person who labelled, where the source names one"),
    Column("ingested_at", "timestamp", "when the row was written"),
)

SPLITS = (
    Column("path", "string", "the image, as in images; with scheme the key of this table"),
    Column("sha256", "string", "the image's bytes, as in images"),
    Column("label", "string", "its class when it was last split"),
    Column("episode", "string", "the run of near copies it belongs to: device and time of its first frame"),
    Column(
        "split",
        "string",
        "train, validation or test: an episode is on one side only and stays there; or embargo, duplicate, unlabelled",
    ),
    Column("reason", "string", "why it is there, in words"),
    Column(
        "scheme", "string", "seed and digest of the settings of the split; placements of two schemes must not be mixed"
    ),
    Column("delta_version", "bigint", "the version of images at which it was placed there"),
)

PREDICTIONS = (
    Column("path", "string NOT NULL", "the image, as in images; with version the key of this table"),
    Column("sha256", "string", "the bytes that were scored, as in images"),
    Column("label", "string", "the class that the model says; null where it could not score"),
    Column("probability", "double", "of that class, 0 to 1"),
    Column("scores", "array<double>", "probabilities of all classes, in the model's order"),
    Column("error", "string", "why the image could not be scored, in words; null where it was"),
    Column("model", "string NOT NULL", "full name of the registered model"),
    Column("version", "string NOT NULL", "its version"),
    Column("scored_by", "string", "spark, or the device that scored it"),
    Column("scored_at", "timestamp", "when, UTC"),
)

PROMOTIONS = (
    Column("number", "bigint NOT NULL", "1, 2, 3, ...: the order of the decisions, no two alike"),
    Column("decided_at", "timestamp NOT NULL", "when, UTC"),
    Column("action", "string NOT NULL", "gate (04_deploy), promote (by hand) or rollback"),
    Column("model", "string NOT NULL", "full name of the registered model"),
    Column("version", "string NOT NULL", "the version that was decided on"),
    Column("promoted", "boolean NOT NULL", "whether it became champion by this"),
    Column("forced", "boolean NOT NULL", "whether that was against the evaluation, by somebody's word"),
    Column("who", "string", "who or what decided"),
    Column("reason", "string", "why, in words"),
    Column("previous", "string", "the version that served before; null: none"),
    Column("run_id", "string", "the MLflow run that the version came from"),
    Column(
        "checks", "string", "each check of the gate with what was found and wanted, as JSON; null where none was made"
    ),
)

Table = namedtuple("Table", "columns comment cluster check")
TABLES = {
    "images": Table(
        IMAGES,
        "Photographs that decode, one row each, with metadata, statistics and quality",
        ("device", "captured_at"),
        "length(sha256) = 64 AND length > 0 AND captured_from IN ('exif', 'name', 'file') AND (duplicate_of IS NULL OR duplicate_of <> path)",
    ),
    "rejected_images": Table(REJECTED_IMAGES, "Files that landed and are no usable image, with the reason", (), None),
    "labels": Table(
        LABELS, "What each photograph shows, by whom it was said and when; the newest row of a path holds", (), None
    ),
    "splits": Table(SPLITS, "Which side of the evaluation each image is on, and why", (), None),
    "predictions": Table(
        PREDICTIONS,
        "What each version of the model says of each image",
        ("scored_at",),
        "label IS NOT NULL OR error IS NOT NULL",
    ),
    "promotions": Table(
        PROMOTIONS,
        "Every decision on which version serves, and why; rows are added, never changed",
        (),
        "version <> ''",
    ),
}
# Made where a lease needs a table, see lease.py.
LEASES = Table(
    (
        Column("name", "string NOT NULL", "what must not happen twice at a time, such as ingest; the key"),
        Column("holder", "string NOT NULL", "the process that does it"),
        Column("until", "timestamp NOT NULL", "when it is free again, unless its holder renews it"),
    ),
    "Who is at work on this lakehouse",
    (),
    None,
)

# Statistics that let a query skip files are kept of these columns only: of the others (EXIF, histograms) nobody asks for a range, and each
# would cost time in each write.
SKIPPING = (
    "path",
    "sha256",
    "duplicate_of",
    "modified_at",
    "captured_at",
    "device",
    "ingested_at",
    "labelled_at",
    "split",
    "delta_version",
    "version",
    "scored_at",
    "number",
)


class OtherSchema(RuntimeError):
    """A table that is there has other columns than this version of lakevision writes; the message says what to do."""


def create(spark, places, chosen=None):
    """Makes the schema and the tables that are missing; places: workspace.Places; chosen: {name: Table}, None is TABLES. Raises OtherSchema."""
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS {places.schema}")
    for name, table in (chosen or TABLES).items():
        location = f"{places.warehouse}/{name}" if places.warehouse else ""
        if not spark.catalog.tableExists(places.table(name)):
            if location and os.path.isdir(
                f"{location}/_delta_log"
            ):  # of an earlier session: this machine's catalog forgets
                spark.sql(f"CREATE TABLE {places.table(name)} USING delta LOCATION {_quote(location)}")
            else:
                _make(spark, places, name, table, location)
                continue
        found = {field.name: field.dataType.simpleString() for field in spark.table(places.table(name)).schema}
        if found != _simple(table.columns):
            raise OtherSchema(
                f"table {name} has other columns than this version writes ({_difference(found, _simple(table.columns))}). Its photographs "
                "are still in the landing zone: start anew with another storage.schema and storage.root (here: --fresh), or bring the "
                "table to these columns by hand"
            )


def _make(spark, places, name, table, location):
    body = ", ".join(f"`{column.name}` {column.type} COMMENT {_quote(column.comment)}" for column in table.columns)
    names = {column.name for column in table.columns}
    spark.sql(
        f"CREATE TABLE {places.table(name)} ({body}) USING delta {f'CLUSTER BY ({chr(44).join(table.cluster)})' if table.cluster else ''} "
        f"{f'LOCATION {_quote(location)}' if location else ''} COMMENT {_quote(table.comment)} TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true', "
        f"'delta.dataSkippingStatsColumns' = '{','.join(column for column in SKIPPING if column in names)}')"
    )
    if table.check:
        spark.sql(f"ALTER TABLE {places.table(name)} ADD CONSTRAINT sound CHECK ({table.check})")


@cache
def _simple(columns):
    from pyspark.sql.types import _parse_datatype_string

    return {
        column.name: _parse_datatype_string(column.type.removesuffix(" NOT NULL")).simpleString() for column in columns
    }


def _difference(found, wanted):
    return ", ".join(
        f"{name}: {found.get(name, 'absent')} there, {wanted.get(name, 'unknown')} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    )[:600]


def version(spark, places, name):
    """The newest version number of a Delta table."""
    return spark.sql(f"DESCRIBE HISTORY {places.table(name)} LIMIT 1").first()["version"]


def at(spark, places, name, number):
    """The table as it was at a version: a DataFrame that later writes can't change."""
    return spark.sql(f"SELECT * FROM {places.table(name)} VERSION AS OF {int(number)}")


def maintain(spark, places, every_days, retention_days):
    """OPTIMIZE and VACUUM for each table that had them more than every_days ago (0: never), and the retention that VACUUM keeps to.

    Returns a DataFrame (pandas) of table, "last time", "now". A young table waits until it is every_days old.
    """
    done = []
    for name in TABLES:
        history = spark.sql(f"DESCRIBE HISTORY {places.table(name)}").select("timestamp", "operation").toPandas()
        # The properties are set below each time; an OPTIMIZE that finds nothing to do leaves no trace.
        last = history.loc[history["operation"] == "SET TBLPROPERTIES", "timestamp"].max()
        since = history["timestamp"].min() if pd.isna(last) else last
        due = every_days > 0 and since < pd.Timestamp.utcnow().tz_localize(None) - pd.Timedelta(days=every_days)
        if due:
            retention = f"interval {retention_days} days"
            spark.sql(
                f"ALTER TABLE {places.table(name)} SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = '{retention}', "
                f"'delta.logRetentionDuration' = '{retention}')"
            )
            spark.sql(f"OPTIMIZE {places.table(name)}")
            spark.sql(f"VACUUM {places.table(name)}")
        now = "OPTIMIZE, VACUUM" if due else "not due" if every_days else "never: ingest.maintenance_days is 0"
        done.append({"table": name, "last time": last, "now": now})
    return pd.DataFrame(done)


def _quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
