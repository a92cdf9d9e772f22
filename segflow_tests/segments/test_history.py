"""The ledger as history: identities and names over weeks, and weeks that are made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segflow import tables
from segflow.errors import UserError
from segflow.segments.history import later_weeks, ledger_rows, spell
from segflow_tests.segments.snapshots import CONFIG, purchases, snapshot, users

FIRST = date(2024, 1, 1)
TWO = {0: users(0, 100), 1: users(100, 160)}
SPLIT = {0: users(0, 65), 1: users(65, 100), 2: users(100, 160)}

Clusters = Mapping[int, Sequence[str]]


class Ledger:
    """A ledger that is written week by week, as the asset does it."""

    def __init__(self) -> None:
        self.table = tables.SEGMENT_LEDGER.arrow.empty_table()

    def say(self, week: int, clusters: Clusters, rewrite: bool = False, **options: Any) -> list[dict[str, Any]]:
        """Make week number `week`, write it, and return its rows."""
        day = FIRST + timedelta(weeks=week)
        rows = ledger_rows(
            day, snapshot(clusters, **options), self.table, purchases(clusters), CONFIG, seed=0, rewrite=rewrite
        )
        others = self.table.filter(pc.not_equal(self.table["week"], pa.scalar(day)))
        self.table = pa.concat_tables([others, rows]).sort_by([("week", "ascending"), ("segment_id", "ascending")])
        return rows.to_pylist()


def of(rows: list[dict[str, Any]], column: str) -> dict[str, Any]:
    return {row["segment_id"]: row[column] for row in rows}


def test_a_snapshot_without_predecessor_emerges_and_records_who_is_in_it():
    rows = Ledger().say(0, TWO)
    assert of(rows, "event") == {"s001": "emerge", "s002": "emerge"}
    assert of(rows, "members") == {"s001": users(0, 100), "s002": users(100, 160)}
    assert of(rows, "revision") == {"s001": 0, "s002": 0}
    assert set(of(rows, "former_name").values()) == {None}
    centre = dict(rows[0]["centre"])
    assert centre["log_sessions_per_week_recent"] == pytest.approx(3, abs=0.1)
    assert len(set(of(rows, "name").values())) == 2


def test_names_are_frozen_and_a_split_names_both_parts():
    ledger = Ledger()
    names = of(ledger.say(0, TWO), "name")
    assert of(ledger.say(1, TWO), "name") == names
    levels = {0: [0, 1, 0, 0], 1: [0, 0, 0, 1], 2: [0, 1, 0, 0]}
    rows = ledger.say(2, SPLIT, levels=levels)
    assert of(rows, "event") == {"s001": "survive", "s002": "survive", "s003": "split"}
    assert of(rows, "former_name") == {"s001": names["s001"], "s002": None, "s003": None}
    after = of(rows, "name")
    assert after["s002"] == names["s002"]
    assert after["s001"] not in names.values()
    assert len({*after.values(), *names.values()}) == 4
    rows = ledger.say(3, SPLIT, levels=levels)
    assert of(rows, "name") == after
    assert set(of(rows, "former_name").values()) == {None}


def test_a_changed_segment_whose_facts_are_the_same_keeps_its_name():
    ledger = Ledger()
    names = of(ledger.say(0, TWO), "name")
    rows = ledger.say(1, SPLIT, levels={0: [1, 0, 0, 0], 1: [0, 0, 0, 1], 2: [0, 1, 0, 0]})
    assert (of(rows, "name")["s001"], of(rows, "former_name")["s001"]) == (names["s001"], None)
    assert of(rows, "name")["s003"] not in names.values()


def test_a_merge_names_the_survivor_anew_and_ends_the_other_under_its_name():
    ledger = Ledger()
    names = of(ledger.say(0, TWO), "name")
    rows = ledger.say(1, {0: users(0, 160), 1: users(300, 330)}, levels={0: [0, 0, 1, 0], 1: [1, 0, 0, 0]})
    assert of(rows, "event") == {"s001": "survive", "s002": "merge", "s003": "emerge"}
    assert of(rows, "former_name")["s001"] == names["s001"]
    assert of(rows, "name")["s002"] == names["s002"]
    assert of(rows, "members")["s002"] == []
    assert json.loads(of(rows, "migration")["s001"]) == {"s001": 100, "s002": 60}


def test_a_week_without_segments_has_no_rows_and_the_next_goes_on_from_the_latest_that_has():
    ledger = Ledger()
    names = of(ledger.say(0, TWO), "name")
    assert ledger.say(1, {-1: users(0, 160)}) == []
    rows = ledger.say(2, {0: users(100, 160), 1: users(0, 100)})
    assert of(rows, "event") == {"s001": "survive", "s002": "survive"}
    assert of(rows, "name") == names


def test_ids_go_on_above_those_that_vanished_long_ago():
    ledger = Ledger()
    ledger.say(0, {**TWO, 2: users(200, 230)})
    assert of(ledger.say(1, TWO), "event")["s003"] == "vanish"
    for week in range(2, 20):
        ledger.say(week, TWO)
    assert of(ledger.say(20, {**TWO, 2: users(300, 330)}), "event")["s004"] == "emerge"


def test_an_old_week_that_comes_out_the_same_is_what_is_recorded():
    ledger = Ledger()
    for week, clusters in enumerate([TWO, SPLIT, SPLIT]):
        ledger.say(week, clusters)
    recorded = ledger.table.to_pylist()
    ledger.say(1, SPLIT)
    assert ledger.table.to_pylist() == recorded
    # Other numbers of clusters are no other history.
    renumbered = ledger.say(1, {2: SPLIT[0], 0: SPLIT[1], 1: SPLIT[2]})
    assert of(renumbered, "cluster") == {"s001": 2, "s002": 1, "s003": 0}
    unnumbered = [{**row, "cluster": None} for row in recorded]
    assert [{**row, "cluster": None} for row in ledger.table.to_pylist()] == unnumbered


def test_an_old_week_that_would_change_is_refused_and_says_how_to_force_it():
    ledger = Ledger()
    for week in range(3):
        ledger.say(week, TWO)
    recorded = ledger.table
    with pytest.raises(UserError) as refused:
        ledger.say(1, {0: users(0, 99), 1: users(100, 160)})
    assert ledger.table is recorded
    said = str(refused.value)
    assert "2024-01-08" in said
    assert "2024-01-15 were matched" in said
    assert "segflow run --rewrite-history --week 2024-01-08 --week 2024-01-15" in said
    assert 'segflow/rewrite_history: "true"' in said
    assert "\n" not in said
    with pytest.raises(UserError, match="would change"):
        ledger.say(1, {-1: users(0, 160)})


def test_a_forced_rewrite_is_counted_and_takes_ids_and_names_that_no_week_used():
    ledger = Ledger()
    ledger.say(0, TWO)
    ledger.say(1, TWO)
    taken = of(ledger.say(2, {**TWO, 2: users(200, 230)}), "name")
    assert set(taken) == {"s001", "s002", "s003"}
    rows = ledger.say(1, {**TWO, 2: users(300, 330)}, rewrite=True)
    assert of(rows, "event") == {"s001": "survive", "s002": "survive", "s004": "emerge"}
    assert of(rows, "revision") == {"s001": 1, "s002": 1, "s004": 1}
    assert of(rows, "name")["s004"] not in taken.values()
    again = ledger.table.to_pylist()
    ledger.say(1, {**TWO, 2: users(300, 330)})
    assert ledger.table.to_pylist() == again
    # What follows is matched to what is recorded now; the segment that was born there keeps its id.
    elsewhere = {0: [1, 0, 0, 0], 1: [0, 1, 0, 0], 2: [0, 0, 0, 1]}
    rows = ledger.say(2, {**TWO, 2: users(200, 230)}, levels=elsewhere)
    assert of(rows, "event") == {"s001": "survive", "s002": "survive", "s003": "emerge", "s004": "vanish"}
    assert of(rows, "name")["s003"] == taken["s003"]
    assert of(rows, "revision")["s003"] == 1


def test_a_week_before_recorded_ones_is_refused_unless_it_has_no_segments():
    ledger = Ledger()
    ledger.say(4, TWO)
    assert ledger.say(2, {-1: users(0, 160)}) == []
    with pytest.raises(UserError, match=r"2024-01-22 are not recorded yet, .* 2024-01-29 were matched"):
        ledger.say(3, TWO)
    rows = ledger.say(3, TWO, rewrite=True)
    assert of(rows, "event") == {"s003": "emerge", "s004": "emerge"}
    rows = ledger.say(4, TWO)
    assert of(rows, "event") == {"s003": "survive", "s004": "survive"}


def test_the_latest_week_may_change_and_what_stays_keeps_its_id():
    ledger = Ledger()
    before = ledger.say(0, TWO)
    after = ledger.say(0, {0: users(0, 98), 1: users(98, 130), 2: users(130, 160)})
    assert of(after, "event") == {"s001": "emerge", "s002": "emerge", "s003": "emerge"}
    assert of(after, "name")["s001"] == of(before, "name")["s001"]
    assert set(of(after, "revision").values()) == {1}
    assert ledger.say(0, {-1: users(0, 160)}) == []


def test_many_later_weeks_are_counted():
    weeks = [FIRST + timedelta(weeks=number) for number in range(6)]
    assert spell(weeks[:2]) == "2024-01-01, 2024-01-08"
    assert spell(weeks) == "6 weeks from 2024-01-01 to 2024-02-05"
    ledger = Ledger()
    for week in range(6):
        ledger.say(week, TWO)
    assert later_weeks(ledger.table, FIRST) == weeks[1:]
    with pytest.raises(UserError, match=r"5 weeks from 2024-01-08 to 2024-02-05 .* --week 2024-01-29 …`"):
        ledger.say(0, SPLIT)


def test_a_ledger_of_another_version_is_named():
    ledger = Ledger()
    ledger.say(0, TWO)
    rows = [{**row, "centre": [("other", 1.0)]} for row in ledger.table.to_pylist()]
    ledger.table = pa.Table.from_pylist(rows, schema=tables.SEGMENT_LEDGER.arrow)
    with pytest.raises(UserError, match=r"s001 of week 2024-01-01 .* another run or version; move storage.root"):
        ledger.say(1, TWO)


@settings(max_examples=12)
@given(st.lists(st.lists(st.integers(-2, 3), min_size=24, max_size=24), min_size=2, max_size=4))
def test_over_weeks_an_id_and_a_name_stand_for_one_segment(weeks):
    """-2 is absent, -1 is in no cluster."""
    ledger = Ledger()
    ended: set[str] = set()
    named: dict[str, str] = {}
    present: set[str] = set()
    for number, labels in enumerate(weeks):
        clusters: dict[int, list[str]] = {}
        for user, label in zip(users(0, 24), labels, strict=True):
            clusters.setdefault(label, []).append(user)
        clusters.pop(-2, None)
        if not clusters:
            continue
        rows = ledger.say(number, clusters)
        assert (
            sorted(row["cluster"] for row in rows if row["cluster"] is not None)
            == sorted({*clusters} - {-1})[: len(rows)]
        )
        if not rows:
            continue
        ids = set(of(rows, "segment_id"))
        assert not ids & ended
        assert present <= ids
        for row in rows:
            assert named.setdefault(row["name"].casefold(), row["segment_id"]) == row["segment_id"]
            assert row["members"] == sorted(row["members"])
            assert len(row["members"]) == row["users"]
        ended |= {row["segment_id"] for row in rows if row["cluster"] is None}
        present = {row["segment_id"] for row in rows if row["cluster"] is not None}
        recorded = ledger.table.to_pylist()
        ledger.say(number, clusters)
        assert ledger.table.to_pylist() == recorded
