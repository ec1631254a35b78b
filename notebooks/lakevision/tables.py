"""The Delta tables: each schema written once, a comment on each column, and those comments are in the table too."""

from collections import namedtuple

from pyspark.sql import functions as F

Column = namedtuple("Column", "name type comment")

STATISTICS = ("struct<bands: array<struct<band: string, mean: double, median: double, stddev: double, min: int, max: int>>, "
              "brightness: double, contrast: double, entropy: double>")

IMAGES = (
    Column("path", "string", "where the file landed, relative to the landing zone; the key of this table"),
    Column("content", "binary", "the file's bytes, unchanged"),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string", "SHA-256 of the bytes, hexadecimal"),
    Column("modified_at", "timestamp", "when the file was last written"),
    Column("captured_at", "timestamp", "when the photograph was taken, UTC"),
    Column("captured_from", "string", "what captured_at rests on: exif, name or file (its modification time)"),
    Column("device", "string", "the camera: its id in the path or in EXIF, else make and model"),
    Column("label", "string", "the class, from the folder or the file's name; null where there is none"),
    Column("width", "int", "pixels, as stored: before the EXIF orientation is applied"),
    Column("height", "int", "pixels, as stored"),
    Column("mode", "string", "Pillow's mode: RGB, L, CMYK, ..."),
    Column("format", "string", "the decoder that took it: JPEG, PNG, ..."),
    Column("exif", "map<string, string>", "all EXIF tags by their standard name, as text"),
    Column("statistics", STATISTICS, "per band, 0 to 255; brightness and contrast are mean and deviation of luma, 0 to 1; entropy in bits"),
    Column("ingested_at", "timestamp", "when the row was written"),
)

REJECTED_IMAGES = (
    Column("path", "string", "where the file landed, relative to the landing zone; the key of this table"),
    Column("content", "binary", "the file's bytes, kept so that nothing is lost"),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string", "SHA-256 of the bytes, hexadecimal"),
    Column("modified_at", "timestamp", "when the file was last written"),
    Column("reason", "string", "why it can't be used, in words"),
    Column("ingested_at", "timestamp", "when the row was written"),
)

SPLITS = (
    Column("path", "string", "the image, as in images; with scheme the key of this table"),
    Column("sha256", "string", "the image's bytes, as in images"),
    Column("label", "string", "its class when it was last split"),
    Column("episode", "string", "the run of near copies it belongs to: device and time of its first frame"),
    Column("split", "string", "train, validation or test: an episode is on one side only and stays there; or embargo, duplicate, unlabelled"),
    Column("reason", "string", "why it is there, in words"),
    Column("scheme", "string", "seed and digest of the settings of the split; placements of two schemes must not be mixed"),
    Column("delta_version", "bigint", "the version of images at which it was placed there"),
)

TABLES = {
    "images": (IMAGES, "Photographs that decode, one row each, with metadata and statistics"),
    "rejected_images": (REJECTED_IMAGES, "Files that landed and are no usable image, with the reason"),
    "splits": (SPLITS, "Which side of the evaluation each image is on, and why"),
}


def create(spark, where):
    """Makes the schema and the tables that are missing; where: workspace.Places."""
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS {where.schema}")
    for name, (columns, comment) in TABLES.items():
        body = ", ".join(f"`{column.name}` {column.type} COMMENT {_quote(column.comment)}" for column in columns)
        location = f"LOCATION {_quote(where.warehouse + '/' + name)}" if where.warehouse else ""
        spark.sql(f"CREATE TABLE IF NOT EXISTS {where.table(name)} ({body}) USING delta {location} COMMENT {_quote(comment)} "
                  "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")


def version(spark, where, name):
    """The newest version number of a Delta table."""
    return spark.sql(f"DESCRIBE HISTORY {where.table(name)} LIMIT 1").first()["version"]


def at(spark, where, name, number):
    """The table as it was at a version: a DataFrame that later writes can't change."""
    return spark.sql(f"SELECT * FROM {where.table(name)} VERSION AS OF {int(number)}")


def metadata(spark, where, number):
    """What is known of each image at a version without its bytes, pandas: path, sha256, label, device, captured_at, captured_from, width, height, exif."""
    return at(spark, where, "images", number).select("path", "sha256", "label", "device", "captured_at", "captured_from", "width", "height", "exif").toPandas()


def earlier_split(spark, where, scheme):
    """The placements that earlier runs have kept under a scheme (see split.scheme), pandas: path, episode, split, reason."""
    return spark.table(where.table("splits")).where(F.col("scheme") == scheme).select("path", "episode", "split", "reason").toPandas()


def keep_split(spark, where, placed, scheme, number):
    """Writes placements (DataFrame of split.assign) into splits: new images are added, rows that say something else than before are updated."""
    from delta.tables import DeltaTable

    columns = [column.name for column in SPLITS]
    frame = placed.assign(scheme=scheme, delta_version=number)[columns].astype({"label": object})
    rows = spark.createDataFrame(frame.where(frame.notna(), None), ", ".join(f"{column.name} {column.type}" for column in SPLITS))
    differs = " OR ".join(f"NOT (old.{name} <=> new.{name})" for name in ("label", "episode", "split", "reason"))
    (DeltaTable.forName(spark, where.table("splits")).alias("old").merge(rows.alias("new"), "old.scheme = new.scheme AND old.path = new.path")
     .whenMatchedUpdateAll(differs).whenNotMatchedInsertAll().execute())


def _quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
