"""Simulated mornings of a project whose automation is on make exactly the runs that the rules ask for: real runs, real files.

They take minutes. The same rules are tested in seconds on recorded logs (`segflow_tests/defs/test_automation.py`).
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

import pytest

from segflow import tables
from segflow.segments.snapshots import UNASSIGNED
from segflow_tests.pipeline.mornings import DAY, FOLLOWERS, INGESTED, WEEK, Mornings, mornings
from segflow_tests.pipeline.project import SMALL
from segflow_tests.planted import planted_log

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Mornings:
    """Two mornings and what goes wrong after them, in the first week of a log: no week is followed yet."""
    folder = tmp_path_factory.mktemp("days")
    return mornings(folder, planted_log(folder / "whole", users=20, weeks=2), first=date(2024, 1, 5), count=2)


def test_every_morning_makes_the_day_that_ended_and_what_follows_from_it(days: Mornings) -> None:
    for number in range(days.count):
        morning = days.first + number * DAY
        found = days.chapter(str(morning))
        assert found.failed == []
        assert found.made == days.expected(morning, {})
    assert len(days.chapter(str(days.first)).made) > 4 * 7
    assert days.chapter("the same morning again").made == Counter()


def test_a_late_file_makes_its_day_and_the_direct_followers_again(days: Mornings) -> None:
    late = days.first - 3 * DAY
    again = Counter(["source_files ", *(f"{asset} {late}" for asset in (*INGESTED, *FOLLOWERS))])
    assert days.chapter("a late file").made == again


def test_what_fails_is_tried_once_for_the_same_inputs(days: Mornings) -> None:
    late = days.first - 3 * DAY
    found = days.chapter("a page that cannot be made")
    assert found.failed == ["day_reports"], "three ticks"
    assert len(found.asked) == 1
    assert f"day_reports {late}" not in found.made
    assert found.made[f"user_days {late}"] == 1
    assert days.chapter("nothing was mended that is known of").asked == []
    found = days.chapter("its inputs changed")
    assert found.failed == []
    assert found.made[f"day_reports {late}"] == 1
    assert len(found.asked) == 1


def test_a_day_whose_file_is_broken_is_tried_once_until_the_file_is_mended(days: Mornings) -> None:
    day = days.first + (days.count - 1) * DAY
    found = days.chapter("a file without its users")
    assert found.failed == ["source_files"], "three ticks"
    assert len(found.asked) == 1
    assert found.skipped == [f"daily_ingest: {day} failed, and no source file has changed since"] * 2
    found = days.chapter("the file is mended")
    assert found.failed == []
    assert {f"{asset} {day}" for asset in (*INGESTED, *FOLLOWERS)} <= set(found.made)
    assert set(found.made.values()) == {1}
    assert found.skipped == ["daily_ingest: every day that ended is made, or under way"]


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Mornings:
    """Thirty mornings, from the first on which a week is followed."""
    settings: dict[str, Any] = {
        "behavior": {**SMALL["behavior"], "validation_days": 3},
        "users": {"views": ["text", "behavior", "engagement"], "fuse": ["text", "behavior", "engagement"]},
        "rankers": {**SMALL["rankers"], "training_weeks": 1},
        "segments": {"k_min": 2, "k_max": 4, "bootstraps": 10, "min_users": 5, "without_structure": "divide"},
        "text": {},
    }
    folder = tmp_path_factory.mktemp("month")
    log = planted_log(folder / "whole", users=80, weeks=8)
    return mornings(folder, log, first=date(2024, 1, 22), count=30, **settings)


def segments(month: Mornings) -> dict[date, list[str]]:
    """Week -> its segments, by the table."""
    found = {}
    for week in (month.first + back * WEEK for back in range(-1, month.count // 7)):
        ids = month.project.read(tables.USER_SEGMENTS, {"week": week})["segment_id"].unique().to_pylist()
        found[week] = sorted(set(ids) - {UNASSIGNED})
    return found


def test_thirty_mornings_make_what_the_rules_ask_for_and_nothing_else(month: Mornings) -> None:
    of_week = segments(month)
    assert min(map(len, of_week.values())) >= 2
    for number in range(month.count):
        morning = month.first + number * DAY
        found = month.chapter(str(morning))
        assert found.failed == []
        assert found.made == month.expected(morning, of_week), morning
    assert month.chapter("the same morning again").made == Counter()


def test_only_the_segment_that_a_user_left_is_trained_again(month: Mornings) -> None:
    week = sorted(segments(month))[-2]
    left = segments(month)[week][1]
    assert month.chapter("a user leaves a segment").made == Counter([f"user_segments {week}"])
    found = month.chapter("what follows the members")
    assert found.failed == []
    assert {name for name in found.made if name.startswith("segment_rankers")} == {f"segment_rankers {left}|{week}"}
    others = {"control_rankers", "repeated_rankers", "segment_profiles", "recommendations", "ranking_results"}
    assert {f"{name} {week}" for name in others} <= set(found.made)
    assert not [name for name in found.made if name.startswith(("behavior_model", "global_ranker", "segmentation"))]
    assert set(found.made.values()) == {1}


def test_turning_it_on_by_config_works(days: Mornings) -> None:
    assert {"daily_ingest", "weekly_snapshot", "late_files", "downstream"} <= set(days.chapter("turned on").asked)
