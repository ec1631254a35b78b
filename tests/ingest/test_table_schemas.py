"""Each schema is complete: unique columns, a comment for each, and clustering by existing columns."""

import pytest

from lakevision.ingest import table_schemas, tables

TABLES = table_schemas.TABLES | {"leases": table_schemas.LEASES}


@pytest.mark.parametrize("name", TABLES)
def test_schema_has_unique_columns_with_comments(name):
    table = TABLES[name]
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names)) and table.comment
    assert all(column.type and column.comment for column in table.columns)
    assert set(table.cluster) <= set(names)


def test_skipping_columns_exist_in_a_table():
    assert set(table_schemas.SKIPPING) <= {column.name for table in TABLES.values() for column in table.columns}


def test_clustering_columns_have_skipping_statistics():
    """Delta clusters by columns with statistics only."""
    assert {name for table in TABLES.values() for name in table.cluster} <= set(table_schemas.SKIPPING)


def test_schemas_are_attributes_of_tables():
    assert tables.TABLES is table_schemas.TABLES and tables.IMAGES is table_schemas.IMAGES
