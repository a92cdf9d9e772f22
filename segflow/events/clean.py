"""Cleaning and sessions: the statements under `sql/events/` with the settings filled in."""

from __future__ import annotations

from datetime import date

from segflow.config import CalendarConfig, CleaningConfig, SessionConfig
from segflow.sql import render

CLASSIFIED = "classified"


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
