"""How staged rows become a version of a table: which partitions hold other rows, how data files are packed, and the commit.

Does not live here: what rows may be (``checks``), and what a caller sees of a table (``tables``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

import duckdb
import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from segflow.errors import StoreError, UserError
from segflow.sql import identifier
from segflow.storage import checksums
from segflow.storage.content import counted, data_files, digests, files_view
from segflow.storage.partitions import Partition, around, condition
from segflow.storage.remote import asked, telling
from segflow.tables import Table
from segflow.trouble import at

if TYPE_CHECKING:
    from segflow.storage.tables import Storage

_TRIES = 3
"""How often a write is begun anew because another one came first, or was not answered."""
_WRITE = "segflow_write"
"""What tells a commit from all others, in what is kept with it."""
_BATCH_ROWS = 65_536
_REPEATING = ("VARCHAR", "INTEGER", "DOUBLE", "DATE")
"""Types whose values often repeat; of lists, Delta's writer cannot be told."""


def put(
    storage: Storage,
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    staged: str,
    new: Mapping[Partition, tuple[int, str]],
    facts: Mapping[str, str],
    version: int | None,
    allowed: Callable[[], None] | None,
) -> tuple[DeltaTable, list[Partition]]:
    """Compare, write and commit, up to `_TRIES` times; the table, and the partitions that were replaced.

    new: partition -> rows and digest of what is staged for it. facts: to keep with the commit. version, allowed: see `commit`.
    """
    mark = uuid4().hex
    # Without retries, a commit that is not the next after the version that was opened is refused.
    properties = CommitProperties(
        custom_metadata={**facts, _WRITE: mark}, max_commit_retries=None if version is None else 0
    )
    place = f"{storage.uri(table)} (storage.root)"
    for tries_left in reversed(range(_TRIES if version is None else 1)):
        with at(place):
            opened = storage.open(table, version) or storage.create(table)
        if allowed is not None:
            allowed()
        changed = _changed(storage, connection, table, opened, new)
        try:
            if changed:
                with at(place), telling():
                    _replace(connection, table, opened, staged, changed, properties)
            return opened, changed
        except (CommitFailedError, StoreError) as error:
            # When the answer to a commit is lost, it is asked for again, and stands in its own way.
            if arrived := _arrived(storage, table, opened.version(), mark):
                return arrived, changed
            if isinstance(error, StoreError):
                if error.tried or not error.passing or not tries_left:
                    raise
            elif not tries_left:
                raise UserError(
                    f"{table.name}: another run wrote it since this one read it, and one depends on the other; nothing was "
                    "written; make the partitions one after the other"
                ) from error
    raise AssertionError("unreachable")


def _arrived(storage: Storage, table: Table, since: int, mark: str) -> DeltaTable | None:
    """The newest version of the table, if the commit with that mark is among those after `since`."""
    opened = storage.open(table)
    if opened is None or opened.version() <= since:
        return None
    later = asked(lambda: opened.history(opened.version() - since))
    return opened if any(one.get(_WRITE) == mark for one in later) else None


def _changed(
    storage: Storage,
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    opened: DeltaTable,
    new: Mapping[Partition, tuple[int, str]],
) -> list[Partition]:
    """The partitions that hold other rows than `new`. What has another number of rows need not be read to be known.

    A damaged file holds other rows, whatever they are.
    """
    stored = counted(table, opened)
    alike = [key for key, (rows, _) in new.items() if rows == stored.get(key, 0)]
    old = _stored(storage, connection, table, {key for key in alike if new[key][0]}, opened)
    same = {key for key in alike if not new[key][0] or old.get(key) == new[key]}
    return [key for key in new if key not in same]


def _stored(
    storage: Storage,
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    wanted: set[Partition],
    opened: DeltaTable,
) -> dict[Partition, tuple[int, str]]:
    """Rows and digest of those of the partitions that can be read."""
    if not wanted:
        return {}
    name = f"stored_{table.name}"
    if not storage.is_local:
        storage.view(connection, table, name=name, where=around(table, wanted), version=opened.version())
        try:
            with telling():
                return digests(connection, table, name)
        except StoreError as error:
            if not error.gone:
                raise
            return {}
    files = [(key, path) for key, path in data_files(table, opened) if key in wanted]
    damaged = {one.file for one in checksums.damages(storage.folder(table), [path for _, path in files])}
    spoilt = {key for key, path in files if path in damaged}
    whole = [path for key, path in files if key not in spoilt]
    if not whole:
        return {}
    files_view(connection, table, name, whole)
    return digests(connection, table, name)


def _replace(
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
