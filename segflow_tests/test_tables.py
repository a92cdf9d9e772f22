"""The declared tables: consistent with themselves, and with what DuckDB and Delta can hold."""

from __future__ import annotations

import re

import duckdb
import pytest

from segflow import tables
from segflow.sql import identifier, load
from segflow.storage import Storage

every_table = pytest.mark.parametrize("table", tables.ALL.values(), ids=str)


@pytest.mark.parametrize("name", tables.ALL)
def test_declarations_are_consistent(name: str) -> None:
    table = tables.ALL[name]
    names = table.column_names
    assert table.name == name
    assert len(set(names)) == len(names)
    assert set(table.key) <= set(names)
    assert table.key
    assert set(table.partitions) <= set(names)
    required = {column.name for column in table.columns if not column.nullable}
    assert {*table.key, *table.partitions} <= required
    for column in table.columns:
        assert column.description
        assert column.minimum is None or column.maximum is None or column.minimum < column.maximum


@pytest.mark.parametrize("name", tables.ALL)
def test_every_table_can_be_written_and_read_empty(
    connection: duckdb.DuckDBPyConnection, storage: Storage, name: str
) -> None:
    table = tables.ALL[name]
    columns = ", ".join(f"NULL::{column.type} AS {identifier(column.name)}" for column in table.columns)
    written = storage.write(connection, table, f"SELECT {columns} LIMIT 0", [])
    assert written.total_rows == 0
    assert storage.read(connection, table).schema.names == table.arrow.names
    opened = storage.open(table)
    assert opened is not None
    assert [field.name for field in opened.schema().fields] == table.column_names
    assert [field.nullable for field in opened.schema().fields] == [column.nullable for column in table.columns]


def test_the_statement_gives_each_declared_reason_and_no_other() -> None:
    statements = "".join(load(f"events/{name}.sql") for name in ("flaw", "refused", "bots", "rejected"))
    given = set(re.findall(r"THEN '(\w+)'|SELECT alike\.\*, '(\w+)'", statements))
    assert {one or other for one, other in given} == set(tables.REASONS)
