"""Files become rows, once: after a second run, a lost checkpoint, and beside files that are no images."""

import io
from pathlib import Path

import pytest
from PIL import Image

from lakevision import capture, ingest, labels, tables


def put(where, name, data):
    capture.write(Path(where.landing) / name, data)


def picture(colour="red", kind="JPEG"):
    out = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(out, kind)
    return out.getvalue()


def counts(spark, where):
    return {name: spark.table(where.table(name)).count() for name in ("images", "rejected_images")}


@pytest.fixture
def landed(lakehouse):
    spark, make = lakehouse
    cfg, where = make("capture.photographs=12", "capture.size=64")
    capture.land(cfg, where)
    put(where, "bad.jpg", b"<html>404</html>")
    put(where, "cut.jpg", picture()[:200])
    put(where, "empty.jpg", b"")
    return spark, cfg, where


def test_every_file_is_a_row_and_a_second_run_adds_none(landed):
    spark, cfg, where = landed
    first = ingest.run(spark, cfg, where)
    assert (first.landed, first.images, first.rejected, first.new) == (15, 12, 3, 15)
    again = ingest.run(spark, cfg, where)
    assert (again.landed, again.images, again.rejected, again.new) == (15, 12, 3, 0)


def test_a_lost_checkpoint_brings_nothing_in_twice(landed):
    import shutil

    spark, cfg, where = landed
    ingest.run(spark, cfg, where)
    shutil.rmtree(where.checkpoints)
    assert ingest.run(spark, cfg, where).new == 0
    assert counts(spark, where) == {"images": 12, "rejected_images": 3}


def test_new_files_are_added(landed):
    spark, cfg, where = landed
    ingest.run(spark, cfg, where)
    put(where, "late_empty.jpg", picture("blue"))
    assert ingest.run(spark, cfg, where).new == 1


def test_rows_hold_what_landed(landed):
    spark, cfg, where = landed
    ingest.run(spark, cfg, where)
    rows = spark.table(where.table("images")).join(labels.latest(spark, where).select("path", "label"), "path").toPandas()
    for row in rows.itertuples():
        assert bytes(row.content) == (Path(where.landing) / row.path).read_bytes() and row.length == len(row.content)
        assert row.device.startswith("porch-") and row.label in ("empty", "package") and row.captured_from == "exif"
        assert (row.width, row.height, row.mode, row.format) == (64, 64, "RGB", "JPEG")
        assert 0 < row.statistics["brightness"] < 1 and row.exif["Make"] == "RaspberryPi"
    reasons = {row.path: row.reason for row in spark.table(where.table("rejected_images")).collect()}
    assert "not an image" in reasons["bad.jpg"] and "damaged JPEG" in reasons["cut.jpg"] and "empty file" in reasons["empty.jpg"]


def test_odd_names_arrive_unchanged(lakehouse):
    spark, make = lakehouse
    cfg, where = make("ingest.labels=name")
    names = {"with space_dog.jpg", "50%_dog.jpg", "2021-07-13T03%3A04%3A54_front_dog.jpg", "größe_dog.jpg", "a+b&c_dog.jpg", "x[1]_dog.jpg", "deep/er/still_dog.jpg"}
    for name in names:
        put(where, name, picture())
    assert ingest.run(spark, cfg, where).images == len(names)
    rows = labels.latest(spark, where).select("path", "label").collect()
    assert {row.path for row in rows} == names and {row.label for row in rows} == {"dog"}


def test_replaying_a_folder_renames_what_spark_would_not_see(lakehouse, tmp_path):
    spark, make = lakehouse
    source = tmp_path / "camera" / "dogs"
    source.mkdir(parents=True)
    for name in ("_DSC0001.JPG", "2021-07-13T03:04:54_x.jpg", "plain.jpg"):
        (source / name).write_bytes(picture())
    (source / "notes.txt").write_text("no photograph")
    cfg, where = make("capture.source=folder", f"capture.path={tmp_path / 'camera'}")
    landed = capture.land(cfg, where)
    assert (landed.new, landed.skipped) == (3, ("dogs/notes.txt",))
    assert ingest.run(spark, cfg, where).images == 3
    paths = {row.path for row in spark.table(where.table("images")).collect()}
    assert paths == {"dogs/%5FDSC0001.JPG", "dogs/2021-07-13T03%3A04%3A54_x.jpg", "dogs/plain.jpg"}
    assert capture.land(cfg, where).new == 0


def test_a_source_with_no_photographs_names_the_setting(lakehouse, tmp_path):
    _, make = lakehouse
    with pytest.raises(FileNotFoundError, match="capture.path"):
        capture.land(*make("capture.source=folder", "capture.path=/nowhere/at/all"))
    with pytest.raises(ValueError, match="capture.path is empty"):
        capture.land(*make("capture.source=folder"))
    with pytest.raises(ValueError, match="no photographs"):
        capture.land(*make("capture.source=landing"))


def test_tables_carry_their_comments(landed):
    spark, cfg, where = landed
    tables.create(spark, where)
    for name, table in tables.TABLES.items():
        described = {row.col_name: row.comment for row in spark.sql(f"DESCRIBE TABLE {where.table(name)}").collect()}
        assert {column.name: column.comment for column in table.columns}.items() <= described.items()


def test_an_old_version_stays_readable(landed):
    spark, cfg, where = landed
    ingest.run(spark, cfg, where)
    version = tables.version(spark, where, "images")
    put(where, "late_empty.jpg", picture("green"))
    ingest.run(spark, cfg, where)
    assert tables.at(spark, where, "images", version).count() == 12 and spark.table(where.table("images")).count() == 13
