"""Fixtures of the ingest tests."""

import os
from datetime import UTC, datetime

import pytest

from lakevision.ingest import labels, tables


@pytest.fixture
def labelled(lakehouse, tmp_path):
    """Three photographs with labels from their names; their rows of images are written without an ingest.

    (spark, places, path of a CSV, function that writes lines to the CSV and reads the labels)
    """
    spark, make = lakehouse
    _, places = make()
    tables.create(spark, places)
    names = ["1_dog.jpg", "2_dog.jpg", "_raw:3_cat.jpg"]
    rows = [(name, "0" * 64, 1, "file") for name in names]
    spark.createDataFrame(
        rows, "path string, sha256 string, length bigint, captured_from string"
    ).createOrReplaceTempView("planted")
    missing = [column for column in tables.IMAGES if column.name not in ("path", "sha256", "length", "captured_from")]
    spark.sql(
        "SELECT *, "
        + ", ".join(f"CAST(NULL AS {column.type}) AS {column.name}" for column in missing)
        + " FROM planted"
    ).select([column.name for column in tables.IMAGES]).writeTo(places.table("images")).append()
    labels.add_from_paths(
        spark, places, [(name, datetime(2026, 1, 1, tzinfo=UTC)) for name in names], "name", check=True
    )
    source = tmp_path / "labels.csv"

    def read(*lines, at=None):
        source.write_text("\n".join(lines) + "\n")
        if at:
            os.utime(source, (at, at))
        return labels.add_from_source(spark, places, str(source))

    return spark, places, source, read
