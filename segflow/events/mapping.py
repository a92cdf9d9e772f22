"""From source columns to the event schema: each field cast on its own, failures kept as text.

Produces SQL; runs nothing but `DESCRIBE`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import duckdb

from segflow.config import CalendarConfig, EventSource, ItemSource
from segflow.errors import UserError
from segflow.events.source import columns as columns_of
from segflow.events.source import register
from segflow.sql import identifier, literal, load

EVENTS_VIEW = "source_events"
ITEMS_VIEW = "source_items"

_NUMBERS = ("value", "quantity")
_TEXTS = ("event_id", "user_id", "item_id", "event_type", "session_id", "text")
_DAY_US = 86_400_000_000
_ZONED = r"([Zz]|:[0-9.]+[+-][0-9]{2}(:?[0-9]{2})?|\s[A-Za-z][A-Za-z0-9_/+-]*)$"


def mapped_events(connection: duckdb.DuckDBPyConnection, source: EventSource, items: ItemSource | None) -> str:
    """The query that yields the source rows in the event schema, without the partition day.

    Registers the source views. Raises UserError naming the setting when a mapped column does not exist.
    """
    register(connection, EVENTS_VIEW, source.path, source.format)
    if source.sql is not None:
        if items is not None:
            register(connection, ITEMS_VIEW, items.path or source.path, items.format)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW prepared_events AS {load(source.sql)}")
        types = columns_of(connection, "prepared_events")
        check_columns("source.events.sql", {"user_id": "user_id", "ts": "ts"}, types, source.sql)
        return _query(
            "prepared_events", types, {name: name for name in (*_TEXTS, *_NUMBERS, "ts") if name in types}, source
        )
    types = columns_of(connection, EVENTS_VIEW)
    check_columns("source.events.columns", source.columns, types, source.path)
    return _query(EVENTS_VIEW, types, source.columns, source)


def check_columns(setting: str, mapping: Mapping[str, str | list[str]], present: Mapping[str, str], path: str) -> None:
    """Raise UserError for the first mapped column that the source does not have."""
    for field, named in mapping.items():
        for column in [named] if isinstance(named, str) else named:
            if column not in present:
                own = [name for name in present if name not in ("source_file", "source_row")]
                near = difflib.get_close_matches(column, own, n=1)
                hint = f" (did you mean '{near[0]}'?)" if near else ""
                raise UserError(f"{path}: {setting}.{field}: no column '{column}'{hint}; it has: {', '.join(own)}")


def with_day(query: str, calendar: CalendarConfig) -> str:
    """`query` with the partition day. Rows without a date inside the calendar go to its first day: none is lost."""
    end = literal(calendar.end) if calendar.end else "DATE '9999-12-31'"
    day = f"DATE '1970-01-01' + CAST(floor(epoch_us(ts) / {_DAY_US}) AS INTEGER)"
    start = literal(calendar.start)
    return f"SELECT CASE WHEN {day} >= {start} AND {day} < {end} THEN {day} ELSE {start} END AS day, * FROM ({query})"


def _query(view: str, types: Mapping[str, str], mapping: Mapping[str, str | list[str]], source: EventSource) -> str:
    fields: dict[str, str] = {}
    failures: list[str] = []
    for name in _TEXTS:
        fields[name] = _text(mapping.get(name), types)
    if "event_type" in mapping:
        fields["event_type"] = f"lower({fields['event_type']})"
    elif source.event_type:
        fields["event_type"] = literal(source.event_type.lower())
    for name in _NUMBERS:
        if name in mapping:
            original = _text(mapping[name], types)
            fields[name] = f"CASE WHEN isfinite(TRY_CAST({original} AS DOUBLE)) THEN TRY_CAST({original} AS DOUBLE) END"
            failures.append(_failure(name, original, fields[name]))
        else:
            fields[name] = "NULL"
    moment = str(mapping["ts"])
    fields["ts"] = _moment(moment, types[moment], source.timezone)
    failures.append(_failure("ts", _text(moment, types), fields["ts"]))
    fields["unparsed"] = f"NULLIF(concat_ws('; ', {', '.join(failures)}), '')"
    selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    return f"SELECT {selected}, source_file, source_row FROM {identifier(view)}"


def _failure(field: str, original: str, cast: str) -> str:
    return f"CASE WHEN {original} IS NOT NULL AND {cast} IS NULL THEN '{field}=' || {original} END"


def _text(mapped: str | list[str] | None, types: Mapping[str, str]) -> str:
    """The trimmed text of a column, empty as NULL; several columns joined by '-'."""
    if mapped is None:
        return "NULL::VARCHAR"
    if isinstance(mapped, list):
        return "(" + " || '-' || ".join(_text(one, types) for one in mapped) + ")"
    if types[mapped].upper() == "VARCHAR":
        return f"NULLIF(trim({identifier(mapped)}), '')"
    if types[mapped].upper() in ("DOUBLE", "FLOAT"):
        # Not-a-number is how data frames write a missing value.
        return f"CASE WHEN NOT isnan({identifier(mapped)}) THEN CAST({identifier(mapped)} AS VARCHAR) END"
    return f"CAST({identifier(mapped)} AS VARCHAR)"


def _moment(column: str, kind: str, zone: str) -> str:
    """A TIMESTAMPTZ from a zoned or zone-less time, text, or seconds, milli- or microseconds since 1970."""
    name, kind = identifier(column), kind.upper()
    if kind == "TIMESTAMP WITH TIME ZONE":
        return name
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"timezone({literal(zone)}, CAST({name} AS TIMESTAMP))"
    number = f"TRY_CAST({name} AS DOUBLE)"
    # Beyond the last bound (the year 9892), infinite or not a number: no time, and no reason to fail the whole log.
    epoch = (
        f"make_timestamptz(CAST({number} * CASE WHEN abs({number}) < 1e11 THEN 1e6 WHEN abs({number}) < 1e14 THEN 1e3 "
        f"WHEN abs({number}) < 2.5e17 THEN 1 END AS BIGINT))"
    )
    if kind != "VARCHAR":
        return epoch
    # DuckDB wants an offset right behind the time, and casting to TIMESTAMP would drop a zone's name, or a PM, unseen.
    text = f"regexp_replace(trim({name}), '\\s+([Zz]|[+-][0-9:]+)$', '\\1')"
    return (
        f"CASE WHEN {number} IS NOT NULL THEN {epoch} WHEN regexp_matches({text}, {literal(_ZONED)}) "
        f"THEN TRY_CAST({text} AS TIMESTAMPTZ) ELSE timezone({literal(zone)}, TRY_CAST({text} AS TIMESTAMP)) END"
    )
