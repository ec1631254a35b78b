"""Labels from names, folders, CSV files and tables; a correction is a new row of `labels`.

Nothing is overwritten. An explicit label (CSV, table) outranks a label from the path, and the newest row of a path
holds. A newest row with an empty label removes the label.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from lakevision.ingest import capture, tables
from lakevision.ingest.metadata import AGENT_NAME

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakevision.platform.workspace import Places

FROM_PATH = ("folder", "name")
# Schema of a label that is not yet in the table.
ROW = "path string, label string, source string, labelled_at timestamp, author string"
COLUMNS = ("path", "label", "labelled_at", "author")  # of a CSV or a table; the last two are optional


class BadLabels(ValueError):
    """A file or table of labels cannot be read; the message gives the file, the line and the expected content."""


def of_path(path: str, rule: str = "auto") -> tuple[str | None, str | None]:
    """(label, "folder" | "name"): the class folder or else the last `_` field of the name; (None, None) without label.

    rule: the setting ingest.labels.
    """
    pure = PurePosixPath(path)
    folder, agents = pure.parent.name, AGENT_NAME.fullmatch(pure.stem)
    if rule in ("auto", "folder") and folder and "=" not in folder:
        return folder, "folder"
    if rule in ("auto", "name"):
        # The last field of an agent's frame without label is the sequence number.
        label = agents["label"] if agents else pure.stem.rpartition("_")[2] if "_" in pure.stem else None
        return (label, "name") if label else (None, None)
    return None, None


def add_from_paths(
    spark: SparkSession, places: Places, photographs: Iterable[tuple[str, datetime]], rule: str, check: bool
) -> None:
    """Appends the labels from paths.

    photographs: (path, aware modification time); rule: the setting ingest.labels; check: leave out paths that already
    have a label from the path.
    """
    labelled = [(path, *of_path(path, rule), at, None) for path, at in photographs]
    labelled = [row for row in labelled if row[1]]
    if not labelled:
        return
    rows = spark.createDataFrame(labelled, ROW)
    if check:
        old = spark.table(places.table("labels")).where(F.col("source").isin(*FROM_PATH)).select("path")
        rows = rows.join(old, "path", "left_anti")
    _append(rows, places)


def add_from_source(spark: SparkSession, places: Places, source: str) -> tuple[int, list[str]]:
    """Appends the labels of a CSV file or table (ingest.label_source) that are not in `labels` yet.

    Returns (number of added rows, up to 20 paths that are not in images). A second run adds nothing. Raises BadLabels,
    FileNotFoundError.
    """
    images = spark.table(places.table("images"))
    given = _csv(spark, source, images) if source.lower().endswith(".csv") else _table(spark, source)
    given = given.dropDuplicates(["path", "labelled_at"]).persist()
    try:
        now = latest(spark, places, explicit=True).select(
            "path", F.col("label").alias("old"), F.col("labelled_at").alias("old_at")
        )
        later = (F.col("labelled_at") > F.col("old_at")) & ~F.col("label").eqNullSafe(F.col("old"))
        news = given.join(now, "path", "left").where(F.col("old_at").isNull() | later)
        news = news.select([name.split()[0] for name in ROW.split(", ")]).persist()
        added = news.count()
        if added:
            _append(news, places)
        unknown = given.join(images.select("path"), "path", "left_anti").select("path").distinct().limit(20).collect()
        return added, sorted(row["path"] for row in unknown)
    finally:
        given.unpersist()


def latest(spark: SparkSession, places: Places, version: int | None = None, explicit: bool = False) -> DataFrame:
    """The valid row of each path: columns path, label, source, labelled_at, author.

    version: of the table labels, the newest if None; explicit: leave out labels from paths.
    """
    rows = tables.at(spark, places, "labels", version) if version is not None else spark.table(places.table("labels"))
    rows = rows.withColumn("explicit", ~F.col("source").isin(*FROM_PATH))
    if explicit:
        rows = rows.where("explicit")
    order = Window.partitionBy("path").orderBy(
        *(F.col(name).desc() for name in ("explicit", "labelled_at", "ingested_at", "label"))
    )
    return rows.withColumn("rank", F.row_number().over(order)).where("rank = 1").drop("rank", "explicit", "ingested_at")


def _append(rows: DataFrame, places: Places) -> None:
    rows = rows.withColumn("ingested_at", F.current_timestamp()).select([column.name for column in tables.LABELS])
    rows.writeTo(places.table("labels")).append()


def _csv(spark: SparkSession, path: str, images: DataFrame) -> DataFrame:
    """A CSV with the header path,label[,labelled_at][,author] as a DataFrame of ROW."""
    rows = _read_csv(path)
    if not rows:
        return spark.createDataFrame([], ROW)
    # The CSV has the names of the camera's folder. In the landing zone a name is encoded if capture wrote the file, and
    # unchanged if a device uploaded the file.
    names = spark.createDataFrame(sorted({(name,) for name, *_ in rows}), "path string")
    unchanged = {row["path"] for row in names.join(images.select("path"), "path", "left_semi").collect()}
    return spark.createDataFrame(
        [(name if name in unchanged else capture.landing_name(name), *more) for name, *more in rows], ROW
    )


def _read_csv(path: str) -> list[tuple[str, str | None, str, datetime, str | None]]:
    """Rows of a CSV in the order of ROW. A time without offset is UTC; the default is the file's modification time."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"ingest.label_source: {path} is not a file")
    written = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadLabels(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8") from error
    rows = {}
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        fields = reader.fieldnames or ()
        _check_columns(fields, path)
        for row in reader:
            if None in row or None in row.values():
                raise BadLabels(f"{path}, line {reader.line_num}: expected {len(fields)} fields, got {row}")
            at = _time((row.get("labelled_at") or "").strip(), written, f"{path}, line {reader.line_num}")
            name, label, author = row["path"].strip(), row["label"].strip(), (row.get("author") or "").strip()
            # Keyed by path and time: of two lines without a time, the second one corrects the first.
            rows[name, at] = name, label or None, "csv", at, author or None
    return list(rows.values())


def _time(text: str, default: datetime, place: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00")) if text else default
    except ValueError as error:
        raise BadLabels(
            f"{place}: labelled_at {text!r} is not an ISO 8601 time, such as 2026-03-02T08:15:00Z"
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _table(spark: SparkSession, name: str) -> DataFrame:
    """A table with the columns path, label[, labelled_at][, author] as a DataFrame of ROW; the default time is now."""
    if not spark.catalog.tableExists(name):
        raise FileNotFoundError(f"ingest.label_source: there is no table {name} (the name of a CSV ends in .csv)")
    rows = spark.table(name)
    _check_columns(rows.columns, name)
    at, author = (
        F.col(column) if column in rows.columns else default
        for column, default in (("labelled_at", F.current_timestamp()), ("author", F.lit(None).cast("string")))
    )
    label = F.trim(F.col("label").cast("string"))
    return rows.select(
        "path",
        F.when(label != "", label).alias("label"),
        F.lit("table").alias("source"),
        at.cast("timestamp").alias("labelled_at"),
        author.alias("author"),
    )


def _check_columns(columns: Sequence[str], source: str) -> None:
    if not {"path", "label"} <= set(columns) <= set(COLUMNS):
        raise BadLabels(
            f"{source}: expected the columns path,label and optionally labelled_at,author; "
            f"found {','.join(map(str, columns)) or 'none'}"
        )
