"""Each file becomes one row: after a crash between any two writes, and if files change while a chunk is read."""

import os
from pathlib import Path

import pytest
from corpus import encoded
from lake import crashing, paths, picture, put, settled

from device.simulation import porch
from lakevision.dataset import split_table
from lakevision.ingest import chunk, labels, stream, tables

pytestmark = pytest.mark.spark


def test_crash_between_two_writes_loses_no_row(lakehouse, monkeypatch):
    """One crash after another, each with new files; the next run repairs the state."""
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


def test_files_that_change_during_a_run_are_taken_later(lakehouse, monkeypatch):
    """Overwritten between description and writing, removed after the listing, or empty or cut off at first."""
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
    # A crash after the newer row was written and before the older row was removed. The file that was empty is new to
    # the stream now, perhaps in its second batch.
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


def test_rejected_file_that_changes_keeps_one_row(lakehouse, monkeypatch):
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


def test_copies_are_found_across_batches_and_runs(lakehouse):
    """With a rejected file in the same chunk: hashes must keep all 63 bits."""
    spark, make = lakehouse
    cfg, places = make("ingest.max_files_per_batch=4")
    scenes = [scene for scene in porch.plan(40, size=(300, 300)) if scene.frame == 0][:5]
    pictures = [porch.picture(scene) for scene in scenes]
    files = {
        "a1.jpg": encoded(pictures[0]),
        "a2.jpg": encoded(pictures[0]),
        "bad.jpg": b"no image",
        "b1.jpg": encoded(pictures[1]),
        "b_again.jpg": encoded(pictures[1], quality=50),
        "c.jpg": encoded(pictures[2]),
    }
    for index, (name, data) in enumerate(files.items()):
        put(places, name, data)
        os.utime(Path(places.landing) / name, (10**9 + index, 10**9 + index))
    stream.ingest(spark, cfg, places)
    put(places, "a3.jpg", files["a1.jpg"])
    put(places, "c_small.jpg", encoded(pictures[2].resize((220, 220))))
    put(places, "c_dark.jpg", encoded(pictures[2].point(lambda value: value // 3)))
    stream.ingest(spark, cfg, places)
    rows = {row["path"]: row for row in spark.table(places.table("images")).collect()}
    assert {path: (row["duplicate_of"], row["near_duplicate_of"]) for path, row in rows.items()} == {
        "a1.jpg": (None, None),
        "a2.jpg": ("a1.jpg", None),
        "a3.jpg": ("a1.jpg", None),
        "b1.jpg": (None, None),
        "b_again.jpg": (None, "b1.jpg"),
        "c.jpg": (None, None),
        "c_small.jpg": (None, "c.jpg"),
        "c_dark.jpg": (None, None),
    }
    assert (
        rows["b_again.jpg"]["quality"]["is_near_duplicate_issue"]
        and not rows["c.jpg"]["quality"]["is_near_duplicate_issue"]
    )
    trained = split_table.metadata(spark, places, tables.version(spark, places, "images"))
    assert set(trained["path"]) == set(rows) - {"a2.jpg", "a3.jpg"}
