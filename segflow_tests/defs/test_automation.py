"""What is asked for by itself: evaluated by Dagster, on a log of materializations that nothing was computed for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from segflow.config import AutomationConfig
from segflow.definitions import defs
from segflow.defs.following import followed_weeks
from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS
from segflow.defs.partitions import CONFIG
from segflow_tests.defs.recorded import MEMBERS, keys_of, record, record_days, record_week

FIRST = CONFIG.calendar.first_week
WEEK = CONFIG.calendar.first_snapshot
"""The first week that can be a snapshot."""
SNAPSHOT = ("models_week", "segments_week")
AFTER = ("probe_week", "segment_rankers_week", "report_week", "pooled_week")
RANKERS = {str(dg.MultiPartitionKey({"week": str(WEEK), "segment": name})) for name in MEMBERS}
TESTED = {"ranking_results", "list_quality", "leave_one_out", "arm_tuning", "evaluation_report", "champion"}


class Ticks:
    """Evaluations of the automation conditions, one after another."""

    def __init__(self, instance: dg.DagsterInstance, now: date):
        self.instance = instance
        self.now = datetime(now.year, now.month, now.day, 6, tzinfo=UTC)
        self._cursor: Any = None

    def __call__(self) -> dict[str, set[str]]:
        """Asset -> the partitions that are asked for; nothing is run."""
        found = dg.evaluate_automation_conditions(
            defs=defs, instance=self.instance, cursor=self._cursor, evaluation_time=self.now
        )
        self._cursor = found.cursor
        assets = [result.key.to_user_string() for result in found.results]
        asked = {name: {key or "" for key in found.get_requested_partitions(dg.AssetKey(name))} for name in assets}
        return {name: keys for name, keys in asked.items() if keys}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """The days up to the end of `WEEK`, all made, and the snapshot of `WEEK`."""
    with dg.DagsterInstance.ephemeral() as opened:
        record_days(opened, (WEEK - CONFIG.calendar.start).days + 7)
        record_week(opened, WEEK, SNAPSHOT)
        yield opened


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> Ticks:
    """The morning after the last of these days."""
    return Ticks(instance, WEEK + timedelta(weeks=1))


def make_rest(instance: dg.DagsterInstance) -> None:
    """Everything of `WEEK` that needs no test week."""
    for job in AFTER:
        for plan in [PLANS[name] for name in ASSETS[job] if name in PLANS]:
            if not TESTED & {table.name for table in plan.tables} and plan.name != "pooled_verdict":
                record(instance, plan, keys_of(plan, WEEK))


def test_everything_that_launches_runs_is_off_by_default() -> None:
    on = {name for name, value in AutomationConfig() if value is True}
    assert on == {"new_segments", "reconcile"}
    repository = defs.get_repository_def()
    running = {one.name for one in repository.schedule_defs if one.default_status == dg.DefaultScheduleStatus.RUNNING}
    running |= {one.name for one in repository.sensor_defs if one.default_status == dg.DefaultSensorStatus.RUNNING}
    assert not running & {"daily_ingest", "weekly_snapshot", "late_files", "downstream"}
    assert {"new_segments", "failed_runs"} <= running
    assert "default_automation_condition_sensor" not in {one.name for one in repository.sensor_defs}


def test_the_followed_weeks_are_over_and_have_history() -> None:
    def weeks(after: timedelta) -> list[date]:
        day = FIRST + after
        return followed_weeks(datetime(day.year, day.month, day.day, 1, tzinfo=UTC))

    assert weeks(timedelta(days=20)) == []
    assert weeks(timedelta(days=21)) == [WEEK]
    assert weeks(timedelta(days=27)) == [WEEK]
    assert weeks(timedelta(weeks=20)) == [FIRST + timedelta(weeks=number) for number in range(16, 20)]
    assert len(weeks(timedelta(weeks=2000))) == CONFIG.automation.followed_weeks, "a calendar that is closed"


def test_a_week_is_one_run_and_its_test_waits_for_the_week_after(instance: dg.DagsterInstance, tick: Ticks) -> None:
    first = tick()
    assert first.pop("segment_rankers") == RANKERS
    assert first == {name: {str(WEEK)} for name in ("representation_probe", "control_rankers", "repeated_rankers")}
    assert tick() == {}, "asked once"
    make_rest(instance)
    assert tick() == {}, "there is no test week yet"
    first_day = (WEEK - CONFIG.calendar.start).days + 7
    days = [(CONFIG.calendar.start + timedelta(days=first_day + number)).isoformat() for number in range(7)]
    for plan in [PLANS[name] for name in ASSETS["days"] if name in PLANS]:
        record(instance, plan, days[:-1])
    tick.now += timedelta(days=6)
    assert tick() == {}, "a day of it is missing"
    for plan in [PLANS[name] for name in ASSETS["days"] if name in PLANS]:
        record(instance, plan, days[-1:])
    tick.now += timedelta(days=1)
    # The one before the last day reads over midnight, and is made again by whoever makes the last.
    record(instance, PLANS["sessions"], days[-2:])
    record_days_after(instance, days)
    assert tick() == {name: {str(WEEK)} for name in (*TESTED, "pooled_verdict")}


def record_days_after(instance: dg.DagsterInstance, days: list[str]) -> None:
    for name in ("sessions", "user_days", "day_reports", "session_embeddings"):
        record(instance, PLANS[name], [(date.fromisoformat(days[0]) - timedelta(days=1)).isoformat(), *days])


def test_only_the_segment_whose_members_changed_is_trained_again(instance: dg.DagsterInstance, tick: Ticks) -> None:
    make_rest(instance)
    assert tick() == {}
    record(instance, PLANS["user_segments"], [str(WEEK)], content="other", members={**MEMBERS, "s002": "c"})
    asked = tick()
    assert asked.pop("segment_rankers") == {str(dg.MultiPartitionKey({"week": str(WEEK), "segment": "s002"}))}
    follows = {"control_rankers", "repeated_rankers", "segment_profiles", "segment_page"}
    assert asked == {name: {str(WEEK)} for name in follows}, "what reads the rankers waits for them"


def test_a_late_event_reaches_the_days_and_no_week(instance: dg.DagsterInstance, tick: Ticks) -> None:
    make_rest(instance)
    day = str(FIRST)
    record(instance, PLANS["events"], [day], content="other")
    assert tick() == {}, "sessions of the day are not up to date yet"
    record(instance, PLANS["sessions"], [day], content="other")
    assert tick() == {name: {day} for name in ("user_days", "day_reports", "session_embeddings")}


def test_a_catalogue_that_grows_makes_vectors_and_nothing_else(instance: dg.DagsterInstance, tick: Ticks) -> None:
    make_rest(instance)
    record(instance, PLANS["items"], [""], content="other")
    assert tick() == {"item_embeddings": {""}}
    record(instance, PLANS["item_embeddings"], [""], content="other")
    assert tick() == {}


def test_changed_code_is_for_people_to_run(instance: dg.DagsterInstance, tick: Ticks) -> None:
    make_rest(instance)
    day = str(FIRST)
    record(instance, PLANS["user_days"], [day], code="older")
    record(instance, PLANS["sessions"], [day], content="other")
    assert tick() == {name: {day} for name in ("day_reports", "session_embeddings")}


def test_what_failed_is_asked_for_again_when_its_inputs_change(instance: dg.DagsterInstance, tick: Ticks) -> None:
    make_rest(instance)
    day = str(FIRST)
    followers = {name: {day} for name in ("user_days", "day_reports", "session_embeddings")}
    for content in ("one", "two", "one"):
        record(instance, PLANS["sessions"], [day], content=content)
        assert tick() == followers, "a change to and fro is one each time"
        assert tick() == {}, "none of them was made, as if its run had failed"


def test_a_missing_snapshot_is_not_for_the_conditions(instance: dg.DagsterInstance) -> None:
    with dg.DagsterInstance.ephemeral() as bare:
        record_days(bare, (WEEK - CONFIG.calendar.start).days + 7)
        assert Ticks(bare, WEEK + timedelta(weeks=1))() == {}


def test_days_whose_followers_were_never_made_are_asked_for_together() -> None:
    with dg.DagsterInstance.ephemeral() as bare:
        days = record_days(bare, 10, ["catalogue"])
        for name in ("raw_events", "events", "sessions"):
            record(bare, PLANS[name], days)
        found = Ticks(bare, CONFIG.calendar.start + timedelta(days=10))()
        assert found == {name: set(days) for name in ("user_days", "day_reports", "session_embeddings")}
