"""The bundle answers every request in a defined way, and a mistake in one by the row and the key."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from segflow.errors import UserError
from segflow.rankers.requests import read_requests
from segflow.rankers.served import ServedRanker
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow_tests.rankers.conftest import COUNT, ITEMS, World
from segflow_tests.rankers.serving import NOW, ask, ids, moment, request_of


def test_the_history_decides_not_the_name(world: World, served: ServedRanker) -> None:
    known, stranger, nameless = ask(
        served,
        request_of(world, 7),
        request_of(world, 7) | {"user_id": "never seen"},
        {"events": request_of(world, 7)["events"]},
    )
    assert known["items"] == stranger["items"] == nameless["items"]
    assert (known["user_id"], stranger["user_id"], nameless["user_id"]) == ("u007", "never seen", None)


def test_no_events_get_a_fallback_that_says_which(world: World, served: ServedRanker) -> None:
    popular = np.argsort(-served.fallbacks.popularity, kind="stable")[:COUNT]
    for answer in ask(served, {}, {"events": []}, {"user_id": "u001", "segment_id": "s1"}):
        assert answer["arm"] == "cold: popularity"
        assert ids(answer) == [served.ranker.candidate_ids[place] for place in popular]
        assert answer["events"] == 0
    only_unknown = request_of(world, 3)
    for event in only_unknown["events"]:
        event["event_type"] = "gaze"
    (answer,) = ask(served, only_unknown)
    assert answer["arm"] == "cold: popularity"
    assert answer["ignored_events"]["unknown_type"] == len(only_unknown["events"])


def test_unknown_items_are_visits_and_are_counted(world: World, served: ServedRanker) -> None:
    plain = request_of(world, 5)
    strange = request_of(world, 5)
    # On the day of another event: not one more visit.
    strange["events"].append({**strange["events"][-1], "item_id": "not in the catalogue", "ts": moment(NOW - DAY // 2)})
    with_strange, without = ask(served, strange, plain)
    assert with_strange["ignored_events"]["unknown_item"] == 1
    assert with_strange["events"] == without["events"] + 1
    (nothing,) = ask(served, {"events": [{"item_id": "new", "event_type": "buy", "ts": moment(NOW - 1)}]})
    assert nothing["arm"] == "global"
    assert len(nothing["items"]) == COUNT


def test_the_order_of_events_does_not_matter(world: World, served: ServedRanker) -> None:
    rows = [request_of(world, user) for user in range(6)]
    mixed = [request_of(world, user) for user in range(6)]
    for row in mixed:
        random.Random(0).shuffle(row["events"])
    for one, other in zip(ask(served, *rows), ask(served, *mixed), strict=True):
        assert ids(one) == ids(other)


def test_what_is_not_before_now_is_left_out(world: World, served: ServedRanker) -> None:
    row = request_of(world, 9)
    later = {"item_id": "i39", "event_type": "buy", "ts": moment(NOW + 5)}
    at = {**later, "ts": moment(NOW)}
    expected, asked_before = ask(served, row, row | {"events": [later, *row["events"], at], "now": moment(NOW)})
    assert asked_before["items"] == expected["items"]
    assert asked_before["ignored_events"]["not_before_now"] == 2
    # Without `now` the latest event is the present.
    (present,) = ask(served, row | {"events": [*row["events"], later]})
    assert present["events"] == expected["events"] + 1
    assert present["items"] != expected["items"]


def test_a_day_later_everything_is_a_day_older(world: World, served: ServedRanker) -> None:
    first, second = ask(
        served, request_of(world, 11, now=moment(NOW)), request_of(world, 11, now=moment(NOW + 30 * DAY))
    )
    assert first["events"] == second["events"]
    assert first["items"] != second["items"]


def test_an_event_id_counts_once(world: World, served: ServedRanker) -> None:
    row = request_of(world, 13)
    for number, event in enumerate(row["events"]):
        event["event_id"] = str(number)
    plain, doubled = ask(served, row, row | {"events": row["events"] * 2})
    assert doubled["items"] == plain["items"]
    assert doubled["ignored_events"]["duplicate"] == len(row["events"])
    # Lines of a basket may be equal: without ids nothing tells them from repeats.
    bare = request_of(world, 13)
    (lines,) = ask(served, bare | {"events": bare["events"] * 2})
    assert lines["events"] == 2 * len(bare["events"])


def test_a_value_that_is_not_a_number_counts_as_none(world: World, served: ServedRanker) -> None:
    missing, nan = request_of(world, 15), request_of(world, 15)
    for one, other in zip(missing["events"], nan["events"], strict=True):
        one["value"], other["value"] = None, float("nan")
    assert ask(served, missing) == ask(served, nan)


def test_ten_thousand_events(world: World, served: ServedRanker) -> None:
    row = request_of(world, 17)
    old = [
        {"item_id": f"i{number % ITEMS:02}", "event_type": "buy", "ts": moment(number * 60_000_000)}
        for number in range(10_000 - len(row["events"]))
    ]
    (answer,) = ask(served, row | {"events": old + row["events"]})
    assert answer["events"] == 10_000
    assert len(answer["items"]) == COUNT


def test_length_and_seen_items(world: World, served: ServedRanker) -> None:
    row = request_of(world, 19)
    had = {event["item_id"] for event in row["events"]}
    plain, short, fresh, everything = ask(
        served, row, row | {"n": 3}, row | {"exclude_seen": True}, row | {"exclude_seen": True, "n": 1000}
    )
    assert ids(short) == ids(plain)[:3]
    assert had & set(ids(plain))
    assert not had & set(ids(fresh))
    assert set(ids(everything)) == set(served.ranker.candidate_ids) - had
    scores = [one["score"] for one in everything["items"]]
    assert scores == sorted(scores, reverse=True)


EVENT = {"event_type": "buy", "ts": "2024-01-31T12:00:00Z", "item_id": "i01"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (5, "request 1: expected keys and values, found int"),
        (None, "request 1: expected keys and values, found NoneType"),
        ({"evnts": []}, "request 1: evnts: unknown key; known here: events, user_id"),
        ({"events": None}, "request 1: events: .*valid list"),
        ({"events": [EVENT, 7]}, r"request 1: events\[1\]: expected keys and values, found int"),
        ({"events": [EVENT | {"price": 1}]}, r"request 1: events\[0\].price: unknown key; known here: event_type, ts"),
        ({"events": [{"ts": EVENT["ts"]}]}, r"request 1: events\[0\].event_type: missing; add it"),
        ({"events": [EVENT | {"ts": None}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": 1706702400}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": float("nan")}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": "yesterday"}]}, r"request 1: events\[0\].ts: not an ISO 8601 time: 'yesterday'"),
        ({"events": [EVENT | {"ts": "2024-01-31"}]}, r"request 1: events\[0\].ts: a time without an offset from UTC"),
        ({"events": [EVENT | {"item_id": 12}]}, r"request 1: events\[0\].item_id: .*valid string"),
        ({"events": [EVENT | {"item_id": float("nan")}]}, r"request 1: events\[0\].item_id: .*valid string"),
        ({"events": [EVENT | {"value": "3"}]}, r"request 1: events\[0\].value: .*valid number"),
        ({"user_id": 7}, "request 1: user_id: .*valid string"),
        ({"n": 0}, "request 1: n: .*greater than or equal to 1"),
        ({"n": 1001}, "request 1: n: .*less than or equal to 1000"),
        ({"n": 2.5}, "request 1: n: .*valid integer"),
        ({"exclude_seen": "no"}, "request 1: exclude_seen: .*valid boolean"),
        ({"now": "soon"}, "request 1: now: not an ISO 8601 time"),
        ({"segments": {"s1": float("nan")}}, "request 1: segments.s1: "),
        ({"segments": {"s1": 0.7, "s2": 0.7}}, "request 1: segments: probabilities sum to 1.4"),
        ({"segment_id": "s1", "segments": {}}, "request 1: segment_id and segments: give one of them"),
        ({"segment_id": "s9"}, "request 1: segment 's9' is not one of this ranker's; known here: s1, s2"),
    ],
)
def test_a_mistake_names_the_row_and_the_key(served: ServedRanker, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        served.recommend(read_requests([{}, row]))
    assert "\n" not in str(found.value)
