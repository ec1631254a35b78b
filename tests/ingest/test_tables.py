"""What lies around the rows: labels and their corrections, copies across runs, tables without bytes, comments and constraints."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from corpus import encoded, picture  # noqa: E402

from device.simulation import porch  # noqa: E402
from lakevision.dataset import cache, split_table
from lakevision.ingest import capture, labels, landing, stream, tables
from lakevision.notebook import samples  # noqa: E402


def put(places, name, data):
    capture.write(Path(places.landing) / name, data)


def held(spark, places):
    return {row["path"]: row["label"] for row in labels.latest(spark, places).collect()}


@pytest.fixture
def labelled(lakehouse, tmp_path):
    """(spark, where, source CSV, a function that writes its lines and reads it in) of three photographs labelled by name; images planted without an ingest."""
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


def test_corrections_by_csv(labelled):
    spark, places, source, read = labelled
    assert held(spark, places) == {"1_dog.jpg": "dog", "2_dog.jpg": "dog", "_raw:3_cat.jpg": "cat"}
    head = "path,label,labelled_at,author"
    lines = [
        head,
        "1_dog.jpg,fox,2025-01-01T00:00:00Z,Ada",
        "2_dog.jpg,wolf,2026-02-01,",
        "2_dog.jpg,,2026-02-02T08:00:00+02:00,Ada",
        "nobody.jpg,cow,2026-02-02,",
    ]
    assert read(*lines) == (4, ["nobody.jpg"])
    said = held(spark, places)
    # What was written down outranks the path, though it is older; an empty label takes the label away.
    assert (said["1_dog.jpg"], said["2_dog.jpg"], said["_raw:3_cat.jpg"]) == ("fox", None, "cat")
    assert read(*lines) == (0, ["nobody.jpg"]), "run again it adds nothing"
    assert read(*lines, "1_dog.jpg,dingo,2026-03-01,", "_raw:3_cat.jpg,lynx,2026-03-01,")[0] == 2
    assert held(spark, places)["1_dog.jpg"] == "dingo"
    assert held(spark, places)["_raw:3_cat.jpg"] == "lynx", "a name that landed with its colon is found as it is"
    assert read(head, "1_dog.jpg,hyena,2026-02-15,")[0] == 0, "an older opinion does not come late"
    assert (
        spark.table(places.table("labels")).count() == 9
        and spark.table(places.table("labels")).where("author = 'Ada'").count() == 2
    )


def test_without_times_the_last_line_of_a_path_holds(labelled):
    spark, places, source, read = labelled
    assert read("path,label", "1_dog.jpg,fox", "1_dog.jpg,dingo", at=1_780_000_000)[0] == 1
    assert held(spark, places)["1_dog.jpg"] == "dingo"
    assert read("path,label", "1_dog.jpg,fox", "1_dog.jpg,dingo", at=1_780_000_100)[0] == 0, "saved again unchanged"
    assert read("path,label", "1_dog.jpg,fox", "1_dog.jpg,dingo", "1_dog.jpg,jackal", at=1_780_000_200)[0] == 1
    assert held(spark, places)["1_dog.jpg"] == "jackal"


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param(b"path,labl\nx,y\n", "expected the columns path,label", id="a column missing"),
        pytest.param(b"path,label,colour\nx,y,z\n", "colour", id="a column unknown"),
        pytest.param(b"path;label\nx;y\n", "expected the columns", id="semicolons"),
        pytest.param(b"", "found none", id="nothing"),
        pytest.param(
            b"path,label,labelled_at\nx,y,1 May\n", "line 2: labelled_at '1 May' is not an ISO 8601 time", id="bad time"
        ),
        pytest.param(b"path,label\nx,y,z\n", "line 2: expected 2 fields", id="a field too many"),
        pytest.param(b"path,label\nx\n", "line 2: expected 2 fields", id="a field missing"),
        pytest.param("path,label\nx,größe\n".encode("latin-1"), "not UTF-8", id="Latin-1"),
    ],
)
def test_a_bad_csv_says_what_is_wrong(tmp_path, text, message):
    source = tmp_path / "labels.csv"
    source.write_bytes(text)
    with pytest.raises(labels.BadLabels, match=message):
        labels._csv(None, str(source), None)  # before Spark is asked for anything


def test_a_table_of_labels(labelled):
    spark, places, _, _ = labelled
    given = spark.createDataFrame(
        [("1_dog.jpg", " fox "), ("2_dog.jpg", " "), ("nobody.jpg", "cow")], "path string, label string"
    )
    given.write.format("delta").save(f"{places.warehouse}/given")
    name = f"{places.schema}.given"
    spark.sql(f"CREATE TABLE {name} USING delta LOCATION '{places.warehouse}/given'")
    assert labels.add_from_source(spark, places, name) == (3, ["nobody.jpg"])
    said = held(spark, places)
    assert (said["1_dog.jpg"], said["2_dog.jpg"]) == ("fox", None)
    assert labels.add_from_source(spark, places, name) == (0, ["nobody.jpg"])
    with pytest.raises(FileNotFoundError, match="there is no table"):
        labels.add_from_source(spark, places, f"{places.schema}.absent")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        labels.add_from_source(spark, places, "absent.csv")
    with pytest.raises(labels.BadLabels, match="expected the columns"):
        labels.add_from_source(spark, places, places.table("images"))


def test_tables_carry_what_they_promise(labelled):
    spark, places, _, _ = labelled
    for name, table in tables.TABLES.items():
        described = {row.col_name: row.comment for row in spark.sql(f"DESCRIBE TABLE {places.table(name)}").collect()}
        assert {column.name: column.comment for column in table.columns}.items() <= described.items()
        detail = spark.sql(f"DESCRIBE DETAIL {places.table(name)}").first()
        assert detail["properties"]["delta.enableChangeDataFeed"] == "true"
        assert tuple(detail["clusteringColumns"] if "clusteringColumns" in detail else ()) in (table.cluster, ())
    extended = "\n".join(str(row) for row in spark.sql(f"DESCRIBE TABLE EXTENDED {places.table('images')}").collect())
    assert "device" in extended and "captured_at" in extended
    good = spark.table(places.table("images")).limit(1)
    for column, value in (
        ("sha256", "'short'"),
        ("length", "0"),
        ("captured_from", "'guess'"),
        ("duplicate_of", "path"),
    ):
        with pytest.raises(Exception, match="(?i)constraint"):
            good.selectExpr(
                *(
                    name
                    if name != column
                    else f"CAST({value} AS {'bigint' if column == 'length' else 'string'}) AS {column}"
                    for name in good.columns
                )
            ).writeTo(places.table("images")).append()
    spark.sql(f"ALTER TABLE {places.table('labels')} ADD COLUMN colour string")
    with pytest.raises(tables.OtherSchema, match="table labels .*colour: string in the table, unknown here.*storage.schema"):
        tables.create(spark, places)


def test_copies_across_batches_and_runs(lakehouse):
    """Beside a rejected file in the same chunk: hashes must keep all their bits."""
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


def test_without_content_everything_downstream_reads_the_landing_zone(lakehouse):
    spark, make = lakehouse
    cfg, places = make("ingest.keep_content=false", "ingest.labels=name")
    for index in range(12):
        put(places, f"{index:02d}_{'dog' if index % 2 else 'cat'}.jpg", encoded(picture(index)))
    put(places, "bad.jpg", b"no image")
    done = stream.ingest(spark, cfg, places)
    assert (done.images, done.rejected) == (12, 1)
    assert spark.table(places.table("images")).where("content IS NOT NULL").count() == 0
    assert bytes(spark.table(places.table("rejected_images")).first()["content"]) == b"no image", (
        "what is no photograph is kept, always"
    )
    version = tables.version(spark, places, "images")
    placements = split_table.metadata(spark, places, version).sort_values("path", ignore_index=True)
    placements = placements.assign(episode=placements["path"], split=["train"] * 6 + ["validation"] * 3 + ["test"] * 3)[
        ["path", "sha256", "label", "episode", "split"]
    ]
    built = cache.build(spark, cfg, places, placements, version)
    assert built.counts == {"train": 6, "validation": 3, "test": 3}
    assert spark.read.parquet(built.folder + "/split=test").count() == 3
    split_table.keep_split(spark, places, placements.assign(reason="as the test likes"), "a scheme", version)
    shown = samples.held_out(spark, places, "a scheme", version, 5)
    assert (
        list(shown["image"]) == [Path(places.landing, path).read_bytes() for path in shown["path"]] and len(shown) == 3
    )

    (Path(places.landing) / "10_cat.jpg").write_bytes(encoded(picture(77)))
    with pytest.raises(landing.Changed, match="10_cat.jpg: other bytes"):
        samples.held_out(spark, places, "a scheme", version, 5)
    shutil.rmtree(places.cache)
    (Path(places.landing) / "10_cat.jpg").unlink()
    with pytest.raises(Exception, match="10_cat.jpg: No such file"):
        cache.build(spark, cfg, places, placements, version)


def test_maintenance_makes_few_files_of_many_only_when_it_is_due(labelled):
    spark, places, _, _ = labelled
    for day in (2, 3):
        labels.add_from_paths(
            spark, places, [(f"{day}_dog.jpg", datetime(2026, 1, day, tzinfo=UTC))], "name", check=False
        )
    said, files = held(spark, places), spark.table(places.table("labels")).inputFiles()
    assert set(tables.maintain(spark, places, 7, 90)["now"]) == {"not due"}, "a young table waits"
    assert set(tables.maintain(spark, places, 0, 90)["now"]) == {"never: ingest.maintenance_days is 0"}
    assert set(tables.maintain(spark, places, 1e-6, 90)["now"]) == {"OPTIMIZE, VACUUM"}
    assert len(spark.table(places.table("labels")).inputFiles()) < len(files) and held(spark, places) == said
    left = {path.name for path in Path(places.warehouse, "labels").glob("*.parquet")}
    assert {file.rsplit("/", 1)[1] for file in files} <= left, "VACUUM leaves what the retention covers"
    properties = {
        row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {places.table('labels')}").collect()
    }
    assert properties["delta.deletedFileRetentionDuration"] == "interval 90 days"
    assert set(tables.maintain(spark, places, 7, 90)["now"]) == {"not due"}
