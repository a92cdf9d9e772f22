"""Raw rows in memory, in the order of arrival, with the texts of which few are different as numbers and a list of words.

Users, items and event types occur many times over, and Parquet files hold them in that way already. What the mapping makes of a
word is worked out once for each different word, and nothing spells words out again before they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segflow.config import Config
from segflow.events import words
from segflow.events.files import SourceFile, reading
from segflow.events.mapping import INTEGERS, day_of, expressions, hides, mapped_columns, mapped_layouts
from segflow.events.readers import Layout, kind_of
from segflow.events.source import columns
from segflow.events.user_ids import UserIds
from segflow.sql import identifier
from segflow.tables import RAW_EVENTS

_WORDS = ("user_id", "item_id", "event_type", "session_id", "source_file")


def read(
    connection: duckdb.DuckDBPyConnection,
    config: Config,
    only: Collection[str] | None,
    required: Collection[str],
    undated: str,
    room: int,
) -> list[pa.Table] | None:
    """The rows of the event files named in `only`, mapped and with their day, as `coded` gives them; a table for each layout.

    room: how many rows may be held. None when they are more, or not Parquet that Arrow reads just as DuckDB does: then the
    query of `mapped_events` is the way. For `required` and `undated` see there and at `with_day`.
    """
    events, ids = config.source.events, UserIds.of(config.source)
    if events.sql is not None:
        return None
    ids.prepare(connection)
    parts = []
    for layout in mapped_layouts(connection, config.source, only, required):
        raw = _held(connection, config, layout, room)
        if raw is None:
            return None
        room -= raw.num_rows
        fields = expressions(layout.columns, events.columns, events, ids)
        identity = events.columns.get("event_id")
        whole = isinstance(identity, str) and layout.columns.get(identity) in INTEGERS
        if whole and not hides("event_id", events.columns, ids):
            fields["event_id"] = f"CAST({identifier(str(identity))} AS BIGINT)"
        made = _mapped(connection, raw, fields, _word_columns(config, layout), day_of(config.calendar, undated))
        parts.append(_without_suppressed(connection, made, ids))
    return parts


def coded(rows: pa.Table) -> pa.Table:
    """`rows` as the table raw_events has them, with columns of words.

    What is cheaper to hold is held: event ids may be whole numbers, and a column without a value has no type.
    """
    made = {}
    for column in RAW_EVENTS.arrow:
        values = rows[column.name]
        if values.null_count == len(values):
            made[column.name] = pa.chunked_array([pa.nulls(len(values))])
        elif column.name in _WORDS:
            made[column.name] = words.coded(values)
        elif column.name == "event_id" and pa.types.is_integer(values.type):
            made[column.name] = values
        else:
            made[column.name] = values.cast(column.type)
    return pa.table(made)


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of all parts in the order of arrival: by file, then by place in the file. Words are in one piece."""
    parts = [part for part in parts if part.num_rows] or list(parts[:1]) or [coded(RAW_EVENTS.arrow.empty_table())]
    parts = [_in_one_piece(part) for part in _with_alike_ids(parts)]
    whole = _in_one_piece(pa.concat_tables(parts, promote_options="default"))
    names = words.coded(whole["source_file"])
    file, _ = words.in_alphabetical_order(words.codes(names), words.known(names))
    row = whole["source_row"].to_numpy()
    steps = np.diff(file)
    if ((steps < 0) | ((steps == 0) & (np.diff(row) < 0))).any():
        whole = whole.take(pa.array(np.lexsort((row, file))))
    return whole


def _in_one_piece(rows: pa.Table) -> pa.Table:
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, words.in_one_piece(rows.column(place)))
    return rows


def _with_alike_ids(parts: Sequence[pa.Table]) -> list[pa.Table]:
    """The parts with event ids of one type: numbers if all are, as what cost less than texts."""
    ids = [part["event_id"] for part in parts]
    if len({one.type for one in ids} - {pa.null()}) < 2:
        return list(parts)
    try:
        numbers = [one.cast(pa.int64()) for one in ids]
    except pa.ArrowInvalid:
        numbers = []
    # 007 and 7 are not the same id.
    same = bool(numbers) and all(
        pa.types.is_null(one.type) or number.cast(one.type).equals(one)
        for number, one in zip(numbers, ids, strict=True)
    )
    chosen = numbers if same else [one.cast(pa.string()) for one in ids]
    place = parts[0].column_names.index("event_id")
    return [part.set_column(place, "event_id", one) for part, one in zip(parts, chosen, strict=True)]


def _word_columns(config: Config, layout: Layout) -> dict[str, str]:
    """Field -> the one column of text that it is made of, for fields of words that are made of one."""
    mapped = config.source.events.columns
    found = {field: mapped.get(field) for field in _WORDS}
    return {
        field: column
        for field, column in found.items()
        if isinstance(column, str) and layout.columns.get(column) == "VARCHAR"
    }


def _held(connection: duckdb.DuckDBPyConnection, config: Config, layout: Layout, room: int) -> pa.Table | None:
    """The columns that the mapping reads, with file and row; None as `read` says."""
    named = [column for column in mapped_columns(config.source.events) if column in layout.columns]
    coded = list(_word_columns(config, layout).values())
    if kind_of(config.source.events, layout.files) != "parquet" or any(file.hive for file in layout.files):
        return None
    parts = []
    for file in sorted(layout.files, key=lambda one: one.name):
        with reading(file.path):
            part = _file(file, named, coded, room)
        if part is None:
            return None
        room -= part.num_rows
        parts.append(part)
    raw = _in_one_piece(pa.concat_tables(parts, promote_options="permissive"))
    try:
        connection.register("held_rows", raw)
        kinds = columns(connection, "held_rows")
    except duckdb.NotImplementedException:
        return None
    connection.unregister("held_rows")
    return raw if all(kinds[name] == layout.columns[name] for name in named) else None


def _file(file: SourceFile, named: Sequence[str], coded: Sequence[str], room: int) -> pa.Table | None:
    with file.filesystem.open_input_file(file.place) as opened:
        held = pq.ParquetFile(opened, read_dictionary=list(coded))
        if held.metadata.num_rows > room:
            return None
        try:
            rows = held.read(list(named), use_threads=False)
        except OSError as error:
            # Nothing else tells a way of writing that Arrow does not know from a broken file.
            if "implemented" in str(error):
                return None
            raise
    if rows.column_names != list(named):
        return None
    # Arrow takes any bytes for text.
    rows.validate(full=True)
    name = pa.DictionaryArray.from_arrays(np.zeros(rows.num_rows, np.int32), pa.array([file.name]))
    return rows.append_column("source_file", name).append_column("source_row", pa.array(np.arange(rows.num_rows)))


def _mapped(
    connection: duckdb.DuckDBPyConnection,
    raw: pa.Table,
    fields: Mapping[str, str],
    columns_of_words: Mapping[str, str],
    day: str,
) -> pa.Table:
    """`raw` in the event schema. fields: what each is, in SQL. columns_of_words: of which column's words, for some of them."""
    missing = {name for name, expression in fields.items() if expression.startswith("NULL::")}
    by_row = {name: text for name, text in fields.items() if name not in columns_of_words and name not in missing}
    listed = ", ".join(f"{text} AS {name}" for name, text in by_row.items())
    connection.register("held_rows", raw)
    made = connection.sql(
        f"SELECT {day} AS day, {', '.join(by_row)} FROM (SELECT {listed}, source_file FROM held_rows)"
    ).to_arrow_table()
    connection.unregister("held_rows")
    found: dict[str, pa.ChunkedArray | pa.Array] = {
        "source_file": raw["source_file"],
        "source_row": raw["source_row"],
        **{name: made[name] for name in made.column_names},
        **{
            name: _translated(connection, raw[column], column, fields[name])
            for name, column in columns_of_words.items()
        },
        **{name: pa.nulls(raw.num_rows) for name in missing},
    }
    return coded(pa.table(found))


def _without_suppressed(connection: duckdb.DuckDBPyConnection, rows: pa.Table, ids: UserIds) -> pa.Table:
    """The rows of users who may be read. Each different user is looked up once."""
    rule = ids.is_kept("word")
    if not rule or not rows.num_rows:
        return rows
    own = words.coded(rows["user_id"])
    connection.register("known_words", pa.table({"word": words.known(own)}))
    # The engine may answer in any order.
    kept = connection.sql(f"SELECT word FROM known_words WHERE {rule}").to_arrow_table()["word"]
    connection.unregister("known_words")
    known = np.append(pc.is_in(words.known(own), value_set=kept.combine_chunks()).to_numpy(zero_copy_only=False), True)
    inside = known[words.codes(own)]
    return rows if inside.all() else rows.filter(pa.array(inside))


def _translated(
    connection: duckdb.DuckDBPyConnection, column: pa.ChunkedArray, name: str, expression: str
) -> pa.ChunkedArray:
    """`expression` of each row's word in the column `name`, worked out once for each different word."""
    own = words.coded(column)
    connection.register("known_words", pa.table({name: words.known(own)}))
    said = connection.sql(f"SELECT {expression} AS word FROM known_words").to_arrow_table()["word"].combine_chunks()
    connection.unregister("known_words")
    if said.equals(words.known(own)) or not own.num_chunks:
        return own
    new = said.dictionary_encode()
    indices = new.indices.take(own.chunk(0).indices)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, new.dictionary)])
