"""Tables carry comments and constraints, an old schema is refused, and maintenance runs when due."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from lake import held

from lakevision.ingest import labels, tables

pytestmark = pytest.mark.spark


def test_tables_have_comments_constraints_and_a_known_schema(labelled):
    spark, places, _, _ = labelled
    for name, table in tables.TABLES.items():
        described = {row.col_name: row.comment for row in spark.sql(f"DESCRIBE TABLE {places.table(name)}").collect()}
        assert {column.name: column.comment for column in table.columns}.items() <= described.items()
        detail = spark.sql(f"DESCRIBE DETAIL {places.table(name)}").first()
        assert detail["properties"]["delta.enableChangeDataFeed"] == "true"
        clustering = detail["clusteringColumns"] if "clusteringColumns" in detail else ()  # noqa: SIM401 (Row has no get)
        assert tuple(clustering) in (table.cluster, ())
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
    with pytest.raises(tables.OtherSchema, match="table labels .*colour: string in the table, unknown.*storage.schema"):
        tables.create(spark, places)


def test_maintenance_compacts_a_table_only_when_due(labelled):
    spark, places, _, _ = labelled
    for day in (2, 3):
        labels.add_from_paths(
            spark, places, [(f"{day}_dog.jpg", datetime(2026, 1, day, tzinfo=UTC))], "name", check=False
        )
    before, files = held(spark, places), spark.table(places.table("labels")).inputFiles()
    assert set(tables.maintain(spark, places, 7, 90)["now"]) == {"not due"}, "a new table must wait"
    assert set(tables.maintain(spark, places, 0, 90)["now"]) == {"never: ingest.maintenance_days is 0"}
    assert set(tables.maintain(spark, places, 1e-6, 90)["now"]) == {"OPTIMIZE, VACUUM"}
    assert len(spark.table(places.table("labels")).inputFiles()) < len(files) and held(spark, places) == before
    left = {path.name for path in Path(places.warehouse, "labels").glob("*.parquet")}
    assert {file.rsplit("/", 1)[1] for file in files} <= left, "VACUUM must keep files within the retention"
    properties = {
        row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {places.table('labels')}").collect()
    }
    assert properties["delta.deletedFileRetentionDuration"] == "interval 90 days"
    assert set(tables.maintain(spark, places, 7, 90)["now"]) == {"not due"}
