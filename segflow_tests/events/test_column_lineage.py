"""Column lineage by experiment: a column of an upstream table is changed, and exactly the columns that are declared to come
from it come out different.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import CleaningConfig, SessionConfig
from segflow.events import clean
from segflow.events.sessions import sessions
from segflow.representation.text import pool_sessions
from segflow.sql import load
from segflow.tables import Table
from segflow.tables.schema import ROWS

Columns = Mapping[str, list[Any]]

# Some values are missing, so that what fills them in counts too; some events have an id or a session of the source's own.
LOG = """
    SELECT
        'log.csv' AS source_file, n AS source_row, ts, ts::DATE AS day,
        CASE WHEN n % 2 = 0 THEN 'e' || n END AS event_id,
        'u' || hash(n) % 8 AS user_id,
        'i' || hash(n + 1) % 30 AS item_id,
        CASE WHEN n % 11 > 0 THEN ['view', 'buy'][1 + n % 2] END AS event_type,
        CASE WHEN n % 5 > 0 THEN 1.0 + n % 13 END AS value,
        CASE WHEN n % 7 > 0 THEN 1.0 + n % 3 END AS quantity,
        CASE WHEN hash(n) % 8 < 3 THEN 's' || hash(n) % 8 || '-' || n // 40 END AS session_id,
        CASE WHEN n % 3 > 0 THEN 'search ' || n % 17 END AS text,
        NULL::VARCHAR AS unparsed
    FROM (SELECT n, TIMESTAMPTZ '2024-01-02 00:00:00+00' + INTERVAL (n * 350) SECOND AS ts FROM range(1200) AS log(n))
"""
ITEMS = """
    SELECT
        'i' || n AS item_id, 'title ' || n AS title, ['c' || n % 23] AS category, NULL::VARCHAR AS brand,
        CASE WHEN n % 4 > 0 THEN 2.0 + n END AS price, 'text ' || n AS text, md5('text' || n) AS text_hash
    FROM range(30) AS items(n)
"""
CLEANING = CleaningConfig.model_validate(
    {
        "impute": {"event_type": "view", "quantity": 1, "value": "item_price"},
        "type_weights": {"view": 1, "buy": 5, "look": 2},
        "bots": {"enabled": False},
    }
)
VECTORS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


def columns_of(connection: duckdb.DuckDBPyConnection, query: str, order: str) -> Columns:
    found: Columns = connection.sql(f"SELECT * FROM ({query}) ORDER BY {order}").to_arrow_table().to_pydict()
    return found


def typed(table: Table, query: str) -> str:
    """The query with the table's own types, as storage would give it back."""
    return (
        f"SELECT {', '.join(f'CAST({one.name} AS {one.type}) AS {one.name}' for one in table.columns)} FROM ({query})"
    )


def made_events(connection: duckdb.DuckDBPyConnection) -> Columns:
    clean.judge(connection, CLEANING)
    return columns_of(connection, typed(tables.EVENTS, clean.events_query(CLEANING)), "source_file, source_row")


def made_sessions(connection: duckdb.DuckDBPyConnection) -> Columns:
    connection.register("made", sessions(connection, SessionConfig(), date(2024, 1, 1), date(2024, 1, 12)))
    return columns_of(connection, "FROM made", "user_id, start")


def made_user_days(connection: duckdb.DuckDBPyConnection) -> Columns:
    return columns_of(connection, load("events/user_days.sql"), "day, user_id")


def made_vectors(connection: duckdb.DuckDBPyConnection) -> Columns:
    rows = columns_of(connection, "FROM sessions", "user_id, start")
    items = columns_of(connection, "FROM item_embeddings", "item_id")
    vectors = np.asarray(items["vector"], np.float32)
    return {"vector": pool_sessions(pa.array(rows["items"], pa.list_(pa.string())), items["item_id"], vectors).tolist()}


MAKERS: Mapping[Table, Callable[[duckdb.DuckDBPyConnection], Columns]] = {
    tables.EVENTS: made_events,
    tables.SESSIONS: made_sessions,
    tables.USER_DAYS: made_user_days,
    tables.SESSION_EMBEDDINGS: made_vectors,
}
# Each keeps rows, their order and what belongs together as they are; several of one column show different ends of it.
CHANGES: Mapping[str, tuple[str, ...]] = {
    "raw_events.event_id": ("event_id || 'x'",),
    "raw_events.user_id": ("'x' || user_id",),
    "raw_events.item_id": ("'i' || (item_id[2:]::INT + 7) % 30",),
    "raw_events.event_type": ("replace(coalesce(event_type, 'view'), 'view', 'look')",),
    "raw_events.ts": ("ts + INTERVAL 1 MICROSECOND",),
    "raw_events.value": ("coalesce(value, 1) * 2",),
    "raw_events.quantity": ("coalesce(quantity, 1) + 1",),
    "raw_events.session_id": ("session_id || 'x'",),
    "raw_events.text": ("text || 'x'",),
    "items.item_id": ("'i' || (item_id[2:]::INT + 7) % 30",),
    "items.price": ("coalesce(price, 1) * 2",),
    "items.title": ("title || 'x'",),
    "items.category": ("['one']",),
    "items.brand": ("'brand'",),
    "items.text": ("text || 'x'",),
    "events.event_id": ("event_id || 'x'",),
    "events.item_id": ("'i' || item_id[2:]::INT // 2",),
    "events.event_type": ("event_type || 'x'",),
    "events.ts": ("ts + INTERVAL (source_row * 7919 % 900_000) MICROSECOND", "ts + INTERVAL 1 DAY"),
    "events.value": ("value * 2",),
    "events.quantity": ("quantity * 2",),
    "events.weight": ("weight * 2",),
    "events.session_id": ("session_id || 'x'",),
    "events.text": ("'other'",),
    "events.imputed": ("'all'",),
    "sessions.duration": ("duration * 2 + 1",),
    "sessions.items": ("list_transform(items, lambda item: 'i' || item[2:]::INT // 2)",),
    "sessions.text": ("'other'",),
    "sessions.value": ("value * 2",),
    "item_embeddings.item_id": ("'i' || (item_id[2:]::INT + 7) % 30",),
    "item_embeddings.vector": ("list_reverse(vector)",),
    "item_embeddings.text_hash": ("text_hash || 'x'",),
}


@pytest.fixture(scope="module")
def log() -> duckdb.DuckDBPyConnection:
    """The upstream tables of every maker, as views over tables that stay as they are."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")

    def keep(name: str, query: str) -> None:
        connection.execute(f"CREATE TABLE kept_{name} AS {query}")
        look(connection, name, f"FROM kept_{name}")

    keep("raw_events", typed(tables.RAW_EVENTS, LOG))
    keep("items", typed(tables.ITEMS, ITEMS))
    clean.judge(connection, CLEANING)
    keep("events", typed(tables.EVENTS, clean.events_query(CLEANING)))
    connection.register("made", sessions(connection, SessionConfig(), date(2024, 1, 1), date(2024, 1, 12)))
    keep("sessions", "FROM made")
    vectors = pa.table({"item_id": [f"i{n}" for n in range(30)], "vector": VECTORS.tolist(), "text_hash": ["h"] * 30})
    connection.register("made", vectors)
    keep("item_embeddings", "FROM made")
    return connection


@pytest.fixture(scope="module")
def before(log: duckdb.DuckDBPyConnection) -> Mapping[Table, Columns]:
    """What is made when nothing is changed."""
    return {table: make(log) for table, make in MAKERS.items()}


def look(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Make the view `name`."""
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")


def remade(log: duckdb.DuckDBPyConnection, table: Table, upstream: str, query: str) -> Columns:
    """What `table` becomes when its upstream table is the query over `kept_...`."""
    look(log, upstream, query)
    try:
        return MAKERS[table](log)
    finally:
        look(log, upstream, f"FROM kept_{upstream}")


def test_the_log_holds_what_the_experiments_need(before: Mapping[Table, Columns]) -> None:
    assert len(before[tables.EVENTS]["day"]) == 1200
    lengths = [len(items) for items in before[tables.SESSIONS]["items"]]
    assert min(lengths) == 1
    assert max(lengths) > 3


@pytest.mark.parametrize("changed", CHANGES)
def test_exactly_the_declared_columns_change(
    log: duckdb.DuckDBPyConnection, before: Mapping[Table, Columns], changed: str
) -> None:
    upstream, _, column = changed.partition(".")
    for table, old in before.items():
        if not any(one.startswith(f"{upstream}.") for each in table.columns for one in each.origin):
            continue
        different: set[str] = set()
        for expression in CHANGES[changed]:
            after = remade(log, table, upstream, f"SELECT * REPLACE ({expression} AS {column}) FROM kept_{upstream}")
            different |= {name for name, values in old.items() if values != after[name]}
        assert different == {one.name for one in table.columns if changed in one.origin and one.name in old}, table.name


@pytest.mark.parametrize("table", [tables.SESSIONS, tables.USER_DAYS], ids=lambda table: table.name)
def test_a_row_more_is_one_more_in_what_counts_rows(
    log: duckdb.DuckDBPyConnection, before: Mapping[Table, Columns], table: Table
) -> None:
    (counts,) = (one.name for one in table.columns if f"events.{ROWS}" in one.origin)
    after = remade(log, table, "events", "FROM kept_events UNION ALL (FROM kept_events LIMIT 1)")
    assert sum(after[counts]) == sum(before[table][counts]) + 1
