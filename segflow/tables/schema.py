"""What a table is, and the columns that many tables have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

_ARROW = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "REAL": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "BLOB": pa.binary(),
    "VARCHAR[]": pa.list_(pa.string()),
    "REAL[]": pa.list_(pa.float32()),
    "BIGINT[]": pa.list_(pa.int64()),
    "MAP(VARCHAR, DOUBLE)": pa.map_(pa.string(), pa.float64()),
    "MAP(VARCHAR, BIGINT)": pa.map_(pa.string(), pa.int64()),
}


OUTSIDE = {
    "source file": "the files that `source` names",
    "settings": "`segflow.yaml`",
    "partition": "the day, week or segment that is made",
    "language model": "the pre-trained models of `text` and `segments.profiles.namer`",
    "code": "names that the code gives",
}
"""Where values come from that are made from no column."""
ROWS = "*"
"""In place of a column: how many rows there are."""


@dataclass(frozen=True)
class Column:
    """One column. `type` is a DuckDB type; `minimum` and `maximum` bound numbers, `values` lists what text may be.

    origin: what the values are computed from: columns as `table.column`, `table.*` for the number of its rows, words of
        `OUTSIDE`. A key by which a value is looked up counts; what only says which rows there are, or which of them belong
        together, does not. It describes and decides nothing, so it is no part of the column's `repr`, of which code versions
        are made.
    users: whether the values, or those in its lists, are user ids.
    along: the column of lists whose places those of this one share.
    """

    name: str
    type: str
    description: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: Sequence[str] = ()
    origin: tuple[str, ...] = field(default=(), repr=False)
    users: bool = field(default=False, repr=False)
    along: str = field(default="", repr=False)

    def made_from(self, *origin: str) -> Column:
        """The same column with its `origin`; each is named once."""
        return replace(self, origin=tuple(dict.fromkeys(origin)))

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, _ARROW[self.type], nullable=self.nullable)


@dataclass(frozen=True)
class Table:
    """One table. `partitions` are the columns that a write replaces by; `key` identifies a row inside the whole table."""

    name: str
    description: str
    columns: Sequence[Column]
    key: Sequence[str]
    partitions: Sequence[str] = ()

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([column.arrow for column in self.columns])

    @property
    def user_columns(self) -> list[Column]:
        """The columns that hold user ids."""
        return [column for column in self.columns if column.users]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


WEEK = Column("week", "DATE", "first day of the snapshot week: models saw only events before it", origin=("partition",))
USER = Column("user_id", "VARCHAR", "user", users=True)


def columns_made_from(origin: Sequence[str], *columns: Column) -> tuple[Column, ...]:
    """The columns; those without an origin of their own get this one."""
    return tuple(one if one.origin else one.made_from(*origin) for one in columns)


def day(what: str) -> Column:
    return Column("day", "DATE", f"UTC day of {what}")


def share(name: str, description: str, nullable: bool = False) -> Column:
    return Column(name, "DOUBLE", description, nullable, minimum=0.0, maximum=1.0)


def model_table(
    name: str,
    description: str,
    *extra: Column,
    made_from: Sequence[str],
    partitions: Sequence[str] = ("week",),
    key: Sequence[str] | None = None,
) -> Table:
    """A table whose rows hold a model as safetensors bytes: atomic, versioned and stored like any other table.

    made_from: the `origin` of the model. key: which of the extra columns tell the models of a week apart; all of them by default.
    """
    columns = (
        WEEK,
        *extra,
        *columns_made_from(
            made_from,
            Column("model", "BLOB", "parameters and settings as safetensors"),
            Column("metrics", "VARCHAR", "training and validation figures as JSON"),
        ),
    )
    key = [one.name for one in extra] if key is None else key
    return Table(name, description, columns, key=("week", *key), partitions=partitions)
