"""Files become rows, once: after a second run, a crash at the worst moments, a lost checkpoint, dropped tables, and while files change under the reader's hands."""

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pyspark.sql import DataFrame

from lakevision.ingest import capture, chunk, image_reader, labels, landing, stream, tables


def put(places, name, data):
    capture.write(Path(places.landing) / name, data)


def picture(seed=0, size=(32, 24)):
    out = io.BytesIO()
    image = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, seed * 151 % 256))
    image.paste("white", (seed * 5 % 20, seed * 3 % 12, seed * 5 % 20 + 8, seed * 3 % 12 + 8))
    image.save(out, "JPEG")
    return out.getvalue()


def paths(spark, places, name):
    return sorted(row["path"] for row in spark.table(places.table(name)).select("path").collect())


def settled(spark, cfg, places, done):
    """Every landed file has one row in one of the tables, and each path one label of its path at most."""
    good, bad = paths(spark, places, "images"), paths(spark, places, "rejected_images")
    assert sorted(good + bad) == sorted(file.path for file in landing.walk(places.landing))
    assert (done.images, done.rejected, done.landed) == (len(good), len(bad), len(good) + len(bad))
    assert paths(spark, places, "labels") == sorted(path for path in good if labels.of_path(path, cfg.ingest.labels)[0])


def test_every_file_is_a_row_and_a_second_run_adds_none(lakehouse):
    spark, make = lakehouse
    cfg, places = make("capture.photographs=12", "capture.size=64")
    capture.land(cfg, places)
    for name, data in {"bad.jpg": b"<html>404</html>", "cut.jpg": picture()[:200], "empty.jpg": b""}.items():
        put(places, name, data)
    put(places, "large.jpg", picture())
    os.truncate(Path(places.landing) / "large.jpg", image_reader.LARGEST + 1)  # sparse: it takes no room
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


class Crash(Exception):
    """Stands for a kill at a place that a real one seldom hits."""


def crashing(*given, **_):
    """In place of a step: raises where there is something to do, as a kill at that moment would leave it undone."""
    if any(
        isinstance(argument, DataFrame)
        or hasattr(argument, "__len__")
        and not isinstance(argument, str)
        and len(argument)
        for argument in given
    ):
        raise Crash("killed here")


def test_crashes_between_any_two_writes(lakehouse, monkeypatch):
    """One after the other, each with files of its own; the next run clears up what the last one left."""
    spark, make = lakehouse
    cfg, places = make("ingest.max_files_per_batch=3", "ingest.labels=name")
    steps = [(chunk, "_write_images"), (chunk, "_write_rejected"), (labels, "add_from_paths"), (chunk, "_forget")]
    for number, (module, step) in enumerate(steps):
        for index in range(4):
            put(
                places,
                f"{number}{index}_dog.jpg",
                picture(number * 5 + index) if index != 1 else b"no image %d" % number,
            )
        with monkeypatch.context() as patch:
            patch.setattr(module, step, crashing)
            with pytest.raises(Exception, match="killed here"):
                stream.ingest(spark, cfg, places)
    done = stream.ingest(spark, cfg, places)
    assert (done.images, done.rejected) == (12, 4)
    settled(spark, cfg, places, done)


def test_what_changes_while_it_is_looked_at(lakehouse, monkeypatch):
    """Overwritten in place between description and writing, removed after it was listed, empty or cut at first and whole later."""
    spark, make = lakehouse
    cfg, places = make("ingest.labels=name", "ingest.max_files_per_batch=4")
    for index, name in enumerate(("moving_dog.jpg", "steady_dog.jpg", "gone_dog.jpg")):
        put(places, name, picture(index))
    put(places, "empty_dog.jpg", b"")
    put(places, "cut_dog.jpg", picture(3)[:150])
    describing, writing = chunk._describe, chunk._write_images

    def removing(this, files):
        (Path(places.landing) / "gone_dog.jpg").unlink(missing_ok=True)
        return describing(this, files)

    def overwriting(*arguments):
        (Path(places.landing) / "moving_dog.jpg").write_bytes(picture(9))
        return writing(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chunk, "_describe", removing)
        patch.setattr(chunk, "_write_images", overwriting)
        first = stream.ingest(spark, cfg, places)
    assert (first.images, first.rejected, first.landed) == (1, 3, 4) and paths(spark, places, "images") == [
        "steady_dog.jpg"
    ]
    moving = spark.table(places.table("rejected_images")).where("path = 'moving_dog.jpg'").first()
    assert "changed while it was being read" in moving["reason"] and moving["sha256"] is None

    put(places, "empty_dog.jpg", picture(4))
    put(places, "cut_dog.jpg", picture(3))
    for index in range(10, 16):
        put(places, f"later{index}_dog.jpg", picture(index))
    # A crash after the newer row and before the older one went; what was empty is new to the stream now, perhaps in its second batch.
    with monkeypatch.context() as patch:
        patch.setattr(chunk, "_remove", lambda spark, places, old: crashing(old))
        with pytest.raises(Exception, match="killed here"):
            stream.ingest(spark, cfg, places)
    second = stream.ingest(spark, cfg, places)
    settled(spark, cfg, places, second)
    assert (second.images, second.rejected) == (10, 0)
    rows = {row["path"]: bytes(row["content"]) for row in spark.table(places.table("images")).collect()}
    assert (
        rows["moving_dog.jpg"] == picture(9)
        and rows["empty_dog.jpg"] == picture(4)
        and rows["cut_dog.jpg"] == picture(3)
    )
    settled(spark, cfg, places, stream.ingest(spark, cfg, places))


def test_what_the_second_look_took_the_stream_does_not_bring_again(lakehouse, monkeypatch):
    """Landed after the stream had looked: taken at once, and listed by the next run in a later batch than its first."""
    spark, make = lakehouse
    cfg, places = make("ingest.max_files_per_batch=2", "ingest.labels=name")
    put(places, "a_dog.jpg", picture(0))
    looking = stream._second_look

    def late(this):
        put(places, "late_dog.jpg", picture(1))
        return looking(this)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "_second_look", late)
        settled(spark, cfg, places, stream.ingest(spark, cfg, places))
    for index in range(2, 6):
        put(places, f"{index}_dog.jpg", picture(index))
        os.utime(
            Path(places.landing) / f"{index}_dog.jpg", (10**9 + index, 10**9 + index)
        )  # older: the stream takes them first
    settled(spark, cfg, places, stream.ingest(spark, cfg, places))


def test_a_rejected_file_that_changes_to_another_bad_one_keeps_one_row(lakehouse, monkeypatch):
    spark, make = lakehouse
    cfg, places = make()
    put(places, "x.jpg", b"no image")
    stream.ingest(spark, cfg, places)
    put(places, "x.jpg", picture()[:120])
    with monkeypatch.context() as patch:
        patch.setattr(chunk, "_remove", lambda spark, places, old: crashing(old))
        with pytest.raises(Exception, match="killed here"):
            stream.ingest(spark, cfg, places)
    assert paths(spark, places, "rejected_images") == ["x.jpg", "x.jpg"]
    settled(spark, cfg, places, stream.ingest(spark, cfg, places))
    assert "damaged JPEG" in spark.table(places.table("rejected_images")).first()["reason"]


def test_dropped_tables_are_filled_anew(lakehouse):
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


def test_replaying_a_folder_renames_what_spark_would_not_see(lakehouse, tmp_path):
    spark, make = lakehouse
    source = tmp_path / "camera" / "dogs"
    source.mkdir(parents=True)
    for index, name in enumerate(("_DSC0001.JPG", "2021-07-13T03:04:54_x.jpg", "plain.jpg")):
        (source / name).write_bytes(picture(index))
    (source / "notes.txt").write_text("no photograph")
    cfg, places = make("capture.source=folder", f"capture.path={tmp_path / 'camera'}")
    landed = capture.land(cfg, places)
    assert (landed.new, landed.skipped) == (3, ("dogs/notes.txt",))
    # Odd names that need no encoding arrive unchanged.
    names = {
        "with space_dog.jpg",
        "50%_dog.jpg",
        "2021-07-13T03%3A04%3A54_front_dog.jpg",
        "gr\u00f6\u00dfe_dog.jpg",
        "a+b&c_dog.jpg",
        "x[1]_dog.jpg",
        "deep=er/still_dog.jpg",
    }
    for index, name in enumerate(sorted(names)):
        put(places, name, picture(10 + index))
    assert stream.ingest(spark, cfg, places).images == 10
    assert set(paths(spark, places, "images")) == names | {
        "dogs/%5FDSC0001.JPG",
        "dogs/2021-07-13T03%3A04%3A54_x.jpg",
        "dogs/plain.jpg",
    }
    rows = labels.latest(spark, places).select("path", "label").collect()
    assert {row.path for row in rows if row.label == "dog"} == names and {row.label for row in rows} == {"dog", "dogs"}
    assert capture.land(cfg, places).new == 0


def test_a_source_with_no_photographs_names_the_setting(lakehouse):
    _, make = lakehouse
    with pytest.raises(FileNotFoundError, match="capture.path"):
        capture.land(*make("capture.source=folder", "capture.path=/nowhere/at/all"))
    with pytest.raises(ValueError, match="capture.path is empty"):
        capture.land(*make("capture.source=folder"))
    with pytest.raises(ValueError, match="no photographs"):
        capture.land(*make("capture.source=landing"))
