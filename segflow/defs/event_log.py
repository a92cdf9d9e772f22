"""Dagster's records in sqlite: an event log that stores the events of a range run in one transaction, and patient connections.

A backfill of a year of days announces and records every day of every asset. Dagster hands such events over in batches, but its
sqlite storage opens, commits and closes a database for each of them: minutes for a year. `dagster.yaml` names this class
instead. The database files are the same, so Dagster's own class can read them at any time.

Whoever finds a database locked waits for a minute: a backup or another program may hold it. Dagster's own runs give up after five
seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.runs import SqliteRunStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy import Connection, Engine, NullPool, create_engine

if TYPE_CHECKING:
    from dagster._core.events.log import EventLogEntry

_BATCH = 1000
_PATIENCE = 60
"""Seconds to wait for a locked database."""


class PatientSqliteRunStorage(SqliteRunStorage):
    """Keeps its database in `$DAGSTER_HOME/history`, as Dagster does by default."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PatientSqliteRunStorage:
        return cls.from_local(str(Path(os.environ["DAGSTER_HOME"]) / "history"), inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A transaction. Connections are not kept, so nothing is shared with a process that this one forks."""
        engine = create_engine(self._conn_string, poolclass=NullPool, connect_args={"timeout": _PATIENCE})
        with engine.begin() as connection:
            yield connection


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Keeps its databases in `$DAGSTER_HOME/history/runs`, as Dagster does by default."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(_BATCH))
        self._engines: dict[str, Engine] = {}
        Path(base_dir).mkdir(parents=True, exist_ok=True)
        # Processes that create the index at the same moment leave it broken: the first one creates it alone.
        with FileLock(f"{base_dir}/create.lock"):
            super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchedSqliteEventLogStorage:
        return cls(str(Path(os.environ["DAGSTER_HOME"]) / "history" / "runs"), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        """A transaction on a database file. Its engine is kept: a new one compiles every statement anew.

        Connections are not kept, so nothing is shared with a process that this one forks.
        """
        with self._db_lock:
            if shard not in self._engines:
                self._engines[shard] = create_engine(
                    self.conn_string_for_shard(shard),
                    poolclass=NullPool,
                    connect_args={"timeout": _PATIENCE},
                )
            engine = self._engines[shard]
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store the events of one run, asset events in one transaction per database, the others one by one.

        As for a single event, the run's database gets them and, for asset events, the index across runs; an asset's own row
        keeps its last one.
        """
        of_assets = [one for one in events if one.is_dagster_event and one.dagster_event_type in ASSET_EVENTS]
        for event in events:
            if not event.is_dagster_event or event.dagster_event_type not in ASSET_EVENTS:
                self.store_event(event)
        if not of_assets:
            return
        rows = [self._event_to_row(event) for event in of_assets]
        with self.run_connection(of_assets[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_transaction() as connection:
            insert = SqlEventLogStorageTable.insert().returning(
                SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
            )
            ids = [row[0] for row in connection.execute(insert, rows)]
            self._store_asset_event_tags(connection, of_assets, ids)
            last = {
                event.get_dagster_event().asset_key: (event, row) for event, row in zip(of_assets, ids, strict=True)
            }
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)
