"""How rows become data files: their schema, the batches they come in, and how columns are packed."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake

from segflow.sql import identifier
from segflow.storage.partitions import Partition, condition
from segflow.tables import Table

_BATCH_ROWS = 65_536
_REPEATING = ("VARCHAR", "INTEGER", "DOUBLE", "DATE")
"""Types whose values often repeat; of lists, Delta's writer cannot be told."""


def replace(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    opened: DeltaTable,
    staged: str,
    changed: Sequence[Partition],
    commit: CommitProperties,
) -> None:
    """Replace the partitions `changed` by those rows of `staged`, in one commit.

    Rows are kept in the order in which they come: whoever needs another one sorts, and sorting is dear here.
    """
    chosen = condition(table, changed)
    rows = connection.sql(f"SELECT * FROM {identifier(staged)} WHERE {chosen or 'true'}")
    write_deltalake(
        opened,
        _batches(table, rows),
        mode="overwrite",
        partition_by=list(table.partitions) or None,
        predicate=chosen,
        writer_properties=_writer(table),
        commit_properties=commit,
    )


def _batches(table: Table, rows: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    """The rows in batches under the table's own schema: DuckDB calls every column nullable."""
    schema = table.arrow
    reader = rows.to_arrow_reader(_BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in reader))


def _writer(table: Table) -> WriterProperties:
    """A dictionary only where values repeat: elsewhere it is filled, found too large, and thrown away."""
    repeating = [one.name for one in table.columns if one.type in _REPEATING and one.name != table.key[-1]]
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties={name: ColumnProperties(dictionary_enabled=True) for name in repeating},
    )
