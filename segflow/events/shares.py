"""Sessions of the stored log on an engine: each span of days and each share of the users is a piece of work.

What does not live here: how sessions are made (`sessions.py`), and who writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import duckdb
import pyarrow as pa

from segflow import tables
from segflow.compute import Engine, Exchange, Reference
from segflow.config import ComputeConfig, SessionConfig, StorageConfig
from segflow.events.days import Days
from segflow.events.sessions import Share, kept, sessions, sessions_of_spans
from segflow.storage import Storage, connect
from segflow.storage.partitions import Key
from segflow.tables import Table

Bounds = Mapping[str, "tuple[Key, Key] | Key"]


@dataclass(frozen=True)
class StoredLog:
    """Events and items as they are now, for any process to read.

    storage: as the settings have it: secrets are named, and each process fills in its own. versions: of the tables, by name.
    """

    storage: StorageConfig
    compute: ComputeConfig
    versions: Mapping[str, int | None]

    @classmethod
    def of(cls, storage: StorageConfig, compute: ComputeConfig) -> StoredLog:
        """The newest versions."""
        opened = Storage(storage.root, storage.options)
        return cls(storage, compute, {table.name: opened.version(table) for table in (tables.EVENTS, tables.ITEMS)})

    def view(self, connection: duckdb.DuckDBPyConnection, table: Table, where: Bounds | None = None) -> None:
        """Make the view of one of the tables, within the bounds."""
        opened = Storage(self.storage.root, self.storage.options)
        opened.view(connection, table, where=where, version=self.versions[table.name])


@dataclass(frozen=True)
class _Piece:
    log: StoredLog
    config: SessionConfig
    days: Days
    where: Bounds
    share: Share
    exchange: Exchange


def stored_sessions(
    engine: Engine,
    connection: duckdb.DuckDBPyConnection,
    log: StoredLog,
    config: SessionConfig,
    parts: Sequence[Days],
    bounds: Callable[[Days], Bounds],
    shares: int = 1,
) -> Iterator[tuple[Days, pa.Table | str]]:
    """What `sessions_of_spans` gives of the stored log, over all workers of the engine if it has several.

    bounds: which events the sessions of a span are made of. shares: of the users in each span, none of which is too large to be
    held at once.
    """
    if not engine.spreads:
        log.view(connection, tables.ITEMS)
        # Spans that follow each other in one process hand on what goes on, and read each event once; sessions are the same.
        yield from sessions_of_spans(
            connection, config, parts, lambda part: log.view(connection, tables.EVENTS, bounds(part)), shares
        )
        return
    pieces = (
        _Piece(log, config, part, bounds(part), (number, shares), engine.exchange)
        for part in parts
        for number in range(shares)
    )
    made = engine.imap(_sessions_of, pieces)
    for part in parts:
        found = (one.get() for one in islice(made, shares))
        yield part, next(found) if shares == 1 else kept(connection, found)


def _sessions_of(piece: _Piece) -> Reference:
    with connect(piece.log.compute.model_copy(update={"threads": 1})) as connection:
        piece.log.view(connection, tables.ITEMS)
        piece.log.view(connection, tables.EVENTS, piece.where)
        return piece.exchange.put(sessions(connection, piece.config, *piece.days, piece.share))
