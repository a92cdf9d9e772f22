"""From source columns to the event schema: each field cast on its own, failures kept as text.

Produces SQL; runs nothing but `DESCRIBE`. Typed columns are taken as they are: what cannot fail is not checked.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import duckdb

from segflow.config import CalendarConfig, EventSource, Input, SourceConfig
from segflow.errors import UserError
from segflow.events.files import places
from segflow.events.readers import OVERFLOW, Layout
from segflow.events.source import Contents, contents, register, text_of
from segflow.events.source import columns as columns_of
from segflow.events.user_ids import UserIds
from segflow.sql import identifier, literal, load
from segflow.storage import confine

EVENTS_VIEW = "source_events"
ITEMS_VIEW = "source_items"

_NUMBERS = ("value", "quantity")
_TEXTS = ("event_id", "user_id", "item_id", "event_type", "session_id", "text")
_REQUIRED = ("user_id", "ts", "event_type")
_ZONED = r"([Zz]|:[0-9.]+[+-][0-9]{2}(:?[0-9]{2})?|\s[A-Za-z][A-Za-z0-9_/+-]*)$"
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NOTHING = "NULL::VARCHAR"
_UNIT_US = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
# Beyond the last bound of microseconds (the year 9892), infinite or not a number: no time, and no reason to fail the whole log.
_LAST_US = 250_000_000_000_000_000

Columns: TypeAlias = Mapping[str, str | list[str]]


def mapped_events(
    connection: duckdb.DuckDBPyConnection,
    source: SourceConfig,
    only: Collection[str] | None = None,
    required: Collection[str] = _REQUIRED,
) -> str:
    """The query that yields the source rows in the event schema, without the partition day and without suppressed users.

    only: names of the event files to read; all without it. required: event fields whose column every file must have.

    Registers the views that a statement of the source reads. Raises UserError naming the setting when a mapped column does
    not exist, and naming the file when it lacks a required one.
    """
    events, ids = source.events, UserIds.of(source)
    ids.prepare(connection)
    if events.sql is not None:
        return ids.kept(_prepared(connection, source, ids, only), "user_id")
    found = mapped_layouts(connection, source, only, required)
    # Without rows the query still needs columns.
    layouts = found or mapped_layouts(connection, source, None, ())[:1]
    queries = []
    for layout in layouts:
        types = {**dict.fromkeys(layout.late, "VARCHAR"), **layout.columns}
        queries.append(_query(f"({layout.rows})", types, events.columns, events, ids, layout.overflow))
    query = ids.kept(" UNION ALL ".join(queries), "user_id")
    return query if found else f"SELECT * FROM ({query}) WHERE false"


def mapped_layouts(
    connection: duckdb.DuckDBPyConnection,
    source: SourceConfig,
    only: Collection[str] | None = None,
    required: Collection[str] = _REQUIRED,
) -> list[Layout]:
    """The chosen event files that hold rows, by what columns they have. For the arguments see `mapped_events`.

    Raises UserError when a mapped column is in none of the files, and naming the file when it lacks a required one.
    """
    events = source.events
    found = contents(connection, events, only, mapped_columns(events)).layouts
    present = Contents(found, []).columns
    if not all(column in present for column in mapped_columns(events)):
        # What the chosen files lack, others may have.
        present = contents(connection, events, None, mapped_columns(events)).columns
    check_columns("source.events.columns", events.columns, present, events.path)
    for layout in found:
        for field in required:
            for column in _named([events.columns.get(field, [])]):
                if column not in layout.columns:
                    raise UserError(
                        f"{layout.files[0].path}: has no column '{column}', which source.events.columns.{field} names; "
                        "add it to the file, or take the file out of the folder"
                    )
    return found


def mapped_columns(events: EventSource) -> list[str]:
    """The columns of the event files that the mapping reads."""
    return list(dict.fromkeys(_named(events.columns.values())))


def items_input(source: SourceConfig) -> Input:
    """Where the catalogue's columns are read: its own files, or those of the events."""
    items = source.items
    return (
        source.events
        if items is None or items.path is None
        else Input(path=items.path, format=items.format, csv=items.csv)
    )


def register_inputs(connection: duckdb.DuckDBPyConnection, source: SourceConfig) -> None:
    """The views of `source.inputs`. Their rows' `source_file` starts with the name of the input."""
    for name, one in source.inputs.items():
        register(connection, name, one, prefix=f"{name}/")


def prepare(connection: duckdb.DuckDBPyConnection, view: str, statement: str, source: SourceConfig) -> None:
    """Create `view` by a statement of the source's own, which reads the views that are there, or files of the source.

    From then on the connection opens no other file. Raises UserError when the statement is wrong, is no query, or wants more.
    """
    text = load(statement)
    inputs = [source.events, items_input(source), source.users, source.edges, *source.inputs.values()]
    allowed = [places(one.path, one.format) for one in inputs if one is not None]
    confine(
        connection, [one for folders, _ in allowed for one in folders], [one for _, paths in allowed for one in paths]
    )
    try:
        kinds = [one.type for one in duckdb.extract_statements(text)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise UserError(f"{statement}: is not one SELECT; leave only the query, without SET, COPY and the like")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS {text}")
    except duckdb.PermissionException as error:
        raise UserError(
            f"{statement}: {str(error).splitlines()[0]}; statements may read the files of the source only: name the file in "
            "source.inputs and read the view of that name"
        ) from error
    except duckdb.Error as error:
        raise UserError(f"{statement}: {str(error).splitlines()[0]}; correct the statement") from error


def check_columns(setting: str, mapping: Columns, present: Mapping[str, str], path: str) -> None:
    """Raise UserError for the first mapped column that the source does not have."""
    for field, named in mapping.items():
        for column in _named([named]):
            if column not in present:
                own = [name for name in present if name not in ("source_file", "source_row")]
                near = difflib.get_close_matches(column, own, n=1)
                hint = f" (did you mean '{near[0]}'?)" if near else ""
                raise UserError(f"{path}: {setting}.{field}: no column '{column}'{hint}; it has: {', '.join(own)}")


def with_day(query: str, calendar: CalendarConfig, undated: str | None = None) -> str:
    """`query` with the partition day. A row without a date inside the calendar is not lost: it goes to the day `undated`.

    undated: an SQL expression; by default the calendar's first day. A calendar without an end ends with tomorrow, since clocks
    differ; what is dated later than that is a mistake.
    """
    return f"SELECT {day_of(calendar, undated)} AS day, * FROM ({query})"


def day_of(calendar: CalendarConfig, undated: str | None = None) -> str:
    """The partition day of a row with the column `ts`, as an SQL expression. For the arguments see `with_day`."""
    # As plain numbers: the engine's own calendar of zones costs five times as much.
    day = "CAST(make_timestamp(epoch_us(ts)) AS DATE)"
    start, end = literal(calendar.start), literal(calendar.first_to_come)
    return f"CASE WHEN {day} >= {start} AND {day} < {end} THEN {day} ELSE {undated or start} END"


def _prepared(
    connection: duckdb.DuckDBPyConnection, source: SourceConfig, ids: UserIds, only: Collection[str] | None
) -> str:
    """The rows of the source's own statement, mapped by the names of its columns."""
    events = source.events
    assert events.sql is not None
    register(connection, EVENTS_VIEW, events, only)
    if source.items is not None:
        register(connection, ITEMS_VIEW, items_input(source))
    register_inputs(connection, source)
    prepare(connection, "prepared_events", events.sql, source)
    types = columns_of(connection, "prepared_events")
    required = ("user_id", "ts", "source_file", "source_row")
    check_columns("source.events.sql", {name: name for name in required}, types, events.sql)
    return _query(
        "prepared_events", types, {name: name for name in (*_TEXTS, *_NUMBERS, "ts") if name in types}, events, ids
    )


def _query(
    table: str,
    types: Mapping[str, str],
    mapping: Columns,
    source: EventSource,
    ids: UserIds,
    overflow: bool = False,
) -> str:
    fields = expressions(types, mapping, source, ids, overflow)
    selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    return f"SELECT {selected}, source_file, source_row FROM {table}"


def expressions(
    types: Mapping[str, str], mapping: Columns, source: EventSource, ids: UserIds, overflow: bool = False
) -> dict[str, str]:
    """Field -> what it is of the columns of a table, in SQL. Optional columns that `types` lacks are missing values.

    types: column name -> DuckDB type. overflow: whether the table has `source_overflow`.
    """
    fields = {name: _identity(name, mapping, types, ids) for name in _TEXTS}
    fields["event_type"] = _event_type(fields["event_type"], "event_type" in mapping, source)
    failures = [f"'row=fields beyond the header: ' || {OVERFLOW}"] if overflow else []
    for name in _NUMBERS:
        column = mapping.get(name)
        fields[name], failure = _number(name, str(column), types) if column in types else ("NULL::DOUBLE", None)
        failures += [failure] if failure else []
    fields["ts"], failure = _moment(str(mapping["ts"]), types, source)
    failures += [failure] if failure else []
    if ids.hashed:
        # A row whose fields are out of place may have its user anywhere; file and row lead back to it.
        failures = [f"split_part({one}, '=', 1) || '=(withheld)'" for one in failures]
    several = f"NULLIF(concat_ws('; ', {', '.join(failures)}), '')"
    fields["unparsed"] = several if len(failures) > 1 else failures[0] if failures else "NULL::VARCHAR"
    return {name: fields[name] for name in (*_TEXTS[:4], "ts", *_NUMBERS, *_TEXTS[4:], "unparsed")}


def _event_type(text: str, mapped: bool, source: EventSource) -> str:
    if not mapped:
        return literal(source.event_type.lower()) if source.event_type else "NULL::VARCHAR"
    if not source.types:
        return f"lower({text})"
    cases = " ".join(f"WHEN {literal(key.lower())} THEN {literal(name.lower())}" for key, name in source.types.items())
    return f"CASE lower({text}) {cases} ELSE lower({text}) END"


def _failure(field: str, original: str, cast: str) -> str:
    return f"CASE WHEN {original} IS NOT NULL AND {cast} IS NULL THEN '{field}=' || {original} END"


def hides(name: str, mapping: Columns, ids: UserIds) -> bool:
    """Whether the field `name` is hashed, or one of its columns is."""
    users = set(_named([mapping.get("user_id", [])]))
    return ids.hashed and (
        name in ("user_id", *ids.pseudonyms.also) or not users.isdisjoint(_named([mapping.get(name, [])]))
    )


def _identity(name: str, mapping: Columns, types: Mapping[str, str], ids: UserIds) -> str:
    """A field of text; its user ids are pseudonyms if they are to be."""
    mapped = mapping.get(name)
    text = _text(mapped, types)
    if not hides(name, mapping, ids) or text == _NOTHING:
        return text
    if name in ("user_id", *ids.pseudonyms.also):
        return ids.sql(text)
    users = set(_named([mapping["user_id"]]))
    parts = (_text(one, types) for one in _named([mapped or []]))
    shown = [ids.sql(part) if one in users else part for one, part in zip(_named([mapped or []]), parts, strict=True)]
    return "(" + " || '-' || ".join(shown) + ")"


def _text(mapped: str | list[str] | None, types: Mapping[str, str]) -> str:
    """The text of a column without the spaces around it, empty as NULL; several columns joined by '-'."""
    if mapped is None or (isinstance(mapped, str) and mapped not in types):
        return _NOTHING
    if isinstance(mapped, list):
        return "(" + " || '-' || ".join(_text(one, types) for one in mapped) + ")"
    text = text_of(mapped, types[mapped])
    if types[mapped] != "VARCHAR":
        return text
    # Looking at both ends is cheap; trimming makes a new text of each.
    untidy = f"{text} = '' OR starts_with({text}, ' ') OR ends_with({text}, ' ')"
    return f"CASE WHEN {untidy} THEN NULLIF(trim({text}, ' '), '') ELSE {text} END"


def _number(field: str, column: str, types: Mapping[str, str]) -> tuple[str, str | None]:
    """A finite DOUBLE, and what says so when there is none; None if that cannot be."""
    name, kind = identifier(column), types[column]
    if kind in INTEGERS or kind.startswith("DECIMAL"):
        return f"CAST({name} AS DOUBLE)", None
    if kind in ("DOUBLE", "FLOAT"):
        number = f"CASE WHEN isfinite({name}) THEN CAST({name} AS DOUBLE) END"
        return number, f"CASE WHEN isinf({name}) THEN '{field}=' || {name} END"
    original = _text(column, types)
    number = f"CASE WHEN isfinite(TRY_CAST({original} AS DOUBLE)) THEN TRY_CAST({original} AS DOUBLE) END"
    return number, _failure(field, original, number)


def _moment(column: str, types: Mapping[str, str], source: EventSource) -> tuple[str, str | None]:
    """A TIMESTAMPTZ from a zoned or zone-less time, text, or a number since 1970; and what says so when there is none."""
    name, kind = identifier(column), types[column]
    if kind in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"):
        return f"CAST({name} AS TIMESTAMPTZ)", None
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        local = name if kind == "TIMESTAMP" else f"TRY_CAST({name} AS TIMESTAMP)"
        return _in_zone(local, source.timezone), None
    original = _text(column, types)
    if kind in INTEGERS:
        moment = _epoch_of_integer(f"CAST({name} AS BIGINT)", source.unit)
        return moment, _failure("ts", original, moment)
    numeric = kind in ("DOUBLE", "FLOAT", "UBIGINT", "HUGEINT") or kind.startswith("DECIMAL")
    number = f"CAST({name} AS DOUBLE)" if numeric else f"TRY_CAST({original} AS DOUBLE)"
    epoch = _epoch_of_number(number, source.unit)
    if numeric:
        return epoch, _failure("ts", original, epoch)
    zone = source.timezone
    # The two usual ways to write a time come first: they need no pattern matching, which costs more than all the rest.
    plain = f"{original} LIKE '____-__-_____:__:__' AND {original}[19] BETWEEN '0' AND '9'"
    utc = f"{original} LIKE '____-__-_____:__:__Z' OR {original} LIKE '____-__-_____:__:__ UTC'"
    # DuckDB wants an offset right behind the time, and casting to TIMESTAMP would drop a zone's name, or a PM, unseen.
    text = f"regexp_replace({original}, '\\s+([Zz]|[+-][0-9:]+)$', '\\1')"
    moment = (
        f"CASE WHEN {plain} THEN {_in_zone(f'TRY_CAST({original} AS TIMESTAMP)', zone)} "
        f"WHEN {utc} THEN {_in_zone(f'TRY_CAST({original}[:19] AS TIMESTAMP)', 'UTC')} "
        f"WHEN {number} IS NOT NULL THEN {epoch} WHEN regexp_matches({text}, {literal(_ZONED)}) "
        f"THEN TRY_CAST({text} AS TIMESTAMPTZ) ELSE {_in_zone(f'TRY_CAST({text} AS TIMESTAMP)', zone)} END"
    )
    return moment, _failure("ts", original, moment)


def _in_zone(local: str, zone: str) -> str:
    # The calendar of a zone costs more than all the rest of a row, and UTC needs none.
    return f"make_timestamptz(epoch_us({local}))" if zone == "UTC" else f"timezone({literal(zone)}, {local})"


def _epoch_of_integer(number: str, unit: str) -> str:
    """Exact to the microsecond; nanoseconds are rounded down, also before 1970."""
    below = f"({number} - (({number} % 1000) + 1000) % 1000) // 1000"
    scaled = {"s": f"{number} * 1000000", "ms": f"{number} * 1000", "us": number, "ns": below}
    bounds = {
        one: _LAST_US // int(factor) if factor >= 1 else 9_223_372_036_854_774_000 for one, factor in _UNIT_US.items()
    }
    if unit != "auto":
        return (
            f"make_timestamptz(CASE WHEN {number} BETWEEN -{bounds[unit]} AND {bounds[unit]} THEN {scaled[unit]} END)"
        )
    return (
        f"make_timestamptz(CASE WHEN {number} BETWEEN -99999999999 AND 99999999999 THEN {scaled['s']} "
        f"WHEN {number} BETWEEN -99999999999999 AND 99999999999999 THEN {scaled['ms']} "
        f"WHEN {number} BETWEEN -{_LAST_US} AND {_LAST_US} THEN {number} "
        f"WHEN {number} BETWEEN -{bounds['ns']} AND {bounds['ns']} THEN {scaled['ns']} END)"
    )


def _epoch_of_number(number: str, unit: str) -> str:
    factor = f"{_UNIT_US.get(unit, 1.0)!r}"
    if unit == "auto":
        factor = (
            f"CASE WHEN abs({number}) < 1e11 THEN 1e6 WHEN abs({number}) < 1e14 THEN 1e3 "
            f"WHEN abs({number}) < {_LAST_US} THEN 1 WHEN abs({number}) < 9.2e18 THEN 1e-3 END"
        )
    scaled = f"{number} * {factor}"
    return f"make_timestamptz(CASE WHEN abs({scaled}) < {_LAST_US} THEN CAST({scaled} AS BIGINT) END)"


def _named(mapped: Iterable[str | list[str]]) -> Iterable[str]:
    for one in mapped:
        yield from [one] if isinstance(one, str) else one
