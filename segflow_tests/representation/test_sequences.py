"""Event sequences: the layout is right, rows out of order are refused, and cuts let nothing of the future through."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow.errors import UserError
from segflow.representation.sequences import EventSequences

START = datetime(2024, 1, 1, tzinfo=UTC)


def _table(rows: Sequence[tuple[str, str | None, str, int, float | None]]) -> pa.Table:
    names = ("user_id", "item_id", "event_type", "ts", "value")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    moments = [START + timedelta(hours=hour) for hour in columns["ts"]]
    return pa.table(
        {
            "user_id": pa.array(columns["user_id"], pa.string()),
            "item_id": pa.array(columns["item_id"], pa.string()),
            "event_type": pa.array(columns["event_type"], pa.string()),
            "ts": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "value": pa.array(columns["value"], pa.float64()),
        }
    )


def test_layout() -> None:
    table = _table([("a", "x", "view", 0, 1.5), ("a", None, "buy", 1, None), ("b", "unknown", "buy", 0, 2.0)])
    sequences = EventSequences.from_arrow(table, ["w", "x"], ("buy", "view"))
    assert sequences.user_ids.tolist() == ["a", "b"]
    assert sequences.offsets.tolist() == [0, 2, 3]
    assert sequences.items.tolist() == [1, -1, -1]
    assert sequences.types.tolist() == [1, 0, 0]
    assert sequences.values.tolist() == [1.5, 0.0, 2.0]
    assert sequences.times[1] - sequences.times[0] == 3_600_000_000
    assert sequences.user_of_event.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "rows",
    [
        [("b", "x", "buy", 0, 1.0), ("a", "x", "buy", 0, 1.0)],
        [("a", "x", "buy", 1, 1.0), ("a", "x", "buy", 0, 1.0)],
        [("a", "x", "buy", 0, 1.0), ("b", "x", "buy", 0, 1.0), ("a", "x", "buy", 1, 1.0)],
    ],
)
def test_rows_out_of_order_are_refused(rows: list) -> None:
    with pytest.raises(UserError, match="out of order"):
        EventSequences.from_arrow(_table(rows), ["x"], ("buy",))


def test_unknown_event_type_and_repeated_item_are_refused() -> None:
    table = _table([("a", "x", "sell", 0, 1.0)])
    with pytest.raises(UserError, match="sell"):
        EventSequences.from_arrow(table, ["x"], ("buy",))
    with pytest.raises(UserError, match="twice"):
        EventSequences.from_arrow(table, ["x", "x"], ("sell",))


events = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40).map(sorted)


@given(events, st.integers(-1, 51), st.integers(0, 30))
def test_cuts_keep_exactly_the_events_of_their_time(events: list, start: int, length: int) -> None:
    rows = [(user, "x", "buy", hour, float(number)) for number, (user, hour) in enumerate(events)]
    sequences = EventSequences.from_arrow(_table(rows), ["x"], ("buy",))
    low, high = (int((START + timedelta(hours=h)).timestamp()) * 1_000_000 for h in (start, start + length))
    part = sequences.between(low, high)
    assert part.values.tolist() == [row[4] for row in rows if start <= row[3] < start + length]
    assert part.user_ids.tolist() == sequences.user_ids.tolist()
    owners = part.user_ids[part.user_of_event].tolist()
    assert owners == [row[0] for row in rows if start <= row[3] < start + length]
    assert sequences.before(low).values.tolist() == [row[4] for row in rows if row[3] < start]


def test_some_users_alone_keep_their_events_and_their_numbers_of_items() -> None:
    rows = [
        ("a", "x", "view", 0, 1.0),
        ("b", "y", "buy", 0, 2.0),
        ("b", "x", "view", 1, 3.0),
        ("d", "z", "buy", 5, 4.0),
    ]
    sequences = EventSequences.from_arrow(_table(rows), ["x", "y", "z"], ("buy", "view"))
    some = sequences.only(np.array([2, 1]))
    assert some.user_ids.tolist() == ["d", "b"]
    assert some.offsets.tolist() == [0, 1, 3]
    assert some.items.tolist() == [2, 1, 0]
    assert some.types.tolist() == [0, 0, 1]
    assert some.values.tolist() == [4.0, 2.0, 3.0]
    assert some.item_ids.tolist() == ["x", "y", "z"]
    assert sequences.only(np.arange(0)).offsets.tolist() == [0]
