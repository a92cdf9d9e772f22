"""Cleaning: the statements under `sql/events/`, run in their order with the settings filled in.

Each statement reads views that the caller left on the connection, and by name what the ones before it found; what is written
where is the caller's business. Nothing here holds rows in Python.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from segflow.config import BotConfig, CleaningConfig, ImputeConfig, SessionConfig
from segflow.errors import UserError
from segflow.sql import load, render

CLEANING = (
    "flaw",
    "fingerprint",
    "alike",
    "duplicates",
    "suspects",
    "bots",
    "refused",
    "rejected",
    "events",
    "row_account",
)
"""The statements under `sql/events/`, in the order in which they run."""


def judge(
    connection: duckdb.DuckDBPyConnection, cleaning: CleaningConfig, known: Mapping[str, str] | None = None
) -> None:
    """Make the table `rejected` of raw rows that are no events, with the reason. Reads the views raw_events and items.

    known: for some of the statements, by name, a cheaper query of the same rows.
    """
    bots = cleaning.bots
    check_pattern(connection, bots)
    never = 2**62
    macros(connection, cleaning)
    limits = {
        "enabled": bots.enabled,
        "events_per_day": bots.events_per_day or never,
        "events_per_minute": bots.events_per_minute or never,
        "clockwork_events": bots.clockwork_events or never,
        "clockwork_share": bots.clockwork_share,
        "user_pattern": bots.user_pattern,
    }
    statements = {
        "alike": load("events/alike.sql"),
        "duplicates": load("events/duplicates.sql"),
        "suspects": render("events/suspects.sql", **limits),
        "bots": render("events/bots.sql", **limits),
        "refused": refused_query(cleaning),
    }
    # In one statement: understanding five more takes longer than the few rows of each.
    parts = ", ".join(f"{name} AS ({query}\n)" for name, query in (statements | dict(known or {})).items())
    query = f"WITH {parts} {load('events/rejected.sql')}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE rejected AS {query}")


def check_pattern(connection: duckdb.DuckDBPyConnection, bots: BotConfig) -> None:
    """Raise UserError when the pattern of users that are bots is no regular expression of the engine."""
    try:
        connection.execute("SELECT regexp_matches('', $1)", [bots.user_pattern or "."])
    except duckdb.Error as error:
        said = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
        raise UserError(
            f"cleaning.bots.user_pattern: '{bots.user_pattern}' is no regular expression: {said}; correct it in the settings"
        ) from error


def macros(connection: duckdb.DuckDBPyConnection, cleaning: CleaningConfig) -> None:
    """Make the macros `flaw` and `fingerprint` of a raw row."""
    _macro(connection, "flaw", render("events/flaw.sql", default_type=cleaning.impute.event_type))
    _macro(connection, "fingerprint", load("events/fingerprint.sql"))


def refused_query(cleaning: CleaningConfig) -> str:
    """The raw rows that have a reason of their own. Reads the views raw_events and items, and the macro `flaw`."""
    return render(
        "events/refused.sql",
        require_known_item=cleaning.require_known_item,
        exclude_categories=list(cleaning.exclude_categories),
        require_known_type=cleaning.require_known_type,
        known_types=sorted(cleaning.type_weights),
        default_type=cleaning.impute.event_type,
        require_quantity="quantity" in cleaning.require_positive,
        require_value="value" in cleaning.require_positive,
    )


def events_query(cleaning: CleaningConfig) -> str:
    """The events among the raw rows. Reads the views raw_events and items and the table `rejected` that `judge` made."""
    impute = cleaning.impute
    rule = impute.value if isinstance(impute.value, str) else None
    return render(
        "events/events.sql",
        value_rule=rule,
        default_value=impute.value if rule is None else None,
        default_quantity=impute.quantity,
        default_type=impute.event_type,
        has_weights=bool(cleaning.type_weights),
        type_weights=dict(cleaning.type_weights),
    )


def fills(cleaning: CleaningConfig) -> bool:
    """Whether `events_query` gives an event any other value than its raw row has, or a weight other than 1."""
    return cleaning.impute != ImputeConfig() or bool(cleaning.type_weights)


def edges(connection: duckdb.DuckDBPyConnection, sessions: SessionConfig, events: str) -> dict[str, dict[str, str]]:
    """Day -> digests of the `tail` and `head` of the table `events`: all that sessions of the days beside it can see of it."""
    statement = render(
        "events/edges.sql", use_source_ids=sessions.use_source_ids, gap_us=sessions.gap_minutes * 60_000_000
    )
    rows = connection.execute(statement.replace("made_events", events)).fetchall()
    return {day.isoformat(): {"tail": tail, "head": head} for day, tail, head in rows}


def _macro(connection: duckdb.DuckDBPyConnection, name: str, expression: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP MACRO {name}(raw) AS {expression}")


@dataclass(frozen=True)
class RowAccount:
    """What became of the raw rows of a run: every one is an event, a duplicate, or in quarantine for a reason."""

    days: int
    raw: int
    events: int
    duplicates: int
    reasons: dict[str, int]
    unbalanced_days: int

    @property
    def quarantined(self) -> int:
        return sum(self.reasons.values())

    @property
    def balanced(self) -> bool:
        """Whether the sum holds on every single day."""
        return self.unbalanced_days == 0

    @property
    def figures(self) -> dict[str, int]:
        return {
            "raw_rows": self.raw,
            "event_rows": self.events,
            "quarantined_rows": self.quarantined,
            "duplicate_rows": self.duplicates,
        }

    @property
    def sentence(self) -> str:
        holds = "holds" if self.balanced else f"is broken on {self.unbalanced_days}"
        return (
            f"{self.raw} raw rows = {self.events} events + {self.quarantined} quarantined + "
            f"{self.duplicates} duplicates; the sum {holds} of {self.days} days"
        )


def total(accounts: Sequence[RowAccount]) -> RowAccount:
    """The account of several spans of days together."""
    reasons: Counter[str] = Counter()
    for one in accounts:
        reasons.update(one.reasons)
    return RowAccount(
        days=sum(one.days for one in accounts),
        raw=sum(one.raw for one in accounts),
        events=sum(one.events for one in accounts),
        duplicates=sum(one.duplicates for one in accounts),
        reasons=dict(sorted(reasons.items())),
        unbalanced_days=sum(one.unbalanced_days for one in accounts),
    )


def row_account(connection: duckdb.DuckDBPyConnection, events: str, quarantined: str) -> RowAccount:
    """Compare, day by day, the view raw_events with the tables `events` and `quarantined` that were made from it."""
    per_day = connection.execute(
        load("events/row_account.sql").replace("made_events", events).replace("made_quarantined", quarantined)
    ).fetchall()
    reasons = connection.execute(
        f"SELECT reason, count(*) FROM {quarantined} WHERE reason <> 'duplicate' GROUP BY reason ORDER BY reason"
    ).fetchall()
    return RowAccount(
        days=len(per_day),
        raw=sum(row[1] for row in per_day),
        events=sum(row[2] for row in per_day),
        duplicates=sum(row[4] for row in per_day),
        reasons=dict(reasons),
        unbalanced_days=sum(row[1] != row[2] + row[3] + row[4] for row in per_day),
    )
