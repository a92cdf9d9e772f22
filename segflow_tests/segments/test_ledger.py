"""The ledger: survive, split, merge, emerge, vanish; identities do not depend on cluster numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segflow.config import SegmentConfig
from segflow.segments.ledger import Group, Ledger, match

CONFIG = SegmentConfig()


def users(start: int, stop: int) -> list[str]:
    return [f"u{number:04d}" for number in range(start, stop)]


def group(members: list[str], *centroid: float) -> Group:
    return Group(members, np.array(centroid or (0.0, 0.0)))


def events(ledger: Ledger) -> dict[str, str]:
    return {row.segment_id: row.event for row in ledger.rows}


def test_first_snapshot_emerges_with_the_largest_first():
    ledger = match({}, {0: group(users(0, 10)), 1: group(users(10, 40))}, 0, CONFIG)
    assert ledger.ids == {1: "s001", 0: "s002"}
    assert events(ledger) == {"s001": "emerge", "s002": "emerge"}
    assert ledger.last_id == 2
    assert ledger.rows[0].migration == {"new": 30}


def test_survivor_keeps_its_id_and_counts_migration():
    previous = {"s001": group(users(0, 100)), "s002": group(users(100, 200))}
    current = {0: group(users(90, 200) + users(300, 305)), 1: group(users(0, 90))}
    ledger = match(previous, current, 2, CONFIG)
    assert ledger.ids == {1: "s001", 0: "s002"}
    second = ledger.rows[1]
    assert (second.event, second.parents) == ("survive", ["s002"])
    assert second.migration == {"s001": 10, "s002": 100, "new": 5}
    assert second.overlap == pytest.approx(100 / 110)
    assert (second.users, second.previous_users) == (115, 100)


def test_split_leaves_the_id_with_the_large_part():
    previous = {"s001": group(users(0, 100)), "s002": group(users(100, 200))}
    current = {0: group(users(0, 65)), 1: group(users(65, 100)), 2: group(users(100, 200))}
    ledger = match(previous, current, 2, CONFIG)
    assert ledger.ids == {0: "s001", 1: "s003", 2: "s002"}
    assert events(ledger) == {"s001": "survive", "s002": "survive", "s003": "split"}
    assert ledger.rows[2].parents == ["s001"]


def test_split_in_three_ends_the_segment():
    current = {0: group(users(0, 34)), 1: group(users(34, 67)), 2: group(users(67, 100))}
    ledger = match({"s004": group(users(0, 100))}, current, 4, CONFIG)
    assert events(ledger) == {"s004": "split", "s005": "split", "s006": "split", "s007": "split"}
    assert ledger.rows[0].cluster is None
    assert ledger.rows[0].users == 0
    assert all(row.parents == ["s004"] for row in ledger.rows[1:])


def test_merge_into_a_new_segment_and_into_a_survivor():
    equal = {"s001": group(users(0, 49)), "s002": group(users(49, 98)), "s003": group(users(98, 147))}
    ledger = match(equal, {0: group(users(0, 147))}, 3, CONFIG)
    assert events(ledger) == {"s001": "merge", "s002": "merge", "s003": "merge", "s004": "merge"}
    assert ledger.rows[3].parents == ["s001", "s002", "s003"]

    unequal = {"s001": group(users(0, 80)), "s002": group(users(80, 100))}
    ledger = match(unequal, {0: group(users(0, 100))}, 2, CONFIG)
    assert events(ledger) == {"s001": "survive", "s002": "merge"}
    assert ledger.rows[0].parents == ["s001", "s002"]


def test_vanish_and_emerge():
    previous = {"s001": group(users(0, 50), 0, 0), "s002": group(users(50, 80), 9, 9)}
    current = {0: group(users(0, 50), 0, 0), 1: group(users(500, 520), -9, 9)}
    ledger = match(previous, current, 7, CONFIG)
    assert events(ledger) == {"s001": "survive", "s002": "vanish", "s008": "emerge"}


def test_centroids_decide_only_without_common_users():
    previous = {"s001": group(users(0, 50), 0, 0), "s002": group(users(50, 100), 10, 0)}
    fresh = {0: group(users(500, 550), 10.1, 0), 1: group(users(600, 650), 0.1, 0)}
    assert match(previous, fresh, 2, CONFIG).ids == {1: "s001", 0: "s002"}
    # The same places in space, but the members say otherwise.
    swapped = {0: group(users(0, 50), 10, 0), 1: group(users(50, 100), 0, 0)}
    assert match(previous, swapped, 2, CONFIG).ids == {0: "s001", 1: "s002"}


def test_centroid_distance_breaks_a_tie():
    halves = {0: group(users(0, 50), 5, 0), 1: group(users(50, 100), 1, 0)}
    assert match({"s001": group(users(0, 100), 0, 0)}, halves, 1, CONFIG).ids[1] == "s001"


def test_refuses_what_it_cannot_match():
    with pytest.raises(ValueError, match="two groups"):
        match({}, {0: group(["a"]), 1: group(["a"])}, 0, CONFIG)
    with pytest.raises(ValueError, match="last_id"):
        match({"s002": group(["a"])}, {0: group(["a"])}, 1, CONFIG)
    with pytest.raises(ValueError, match="without members"):
        match({}, {0: group([])}, 0, CONFIG)
    with pytest.raises(ValueError, match="not a segment id"):
        match({"2": group(["a"])}, {0: group(["a"])}, 9, CONFIG)


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[dict[str, Group], dict[int, Group]]:
    """Two snapshots of up to 60 users; 0 means absent from the snapshot."""
    count = draw(st.integers(1, 60))
    before = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    after = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    names = users(0, count)
    centroid = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
    previous = {
        f"s{code:03d}": Group([u for u, c in zip(names, before, strict=True) if c == code], np.array(draw(centroid)))
        for code in sorted(set(before) - {0})
    }
    current = {
        code: Group([u for u, c in zip(names, after, strict=True) if c == code], np.array(draw(centroid)))
        for code in sorted(set(after) - {0})
    }
    return previous, current


@settings(deadline=None, max_examples=60)
@given(snapshots(), st.integers(4, 20), st.permutations(range(6)))
def test_cluster_numbers_do_not_matter(pair, last_id, renumber):
    previous, current = pair
    ledger = match(previous, current, last_id, CONFIG)
    other = match(previous, {renumber[number]: group for number, group in current.items()}, last_id, CONFIG)
    assert {renumber[number]: segment_id for number, segment_id in ledger.ids.items()} == other.ids
    assert [(r.segment_id, r.event, r.parents, r.migration) for r in ledger.rows] == [
        (r.segment_id, r.event, r.parents, r.migration) for r in other.rows
    ]


@settings(deadline=None, max_examples=60)
@given(snapshots(), st.integers(4, 20))
def test_every_segment_has_one_fate_and_ids_are_never_reused(pair, last_id):
    previous, current = pair
    ledger = match(previous, current, last_id, CONFIG)
    living = [row for row in ledger.rows if row.cluster is not None]
    assert sorted(row.cluster for row in living) == sorted(current)
    assert len({row.segment_id for row in ledger.rows}) == len(ledger.rows)
    assert set(previous) <= {row.segment_id for row in ledger.rows}
    born = [int(row.segment_id[1:]) for row in ledger.rows if row.segment_id not in previous]
    assert sorted(born) == list(range(last_id + 1, ledger.last_id + 1))
    for row in living:
        assert (row.event == "survive") == (row.segment_id in previous)
        assert sum(row.migration.values()) == row.users == len(current[row.cluster].members)
        assert set(row.parents) <= set(previous)
        assert (row.event == "emerge") == (not row.parents)


@settings(deadline=None, max_examples=60)
@given(snapshots())
def test_unchanged_membership_survives_whole(pair):
    previous, _ = pair
    current = dict(enumerate(previous.values()))
    ledger = match(previous, current, 4, CONFIG)
    assert ledger.ids == dict(enumerate(previous))
    assert {row.event for row in ledger.rows} <= {"survive"}
    assert ledger.last_id == 4
