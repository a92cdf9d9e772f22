"""The catalogue and the static attributes of users, from their sources."""

from __future__ import annotations

import duckdb

from segflow.config import EventSource, ItemSource, SourceConfig, UserSource
from segflow.errors import UserError
from segflow.events.mapping import ITEMS_VIEW, check_columns
from segflow.events.source import columns as columns_of
from segflow.events.source import register
from segflow.sql import identifier, load

USERS_VIEW = "source_users"


def items_query(connection: duckdb.DuckDBPyConnection, source: SourceConfig) -> str:
    """The query of the `items` table. Without a catalogue, items are what the events name, with their id as title."""
    items = source.items or _items_of_events(source.events)
    path = items.path or source.events.path
    register(connection, ITEMS_VIEW, path, items.format if items.path else source.events.format)
    if items.sql is not None:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW prepared_items AS {load(items.sql)}")
    else:
        present = columns_of(connection, ITEMS_VIEW)
        check_columns("source.items.columns", items.columns, present, path)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW prepared_items AS {_mapped(items)}")
    return load("events/items.sql")


def users_query(connection: duckdb.DuckDBPyConnection, source: UserSource | None) -> str:
    """The query of the `users` table: one row per user and attribute; no rows when no attributes are configured."""
    if source is None or not source.attributes:
        return "SELECT NULL::VARCHAR AS user_id, NULL::VARCHAR AS attribute, NULL::VARCHAR AS value LIMIT 0"
    register(connection, USERS_VIEW, source.path, source.format)
    present = columns_of(connection, USERS_VIEW)
    check_columns("source.users", {"user_id": source.user_id, "attributes": source.attributes}, present, source.path)
    parts = (
        f"SELECT CAST({identifier(source.user_id)} AS VARCHAR) AS user_id, '{number}' AS position, "
        f"CAST({identifier(name)} AS VARCHAR) AS value FROM {USERS_VIEW}"
        for number, name in enumerate(source.attributes)
    )
    names = "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in source.attributes) + "]"
    return (
        f"SELECT user_id, {names}[position::INTEGER + 1] AS attribute, min(value) AS value "
        f"FROM ({' UNION ALL '.join(parts)}) WHERE user_id IS NOT NULL AND value IS NOT NULL GROUP BY user_id, position"
    )


def _items_of_events(events: EventSource) -> ItemSource:
    named = events.columns.get("item_id")
    if not named:
        raise UserError("source.items: map `item_id` in source.events.columns, or name a catalogue in source.items")
    return ItemSource(path=None, columns={"item_id": named, "title": named})


def _mapped(items: ItemSource) -> str:
    def text(field: str) -> str:
        named = items.columns.get(field)
        if named is None:
            return "NULL::VARCHAR"
        parts = [
            f"NULLIF(trim(CAST({identifier(one)} AS VARCHAR)), '')"
            for one in ([named] if isinstance(named, str) else named)
        ]
        return parts[0] if len(parts) == 1 else "(" + " || '-' || ".join(parts) + ")"

    price = f"TRY_CAST({text('price')} AS DOUBLE)"
    category = items.columns.get("category", [])
    path = ", ".join(
        f"NULLIF(trim(CAST({identifier(one)} AS VARCHAR)), '')"
        for one in ([category] if isinstance(category, str) else category)
    )
    return (
        f"SELECT {text('item_id')} AS item_id, {text('title')} AS title, "
        f"list_filter([{path}]::VARCHAR[], lambda part: part IS NOT NULL) AS category, {text('brand')} AS brand, "
        f"CASE WHEN isfinite({price}) THEN {price} END AS price FROM {ITEMS_VIEW}"
    )
