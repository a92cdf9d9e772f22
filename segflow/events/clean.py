"""Cleaning and sessions: the statements under `sql/events/` with the settings filled in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb

from segflow.config import CalendarConfig, CleaningConfig, SessionConfig
from segflow.sql import load, render

CLASSIFIED = "classified"
EVENTS_QUERY = f"SELECT * REPLACE (identity AS event_id) FROM {CLASSIFIED} WHERE reason IS NULL"
QUARANTINED_QUERY = f"SELECT * FROM {CLASSIFIED} WHERE reason IS NOT NULL"


def classified_query(cleaning: CleaningConfig, calendar: CalendarConfig) -> str:
    """Every raw row with the identity of its event and, if it is none, the reason. Reads views raw_events and items."""
    return render(
        "events/classified.sql",
        start=calendar.start,
        end=calendar.end or date(9999, 12, 31),
        max_events_per_user_day=cleaning.max_events_per_user_day,
        require_known_item=cleaning.require_known_item,
        exclude_categories=list(cleaning.exclude_categories),
        require_quantity="quantity" in cleaning.require_positive,
        require_value="value" in cleaning.require_positive,
    )


def sessions_query(sessions: SessionConfig, first: date, last: date) -> str:
    """Sessions that start in [first, last). Reads views events (one day more on both sides) and items."""
    return render(
        "events/sessions.sql",
        first=first,
        last=last,
        use_source_ids=sessions.use_source_ids,
        gap_us=sessions.gap_minutes * 60_000_000,
    )


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


def row_account(connection: duckdb.DuckDBPyConnection) -> RowAccount:
    """Compare, day by day, the view raw_events with the table of classified rows that was made from it."""
    per_day = connection.execute(load("events/row_account.sql")).fetchall()
    reasons = connection.execute(
        f"SELECT reason, count(*) FROM {CLASSIFIED} WHERE reason IS NOT NULL AND reason <> 'duplicate' "
        "GROUP BY reason ORDER BY reason"
    ).fetchall()
    return RowAccount(
        days=len(per_day),
        raw=sum(row[1] for row in per_day),
        events=sum(row[2] for row in per_day),
        duplicates=sum(row[4] for row in per_day),
        reasons=dict(reasons),
        unbalanced_days=sum(row[1] != row[2] + row[3] + row[4] for row in per_day),
    )
