"""Labels from paths, CSV files and tables: corrections, missing times, bad sources."""

import pytest
from lake import held

from lakevision.ingest import labels


@pytest.mark.parametrize(
    "path, rule, expected",
    [
        pytest.param("cats/1.jpg", "auto", "cats", id="class folder"),
        pytest.param("train/cats/1_dog.jpg", "auto", "cats", id="folder before name"),
        pytest.param("2021_rpi_front_1.jpg", "auto", "1", id="last field of the name"),
        pytest.param("device=a/date=2026-03-02/x_empty.jpg", "auto", "empty", id="key folders are not classes"),
        pytest.param("cats/1_dog.jpg", "name", "dog", id="name by config"),
        pytest.param("plain.jpg", "auto", None, id="no label"),
        pytest.param(
            "device=p/date=2026-03-02/2026-03-02T081502.123Z_0a1b2c3d_000007_empty.jpg",
            "auto",
            "empty",
            id="the agent's label",
        ),
        pytest.param(
            "device=p/date=2026-03-02/2026-03-02T081502.123Z_0a1b2c3d_000007.jpg",
            "auto",
            None,
            id="the agent's sequence is not a label",
        ),
        pytest.param("cats/1.jpg", "none", None, id="none by config"),
    ],
)
def test_label_follows_from_path_and_rule(path, rule, expected):
    assert labels.of_path(path, rule)[0] == expected


@pytest.mark.spark
def test_csv_corrects_labels_and_adds_nothing_twice(labelled):
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
    current = held(spark, places)
    # A CSV outranks the path, even if the row is older; an empty label removes the label.
    assert (current["1_dog.jpg"], current["2_dog.jpg"], current["_raw:3_cat.jpg"]) == ("fox", None, "cat")
    assert read(*lines) == (0, ["nobody.jpg"]), "a second run must add nothing"
    assert read(*lines, "1_dog.jpg,dingo,2026-03-01,", "_raw:3_cat.jpg,lynx,2026-03-01,")[0] == 2
    assert held(spark, places)["1_dog.jpg"] == "dingo"
    assert held(spark, places)["_raw:3_cat.jpg"] == "lynx", "a name that landed with a colon must match unchanged"
    assert read(head, "1_dog.jpg,hyena,2026-02-15,")[0] == 0, "an older label must not replace a newer one"
    assert (
        spark.table(places.table("labels")).count() == 9
        and spark.table(places.table("labels")).where("author = 'Ada'").count() == 2
    )


@pytest.mark.spark
def test_last_line_of_a_path_holds_without_times(labelled):
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
def test_bad_csv_raises_an_error_with_the_reason(tmp_path, text, message):
    source = tmp_path / "labels.csv"
    source.write_bytes(text)
    with pytest.raises(labels.BadLabels, match=message):
        labels._csv(None, str(source), None)  # fails before it uses Spark


@pytest.mark.spark
def test_table_adds_labels_and_adds_nothing_twice(labelled):
    spark, places, _, _ = labelled
    given = spark.createDataFrame(
        [("1_dog.jpg", " fox "), ("2_dog.jpg", " "), ("nobody.jpg", "cow")], "path string, label string"
    )
    given.write.format("delta").save(f"{places.warehouse}/given")
    name = f"{places.schema}.given"
    spark.sql(f"CREATE TABLE {name} USING delta LOCATION '{places.warehouse}/given'")
    assert labels.add_from_source(spark, places, name) == (3, ["nobody.jpg"])
    current = held(spark, places)
    assert (current["1_dog.jpg"], current["2_dog.jpg"]) == ("fox", None)
    assert labels.add_from_source(spark, places, name) == (0, ["nobody.jpg"])
    with pytest.raises(FileNotFoundError, match="there is no table"):
        labels.add_from_source(spark, places, f"{places.schema}.absent")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        labels.add_from_source(spark, places, "absent.csv")
    with pytest.raises(labels.BadLabels, match="expected the columns"):
        labels.add_from_source(spark, places, places.table("images"))
