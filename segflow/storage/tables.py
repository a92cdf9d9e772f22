"""Delta tables: atomic replacement of partitions, versions, time travel.

A write stages its rows in DuckDB (which spills, so a partition never has to fit in memory), checks them against the
table's schema, and replaces exactly the named partitions in one commit. Partitions whose content is already there are
left alone, so running the same work twice leaves every table version as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from filelock import FileLock

from segflow.errors import UserError
from segflow.sql import identifier, literal
from segflow.storage.checks import Violation, violations
from segflow.storage.partitions import Key, Partition, after, by_column, check_key, condition, filters
from segflow.tables import Table

_BATCH_ROWS = 65_536
_REPEATING = ("VARCHAR", "INTEGER", "DOUBLE", "DATE")
"""Types whose values often repeat; of lists, Delta's writer cannot be told."""


class ViolationsError(Exception):
    """Staged rows break the table's contract; nothing was written."""

    def __init__(self, table: Table, found: Sequence[Violation]):
        self.found = found
        super().__init__(f"{table.name}: nothing written; " + "; ".join(one.message for one in found))


@dataclass(frozen=True)
class Written:
    """What a write did. `digests` and `rows` are by partition; a digest depends on the content, not on row order."""

    table: Table
    version: int
    rows: dict[Partition, int]
    digests: dict[Partition, str]
    replaced: list[Partition] = field(default_factory=list)

    @property
    def total_rows(self) -> int:
        return sum(self.rows.values())

    def __add__(self, later: Written) -> Written:
        """This write and a later one of other partitions of the table."""
        return Written(
            self.table,
            later.version,
            {**self.rows, **later.rows},
            {**self.digests, **later.digests},
            [*self.replaced, *later.replaced],
        )


class Storage:
    """All tables below one root, a local folder or an object-store URI."""

    def __init__(self, root: str, options: Mapping[str, str] | None = None):
        self.root = root.rstrip("/")
        self.options = dict(options or {})

    def uri(self, table: Table) -> str:
        """Where the table lives."""
        return f"{self.root}/{table.name}"

    def open(self, table: Table, version: int | None = None) -> DeltaTable | None:
        """The table at `version` (default: the newest), or None if it was never written.

        Raises UserError when it was made with other columns, by another version of segflow.
        """
        try:
            opened = DeltaTable(self.uri(table), version=version, storage_options=self.options or None)
        except TableNotFoundError:
            return None
        differ = ", ".join(_differences(opened.schema(), table))
        if differ:
            raise UserError(
                f"{self.uri(table)}: was made by another version of segflow (columns that differ: {differ}); "
                "move storage.root aside and run `segflow run --force`, which makes every table again"
            )
        return opened

    def version(self, table: Table) -> int | None:
        """The newest version, or None if the table was never written."""
        opened = self.open(table)
        return None if opened is None else opened.version()

    def pin(self, table: Table) -> int:
        """The newest version, of an empty table if it was never written, for `commit` to build on."""
        return (self.open(table) or self._create(table)).version()

    def partitions(self, table: Table, version: int | None = None) -> list[Partition]:
        """The partitions that hold rows, in order."""
        opened = self.open(table, version)
        if opened is None:
            return []
        types = {column.name: column.type for column in table.columns}
        found = {
            tuple(
                date.fromisoformat(values[name]) if types[name] == "DATE" else values[name] for name in table.partitions
            )
            for values in opened.partitions()
        }
        return sorted(found)

    def rows(self, table: Table) -> dict[Partition, int]:
        """Partition -> number of rows, from the table's own records; no data is read."""
        opened = self.open(table)
        return {} if opened is None else _counted(table, opened)

    def view(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        *,
        name: str | None = None,
        where: Mapping[str, tuple[Key, Key] | Key] | None = None,
        version: int | None = None,
    ) -> None:
        """Create the DuckDB view `name` (default: the table's name) over the table.

        `where` maps a partition column to one key or to a half-open range [first, last); only those files are read. A
        table that was never written is an empty view with the right columns.
        """
        view = identifier(name or table.name)
        opened = self.open(table, version)
        files = [] if opened is None else opened.file_uris(filters(table, where or {}))
        if not files:
            columns = ", ".join(f"NULL::{column.type} AS {identifier(column.name)}" for column in table.columns)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {columns} LIMIT 0")
            return
        if "://" in self.root:
            # DuckDB's wheel has no object-store reader; Arrow streams the same files with the table's own credentials.
            assert opened is not None
            dataset = opened.to_pyarrow_dataset(partitions=filters(table, where or {}))
            source = f"segflow_{name or table.name}"
            connection.register(source, dataset)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM {identifier(source)}")
            return
        # Addresses come percent-encoded; DuckDB wants the path as it is on disk.
        listed = literal(sorted(unquote(str(file).removeprefix("file://")) for file in files))
        hive = ", ".join(
            f"{identifier(column.name)}: {column.type}" for column in table.columns if column.name in table.partitions
        )
        types = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ""
        names = ", ".join(identifier(name) for name in table.column_names)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {names} FROM read_parquet({listed}{types})")

    def read(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        *,
        where: Mapping[str, tuple[Key, Key] | Key] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """The rows as Arrow, ordered by the table's key. For tables known to fit in memory; else use `view`."""
        name = f"read_{table.name}"
        self.view(connection, table, name=name, where=where, version=version)
        selected = ", ".join(identifier(column) for column in columns or table.column_names)
        order = ", ".join(identifier(column) for column in table.key)
        return connection.sql(f"SELECT {selected} FROM {identifier(name)} ORDER BY {order}").to_arrow_table()

    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        query: str,
        partitions: Sequence[Partition] = ((),),
    ) -> str:
        """Run `query` into a temporary table with the columns and types of `table`; return its name.

        Raises ViolationsError when the rows break the table's contract, rows outside `partitions` included.
        """
        name = f"staged_{table.name}"
        columns = ", ".join(
            f"CAST({identifier(column.name)} AS {column.type}) AS {identifier(column.name)}" for column in table.columns
        )
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {identifier(name)} AS SELECT {columns} FROM ({query})")
        if found := [one for one in violations(connection, table, name, partitions) if one.blocking]:
            raise ViolationsError(table, found)
        return name

    def write(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        query: str,
        partitions: Sequence[Partition] = ((),),
        *,
        commit: Mapping[str, str] | None = None,
    ) -> Written:
        """Replace `partitions` of `table` by the rows of `query`, in one atomic commit.

        partitions: the keys to replace, in the order of `table.partitions`; `((),)` for a table without partitions.
        commit: facts to keep with the commit, such as the run that made it.

        Raises ViolationsError when the rows break the table's contract, and UserError for an unsafe key. In both cases,
        and when the process dies, readers go on seeing the version before.
        """
        staged = self.stage(connection, table, query, partitions)
        return self.commit(connection, table, staged, partitions, commit=commit)

    def commit(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        staged: str,
        partitions: Sequence[Partition] = ((),),
        *,
        commit: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> Written:
        """The second half of `write`, for rows already staged and checked.

        version: what the rows were derived from, if they depend on other partitions of the same table. Raises UserError when
        there is a newer one.
        """
        wanted = [tuple(check_key(key) for key in partition) for partition in partitions]
        opened = self.open(table, version) or self._create(table)
        empty = (0, "empty")
        new = dict.fromkeys(wanted, empty) | _digests(connection, table, staged)
        changed = self._changed(connection, table, opened, {key: new[key] for key in wanted})
        if changed:
            # Without retries, a commit that is not the next after the version that was opened is refused.
            properties = CommitProperties(
                custom_metadata=dict(commit or {}), max_commit_retries=None if version is None else 0
            )
            try:
                self._replace(connection, table, opened, staged, changed, properties)
            except CommitFailedError as error:
                if version is None:
                    raise
                raise UserError(
                    f"{table.name}: another run wrote it since this one read it, and one depends on the other; nothing was "
                    "written; make the partitions one after the other"
                ) from error
        connection.execute(f"DROP TABLE {identifier(staged)}")
        return Written(
            table,
            opened.version(),
            rows={key: new[key][0] for key in wanted},
            digests={key: new[key][1] for key in wanted},
            replaced=changed,
        )

    def _changed(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        opened: DeltaTable,
        new: Mapping[Partition, tuple[int, str]],
    ) -> list[Partition]:
        """The partitions that hold other rows than `new`. What has another number of rows need not be read to be known."""
        stored = _counted(table, opened)
        alike = [key for key, (rows, _) in new.items() if rows == stored.get(key, 0)]
        read = [key for key in alike if new[key][0]]
        old = self._stored(connection, table, read, opened.version()) if read else {}
        same = {key for key in alike if not new[key][0] or old[key] == new[key]}
        return [key for key in new if key not in same]

    def _stored(
        self, connection: duckdb.DuckDBPyConnection, table: Table, wanted: Sequence[Partition], version: int
    ) -> dict[Partition, tuple[int, str]]:
        first = {name: (keys[0], keys[-1]) for name, keys in by_column(table, wanted).items()}
        where: dict[str, tuple[Key, Key] | Key] = {
            name: low if low == high or isinstance(low, str) else (low, after(high))
            for name, (low, high) in first.items()
            if low == high or not isinstance(low, str)
        }
        name = f"stored_{table.name}"
        self.view(connection, table, name=name, where=where, version=version)
        return _digests(connection, table, name)

    def _create(self, table: Table) -> DeltaTable:
        """The empty table, made once: a second creation changes the metadata under the writes that are under way.

        On an object store there is nothing to lock; there, make the first write of a table alone.
        """
        local = "://" not in self.root
        if local:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.root}/create.lock") if local else nullcontext():
            return self.open(table) or DeltaTable.create(
                self.uri(table),
                table.arrow,
                partition_by=list(table.partitions) or None,
                storage_options=self.options or None,
                name=table.name,
                description=table.description,
            )

    def _replace(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        opened: DeltaTable,
        staged: str,
        changed: Sequence[Partition],
        commit: CommitProperties,
    ) -> None:
        """Rows are kept in the order in which they come: whoever needs another one sorts, and sorting is dear here."""
        chosen = condition(table, changed)
        rows = connection.sql(f"SELECT * FROM {identifier(staged)} WHERE {chosen or 'true'}")
        write_deltalake(
            opened,
            _nullability(table, rows.to_arrow_reader(_BATCH_ROWS)),
            mode="overwrite",
            partition_by=list(table.partitions) or None,
            predicate=chosen,
            writer_properties=_writer(table),
            commit_properties=commit,
        )


def _differences(stored: Schema, table: Table) -> list[str]:
    """The columns that are stored or declared alone, or of another type."""
    there = {column.name: str(column.type) for column in stored.fields}
    declared = {column.name: str(column.type) for column in Schema.from_arrow(table.arrow).fields}
    return sorted(name for name in there.keys() | declared.keys() if there.get(name) != declared.get(name))


def _nullability(table: Table, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The batches under the table's own schema: DuckDB calls every column nullable."""
    schema = table.arrow
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


def _counted(table: Table, opened: DeltaTable) -> dict[Partition, int]:
    """Partition -> number of rows."""
    counted: dict[Partition, int] = {}
    for action in pa.table(opened.get_add_actions(flatten=True)).to_pylist():
        key = tuple(action[f"partition.{name}"] for name in table.partitions)
        counted[key] = counted.get(key, 0) + action["num_records"]
    return counted


def _digests(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> dict[Partition, tuple[int, str]]:
    """Rows and content digest of each partition in `source`; the digest does not depend on row order."""
    columns = ", ".join(identifier(name) for name in table.column_names if name not in table.partitions)
    keys = ", ".join(identifier(name) for name in table.partitions)
    found = connection.execute(
        f"SELECT {keys + ', ' if keys else ''} count(*), sum(mark::HUGEINT)::VARCHAR, bit_xor(mark)::VARCHAR "
        f"FROM (SELECT {keys + ', ' if keys else ''} hash({columns}) AS mark FROM {identifier(source)}) "
        f"{'GROUP BY ' + keys if keys else ''}"
    ).fetchall()
    width = len(table.partitions)
    return {
        tuple(row[:width]): (row[width], _short(f"{row[width]}:{row[width + 1]}:{row[width + 2]}")) for row in found
    }


def _short(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]
