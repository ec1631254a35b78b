"""The class of each photograph: from its name or folder, from a CSV, from a table; kept in `labels`, where a correction is a new row.

Nothing is overwritten. What somebody wrote down (CSV, table) outranks what the path says, and the newest row of a path holds; one with an
empty label takes the label away.
"""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pyspark.sql import Window
from pyspark.sql import functions as F

from lakevision.ingest import capture, tables
from lakevision.ingest.metadata import AGENT_NAME

FROM_PATH = ("folder", "name")
ROW = "path string, label string, source string, labelled_at timestamp, author string"
COLUMNS = ("path", "label", "labelled_at", "author")  # of a CSV or a table; the last two may be absent


class BadLabels(ValueError):
    """A file or table of labels can't be read as one; the message names it, the line and what is expected."""


def of_path(path, rule="auto"):
    """(label, "folder" | "name") by ingest.labels, (None, None) where the path holds none: the class folder it lies in, else the last `_` field of its name."""
    path = PurePosixPath(path)
    folder, agents = path.parent.name, AGENT_NAME.fullmatch(path.stem)
    if rule in ("auto", "folder") and folder and "=" not in folder:
        return folder, "folder"
    if rule in ("auto", "name"):
        # A frame of the agent that has no label ends in its sequence number, which is none.
        found = agents["label"] if agents else path.stem.rpartition("_")[2] if "_" in path.stem else None
        return (found, "name") if found else (None, None)
    return None, None


def add_from_paths(spark, places, photographs, rule, check):
    """Appends the labels that paths say. photographs: list of (path, aware datetime of the file); check: leave out paths that have such a row already."""
    found = [(path, *of_path(path, rule), at, None) for path, at in photographs]
    found = [row for row in found if row[1]]
    if not found:
        return
    rows = spark.createDataFrame(found, ROW)
    if check:
        old = spark.table(places.table("labels")).where(F.col("source").isin(*FROM_PATH)).select("path")
        rows = rows.join(old, "path", "left_anti")
    _append(rows, places)


def add_from_source(spark, places, source):
    """Appends what a CSV file or a table (ingest.label_source) says and `labels` does not say yet.

    Returns (rows added, [up to 20 paths that are no photograph of ours]).

    Run again, it adds nothing. Raises BadLabels, FileNotFoundError.
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


def latest(spark, places, version=None, explicit=False):
    """path, label, source, labelled_at, author: the row of each path that holds. version: of labels, the newest if None; explicit: leave out what paths say."""
    rows = tables.at(spark, places, "labels", version) if version is not None else spark.table(places.table("labels"))
    rows = rows.withColumn("explicit", ~F.col("source").isin(*FROM_PATH))
    if explicit:
        rows = rows.where("explicit")
    order = Window.partitionBy("path").orderBy(
        *(F.col(name).desc() for name in ("explicit", "labelled_at", "ingested_at", "label"))
    )
    return rows.withColumn("rank", F.row_number().over(order)).where("rank = 1").drop("rank", "explicit", "ingested_at")


def _append(rows, places):
    rows.withColumn("ingested_at", F.current_timestamp()).select([column.name for column in tables.LABELS]).writeTo(
        places.table("labels")
    ).append()


def _csv(spark, path, images):
    """A CSV with a header line path,label[,labelled_at][,author] as a DataFrame of ROW; times without an offset are UTC, a missing one is the file's own."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"ingest.label_source: {path} is no file")
    written = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
    rows = {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadLabels(f"{path} is no UTF-8 text (byte {error.start}); save it as CSV UTF-8") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        _columns(reader.fieldnames or (), path)
        for row in reader:
            at = (row.get("labelled_at") or "").strip()
            if None in row or None in row.values():
                raise BadLabels(f"{path}, line {reader.line_num}: expected {len(reader.fieldnames)} fields, got {row}")
            try:
                at = datetime.fromisoformat(at.replace("Z", "+00:00")) if at else written
            except ValueError as error:
                raise BadLabels(
                    f"{path}, line {reader.line_num}: labelled_at {at!r} is no ISO 8601 time, such as 2026-03-02T08:15:00Z"
                ) from error
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            # By path and time: of two lines that say nothing of when, the later one corrects the earlier.
            rows[row["path"].strip(), at] = (
                row["path"].strip(),
                row["label"].strip() or None,
                "csv",
                at,
                (row.get("author") or "").strip() or None,
            )
    if not rows:
        return spark.createDataFrame([], ROW)
    # Named as in the camera's folder; in the landing zone capture may have encoded it, or a device has put it there as it is.
    there = (
        spark.createDataFrame(sorted({(name,) for name, _ in rows}), "path string")
        .join(images.select("path"), "path", "left_semi")
        .collect()
    )
    there = {row["path"] for row in there}
    return spark.createDataFrame(
        [(name if name in there else capture.landing_name(name), *more) for name, *more in rows.values()], ROW
    )


def _table(spark, name):
    """A table with columns path, label[, labelled_at][, author] as a DataFrame of ROW; a missing time is that of this run."""
    if not spark.catalog.tableExists(name):
        raise FileNotFoundError(f"ingest.label_source: there is no table {name} (a CSV's name ends in .csv)")
    rows = spark.table(name)
    _columns(rows.columns, name)
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


def _columns(found, name):
    if not {"path", "label"} <= set(found) <= set(COLUMNS):
        raise BadLabels(
            f"{name}: expected the columns path,label and perhaps labelled_at,author; found {','.join(map(str, found)) or 'none'}"
        )
