"""Delta tables: atomic replacement of partitions, versions, time travel.

A write stages its rows in DuckDB (which spills, so a partition never has to fit in memory), checks them against the
table's schema, and replaces exactly the named partitions in one commit. Partitions whose content is already there are
left alone, so running the same work twice leaves every table version as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from filelock import FileLock

from segflow.errors import StoreError, UserError
from segflow.secrets import filled
from segflow.sql import identifier
from segflow.storage import checksums
from segflow.storage.checks import Violation, violations
from segflow.storage.content import (
    counted,
    data_files,
    differences,
    digests,
    files_view,
    log_mend,
    path_of,
    what_to_do,
)
from segflow.storage.partitions import Key, Partition, check_key, filters
from segflow.storage.remote import asked, telling, with_waits
from segflow.storage.writing import put
from segflow.tables import Table
from segflow.trouble import at, line


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
        """options: of the object store, as the settings have them. Raises UserError when an environment variable is not set."""
        self.root = root.rstrip("/")
        self.options = with_waits(root, filled(options or {}, os.environ, "storage.options"))

    @property
    def is_local(self) -> bool:
        """Whether the tables are in a folder of this machine."""
        return "://" not in self.root

    def uri(self, table: Table) -> str:
        """Where the table lives."""
        return f"{self.root}/{table.name}"

    def folder(self, table: Table) -> Path:
        """Where the table lives, if that is on this machine."""
        return Path(self.root) / table.name

    def files(self, table: Table) -> list[tuple[Partition, Path]]:
        """The data files of the newest version on this machine, each with its partition."""
        opened = self.open(table)
        return [] if opened is None else data_files(table, opened)

    def open(self, table: Table, version: int | None = None) -> DeltaTable | None:
        """The table at `version`, or the newest version, None if it was never written.

        Raises UserError when it was made with other columns, by another version of segflow, does not answer, has no such
        version, or when its log is not as it was written.
        """
        place = self.uri(table)
        with at(f"{place} (storage.root)"):
            opened = self._opened(table, version)
        if opened is None:
            return None
        differ = ", ".join(differences(opened.schema(), table))
        if differ:
            raise UserError(
                f"{place}: was made by another version of segflow (columns that differ: {differ}); "
                "move storage.root aside and run `segflow run --force`, which makes every table again"
            )
        return opened

    def version(self, table: Table) -> int | None:
        """The newest version, or None if the table was never written."""
        opened = self.open(table)
        return None if opened is None else opened.version()

    def pin(self, table: Table) -> int:
        """The newest version, of an empty table if it was never written, for `commit` to build on."""
        return (self.open(table) or self.create(table)).version()

    @telling()
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

    @telling()
    def rows(self, table: Table) -> dict[Partition, int]:
        """Partition -> number of rows, from the table's own records; no data is read."""
        opened = self.open(table)
        return {} if opened is None else counted(table, opened)

    @telling()
    def view(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        *,
        name: str | None = None,
        where: Mapping[str, tuple[Key, Key] | Key] | None = None,
        version: int | None = None,
    ) -> int | None:
        """Create the DuckDB view `name` (default: the table's name) over the table; the version that it shows.

        `where` maps a partition column to one key or to a half-open range [first, last); only those files are read. A
        table that was never written is an empty view with the right columns, of no version. Raises UserError for files that
        are not as they were written (``checksums``).
        """
        view = name or table.name
        opened = self.open(table, version)
        shown = None if opened is None else opened.version()
        files = [] if opened is None else opened.file_uris(filters(table, where or {}))
        if not files:
            columns = ", ".join(f"NULL::{column.type} AS {identifier(column.name)}" for column in table.columns)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS SELECT {columns} LIMIT 0")
            return shown
        if self.is_local:
            paths = [path_of(file) for file in files]
            if found := checksums.damages(self.folder(table), paths):
                raise UserError(what_to_do(table, found))
            files_view(connection, table, view, paths)
            return shown
        # DuckDB's wheel has no object-store reader; Arrow streams the same files with the table's own credentials.
        assert opened is not None
        source = f"segflow_{view}"
        connection.register(source, opened.to_pyarrow_dataset(partitions=filters(table, where or {})))
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS SELECT * FROM {identifier(source)}")
        return shown

    @telling()
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
        return self.ordered(connection, table, name, columns)

    def ordered(
        self, connection: duckdb.DuckDBPyConnection, table: Table, view: str, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of a `view` over the table as Arrow, ordered by the table's key."""
        selected = ", ".join(identifier(column) for column in columns or table.column_names)
        order = ", ".join(identifier(column) for column in table.key)
        return connection.sql(f"SELECT {selected} FROM {identifier(view)} ORDER BY {order}").to_arrow_table()

    @telling()
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

    @telling()
    def commit(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        staged: str,
        partitions: Sequence[Partition] = ((),),
        *,
        commit: Mapping[str, str] | None = None,
        version: int | None = None,
        allowed: Callable[[], None] | None = None,
    ) -> Written:
        """The second half of `write`, for rows already staged and checked.

        version: what the rows were derived from, if they depend on other partitions of the same table. Raises UserError when
        there is a newer one.
        allowed: asked once the table is open; raises if nothing may be written any more. Whoever else writes the same partitions
        after it was asked is noticed, and it is asked again.
        """
        wanted = [tuple(check_key(key) for key in partition) for partition in partitions]
        found = dict.fromkeys(wanted, (0, "empty")) | digests(connection, table, staged)
        new = {key: found[key] for key in wanted}
        opened, changed = put(self, connection, table, staged, new, commit or {}, version, allowed)
        if self.is_local:
            # What was not replaced was compared just now.
            with at(f"{self.uri(table)} (storage.root)"):
                written = [path for key, path in data_files(table, opened) if key in new]
                log = checksums.commit_files(self.folder(table), opened.version()) if changed else []
                checksums.record(self.folder(table), [*written, *log])
        connection.execute(f"DROP TABLE {identifier(staged)}")
        return Written(
            table,
            opened.version(),
            rows={key: rows for key, (rows, _) in new.items()},
            digests={key: digest for key, (_, digest) in new.items()},
            replaced=changed,
        )

    def create(self, table: Table) -> DeltaTable:
        """The empty table, made once: a second creation changes the metadata under the writes that are under way.

        In an object store there is nothing to lock. There, whoever finds the first version taken does not try the next.
        """
        if self.is_local:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.root}/create.lock") if self.is_local else nullcontext():
            if opened := self.open(table):
                return opened
            try:
                with telling():
                    made = DeltaTable.create(
                        self.uri(table),
                        table.arrow,
                        partition_by=list(table.partitions) or None,
                        storage_options=self.options or None,
                        name=table.name,
                        description=table.description,
                        commit_properties=CommitProperties(max_commit_retries=0),
                    )
                if self.is_local:
                    checksums.record(self.folder(table), checksums.commit_files(self.folder(table), made.version()))
                return made
            except (StoreError, DeltaError):
                # Another process made it, or this one did, and the answer was lost.
                if opened := self.open(table):
                    return opened
                raise

    def _opened(self, table: Table, version: int | None) -> DeltaTable | None:
        """The table, if its log is as it was written."""
        place, folder = self.uri(table), self.folder(table)
        # Asked for before: a commit may arrive meanwhile, and none may go.
        newest = checksums.newest_commit(folder) if self.is_local and version is None else None
        opened, broken = None, None
        try:
            opened = asked(lambda: DeltaTable(place, version=version, storage_options=self.options or None))
        except DeltaError as error:
            if newest is None and version is None and isinstance(error, TableNotFoundError):
                return None
            if line(error):
                raise
            broken = error
        if self.is_local:
            read = checksums.log_files(folder, version if opened is None else opened.version())
            # Delta removes old commits below a checkpoint; without the newest one, the table would be an older version.
            behind = newest is not None and (opened is None or opened.version() < checksums.number_of(newest))
            if found := checksums.damages(folder, [*read, *([newest] if newest and behind else [])]):
                raise UserError(log_mend(table, place, f"{found[0].file}: {found[0].says}"))
        if broken:
            says = f"cannot be read ({str(broken).splitlines()[0]})"
            if version is not None:
                gone = "versions go when users are erased; run it again, on what there is now"
                raise UserError(f"{place}: version {version} {says}; {gone}") from broken
            raise UserError(log_mend(table, place, f"{place}/_delta_log: {says}")) from broken
        return opened
