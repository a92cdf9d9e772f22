"""Cutting a range of days into spans that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

Days = tuple[date, date]
"""A half-open range of days."""


def spans(rows_of_day: Mapping[date, int], first: date, last: date, rows_at_once: int) -> Iterator[Days]:
    """Cut the days [first, last) into spans of at most `rows_at_once` rows. A day is never cut, so it may exceed that."""
    start, rows = first, 0
    for number in range((last - first).days):
        day = first + timedelta(days=number)
        here = rows_of_day.get(day, 0)
        if rows + here > rows_at_once and day > start:
            yield start, day
            start, rows = day, 0
        rows += here
    if start < last:
        yield start, last
