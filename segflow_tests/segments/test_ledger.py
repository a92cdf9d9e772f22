"""The matching: survive, split, merge, emerge, vanish; identities do not depend on cluster numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segflow.config import LedgerConfig
from segflow.segments.ledger import Group, Ledger, match

CONFIG = LedgerConfig()


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


def test_centroids_stand_for_users_who_left():
    previous = {"s001": group(users(0, 100), 0, 0), "s002": group(users(100, 200), 10, 0)}
    fresh = users(500, 600)
    # Four of a hundred are left: all of them in one cluster say less than where its centre is.
    far = {0: group([*users(0, 4), *fresh], 30, 0), 1: group(users(100, 200), 10, 0)}
    assert events(match(previous, far, 2, CONFIG)) == {"s001": "vanish", "s002": "survive", "s003": "emerge"}
    near = {0: group([*users(0, 4), *fresh], 0.5, 0), 1: group(users(100, 200), 10, 0)}
    assert match(previous, near, 2, CONFIG).ids == {0: "s001", 1: "s002"}
    # Forty of a hundred are enough, wherever the centre has drifted.
    drifted = {0: group([*users(0, 40), *fresh], 30, 0), 1: group(users(100, 200), 10, 0)}
    assert match(previous, drifted, 2, CONFIG).ids == {0: "s001", 1: "s002"}
    off = LedgerConfig(evidence_users=0)
    assert match(previous, far, 2, off).ids == {0: "s001", 1: "s002"}
    assert events(match(previous, {0: group(fresh, 0, 0)}, 2, off))["s003"] == "emerge"


@pytest.mark.parametrize("left", [1, 2, 5, 49])
def test_a_segment_that_most_members_left_vanishes_wherever_the_others_are_now(left):
    previous = {"s001": group(users(0, 300)), "s002": group(users(300, 400), 9, 9)}
    moved = users(300, 300 + left)
    ledger = match(previous, {0: group(users(0, 300) + moved)}, 2, CONFIG)
    assert events(ledger) == {"s001": "survive", "s002": "vanish"}
    assert (ledger.rows[0].parents, ledger.rows[0].changed) == (["s001"], False)
    parted = {0: group(users(0, 300)), 1: group(moved[:1] + users(500, 530)), 2: group(moved[1:] + users(600, 620))}
    assert "split" not in events(match(previous, parted, 2, CONFIG)).values()


def test_who_is_in_no_cluster_now_speaks_against_survival_and_who_left_does_not():
    previous = {"s001": group(users(0, 100))}
    current = {0: group(users(0, 30) + users(200, 260))}
    assert match(previous, current, 1, CONFIG).ids == {0: "s001"}
    ledger = match(previous, current, 1, CONFIG, unplaced=users(30, 100))
    assert events(ledger) == {"s001": "vanish", "s002": "emerge"}
    assert ledger.rows[1].migration == {"s001": 30, "new": 60}
    kept = match(previous, {0: group(users(0, 60))}, 1, CONFIG, unplaced=users(60, 100))
    assert kept.rows[0].overlap == pytest.approx(0.6)


def test_who_moves_into_a_segment_that_goes_on_has_migrated():
    previous = {"s001": group(users(0, 100)), "s002": group(users(100, 500))}
    current = {0: group(users(0, 65)), 1: group(users(65, 500))}
    ledger = match(previous, current, 2, CONFIG)
    assert events(ledger) == {"s001": "survive", "s002": "survive"}
    assert [row.parents for row in ledger.rows] == [["s001"], ["s002"]]
    assert ledger.rows[1].migration == {"s001": 35, "s002": 400}
    assert not any(row.changed for row in ledger.rows)


def test_an_absorbed_segment_and_a_part_of_another_merge():
    previous = {"s001": group(users(0, 60)), "s002": group(users(100, 500))}
    current = {0: group(users(100, 320)), 1: group(users(0, 60) + users(320, 500))}
    ledger = match(previous, current, 2, CONFIG)
    assert events(ledger) == {"s001": "merge", "s002": "survive", "s003": "merge"}
    assert ledger.rows[2].parents == ["s001", "s002"]
    assert [row.changed for row in ledger.rows] == [False, True, False]


def test_survivors_of_a_split_and_of_a_merge_are_changed_and_others_are_not():
    previous = {f"s{n + 1:03d}": group(users(100 * n, 100 * n + 100)) for n in range(4)}
    current = {
        0: group(users(0, 65)),
        1: group(users(65, 100)),
        2: group(users(100, 200) + users(370, 400)),
        3: group(users(200, 370)),
    }
    ledger = match(previous, current, 4, CONFIG)
    assert events(ledger) == {"s001": "survive", "s002": "survive", "s003": "survive", "s004": "merge", "s005": "split"}
    assert {row.segment_id for row in ledger.rows if row.changed} == {"s001", "s003"}


def test_a_snapshot_that_is_matched_again_gives_the_same_clusters_the_same_ids():
    previous = {"s001": group(users(0, 100))}
    current = {0: group(users(0, 100)), 1: group(users(200, 260)), 2: group(users(300, 340))}
    first = match(previous, current, 1, CONFIG)
    assert first.ids == {0: "s001", 1: "s002", 2: "s003"}
    born = {first.ids[number]: current[number] for number in (1, 2)}
    assert match(previous, current, 7, CONFIG, recorded=born).ids == first.ids
    # One of the two is another now: nobody gets its id again.
    other = {0: current[0], 1: group(users(300, 345)), 2: group(users(600, 700))}
    ledger = match(previous, other, 7, CONFIG, recorded=born)
    assert ledger.ids == {0: "s001", 1: "s003", 2: "s008"}
    assert events(ledger) == {"s001": "survive", "s003": "emerge", "s008": "emerge"}


def test_ids_of_more_than_three_digits_are_ordered_by_their_number():
    previous = {"s1000": group(users(0, 50)), "s999": group(users(50, 100))}
    ledger = match(previous, {0: group(users(0, 50)), 1: group(users(50, 100)), 2: group(["x"])}, 1000, CONFIG)
    assert [row.segment_id for row in ledger.rows] == ["s999", "s1000", "s1001"]


def test_refuses_what_it_cannot_match():
    with pytest.raises(ValueError, match="two groups"):
        match({}, {0: group(["a"]), 1: group(["a"])}, 0, CONFIG)
    with pytest.raises(ValueError, match="two groups"):
        match({}, {0: group(["a"])}, 0, CONFIG, unplaced=["a"])
    with pytest.raises(ValueError, match="last_id"):
        match({"s002": group(["a"])}, {0: group(["a"])}, 1, CONFIG)
    with pytest.raises(ValueError, match="without members"):
        match({}, {0: group([])}, 0, CONFIG)
    with pytest.raises(ValueError, match="not a segment id"):
        match({"2": group(["a"])}, {0: group(["a"])}, 9, CONFIG)


class Pair(NamedTuple):
    """Two snapshots of up to 60 users, some of whom are in no cluster of the second, or in neither snapshot."""

    previous: dict[str, Group]
    current: dict[int, Group]
    unplaced: list[str]


@st.composite
def snapshots(draw: st.DrawFn) -> Pair:
    count = draw(st.integers(1, 60))
    before = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    after = draw(st.lists(st.integers(-1, 5), min_size=count, max_size=count))
    names = users(0, count)
    centroid = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
    previous = {
        f"s{code:03d}": Group([u for u, c in zip(names, before, strict=True) if c == code], np.array(draw(centroid)))
        for code in sorted(set(before) - {0})
    }
    current = {
        code: Group([u for u, c in zip(names, after, strict=True) if c == code], np.array(draw(centroid)))
        for code in sorted(set(after) - {0, -1})
    }
    return Pair(previous, current, [u for u, c in zip(names, after, strict=True) if c == -1])


def told(ledger: Ledger) -> list[tuple[object, ...]]:
    """All that rows say but for cluster numbers."""
    return [(r.segment_id, r.event, r.users, r.overlap, r.parents, r.migration, r.changed) for r in ledger.rows]


@settings(max_examples=80)
@given(snapshots(), st.integers(4, 20), st.permutations(range(6)), st.randoms(use_true_random=False))
def test_cluster_numbers_and_the_order_of_users_do_not_matter(pair, last_id, renumber, random):
    def shuffled(members: Collection[str]) -> list[str]:
        return random.sample(list(members), len(members))

    ledger = match(pair.previous, pair.current, last_id, CONFIG, pair.unplaced)
    current = {renumber[n]: Group(shuffled(one.members), one.centroid) for n, one in pair.current.items()}
    previous = {n: Group(shuffled(one.members), one.centroid) for n, one in reversed(pair.previous.items())}
    other = match(previous, current, last_id, CONFIG, shuffled(pair.unplaced))
    assert {renumber[number]: segment_id for number, segment_id in ledger.ids.items()} == other.ids
    assert told(ledger) == told(other)


@settings(max_examples=80)
@given(snapshots(), st.integers(4, 20))
def test_every_segment_has_one_fate_and_ids_are_never_reused(pair, last_id):
    previous, current, unplaced = pair
    ledger = match(previous, current, last_id, CONFIG, unplaced)
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
        assert row.event == "survive" or not row.changed
    parents = {one for row in living for one in row.parents}
    for row in ledger.rows:
        if row.cluster is None:
            assert row.event in {"merge", "split", "vanish"}
            assert (row.event == "vanish") == (row.segment_id not in parents)
    newborn_parents = {one for row in living if row.event != "survive" for one in row.parents}
    for row in living:
        lost_a_part = row.segment_id in newborn_parents
        absorbed = bool(set(row.parents) - {row.segment_id}) and row.event == "survive"
        assert row.changed == (row.event == "survive" and (lost_a_part or absorbed))


@settings(max_examples=60)
@given(snapshots())
def test_unchanged_membership_survives_whole(pair):
    current = dict(enumerate(pair.previous.values()))
    ledger = match(pair.previous, current, 4, CONFIG)
    assert ledger.ids == dict(enumerate(pair.previous))
    assert {(row.event, row.changed) for row in ledger.rows} <= {("survive", False)}
    assert ledger.last_id == 4


@settings(max_examples=60)
@given(snapshots(), st.integers(4, 20))
def test_matching_again_with_what_was_recorded_changes_nothing(pair, last_id):
    previous, current, unplaced = pair
    ledger = match(previous, current, last_id, CONFIG, unplaced)
    born = {
        row.segment_id: current[row.cluster] for row in ledger.rows if row.cluster is not None and row.overlap is None
    }
    again = match(previous, current, ledger.last_id + 3, CONFIG, unplaced, born)
    assert told(again) == told(ledger)
    assert again.ids == ledger.ids
