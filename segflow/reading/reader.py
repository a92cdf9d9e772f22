"""The reader: tables within declared windows, each at the version at which it was first read.

A step is a reader. Whoever works for it elsewhere opens another one by the step's `ReaderSpec`, which is small, can be
pickled, and brings the settings along: another machine need not have the settings file.

Lives here: reading rows. Does not live here: which windows an asset declares (``defs``), and what the rows mean (the other
modules of this package).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from segflow.errors import UserError
from segflow.sql import identifier
from segflow.storage import Storage, connect

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from segflow.config import Config
    from segflow.events.days import Days
    from segflow.tables import Table

Bounds = Mapping[str, Any]
"""Partition column -> one key, or a half-open range of keys."""
_ROWS = 65_536


@dataclass(frozen=True)
class ReaderSpec:
    """What a reader is opened by, in whatever process.

    Attributes:
        name: of the step, for messages.
        week: first day of the snapshot week.
        config: all settings, with absolute paths: what is read must be there under the same address.
        bounds: name of a table -> its declared window; no other table can be read.
        versions: name of a table -> its version; None if it was never written.
    """

    name: str
    week: date
    config: Config
    bounds: Mapping[str, Bounds]
    versions: Mapping[str, int | None]


class Reader(ABC):
    """Reads what one step may read. Open it with `opened`; a `Step` is one too."""

    def __init__(self, name: str, config: Config, storage: Storage, connection: duckdb.DuckDBPyConnection):
        self.name = name
        self.config = config
        self.storage = storage
        self.connection = connection
        self._versions: dict[str, int | None] = {}

    @property
    @abstractmethod
    def week(self) -> date:
        """The first day of the snapshot week."""

    @abstractmethod
    def bounds(self, table: Table, days: Days | None = None) -> Bounds:
        """The declared window of `table`, or the window around `days`."""

    def version(self, table: Table) -> int | None:
        """The version at which `table` is read: the newest when it was first asked for; None if it was never written."""
        if self._versions.get(table.name) is None:
            self._versions[table.name] = self.storage.version(table)
        return self._versions[table.name]

    def view(self, table: Table, name: str | None = None, days: Days | None = None) -> None:
        """A DuckDB view over the declared window of `table`, around all of the step's partitions or around `days`."""
        self._view(table, name or table.name, self.bounds(table, days))

    def read(self, table: Table, columns: list[str] | None = None, **where: date | str) -> pa.Table:
        """The declared window of `table` as Arrow, ordered by its key; `where` narrows it to one partition.

        Raises UserError when nothing is there.
        """
        name, bounds = f"read_{table.name}", {**self.bounds(table), **where}
        self._view(table, name, bounds)
        rows = self.storage.ordered(self.connection, table, name, columns)
        if rows.num_rows == 0 and table.partitions:
            raise self._absent(table, bounds)
        return rows

    def days_of(self, table: Table, columns: list[str]) -> Iterator[pa.Table]:
        """The declared window of a daily `table`, for what is too large to be there at once: in `read`'s order, cut anywhere.

        Until the last part is taken, nothing else can be asked of the reader. Raises UserError when nothing is there.
        """
        import pyarrow as pa

        low, high = self.bounds(table)["day"]
        days = [key[0] for key in self.storage.partitions(table, self.version(table)) if low <= key[0] < high]
        if not days:
            raise self._absent(table, self.bounds(table))
        for day in days:
            self._view(table, f"day_of_{table.name}", {"day": day})
            chosen, order = (", ".join(map(identifier, names)) for names in (columns, table.key))
            rows = self.connection.sql(f"SELECT {chosen} FROM {identifier(f'day_of_{table.name}')} ORDER BY {order}")
            for batch in rows.to_arrow_reader(_ROWS):
                yield pa.Table.from_batches([batch])

    def _absent(self, table: Table, bounds: Bounds) -> UserError:
        wanted = ", ".join(f"{key} {_spell(value)}" for key, value in bounds.items())
        return UserError(f"{self.name}: {table.name} has no rows for {wanted}; materialize those partitions first")

    def query(self, statement: str) -> pa.Table:
        """The rows of a statement over the views."""
        return self.connection.sql(statement).to_arrow_table()

    def _view(self, table: Table, name: str, bounds: Bounds) -> None:
        version = self._versions.get(table.name)
        self._versions[table.name] = self.storage.view(self.connection, table, name=name, where=bounds, version=version)

    def spec(self, tables: Iterable[Table]) -> ReaderSpec:
        """What opens a reader of the same rows of `tables` in another process."""
        tables = list(tables)
        return ReaderSpec(
            self.name,
            self.week,
            self.config,
            {table.name: dict(self.bounds(table)) for table in tables},
            {table.name: self.version(table) for table in tables},
        )


class _Opened(Reader):
    """A reader whose step is elsewhere."""

    def __init__(self, spec: ReaderSpec, storage: Storage, connection: duckdb.DuckDBPyConnection):
        super().__init__(spec.name, spec.config, storage, connection)
        self._spec = spec
        self._versions = dict(spec.versions)

    @property
    def week(self) -> date:
        return self._spec.week

    def bounds(self, table: Table, days: Days | None = None) -> Bounds:
        assert days is None, "only the step itself knows the windows around other days"
        return self._spec.bounds[table.name]


@contextmanager
def opened(spec: ReaderSpec) -> Iterator[Reader]:
    """A reader with a DuckDB connection of its own, in this process."""
    config = spec.config
    with connect(config.compute) as connection:
        yield _Opened(spec, Storage(config.storage.root, config.storage.options), connection)


def _spell(value: Any) -> str:
    return f"{value[0]} to {value[1]} (exclusive)" if isinstance(value, tuple) else str(value)
