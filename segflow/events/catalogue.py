"""The catalogue, the static attributes of users and the ties between them, from their sources."""

from __future__ import annotations

import re
from string import Formatter

import duckdb

from segflow.config import EventSource, ItemSource, SourceConfig, TextConfig
from segflow.errors import UserError
from segflow.events.mapping import ITEMS_VIEW, check_columns, items_input, prepare, register_inputs
from segflow.events.source import columns as columns_of
from segflow.events.source import register, text_of
from segflow.events.user_ids import UserIds
from segflow.sql import literal, render

USERS_VIEW = "source_users"
EDGES_VIEW = "source_edges"

# RE2's own classes of blanks and of word edges know ASCII only.
_BLANK = r"[\p{Z}\p{Cc}]+"
_OPENING, _CLOSING = re.compile(r"[(\[]*$"), re.compile(r"^[)\]]*")
_BEFORE, _AFTER = r"^|[^\p{L}\p{N}]", r"$|[^\p{L}\p{N}]"


def items_query(connection: duckdb.DuckDBPyConnection, source: SourceConfig, text: TextConfig | None = None) -> str:
    """The query of the `items` table. Without a catalogue, items are what the events name, with their id as title.

    text: how item texts are composed; by the defaults without it.
    """
    text = text or TextConfig()
    items = source.items or _items_of_events(source.events)
    read = items_input(source)
    # Rows of events that are broken go to quarantine; a broken catalogue is refused.
    of_events = items.path is None and source.events.sql is None and items.sql is None
    register(connection, ITEMS_VIEW, read, mapped=() if of_events else None)
    if items.sql is not None:
        register_inputs(connection, source)
        prepare(connection, "prepared_items", items.sql, source)
    else:
        present = columns_of(connection, ITEMS_VIEW)
        check_columns("source.items.columns", items.columns, present, read.path)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW prepared_items AS {_mapped(items, present)}")
    connection.execute(f"CREATE OR REPLACE TEMP MACRO cleaned(words) AS {_cleaned('words', text)}")
    return render("events/items.sql", lowercase=text.lowercase, **_template(text.template))


def _template(template: str) -> dict[str, str | list[str]]:
    """The fields in order, what stands before the first of them and behind each, and the brackets around each.

    Brackets belong to their field: they go where it is empty.
    """
    fields, texts = [], [""]
    for text, name, _, _ in Formatter().parse(template):
        texts[-1] += text
        if name is not None:
            fields.append(name)
            texts.append("")
    opening = [_OPENING.findall(text)[0] for text in texts[:-1]]
    closing = [_CLOSING.findall(text)[0] for text in texts[1:]]
    bare = [_CLOSING.sub("", text, count=1) if place else text for place, text in enumerate(texts)]
    bare = [_OPENING.sub("", text, count=1) if place < len(fields) else text for place, text in enumerate(bare)]
    return {"fields": fields, "before": bare[0], "between": bare[1:], "opening": opening, "closing": closing}


def _cleaned(words: str, text: TextConfig) -> str:
    """The expression of `words` in plain spaces, with units spelled out and without stop phrases; NULL if nothing is left.

    Control characters count as spaces.
    """
    clean = f"regexp_replace({words}, '{_BLANK}', ' ', 'g')"
    for unit in sorted(text.units, key=len, reverse=True):
        found = literal(f"(?i)([0-9]) ?{re.escape(unit)}({_AFTER})")
        spelled = literal(r"\1 " + text.units[unit].replace("\\", r"\\") + r"\2")
        clean = f"regexp_replace({clean}, {found}, {spelled}, 'g')"
    if text.stop_phrases:
        phrases = "|".join(re.escape(phrase) for phrase in sorted(text.stop_phrases, key=len, reverse=True))
        found = literal(f"(?i)({_BEFORE})(?:{phrases})({_AFTER})")
        # Twice, because two phrases side by side share the space between them.
        for _ in range(2):
            clean = rf"regexp_replace({clean}, {found}, '\1\2', 'g')"
    return f"NULLIF(trim(regexp_replace({clean}, ' +', ' ', 'g')), '')"


def users_query(connection: duckdb.DuckDBPyConnection, whole: SourceConfig) -> str:
    """The query of the `users` table: one row per user and attribute; no rows when no attributes are configured."""
    source = whole.users
    if source is None or not source.attributes:
        return "SELECT NULL::VARCHAR AS user_id, NULL::VARCHAR AS attribute, NULL::VARCHAR AS value LIMIT 0"
    register(connection, USERS_VIEW, source)
    present = columns_of(connection, USERS_VIEW)
    check_columns("source.users", {"user_id": source.user_id, "attributes": source.attributes}, present, source.path)
    ids = UserIds.of(whole)
    ids.prepare(connection)
    parts = (
        f"SELECT {ids.sql(_trimmed(source.user_id, present))} AS user_id, {literal(name)} AS attribute, "
        f"{_trimmed(name, present)} AS value FROM {USERS_VIEW}"
        for name in source.attributes
    )
    rows = ids.kept(" UNION ALL ".join(parts), "user_id")
    return (
        f"SELECT user_id, attribute, min(value) AS value FROM ({rows}) "
        "WHERE user_id IS NOT NULL AND value IS NOT NULL GROUP BY user_id, attribute"
    )


def user_edges_query(connection: duckdb.DuckDBPyConnection, source: SourceConfig) -> str:
    """The ties between users as user_id, other_id, weight (> 0); no rows when none are configured.

    A mutual tie stands in both directions. Nobody is tied to themselves; the weights of a tie that is named more than once
    are added; rows without a user or without a positive, finite weight are left out.
    """
    edges = source.edges
    if edges is None:
        return "SELECT NULL::VARCHAR AS user_id, NULL::VARCHAR AS other_id, NULL::DOUBLE AS weight LIMIT 0"
    register(connection, EDGES_VIEW, edges)
    present = columns_of(connection, EDGES_VIEW)
    named: dict[str, str | list[str]] = {"user_id": edges.user_id, "other_id": edges.other_id}
    if edges.weight is not None:
        named["weight"] = edges.weight
    check_columns("source.edges", named, present, edges.path)
    weight = "1.0" if edges.weight is None else f"TRY_CAST({_trimmed(edges.weight, present)} AS DOUBLE)"
    ids = UserIds.of(source)
    ids.prepare(connection)
    user, other = (ids.sql(_trimmed(one, present)) for one in (edges.user_id, edges.other_id))
    ties = f"SELECT {user} AS user_id, {other} AS other_id, CAST({weight} AS DOUBLE) AS weight FROM {EDGES_VIEW}"
    ties = ids.kept(ties, "user_id", "other_id")
    if edges.mutual:
        ties = f"WITH tie AS ({ties}) FROM tie UNION ALL SELECT other_id, user_id, weight FROM tie"
    return (
        f"SELECT user_id, other_id, sum(weight) AS weight FROM ({ties}) "
        "WHERE user_id <> other_id AND weight > 0 AND isfinite(weight) GROUP BY user_id, other_id"
    )


def _items_of_events(events: EventSource) -> ItemSource:
    named = events.columns.get("item_id")
    if not named:
        raise UserError("source.items: map `item_id` in source.events.columns, or name a catalogue in source.items")
    return ItemSource(path=None, columns={"item_id": named, "title": named})


def _mapped(items: ItemSource, present: dict[str, str]) -> str:
    def text(field: str) -> str:
        named = items.columns.get(field)
        if named is None:
            return "NULL::VARCHAR"
        parts = [_trimmed(one, present) for one in ([named] if isinstance(named, str) else named)]
        return parts[0] if len(parts) == 1 else "(" + " || '-' || ".join(parts) + ")"

    price = f"TRY_CAST({text('price')} AS DOUBLE)"
    category = items.columns.get("category", [])
    path = ", ".join(_trimmed(one, present) for one in ([category] if isinstance(category, str) else category))
    return (
        f"SELECT {text('item_id')} AS item_id, {text('title')} AS title, "
        f"list_filter([{path}]::VARCHAR[], lambda part: part IS NOT NULL) AS category, {text('brand')} AS brand, "
        f"CASE WHEN isfinite({price}) THEN {price} END AS price FROM {ITEMS_VIEW}"
    )


def _trimmed(column: str, present: dict[str, str]) -> str:
    return f"NULLIF(trim({text_of(column, present[column])}), '')"
