"""What lies in which file: the list by which a late file touches only the days that it holds rows of.

A new or changed file is read once to see its days; files that are as they were are not opened. The rows of files that are
gone are kept, since logs get rotated away.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa

from segflow.config import Config
from segflow.errors import UserError
from segflow.events import parquet
from segflow.events.days import Days, spans
from segflow.events.files import facts
from segflow.events.mapping import mapped_events, with_day
from segflow.events.source import SourceFile, drift, files, fingerprint
from segflow.events.user_ids import UserIds
from segflow.sql import literal, load, render
from segflow.tables import RAW_EVENTS

KNOWN = "known_files"
"""The view of the table as it was, which `files_query` reads."""
STORED = "stored_raw_events"
"""The view of the raw rows as they were, which `raw_query` reads."""
_STRAGGLERS = "stragglers"
_UNTIL = " until "
_DUE = f"TRY_CAST(split_part(mapping, '{_UNTIL}', 2) AS DATE)"


def files_query(connection: duckdb.DuckDBPyConnection, config: Config, version: str) -> str:
    """The query of the `source_files` table as it should be now. Reads the view KNOWN.

    version: digest of the code and settings that map rows; files that were mapped by another are read again, and so are those
        whose user ids were hashed with another key.
    """
    source = config.source
    if key := UserIds.of(source).fingerprint:
        version = hashlib.sha256(f"{version}:{key}".encode()).hexdigest()[:16]
    joined = source.events.sql is not None
    if joined:
        # A statement may join any of its files, so a change in one may change rows of another.
        everything = fingerprint([source.events, *source.inputs.values()])
        statement = load(str(source.events.sql))
        version = hashlib.sha256(f"{version}:{everything}:{statement}".encode()).hexdigest()[:16]
    listed = files(source.events.path, source.events.format)
    known = _known(connection, version, config.calendar.first_to_come)
    changed = [one for one in listed if (one.name, one.size, one.modified) not in known]
    if joined and changed:
        changed = listed
    _register(connection, config, changed)
    only = None if joined else {one.name for one in changed}
    rows = _mapped(connection, config, only, "NULL") if changed else _no_rows()
    again = {one.name for one in changed}
    looked_into = [name for name in _present(config) if name in again or (joined and changed)]
    kept = f"file NOT IN (SELECT unnest({literal(looked_into)}))"
    if source.events.missing_files == "drop":
        kept += f" AND file IN (SELECT unnest({literal(sorted(_present(config)))}))"
    connection.execute(f"CREATE OR REPLACE TEMP VIEW kept_files AS SELECT * FROM {KNOWN} WHERE {kept}")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW mapped_rows AS {rows}")
    _look(connection, config)
    return render("events/files.sql", version=version, first_day=config.calendar.start)


def suppressed_rows(connection: duckdb.DuckDBPyConnection, config: Config) -> int:
    """How many rows of the files that `files_query` just looked into are of suppressed users, and hence counted nowhere else."""
    ids = UserIds.of(config.source)
    looked_into = {name for (name,) in connection.execute("SELECT file FROM changed_files").fetchall()}
    if not ids.digests or not looked_into:
        return 0
    everybody = config.source.model_copy(update={"suppressed": None})
    only = None if config.source.events.sql is not None else looked_into
    rows = mapped_events(connection, everybody, only, required(config))
    ids.prepare(connection)
    ((count,),) = connection.execute(f"SELECT count(*) FROM ({rows}) WHERE NOT {ids.is_kept('user_id')}").fetchall()
    return int(count)


def raw_query(
    connection: duckdb.DuckDBPyConnection, config: Config, first: date, last: date, only: set[str] | None
) -> str:
    """The query of the raw rows of [first, last), from the files named in `only`, or from all, and from the stragglers.

    Reads the view source_files, the table that `reading_plan` made and, for files that are gone, STORED.
    """
    chosen = None if only is None else only & _present(config)
    rows = _as_listed(connection, _mapped(connection, config, chosen, _home(connection, chosen)), chosen)
    inside = f"day >= {literal(first)} AND day < {literal(last)}"
    return f"SELECT * FROM ({rows}) WHERE {inside} UNION ALL BY NAME {_elsewhere(connection, config, first, last)}"


def raw_rows(
    connection: duckdb.DuckDBPyConnection, config: Config, first: date, last: date, only: set[str] | None
) -> pa.Table:
    """The rows of `raw_query`, held in memory as `events/parquet.py` says."""
    chosen = None if only is None else only & _present(config)
    ((rows,),) = connection.execute(
        "SELECT coalesce(sum(rows), 0) FROM source_files WHERE day >= $1 AND day < $2", [first, last]
    ).fetchall()
    # Of files that hold far more than the span, DuckDB reads only what belongs to it.
    room = 2 * max(rows, config.compute.rows_at_once)
    own = parquet.read(connection, config, chosen, required(config), _home(connection, chosen), room)
    if own is None:
        query = raw_query(connection, config, first, last, only)
        return parquet.joined([parquet.coded(connection.sql(query).to_arrow_table())])
    parts = [parquet.coded(connection.sql(_elsewhere(connection, config, first, last)).to_arrow_table())]
    while own:
        # Nothing is held twice for longer than it takes.
        parts.append(_between(own.pop(), first, last))
    return parquet.joined(parts[::-1])


def _between(rows: pa.Table, first: date, last: date) -> pa.Table:
    day = rows["day"].to_numpy()
    inside = (day >= np.datetime64(first)) & (day < np.datetime64(last))
    return rows if inside.all() else rows.filter(pa.array(inside))


def _elsewhere(connection: duckdb.DuckDBPyConnection, config: Config, first: date, last: date) -> str:
    """The query of the rows of [first, last) that are not in the files read for them: stragglers, and rows of gone files."""
    inside = f"day >= {literal(first)} AND day < {literal(last)}"
    query = f"SELECT * FROM {_STRAGGLERS} WHERE {inside}"
    if missing := gone(connection, config, first, last):
        query += f" UNION ALL BY NAME SELECT * FROM {STORED} WHERE source_file IN (SELECT unnest({literal(missing)}))"
    return f"SELECT * FROM ({query}) ORDER BY source_file, source_row"


def reading_plan(
    connection: duckdb.DuckDBPyConnection, config: Config, first: date, last: date
) -> list[tuple[Days, set[str] | None]]:
    """Spans of the days [first, last), each with the names of the files to read for it; None for all files.

    Each file is read with the span that holds its last day. Its rows of earlier spans are put aside, in a table that
    `raw_query` reads: these stragglers are few, and finding them takes a look at times only.

    Reads the view source_files. Raises UserError when the files were never looked into.
    """
    found = connection.execute("SELECT day, file, rows FROM source_files").fetchall()
    if not found:
        raise UserError("source_files: nothing is known of the source's files; materialize source_files first")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {_STRAGGLERS} AS {_no_rows()}")
    if config.source.events.sql is not None:
        return [((first, last), None)]
    homes: dict[str, date] = {}
    rows_of_day: dict[date, int] = defaultdict(int)
    for day, file, rows in found:
        homes[file] = max(day, homes.get(file, day))
        rows_of_day[day] += rows
    parts = list(spans(rows_of_day, first, last, config.compute.rows_at_once))
    plan: list[tuple[Days, set[str]]] = [
        (part, {file for file, home in homes.items() if part[0] <= home < part[1]}) for part in parts
    ]
    starts_at = {name: part[0] for part, names in plan for name in names}
    present = _present(config)
    astray = {
        file: home
        for day, file, _ in sorted(found)
        if first <= day < (home := starts_at.get(file, last)) and file in present
    }
    if astray:
        rows = _mapped(connection, config, set(astray), "NULL")
        # Comparing times themselves lets the reader skip all other columns of nearly every row.
        starts = _of_its_file(astray, "TIMESTAMPTZ")
        early = f"ts >= {literal(first)}::TIMESTAMPTZ AND ts < {starts} AND day IS NOT NULL"
        # Files are looked into side by side only if their rows may come in any order.
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"INSERT INTO {_STRAGGLERS} BY NAME SELECT * FROM ({rows}) WHERE {early}")
        connection.execute("SET preserve_insertion_order = true")
    return list(plan)


def require_as_listed(
    connection: duckdb.DuckDBPyConnection, config: Config, staged: str, first: date, last: date
) -> None:
    """Raise UserError when `staged`, the raw rows of [first, last), are not those that source_files lists.

    A file that was replaced, or was still being written, since it was looked into may have been read in parts, and its days are
    not those of the list. Files whose size and time are as listed are not looked at twice. Reads the view source_files.
    """
    if config.source.events.sql is not None:
        return
    inside = f"day >= {literal(first)} AND day < {literal(last)}"
    listed = connection.execute("SELECT DISTINCT file, size, modified FROM source_files").fetchall()
    now = facts(config.source.events)
    changed = sorted(name for name, *then in listed if name in now and now[name] != tuple(then))
    if not changed:
        return
    those = f"IN (SELECT unnest({literal(changed)}))"
    dated = "CASE WHEN make_timestamp(epoch_us(ts))::DATE = day THEN day END AS day"
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW mapped_rows AS SELECT * REPLACE ({dated}) FROM {staged} WHERE source_file {those}"
    )
    _look(connection, config)
    columns = "SELECT file, day, rows, digest FROM"
    known = f"{columns} source_files WHERE rows > 0 AND {inside} AND file {those}"
    found = connection.execute(
        f"SELECT file FROM (({known} EXCEPT {columns} file_contents) UNION ALL ({columns} file_contents EXCEPT {known})) LIMIT 1"
    ).fetchone()
    if found:
        raise UserError(
            f"{found[0]}: was changed since source_files was made of it; when it is completely written, run again, or "
            "materialize source_files and then these days"
        )


def required(config: Config) -> list[str]:
    """The event fields whose column every file must have. A file may lack what is filled in by rule."""
    return ["user_id", "ts", *(["event_type"] if config.cleaning.impute.event_type is None else [])]


def day_digests(rows: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Day -> digest of what all files hold of it, of (day, file, digest)."""
    of_day: dict[str, list[str]] = defaultdict(list)
    for day, file, digest in rows:
        of_day[day].append(f"{file}:{digest}")
    return {day: hashlib.sha256("|".join(sorted(parts)).encode()).hexdigest()[:16] for day, parts in of_day.items()}


def drift_report(connection: duckdb.DuckDBPyConnection, view: str, most: int = 20) -> tuple[int, Sequence[str]]:
    """How many files differ in columns, and a line about each of the first `most`."""
    found = connection.execute(
        f"SELECT DISTINCT file, drift FROM {view} WHERE drift IS NOT NULL ORDER BY file"
    ).fetchall()
    return len(found), [f"{file}: {said}" for file, said in found[:most]]


def _mapped(connection: duckdb.DuckDBPyConnection, config: Config, only: set[str] | None, undated: str) -> str:
    """The rows of the chosen files, with their day."""
    return with_day(mapped_events(connection, config.source, only, required(config)), config.calendar, undated)


def _home(connection: duckdb.DuckDBPyConnection, only: set[str] | None) -> str:
    """Where a row without a usable date lies: with the last day of its file, as `events/files.sql` says too.

    An expression, so that only those few rows are looked up.
    """
    found = connection.execute("SELECT file, max(day) FROM source_files GROUP BY file ORDER BY file").fetchall()
    return _of_its_file({file: day for file, day in found if only is None or file in only}, "DATE")


def _as_listed(connection: duckdb.DuckDBPyConnection, rows: str, only: set[str] | None) -> str:
    """`rows`, of which those that were dated ahead when their file was looked into lie where source_files has them: at its home,
    even if their day is there by now.
    """
    found = connection.execute(
        f"SELECT file, max(day), max({_DUE}) FROM source_files WHERE {_DUE} IS NOT NULL GROUP BY file ORDER BY file"
    ).fetchall()
    ahead = [one for one in found if only is None or one[0] in only]
    if not ahead:
        return rows
    due = _of_its_file({file: due for file, _, due in ahead}, "DATE")
    home = _of_its_file({file: home for file, home, _ in ahead}, "DATE")
    return f"SELECT * REPLACE (CASE WHEN day >= {due} THEN {home} ELSE day END AS day) FROM ({rows})"


def _look(connection: duckdb.DuckDBPyConnection, config: Config) -> None:
    """The table file_contents of the view mapped_rows."""
    calendar = config.calendar
    # Of a log that is closed, no day is to come.
    ahead = calendar.first_to_come if calendar.end is None else None
    query = render("events/file_contents.sql", first_day=calendar.start, first_to_come=ahead)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE file_contents AS {query}")


def _of_its_file(days: Mapping[str, date], kind: str) -> str:
    """What `days` has for a row's file, as an SQL expression. kind: DATE, or TIMESTAMPTZ for the start of the day."""
    listed = ", ".join(literal(day) for day in days.values())
    return f"MAP({literal(list(days))}, [{listed}]::{kind}[])[source_file]"


def gone(connection: duckdb.DuckDBPyConnection, config: Config, first: date, last: date) -> list[str]:
    """The files that held rows of [first, last) and are no longer there: their rows are kept. Reads the view source_files."""
    held = connection.execute(
        "SELECT DISTINCT file FROM source_files WHERE day >= $1 AND day < $2", [first, last]
    ).fetchall()
    return sorted({file for (file,) in held} - _present(config))


def _present(config: Config) -> set[str]:
    """The files that are there, by the names that `source_file` gives them."""
    source = config.source
    names = {one.name for one in files(source.events.path, source.events.format)}
    for prefix, more in source.inputs.items():
        names |= {f"{prefix}/{one.name}" for one in files(more.path, more.format)}
    return names


def _known(connection: duckdb.DuckDBPyConnection, version: str, first_to_come: date) -> set[tuple[str, int, int]]:
    """Files that need no look: mapped by this version, and none of their rows that were dated ahead is of a day that is there."""
    return set(
        connection.execute(
            f"SELECT DISTINCT file, size, modified FROM {KNOWN} "
            f"WHERE mapping = $1 OR (starts_with(mapping, $1 || {literal(_UNTIL)}) AND {_DUE} >= $2)",
            [version, first_to_come],
        ).fetchall()
    )


def _register(connection: duckdb.DuckDBPyConnection, config: Config, changed: Sequence[SourceFile]) -> None:
    """The view changed_files, with how each differs from the others in columns."""
    said = drift(connection, config.source.events) if changed else {}
    known = {
        "file": pa.array([one.name for one in changed], pa.string()),
        "size": pa.array([one.size for one in changed], pa.int64()),
        "modified": pa.array([one.modified for one in changed], pa.int64()),
        "drift": pa.array([said.get(one.name) for one in changed], pa.string()),
    }
    connection.register("changed_files", pa.table(known))


def _no_rows() -> str:
    columns = ", ".join(f"NULL::{column.type} AS {column.name}" for column in RAW_EVENTS.columns)
    return f"SELECT {columns} LIMIT 0"
