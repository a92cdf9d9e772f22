"""The definitions: groups, tables, checks, windows and code versions, derived from one place."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import pytest
from pyarrow import fs

from segflow import tables
from segflow.definitions import defs
from segflow.defs.code_version import code_version
from segflow.defs.events.sensors import growing
from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS
from segflow.defs.partitions import (
    CONFIG,
    EARLIER_WEEKS,
    HISTORY,
    HISTORY_AND_TEST,
    HISTORY_AND_WEEK,
    NEIGHBOUR_DAYS,
    SAME_DAY,
    SAME_WEEK,
    WEEK_BEFORE,
    Window,
)
from segflow.defs.rankers.serving import GATE
from segflow.defs.runner import plans_of
from segflow.events.files import SourceFile
from segflow.storage.checks import CHECKS

GROUPS = {"events", "representation", "segments", "rankers", "evaluation"}
WEEK = date(2024, 3, 4)


def specs() -> dict[str, dg.AssetSpec]:
    """Table name -> what Dagster knows of its asset."""
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_every_table_is_an_asset_in_one_of_five_groups() -> None:
    found = specs()
    assert set(found) == set(tables.ALL)
    assert {spec.group_name for spec in found.values()} == GROUPS
    assert all(spec.owners and spec.kinds and spec.description for spec in found.values())


def test_every_table_has_blocking_checks_for_its_schema_keys_and_ranges() -> None:
    checks: dict[str, set[str]] = {}
    for one in defs.resolve_asset_graph().asset_check_keys:
        # What the gate holds back is an answer, not a fault of its table.
        assert defs.resolve_asset_graph().get(one).blocking == (one.name != GATE)
        checks.setdefault(one.asset_key.to_user_string(), set()).add(one.name)
    assert {"schema", "keys", "ranges"} <= set(CHECKS)
    assert {name: set(CHECKS) - checks.get(name, set()) for name in tables.ALL} == {name: set() for name in tables.ALL}


def test_lineage_is_what_the_steps_read() -> None:
    graph = specs()
    for plan in PLANS.values():
        for table in plan.tables:
            assert {dep.asset_key.to_user_string() for dep in graph[table.name].deps} == {
                one.name for one in plan.reads
            }


@pytest.mark.parametrize("job", ASSETS)
def test_a_job_selects_whole_plans_in_an_order_in_which_they_can_be_made(job: str) -> None:
    listed, plans = ASSETS[job], plans_of(job)
    written = [table.name for plan in plans for table in plan.tables]
    assert sorted(written) == sorted(listed), "one table of a pass without the others"
    selected = {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys}
    assert set(written) <= selected
    for number, plan in enumerate(plans):
        later = {table for other in plans[number + 1 :] for table in other.tables}
        assert not later & {table for table, window in plan.reads.items() if window != WEEK_BEFORE}, plan.name


@pytest.mark.parametrize(
    ("window", "end"),
    [
        (EARLIER_WEEKS, WEEK),
        (HISTORY, WEEK),
        (HISTORY_AND_WEEK, WEEK + timedelta(days=7)),
        (HISTORY_AND_TEST, WEEK + timedelta(days=14)),
    ],
    ids=lambda one: getattr(one, "name", str(one)),
)
def test_a_window_ends_where_it_says(window: Window, end: date) -> None:
    assert window.days is not None
    first, last = window.days(WEEK, WEEK)
    assert last == end
    assert first == WEEK - timedelta(weeks=CONFIG.calendar.history_weeks)


@pytest.mark.parametrize("name", ["behavior_model", "text_adapter", "user_views", "user_embeddings", "segmentation"])
def test_what_learns_sees_nothing_of_its_own_week(name: str) -> None:
    """Tables of the same week are made by plans of which the same holds."""
    for table, window in PLANS[name].reads.items():
        if window.days is not None and table.partitions[0] == "day":
            assert window.days(WEEK, WEEK)[1] <= WEEK, table.name


def test_only_the_test_itself_reads_the_test_week() -> None:
    readers = {
        plan.name
        for plan in PLANS.values()
        for table, window in plan.reads.items()
        if table.partitions and window.days and window.days(WEEK, WEEK)[1] > WEEK + timedelta(days=7)
    }
    assert readers == {"ranking_results"}


def test_only_what_tunes_and_tests_reads_the_snapshot_week() -> None:
    """The probe's answer is used by later weeks only: `user_embeddings` reads that of the week before. Newcomers of the week
    are read by nobody.
    """
    readers = {
        plan.name
        for plan in PLANS.values()
        for table, window in plan.reads.items()
        if table.partitions == ("day",) and plan.tables[0].partitions[:1] == ("week",)
        if window.days and window.days(WEEK, WEEK)[1] > WEEK
    }
    assert readers == {
        "global_ranker",
        "segment_rankers",
        "control_rankers",
        "repeated_rankers",
        "recommendations",
        "served_ranker",
        "ranking_results",
        "representation_probe",
        "newcomer_segments",
    }
    assert not [plan.name for plan in PLANS.values() if tables.NEWCOMER_SEGMENTS in plan.reads]
    assert WEEK_BEFORE.days is not None
    assert WEEK_BEFORE.days(WEEK, WEEK) == (WEEK - timedelta(days=7), WEEK)


def test_the_windows_of_days() -> None:
    assert SAME_DAY.days is not None
    assert NEIGHBOUR_DAYS.days is not None
    assert SAME_WEEK.days is not None
    day = timedelta(days=1)
    assert SAME_DAY.days(WEEK, WEEK + day) == (WEEK, WEEK + 2 * day)
    assert NEIGHBOUR_DAYS.days(WEEK, WEEK) == (WEEK - day, WEEK + 2 * day)
    assert SAME_WEEK.days(WEEK, WEEK) == (WEEK, WEEK + day)


def test_the_code_version_follows_settings_code_and_schema() -> None:
    def version(config: object = CONFIG, code: tuple[str, ...] = ("events/clean.py",), table=tables.EVENTS) -> str:  # type: ignore[no-untyped-def]
        return code_version([table], code, ["cleaning"], config)  # type: ignore[arg-type]

    cleaning = CONFIG.cleaning.model_copy(update={"require_known_item": not CONFIG.cleaning.require_known_item})
    compute = CONFIG.compute.model_copy(update={"threads": 1})
    assert version() == version()
    assert version(CONFIG.model_copy(update={"compute": compute})) == version()
    others = {
        version(CONFIG.model_copy(update={"cleaning": cleaning})),
        version(code=("events/clean.py", "events/flaw.sql")),
        version(table=tables.SESSIONS),
    }
    assert len(others | {version()}) == 4


def test_one_key_of_a_section_may_decide_alone() -> None:
    def version(**changes: object) -> str:
        config = CONFIG.model_copy(update={"evaluation": CONFIG.evaluation.model_copy(update=changes)})
        return code_version([tables.RANKING_RESULTS], [], ["evaluation.popular_items"], config)

    assert version(minimum_users=99) == version() != version(popular_items=7)


def test_the_sensor_waits_for_files_that_may_still_be_written() -> None:
    def changed(seconds_ago: float) -> SourceFile:
        return SourceFile("/log/a", "a", 1, int((1e9 - seconds_ago) * 1e9), fs.LocalFileSystem(), "/log/a")

    assert growing([changed(500), changed(3)], 1e9, 10)
    assert growing([changed(-3)], 1e9, 10), "clocks differ"
    assert not growing([changed(500), changed(-500)], 1e9, 10), "a wrong clock is not waited for"
    assert not growing([changed(0)], 1e9, 0)
