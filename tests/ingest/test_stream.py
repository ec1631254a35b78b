"""Each file becomes one row: after a second run, a lost checkpoint, dropped tables, and with a second look."""

import os
import shutil
from pathlib import Path

import pytest
from lake import picture, put, settled

from lakevision.ingest import capture, image_reader, labels, stream, tables

pytestmark = pytest.mark.spark


def test_each_file_is_one_row_and_a_second_run_adds_none(lakehouse):
    spark, make = lakehouse
    cfg, places = make("capture.photographs=12", "capture.size=64")
    capture.land(cfg, places)
    for name, data in {"bad.jpg": b"<html>404</html>", "cut.jpg": picture()[:200], "empty.jpg": b""}.items():
        put(places, name, data)
    put(places, "large.jpg", picture())
    os.truncate(Path(places.landing) / "large.jpg", image_reader.LARGEST + 1)  # sparse: needs no disk space
    first = stream.ingest(spark, cfg, places)
    assert (first.landed, first.images, first.rejected, first.new) == (16, 12, 4, 16)
    settled(spark, cfg, places, first)
    rows = (
        spark.table(places.table("images"))
        .join(labels.latest(spark, places).select("path", "label"), "path")
        .toPandas()
    )
    assert len(rows) == 12
    for row in rows.itertuples():
        assert bytes(row.content) == (Path(places.landing) / row.path).read_bytes() and row.length == len(row.content)
        assert row.device.startswith("porch-") and row.label in ("empty", "package") and row.captured_from == "exif"
        assert (row.width, row.height, row.mode, row.format) == (64, 64, "RGB", "JPEG")
        assert 0 < row.statistics["brightness"] < 1 and row.exif["Make"] == "RaspberryPi"
    reasons = {row.path: row.reason for row in spark.table(places.table("rejected_images")).collect()}
    assert (
        "not an image" in reasons["bad.jpg"]
        and "damaged JPEG" in reasons["cut.jpg"]
        and "empty file" in reasons["empty.jpg"]
    )
    large = spark.table(places.table("rejected_images")).where("path = 'large.jpg'").first()
    assert (
        "too large: 200000001 bytes" in large["reason"]
        and large["content"] is None
        and large["length"] == image_reader.LARGEST + 1
    )
    version = tables.version(spark, places, "images")

    put(places, "late_empty.jpg", picture(1))
    again = stream.ingest(spark, cfg, places)
    assert (again.landed, again.images, again.rejected, again.new) == (17, 13, 4, 1)
    assert tables.at(spark, places, "images", version).count() == 12, "an old version stays readable"

    shutil.rmtree(places.checkpoints)
    healed = stream.ingest(spark, cfg, places)
    assert healed.new == 0, "a lost checkpoint brings nothing in twice"
    settled(spark, cfg, places, healed)


def test_rechecked_file_is_not_ingested_twice(lakehouse, monkeypatch):
    """A file lands after the listing: the second look ingests it, and the next run lists it after its first batch."""
    spark, make = lakehouse
    cfg, places = make("ingest.max_files_per_batch=2", "ingest.labels=name")
    put(places, "a_dog.jpg", picture(0))
    second_look = stream._second_look

    def late(run):
        put(places, "late_dog.jpg", picture(1))
        return second_look(run)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "_second_look", late)
        settled(spark, cfg, places, stream.ingest(spark, cfg, places))
    for index in range(2, 6):
        put(places, f"{index}_dog.jpg", picture(index))
        os.utime(
            Path(places.landing) / f"{index}_dog.jpg", (10**9 + index, 10**9 + index)
        )  # older: the stream takes them first
    settled(spark, cfg, places, stream.ingest(spark, cfg, places))


def test_dropped_tables_are_filled_again(lakehouse):
    spark, make = lakehouse
    cfg, places = make("ingest.labels=name")
    put(places, "a_dog.jpg", picture())
    put(places, "bad_dog.jpg", b"no image")
    stream.ingest(spark, cfg, places)
    for dropped in (("images", "labels"), ("images", "rejected_images", "labels")):
        for name in dropped:
            spark.sql(f"DROP TABLE {places.table(name)}")
            shutil.rmtree(f"{places.warehouse}/{name}")
        done = stream.ingest(spark, cfg, places)
        assert (done.images, done.rejected) == (1, 1)
        settled(spark, cfg, places, done)
