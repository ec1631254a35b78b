"""Creates, checks, reads and maintains the Delta tables. Their schemas are in table_schemas.py."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from lakevision.ingest.table_schemas import BAND as BAND
from lakevision.ingest.table_schemas import IMAGES as IMAGES
from lakevision.ingest.table_schemas import LABELS as LABELS
from lakevision.ingest.table_schemas import LEASES as LEASES
from lakevision.ingest.table_schemas import PREDICTIONS as PREDICTIONS
from lakevision.ingest.table_schemas import PROMOTIONS as PROMOTIONS
from lakevision.ingest.table_schemas import QUALITY as QUALITY
from lakevision.ingest.table_schemas import REJECTED_IMAGES as REJECTED_IMAGES
from lakevision.ingest.table_schemas import SKIPPING, TABLES, Column, Table
from lakevision.ingest.table_schemas import SPLITS as SPLITS
from lakevision.ingest.table_schemas import STATISTICS as STATISTICS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakevision.platform.workspace import Places


class OtherSchema(RuntimeError):
    """An existing table has other columns than this version of lakevision writes; the message gives the remedy."""


def create(spark: SparkSession, places: Places, chosen: dict[str, Table] | None = None) -> None:
    """Creates the schema and the missing tables.

    chosen: {table name: Table}, TABLES if None. Raises OtherSchema if an existing table has other columns.
    """
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS {places.schema}")
    for name, table in (chosen or TABLES).items():
        location = f"{places.warehouse}/{name}" if places.warehouse else ""
        if not spark.catalog.tableExists(places.table(name)):
            # The local catalog lasts for one session; the tables of earlier sessions are still in the warehouse folder.
            if location and os.path.isdir(f"{location}/_delta_log"):
                spark.sql(f"CREATE TABLE {places.table(name)} USING delta LOCATION {_quote(location)}")
            else:
                _make(spark, places, name, table, location)
                continue
        present = {field.name: field.dataType.simpleString() for field in spark.table(places.table(name)).schema}
        expected = _simple(table.columns)
        if present != expected:
            raise OtherSchema(
                f"table {name} has other columns than this version writes ({_difference(present, expected)}). "
                "Its photographs are still in the landing zone: start anew with another storage.schema and "
                "storage.root (here: --fresh), or change the table to these columns by hand"
            )


def _make(spark: SparkSession, places: Places, name: str, table: Table, location: str) -> None:
    body = ", ".join(f"`{column.name}` {column.type} COMMENT {_quote(column.comment)}" for column in table.columns)
    names = {column.name for column in table.columns}
    skipping = ",".join(column for column in SKIPPING if column in names)
    clauses = [
        f"CREATE TABLE {places.table(name)} ({body}) USING delta",
        f"CLUSTER BY ({','.join(table.cluster)})" if table.cluster else "",
        f"LOCATION {_quote(location)}" if location else "",
        f"COMMENT {_quote(table.comment)}",
        f"TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true', 'delta.dataSkippingStatsColumns' = '{skipping}')",
    ]
    spark.sql(" ".join(filter(None, clauses)))
    if table.check:
        spark.sql(f"ALTER TABLE {places.table(name)} ADD CONSTRAINT sound CHECK ({table.check})")


@cache
def _simple(columns: tuple[Column, ...]) -> dict[str, str]:
    from pyspark.sql.types import _parse_datatype_string

    return {
        column.name: _parse_datatype_string(column.type.removesuffix(" NOT NULL")).simpleString() for column in columns
    }


def _difference(present: dict[str, str], expected: dict[str, str]) -> str:
    return ", ".join(
        f"{name}: {present.get(name, 'absent')} in the table, {expected.get(name, 'unknown')} here"
        for name in sorted(present.keys() | expected.keys())
        if present.get(name) != expected.get(name)
    )[:600]


def version(spark: SparkSession, places: Places, name: str) -> int:
    """The newest version number of a Delta table. name: without schema, such as images."""
    return spark.sql(f"DESCRIBE HISTORY {places.table(name)} LIMIT 1").first()["version"]


def at(spark: SparkSession, places: Places, name: str, number: int) -> DataFrame:
    """The table at a version: a Spark DataFrame that later writes cannot change."""
    return spark.sql(f"SELECT * FROM {places.table(name)} VERSION AS OF {int(number)}")


def maintain(spark: SparkSession, places: Places, every_days: float, retention_days: int) -> pd.DataFrame:
    """Runs OPTIMIZE and VACUUM on each table whose last maintenance was more than every_days ago (0: never).

    retention_days: VACUUM keeps the files of all versions that are younger. A new table is due once it is every_days
    old. Returns a pandas DataFrame with the columns "table", "last time", "now".
    """
    rows = []
    for name in TABLES:
        history = spark.sql(f"DESCRIBE HISTORY {places.table(name)}").select("timestamp", "operation").toPandas()
        # SET TBLPROPERTIES below marks each maintenance; an OPTIMIZE without work leaves no trace in the history.
        last = history.loc[history["operation"] == "SET TBLPROPERTIES", "timestamp"].max()
        since = history["timestamp"].min() if pd.isna(last) else last
        due = every_days > 0 and since < pd.Timestamp.utcnow().tz_localize(None) - pd.Timedelta(days=every_days)
        if due:
            retention = f"interval {retention_days} days"
            spark.sql(
                f"ALTER TABLE {places.table(name)} SET TBLPROPERTIES "
                f"('delta.deletedFileRetentionDuration' = '{retention}', "
                f"'delta.logRetentionDuration' = '{retention}')"
            )
            spark.sql(f"OPTIMIZE {places.table(name)}")
            spark.sql(f"VACUUM {places.table(name)}")
        now = "OPTIMIZE, VACUUM" if due else "not due" if every_days else "never: ingest.maintenance_days is 0"
        rows.append({"table": name, "last time": last, "now": now})
    return pd.DataFrame(rows)


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
