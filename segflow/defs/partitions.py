"""Partitions, and what a partition of one asset reads of another.

A `Window` says both at once: Dagster draws the lineage from its mapping, and a step reads exactly the rows it selects. So the
lineage in the UI cannot disagree with what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from segflow import settings
from segflow.config import WEEKDAYS

CONFIG = settings.load()
CALENDAR = CONFIG.calendar

# A range of days is made in runs of at most so many.
DAYS_AT_ONCE = CONFIG.compute.days_per_run

WEEK = timedelta(days=7)
DAY = timedelta(days=1)

DAILY = dg.DailyPartitionsDefinition(
    start_date=CALENDAR.start.isoformat(), end_date=CALENDAR.end.isoformat() if CALENDAR.end else None
)
WEEKLY = dg.WeeklyPartitionsDefinition(
    # From the first week that can be made: one that always fails would keep all later ones from being made after it.
    start_date=CALENDAR.first_snapshot.isoformat(),
    end_date=CALENDAR.end.isoformat() if CALENDAR.end else None,
    # Dagster counts the days of the week from Sunday.
    day_offset=(WEEKDAYS.index(CALENDAR.week_starts) + 1) % 7,
)
SEGMENTS = dg.DynamicPartitionsDefinition(name="segment")
WEEK_SEGMENT = dg.MultiPartitionsDefinition({"week": WEEKLY, "segment": SEGMENTS})


def _weeks(first: int, last: int) -> dg.TimeWindowPartitionMapping:
    return dg.TimeWindowPartitionMapping(
        start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True
    )


@dataclass(frozen=True)
class Window:
    """Which rows of an upstream table a partition reads.

    mapping: the same for Dagster; None for tables without partitions.
    days: from the first and the last day-or-week of the run's partitions to a half-open range of days; None reads everything.
    aspect: which part of an upstream partition counts for a partition, by their keys; None, or none for a pair: all of it.
        Parts have digests of their own, so that a change elsewhere leaves the partition up to date.
    """

    name: str
    mapping: dg.PartitionMapping | None
    days: Callable[[date, date], tuple[date, date]] | None = None
    aspect: Callable[[str, str], str | None] | None = None


_HISTORY = CALENDAR.history_weeks

SNAPSHOT = Window("snapshot", None)
ROWS_OF_DAY = Window("the day's rows", None, None, lambda day, _: day)
SAME_DAY = Window("same day", dg.TimeWindowPartitionMapping(), lambda first, last: (first, last + DAY))
# Of a neighbour only its edge counts: who was active near midnight, and what they did until noon.
NEIGHBOUR_DAYS = Window(
    "the day before to the day after",
    _weeks(-1, 1),
    lambda first, last: (first - DAY, last + 2 * DAY),
    lambda day, other: None if other == day else "tail" if other < day else "head",
)
HISTORY = Window("history before the week", _weeks(-_HISTORY, -1), lambda first, last: (first - _HISTORY * WEEK, first))
HISTORY_AND_WEEK = Window(
    "history and the week", _weeks(-_HISTORY, 0), lambda first, last: (first - _HISTORY * WEEK, first + WEEK)
)
HISTORY_AND_TEST = Window(
    "history, the week and the test week",
    _weeks(-_HISTORY, 1),
    lambda first, last: (first - _HISTORY * WEEK, first + 2 * WEEK),
)
SAME_WEEK = Window("same week", dg.TimeWindowPartitionMapping(), lambda first, last: (first, last + DAY))
WEEK_BEFORE = Window("the week before", _weeks(-1, -1), lambda first, last: (first - WEEK, first))
EARLIER_WEEKS = Window("earlier weeks", _weeks(-_HISTORY, -1), lambda first, last: (first - _HISTORY * WEEK, first))
THIS_AND_EARLIER_WEEKS = Window(
    "the week and earlier ones", _weeks(-_HISTORY, 0), lambda first, last: (first - _HISTORY * WEEK, first + DAY)
)
_POOLED = CONFIG.evaluation.pooled_weeks
POOLED_WEEKS = Window(
    "the week and those pooled with it",
    _weeks(1 - _POOLED, 0),
    lambda first, last: (first - (_POOLED - 1) * WEEK, first + DAY),
)
SEGMENTS_OF_WEEK = Window(
    "all segments of the week",
    dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="week"),
    lambda first, last: (first, last + DAY),
)
OWN_SEGMENT = Window(
    "own segment of the week",
    dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="week"),
    lambda first, last: (first, last + DAY),
    lambda key, _: segment_of(key),
)


def segment_of(key: str) -> str:
    """The segment id of a week|segment partition key; the order of its parts is Dagster's."""
    return next(part for part in key.split("|") if not part[:4].isdigit())


def for_week_segment(window: Window) -> Window:
    """`window` of a weekly asset, read by an asset that is partitioned by week and segment."""
    if window.mapping is None:
        return window
    if window is SAME_WEEK:
        mapping: dg.PartitionMapping = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="week")
    else:
        # Dagster 1.13 cannot shift one dimension of two: the lineage shows all partitions, the rows read are the window's.
        mapping = dg.AllPartitionMapping()
    return Window(window.name, mapping, window.days)


def stretches(keys: Sequence[str], wanted: Collection[str]) -> Iterator[list[str]]:
    """`wanted` in runs of neighbours among `keys`."""
    part: list[str] = []
    for key in keys:
        if key in wanted:
            part.append(key)
        elif part:
            yield part
            part = []
    if part:
        yield part
