"""Planted files and mutants through the real ingest: every file is one row, once, with its bytes."""

import hashlib
import os
from pathlib import Path

import pytest
from corpus import NOT_LANDED, corpus
from mutants import mutants

from lakevision.ingest import labels, stream, tables
from lakevision.platform import config, workspace

pytestmark = pytest.mark.spark
LATIN = b"gr\xf6\xdfe.jpg"  # not UTF-8: a card written by an old camera
MUTANTS = 200


@pytest.fixture(scope="module")
def landed(spark, tmp_path_factory):
    """The corpus, mutants and files to ignore, ingested.

    (cfg, places, Ingested, {path of the row: bytes}, images by path, rejected by path)
    """
    root = tmp_path_factory.mktemp("planted")
    cfg = config.load("local", [f"storage.root={root}", "storage.schema=planted", "ingest.max_files_per_batch=100"])
    places = workspace.places(cfg)
    files = {file.name: file.data for file in corpus()} | {
        f"mutants/{name}": data for name, data in mutants(MUTANTS, seed=8)
    }
    for name, data in (files | NOT_LANDED).items():
        path = Path(places.landing, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    files["gr\\xf6\\xdfe.jpg"] = corpus()[0].data + b"latin"
    Path(os.fsdecode(os.path.join(os.fsencode(places.landing), LATIN))).write_bytes(files["gr\\xf6\\xdfe.jpg"])
    done = stream.ingest(spark, cfg, places)
    images, rejected = (
        {row["path"]: row for row in spark.table(places.table(name)).collect()}
        for name in ("images", "rejected_images")
    )
    yield cfg, places, done, files, images, rejected
    spark.sql("DROP SCHEMA IF EXISTS planted CASCADE")


def test_every_file_is_one_row(landed):
    _, _, done, files, images, rejected = landed
    assert images.keys() | rejected.keys() == files.keys() and not images.keys() & rejected.keys()
    assert (done.images, done.rejected, done.landed, done.new) == (len(images), len(rejected), len(files), len(files))


def test_rows_match_the_planted_files(landed):
    _, _, _, _, images, rejected = landed
    for file in corpus():
        if file.reason:
            assert file.reason in rejected[file.name]["reason"], file.id
            continue
        row = images[file.name].asDict()
        # Spark returns timestamps in this machine's local time; astimezone() makes them aware again.
        found = {
            name: row[name].astimezone(file.expected[name].tzinfo) if name == "captured_at" else row[name]
            for name in file.expected
        }
        assert found == file.expected, file.id


def test_bytes_are_unchanged(landed):
    _, _, _, files, images, rejected = landed
    for path, data in files.items():
        row = images.get(path) or rejected[path]
        assert (
            bytes(row["content"]) == data
            and row["length"] == len(data)
            and row["sha256"] == hashlib.sha256(data).hexdigest()
        ), path


def test_gps_tags_become_positions(landed):
    images = landed[4]
    row = images["all_exif.jpg"]
    assert (row["latitude"], row["longitude"], row["altitude_m"]) == (
        pytest.approx(-33.856784, abs=1e-6),
        pytest.approx(151.215297, abs=1e-6),
        pytest.approx(4.5),
    )
    assert images["nowhere.jpg"]["latitude"] is None and images["moon.jpg"]["longitude"] is None


def test_each_image_gets_its_label_once(landed, spark):
    _, places, _, _, images, _ = landed
    rows = [(row["path"], row["label"]) for row in spark.table(places.table("labels")).collect()]
    expected = [(path, labels.of_path(path)[0]) for path in images if labels.of_path(path)[0]]
    assert sorted(rows) == sorted(expected) and len(dict(rows)) == len(rows)


def test_second_run_makes_no_commit(landed, spark):
    cfg, places, done, *_ = landed
    before = {name: tables.version(spark, places, name) for name in ("images", "rejected_images", "labels")}
    again = stream.ingest(spark, cfg, places)
    assert (again.new, again.landed, again.images, again.rejected) == (0, done.landed, done.images, done.rejected)
    assert {name: tables.version(spark, places, name) for name in before} == before
