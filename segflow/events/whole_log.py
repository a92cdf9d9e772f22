"""A whole log at once: source files to sessions and quarantine, as Parquet, in one process without tables in between.

For a look at a log, or for another program. What the days of a project hold is the same, but is kept, checked and versioned.
Here is only the order of the work: while one span of days is judged, the next is read and sessions are made of the one before.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from segflow.config import Config
from segflow.errors import UserError
from segflow.events import arrivals, catalogue, in_memory, mapping
from segflow.events.days import Days
from segflow.events.files import reading, unchanged
from segflow.events.sessions import Sessions
from segflow.sql import literal
from segflow.storage import connect
from segflow.watching import Watcher

ROWS_AT_ONCE = 500_000
"""Days that stay in the processor's caches are fastest; tables that are committed span by span want larger spans."""

_Step = TypeVar("_Step")
_WORDS = ["type_counts.key_value.key", "items.list.element", "event_types.list.element"]
"""The columns in which few words occur often; looking for such in the others takes longer than writing them."""
# Counted in a step of its own: else the window over these few counts makes the counting take nearly twice as long.
_FILES = """
WITH counted AS MATERIALIZED (SELECT source_file AS file, day, count(*) AS rows FROM ({rows}) GROUP BY ALL)
SELECT file, coalesce(day, max(day) OVER (PARTITION BY file), {start}) AS day, rows, '' AS mapping FROM counted
"""
_ARENAS = -8


@dataclass
class Made:
    """How many raw rows there were, how many are no events for which reason, and how many sessions were made of the rest."""

    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    sessions: int = 0

    def __str__(self) -> str:
        kept = self.rows - sum(self.rejected.values())
        reasons = "".join(f", {count} {reason}" for reason, count in sorted(self.rejected.items()))
        return f"{self.rows} raw rows: {kept} events in {self.sessions} sessions{reasons}"


def write_sessions(config: Config, out: Path, rows_at_once: int = ROWS_AT_ONCE, watcher: Watcher | None = None) -> Made:
    """Write the folders `out`/sessions and `out`/quarantine, one file for each span of days.

    rows_at_once: the most rows of a span; a day is never cut. The columns are those of the tables sessions and
    quarantined_events. Raises UserError when `out` holds anything, when a file of the source changes meanwhile, and as reading
    does; then nothing is left in `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder, or empty it")
    try:
        if not out.parent.exists():
            out.parent.mkdir(parents=True)
        # A new folder beside the other, which nobody else can have put anything into.
        aside = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror}; name another folder") from error
    try:
        unfinished = aside / out.name
        for name in ("sessions", "quarantine"):
            (unfinished / name).mkdir(parents=True)
        compute = config.compute.model_copy(update={"rows_at_once": rows_at_once})
        # Midnight may pass meanwhile, and with it what counts as dated ahead.
        calendar = config.calendar.model_copy(update={"end": config.calendar.first_to_come})
        job = _Job(
            config.model_copy(update={"compute": compute, "calendar": calendar}), unfinished, watcher or Watcher()
        )
        # Files are listed, looked into for their days, and read: what is between these would be read in parts, or not at all.
        with unchanged([config.source.events, mapping.items_input(config.source), *config.source.inputs.values()]):
            made = job.run()
        _put_in_place(unfinished, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return made


def _put_in_place(unfinished: Path, out: Path) -> None:
    """Rename in one step. This fails when somebody has put something there meanwhile: nothing of theirs is replaced."""
    try:
        unfinished.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be put in place: {error.strerror}; name a new folder") from error


def share_one_heap() -> None:
    """Let all threads of this process allocate from one heap, where the C library is glibc: what one frees, the next uses.

    For a process that does nothing but `write_sessions`, whose threads hand tables to one another.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENAS, 1)
    pa.set_memory_pool(pa.system_memory_pool())


class _Job:
    """The stages, each with the spans that it has finished. As many work at once as there are threads in the settings."""

    def __init__(self, config: Config, out: Path, watcher: Watcher):
        self._config = config
        self._out = out
        self._watcher = watcher
        # More at once would only take memory, and each other's place in the caches.
        self._at_work = BoundedSemaphore(config.compute.threads)
        self._made = Made()

    def run(self) -> Made:
        with connect(self._config.compute) as first, first.cursor() as second, first.cursor() as third:
            with reading(mapping.items_input(self._config.source).path):
                items = first.sql(catalogue.items_query(first, self._config.source)).to_arrow_table()
            for one in (second, third):
                one.execute("SET TimeZone = 'UTC'")
                one.register("items", items)
            plan = self._plan(first)
            self._watcher.begin("spans", len(plan))
            # From here on the threads are our own, each at another span.
            first.execute("SET threads = 1")
            judged = _ahead(self._judged(second, _ahead(self._read(first, plan))))
            for start, made in _ahead(self._sessions(third, judged, plan[-1][0])):
                with self._at_work:
                    self._made.sessions += made.num_rows
                    _write(made, self._out / "sessions" / f"{start}.parquet")
                del made
                self._watcher.advance("spans")
        return self._made

    def _plan(self, connection: duckdb.DuckDBPyConnection) -> list[tuple[Days, set[str] | None]]:
        """Spans of days and the files to read for each. Only times are looked at."""
        calendar = self._config.calendar
        rows = mapping.with_day(
            mapping.mapped_events(connection, self._config.source, None, arrivals.required(self._config)),
            calendar,
            "NULL",
        )
        query = _FILES.format(rows=rows, start=literal(calendar.start))
        with reading(self._config.source.events.path):
            connection.execute(f"CREATE TEMP TABLE source_files AS {query}")
            ((start, end),) = connection.execute("SELECT min(day), max(day) FROM source_files").fetchall()
            return arrivals.reading_plan(connection, self._config, start, end + timedelta(days=1))

    def _read(
        self, connection: duckdb.DuckDBPyConnection, plan: list[tuple[Days, set[str] | None]]
    ) -> Iterator[tuple[Days, pa.Table]]:
        """The raw rows of each span."""
        for days, only in plan:
            with self._at_work, reading(self._config.source.events.path):
                ready = days, arrivals.raw_rows(connection, self._config, *days, only)
            yield ready
            del ready

    def _judged(
        self, connection: duckdb.DuckDBPyConnection, read: Iterator[tuple[Days, pa.Table]]
    ) -> Iterator[tuple[Days, pa.Table]]:
        """What sessions of each span are made of; the rows that are no events are written down."""
        judge = in_memory.Judge(connection, self._config)
        for days, rows in read:
            with self._at_work:
                rejected = judge.rejected(rows)
                self._account(rows, rejected)
                _write(rejected, self._out / "quarantine" / f"{days[0]}.parquet")
                ready = days, judge.session_events(rows)
                del rows
            yield ready
            del ready

    def _account(self, rows: pa.Table, rejected: pa.Table) -> None:
        self._made.rows += rows.num_rows
        for counted in rejected["reason"].value_counts().to_pylist():
            self._made.rejected[counted["values"]] = self._made.rejected.get(counted["values"], 0) + counted["counts"]

    def _sessions(
        self, connection: duckdb.DuckDBPyConnection, judged: Iterator[tuple[Days, pa.Table]], final: Days
    ) -> Iterator[tuple[date, pa.Table]]:
        """The first day of each span, and the sessions that end in it. After the span `final`, no session goes on."""
        made = Sessions(connection, self._config.sessions)
        for days, events in judged:
            with self._at_work:
                ready = days[0], made.add(events.to_reader(), until=days[1] if days != final else None)
                del events
            yield ready
            del ready


def _ahead(steps: Iterator[_Step]) -> Iterator[_Step]:
    """The same steps, each taken in another thread while the one before is used.

    Here and above, what was handed on is let go at once: it would be kept until the next is there.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, steps, None)
        while (ready := coming.result()) is not None:
            coming = thread.submit(next, steps, None)
            yield ready
            del ready


def _write(rows: pa.Table, file: Path) -> None:
    try:
        pq.write_table(
            rows,
            file,
            use_dictionary=_WORDS if "items" in rows.column_names else True,
            row_group_size=131_072,
            write_statistics=False,
        )
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error}; make room, or name another folder") from error
