"""What holds for the sessions of every log: they go by their rules, and days can be made on their own.

The logs are drawn; `logs.py` says how. Each property is tried on two hundred of them, the same ones each time.
"""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow import tables
from segflow.config import CleaningConfig, SessionConfig
from segflow.events import clean
from segflow.events.sessions import sessions_of_spans
from segflow_tests.events import logs, steps
from segflow_tests.events.logs import DAYS, START, Row
from segflow_tests.events.properties import (
    DAY,
    FIRST,
    LAST,
    by_day,
    cleaned,
    each_log,
    fill,
    sessions_of,
    stretches,
)

# 4. and 5. Sessions.


@given(logs.events, logs.session_settings)
@each_log
def test_sessions_partition_the_events(
    engine: duckdb.DuckDBPyConnection, events: list[Row], config: SessionConfig
) -> None:
    found = sessions_of(engine, events, config)
    assert found == logs.sessions_by_hand(events, config)
    assert sum(one["events"] for one in found) == len(events)
    assert sum(one["value"] for one in found) == sum(row["value"] or 0 for row in events)
    assert len({(one["day"], one["user_id"], one["session_id"]) for one in found}) == len(found)


@given(st.data(), logs.session_settings)
@each_log
def test_a_pause_of_exactly_the_gap_stays_and_a_microsecond_more_splits(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    assert sessions_of(engine, events, config) == logs.sessions_by_hand(events, config)


@given(st.data(), logs.session_settings, st.sets(st.integers(1, DAYS - 1), min_size=1, max_size=2))
@each_log
def test_days_may_be_computed_in_any_spans(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig, cuts: set[int]
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    bounds = [FIRST, *(FIRST + cut * DAY for cut in sorted(cuts)), LAST]
    parts = list(pairwise(bounds))
    whole = sessions_of(engine, events, config)
    assert [one for part in parts for one in sessions_of(engine, events, config, *part)] == whole
    # And with the sessions that may go on handed from span to span.
    fill(engine, tables.EVENTS, events)
    for shares in (1, 3):
        handed_on = []
        for _, found in sessions_of_spans(engine, config, parts, lambda _: None, shares):
            if not isinstance(found, str):
                engine.register("made_sessions", found)
            query = found if isinstance(found, str) else "FROM made_sessions"
            handed_on += steps.records(engine, f"{query} ORDER BY day, user_id, start, session_id")
        assert handed_on == whole


# 6. What is brought in day by day equals what is made in one go.


@given(st.lists(st.tuples(st.sampled_from(["b", "a", "d", "c"]), logs.raw_rows), max_size=3), logs.cleanings)
@each_log
def test_late_rows_need_only_their_own_days(
    engine: duckdb.DuckDBPyConnection, deliveries: list[tuple[str, list[Row]]], cleaning: CleaningConfig
) -> None:
    raw: list[Row] = []
    made: dict[date, tuple[list[Row], list[Row]]] = {}
    for number, (name, rows) in enumerate(deliveries):
        arrived = logs.placed(rows, f"{name}{number}")
        raw += arrived
        days = {row["day"] for row in arrived}
        fill(engine, tables.RAW_EVENTS, [row for row in raw if row["day"] in days])
        events, refused = map(by_day, cleaned(engine, cleaning))
        made.update({day: (events.get(day, []), refused.get(day, [])) for day in days})
    fill(engine, tables.RAW_EVENTS, raw)
    whole = cleaned(engine, cleaning)
    for number, expected in enumerate(map(by_day, whole)):
        assert {day: both[number] for day, both in made.items() if both[number]} == expected


FATES = st.dictionaries(st.integers(0, 9), st.sampled_from(["late", "gone", "corrected"]), min_size=1, max_size=3)


@given(st.data(), logs.session_settings, FATES)
@each_log
def test_only_days_that_changed_and_neighbours_of_changed_edges_need_new_sessions(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig, fates: dict[int, str]
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    before = [row for row in events if fates.get(row["source_row"]) != "late"]
    made = by_day(sessions_of(engine, before, config))
    old = clean.edges(engine, config, "events")

    corrected = {number for number, fate in fates.items() if fate == "corrected"}
    after = [
        {**row, "value": 2.5} if row["source_row"] in corrected else row
        for row in events
        if fates.get(row["source_row"]) != "gone"
    ]
    whole = sessions_of(engine, after, config)
    new = clean.edges(engine, config, "events")
    touched = {row["day"] for row in events if row["source_row"] in fates}
    assert {day for day in {*old, *new} if old.get(day) != new.get(day)} <= {str(day) for day in touched}
    again = touched | {
        day + step * DAY
        for day in touched
        for step, edge in ((-1, "head"), (1, "tail"))
        if old.get(str(day), {}).get(edge, "none") != new.get(str(day), {}).get(edge, "none")
    }
    for first, last in stretches(again):
        remade = by_day(sessions_of(engine, after, config, first, last))
        made = {day: own for day, own in made.items() if not first <= day < last} | remade
    assert made == by_day(whole)


@given(logs.events, logs.events, logs.session_settings)
@each_log
def test_what_no_neighbour_can_see_leaves_the_edges_alone(
    engine: duckdb.DuckDBPyConnection, events: list[Row], more: list[Row], config: SessionConfig
) -> None:
    fill(engine, tables.EVENTS, events)
    edges = clean.edges(engine, config, "events")
    gap = timedelta(minutes=config.gap_minutes)
    known = {row["day"] for row in events}
    inner = [
        {**row, "source_row": 30 + number, "event_id": f"inner {number}", "session_id": None}
        for number, row in enumerate(more)
        if row["day"] in known and row["ts"].hour >= 12 and row["ts"] + gap < START + (row["day"] - FIRST + DAY)
    ]
    fill(engine, tables.EVENTS, events + inner)
    assert clean.edges(engine, config, "events") == edges


@pytest.mark.parametrize(("session", "reach"), [(None, timedelta(minutes=30)), ("s", timedelta(hours=12))])
def test_edges_reach_exactly_as_far_as_sessions(
    engine: duckdb.DuckDBPyConnection, session: str | None, reach: timedelta
) -> None:
    tick = timedelta(microseconds=1)
    moments = {
        -reach - tick: "none",
        -reach: "tail",
        -tick: "tail",
        timedelta(0): "head",
        reach - tick: "head",
        reach: "none",
    }
    for from_midnight, edge in moments.items():
        ts = START + DAY + from_midnight
        row = {"day": ts.date(), "user_id": "u", "event_type": "view", "ts": ts, "weight": 1.0, "session_id": session}
        fill(engine, tables.EVENTS, logs.numbered([{**row, "source_file": "log"}]))
        (found,) = clean.edges(engine, SessionConfig(gap_minutes=30), "events").values()
        # The edge on the other side of the day is not looked at.
        side = "tail" if from_midnight < timedelta(0) else "head"
        assert (found[side] != "none") == (edge == side), (from_midnight, edge)
