"""What every fuzzed case is judged by: how many there are, what a clear refusal is, and where the rows of a file went.

Cases are drawn by hypothesis. The default run draws few, always the same; `SEGFLOW_FUZZ_CASES` asks for more, new ones each time,
and a failure prints the smallest case that fails.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import duckdb
from hypothesis import HealthCheck, settings

from segflow.config import CleaningConfig, EventSource, SourceConfig
from segflow.errors import UserError
from segflow.events import clean, mapping, source
from segflow_tests.events import steps
from segflow_tests.events.logs import Row

_ASKED = os.environ.get("SEGFLOW_FUZZ_CASES")


def cases(share: float) -> settings:
    """So many of all cases, as a share of one."""
    return settings(
        max_examples=max(round(share * int(_ASKED or 150)), 1),
        derandomize=_ASKED is None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def assert_clear(message: str, place: str) -> None:
    """One line that any terminal can show, which names `place` and ends in how to mend it."""
    assert message.isprintable(), message
    assert len(message) < 4100, f"{len(message)} characters"
    assert place in message, message
    assert "Traceback" not in message
    assert "Internal Error" not in message


@dataclass(frozen=True)
class Outcome:
    """What became of a file: refused, for a reason, or its raw rows in their order, each with why it is no event."""

    refused: str | None
    rows: tuple[tuple[Row, str | None], ...] = ()


def outcome(connection: duckdb.DuckDBPyConnection, file: Path, events: EventSource) -> Outcome:
    """Read, map and judge a file as the pipeline does, from its bytes to events and quarantine.

    Asserts that a refusal is clear and that every raw row is an event, or in quarantine for a reason.
    """
    try:
        with source.reading(str(file)):
            query = mapping.with_day(mapping.mapped_events(connection, SourceConfig(events=events)), steps.CALENDAR)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE raw_events AS {query}")
    except UserError as error:
        assert_clear(str(error), file.name)
        return Outcome(str(error))
    rows = steps.records(connection, "SELECT * FROM raw_events ORDER BY source_file, source_row")
    reasons = steps.classified(connection, CleaningConfig())
    account = clean.row_account(connection, "events", "quarantined_events")
    assert account.balanced
    assert account.raw == len(rows) == account.events + account.duplicates + account.quarantined
    assert [row["source_row"] for row in rows] == list(range(len(rows)))
    return Outcome(None, tuple(zip(rows, reasons, strict=True)))
