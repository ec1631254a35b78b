"""Schemas of the Delta tables: columns with types and comments, clustering and constraints.

tables.py creates the tables; the comments travel into the tables. Other modules import the schemas from tables.py.
"""

from collections import namedtuple

from lakevision.ingest import quality

Column = namedtuple("Column", "name type comment")

BAND = (
    "struct<band: string, mean: double, median: double, stddev: double, min: int, max: int, entropy: double, "
    "histogram: array<int>>"
)
STATISTICS = (
    f"struct<bands: array<{BAND}>, luma: {BAND}, brightness: double, contrast: double, entropy: double, "
    "sharpness: double>"
)
QUALITY = "struct<" + ", ".join(f"{issue}_score: double, is_{issue}_issue: boolean" for issue in quality.ISSUES) + ">"

IMAGES = (
    Column("path", "string NOT NULL", "path of the file relative to the landing zone; the key of this table"),
    Column(
        "content",
        "binary",
        "the unchanged bytes of the file; null if ingest.keep_content is false (read the landing zone then)",
    ),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string NOT NULL", "SHA-256 of the bytes, hexadecimal"),
    Column(
        "duplicate_of",
        "string",
        "path of the first photograph with the same bytes; null for the first copy. Training uses null rows only",
    ),
    Column("near_duplicate_of", "string", "path of the most similar earlier photograph, if nearly the same; else null"),
    Column("modified_at", "timestamp", "time of the last change of the file"),
    Column("captured_at", "timestamp", "time at which the photograph was taken, UTC"),
    Column("captured_from", "string", "source of captured_at: exif, name or file (modification time)"),
    Column("device", "string", "the camera: the id in the path or in EXIF, else make and model"),
    Column("width", "int", "width in pixels as stored, before the EXIF orientation is applied"),
    Column("height", "int", "height in pixels as stored, before the EXIF orientation is applied"),
    Column("mode", "string", "Pillow's mode: RGB, L, CMYK, ..."),
    Column("format", "string", "name of the Pillow decoder: JPEG, PNG, ..."),
    Column("frames", "int", "number of pictures in the file; lakevision uses the first picture"),
    Column("dpi", "double", "dots per inch along the width, from EXIF or the file's header"),
    Column("orientation", "int", "EXIF orientation, 1 to 8; 6 means: turn clockwise by 90 degrees"),
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
        "all EXIF tags by standard name, as text; _error describes tags that could not be read",
    ),
    Column(
        "statistics",
        STATISTICS,
        "pixel statistics per band and of luma, 0 to 255; entropy in bits; brightness, contrast, sharpness 0 to 1",
    ),
    Column("phash", "bigint", "perceptual hash, 63 bits; two pictures are nearly the same if at most 4 bits differ"),
    Column(
        "quality",
        QUALITY,
        "<issue>_score from 0 to 1 (lower is worse) and is_<issue>_issue; cut-offs from the camera's history, if any",
    ),
    Column("ingested_at", "timestamp", "time at which the row was written"),
)

REJECTED_IMAGES = (
    Column("path", "string NOT NULL", "path of the file relative to the landing zone; the key of this table"),
    Column(
        "content",
        "binary",
        "the bytes of the file, so that nothing is lost; null above 200 MB (read the landing zone then)",
    ),
    Column("length", "bigint", "size of the file in bytes"),
    Column("sha256", "string", "SHA-256 of the bytes, hexadecimal; null if the file could not be read"),
    Column("modified_at", "timestamp", "time of the last change of the file"),
    Column("reason", "string", "reason for the rejection, in words"),
    Column("ingested_at", "timestamp", "time at which the row was written"),
)

LABELS = (
    Column("path", "string NOT NULL", "path of the image, as in images"),
    Column("label", "string", "class of the image; null removes the label"),
    Column(
        "source",
        "string NOT NULL",
        "source of the label: folder or name (both from the path), csv or table; csv and table outrank the path",
    ),
    Column("labelled_at", "timestamp", "time of the label; the newest row of a path holds"),
    Column("author", "string", "person who labelled, if the source gives a name"),
    Column("ingested_at", "timestamp", "time at which the row was written"),
)

SPLITS = (
    Column("path", "string", "path of the image, as in images; key of this table together with scheme"),
    Column("sha256", "string", "SHA-256 of the image's bytes, as in images"),
    Column("label", "string", "class of the image at its last split"),
    Column("episode", "string", "series of near copies that contains the image: device and time of its first frame"),
    Column(
        "split", "string", "train, validation or test (all of an episode, for ever), or embargo, duplicate, unlabelled"
    ),
    Column("reason", "string", "reason for the split, in words"),
    Column("scheme", "string", "seed and digest of the split settings; never mix placements of two schemes"),
    Column("delta_version", "bigint", "version of images at the time of the placement"),
)

PREDICTIONS = (
    Column("path", "string NOT NULL", "path of the image, as in images; key of this table together with version"),
    Column("sha256", "string", "SHA-256 of the scored bytes, as in images"),
    Column("label", "string", "predicted class; null if the image could not be scored"),
    Column("probability", "double", "probability of the predicted class, 0 to 1"),
    Column("scores", "array<double>", "probabilities of all classes, in the model's order"),
    Column("error", "string", "reason why the image could not be scored, in words; else null"),
    Column("model", "string NOT NULL", "full name of the registered model"),
    Column("version", "string NOT NULL", "version of the registered model"),
    Column("scored_by", "string", "spark, or the id of the device that scored the image"),
    Column("scored_at", "timestamp", "time of scoring, UTC"),
)

PROMOTIONS = (
    Column("number", "bigint NOT NULL", "unique number of the decision in order: 1, 2, 3, ..."),
    Column("decided_at", "timestamp NOT NULL", "time of the decision, UTC"),
    Column("action", "string NOT NULL", "gate (04_deploy), promote (by hand) or rollback"),
    Column("model", "string NOT NULL", "full name of the registered model"),
    Column("version", "string NOT NULL", "version that the decision is about"),
    Column("promoted", "boolean NOT NULL", "true if the decision made the version champion"),
    Column("forced", "boolean NOT NULL", "true if a person decided against the evaluation"),
    Column("who", "string", "person or job that decided"),
    Column("reason", "string", "reason for the decision, in words"),
    Column("previous", "string", "version that served before; null if there was none"),
    Column("run_id", "string", "MLflow run that trained the version"),
    Column("checks", "string", "checks of the gate with measured and required values, as JSON; null if no check ran"),
)

Table = namedtuple("Table", "columns comment cluster check")
TABLES = {
    "images": Table(
        IMAGES,
        "Photographs that decode, one row each, with metadata, statistics and quality",
        ("device", "captured_at"),
        "length(sha256) = 64 AND length > 0 AND captured_from IN ('exif', 'name', 'file') "
        "AND (duplicate_of IS NULL OR duplicate_of <> path)",
    ),
    "rejected_images": Table(REJECTED_IMAGES, "Landed files that are not usable images, with the reason", (), None),
    "labels": Table(LABELS, "Class of each photograph, with source and time; the newest row of a path holds", (), None),
    "splits": Table(SPLITS, "Split of each image (train, validation, test, ...), with the reason", (), None),
    "predictions": Table(
        PREDICTIONS,
        "Predictions of each model version for each image",
        ("scored_at",),
        "label IS NOT NULL OR error IS NOT NULL",
    ),
    "promotions": Table(
        PROMOTIONS,
        "Decisions on which version serves, with reasons; rows are added, never changed",
        (),
        "version <> ''",
    ),
}
# Created only if a lease needs a table; see lease.py.
LEASES = Table(
    (
        Column("name", "string NOT NULL", "name of the exclusive work, such as ingest; the key of this table"),
        Column("holder", "string NOT NULL", "process that holds the lease"),
        Column("until", "timestamp NOT NULL", "time at which the lease expires, unless its holder renews it"),
    ),
    "Processes that are at work on this lakehouse",
    (),
    None,
)

# Delta keeps the statistics for file skipping of these columns only. No query filters the others (EXIF, histograms)
# by a range, and their statistics would cost time in each write.
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
