"""What is asked for by the clock, on a log of materializations that nothing was computed for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from segflow.definitions import defs
from segflow.defs import schedules
from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS
from segflow.defs.partitions import CONFIG, DAYS_AT_ONCE
from segflow.defs.schedules import ASKED
from segflow_tests.defs.recorded import record, record_days, record_week

START, FIRST = CONFIG.calendar.start, CONFIG.calendar.first_week
WEEK = CONFIG.calendar.first_snapshot
SOURCES = {"files": "as they are"}


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the source files, without files."""
    monkeypatch.setattr(schedules, "_sources", lambda _: SOURCES["files"])
    monkeypatch.setitem(SOURCES, "files", "as they are")


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance in memory, which a context takes no reference to."""
    with dg.DagsterInstance.ephemeral() as opened:
        monkeypatch.setattr(dg.ScheduleEvaluationContext, "instance", property(lambda _: opened))
        yield opened


def tick(instance: dg.DagsterInstance, name: str, day: date) -> list[dg.RunRequest] | str:
    """What a schedule asks for on the morning of `day`, or why it asks for nothing."""
    now = datetime(day.year, day.month, day.day, 2, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=now, repository_def=defs.get_repository_def())
    found = defs.get_repository_def().get_schedule_def(name).evaluate_tick(context)
    return list(found.run_requests) if found.run_requests else str(found.skip_message)


def ranges(found: list[dg.RunRequest] | str) -> list[tuple[str, str]]:
    assert not isinstance(found, str), found
    return [
        (one.tags["dagster/asset_partition_range_start"], one.tags["dagster/asset_partition_range_end"])
        for one in found
    ]


def after(days: int) -> date:
    return START + timedelta(days=days)


def a_run(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    """A run of a request, as the daemon leaves it."""
    run = instance.create_run_for_job(defs.resolve_job_def("ingest_days"), tags=request.tags, status=status)
    assert run.tags[ASKED]


def test_days_that_were_never_made_are_caught_up_in_chunks(instance: dg.DagsterInstance) -> None:
    days = DAYS_AT_ONCE + 5
    assert ranges(tick(instance, "daily_ingest", after(days))) == [
        (str(after(0)), str(after(DAYS_AT_ONCE - 1))),
        (str(after(DAYS_AT_ONCE)), str(after(days - 1))),
    ]
    assert tick(instance, "daily_ingest", START) == "every day that ended is made, or under way"


def test_a_new_day_takes_the_days_beside_it_along(instance: dg.DagsterInstance) -> None:
    for name in ("raw_events", "events", "sessions"):
        record(instance, PLANS[name], [str(after(number)) for number in (0, 1, 2, 4)])
    # The third is a hole between days that are made, the fifth the day that ended.
    assert ranges(tick(instance, "daily_ingest", after(6))) == [
        (str(after(2)), str(after(4))),
        (str(after(4)), str(after(5))),
    ]


def test_days_under_way_are_not_asked_for(instance: dg.DagsterInstance) -> None:
    (request,) = tick(instance, "daily_ingest", after(3))
    a_run(instance, request, dg.DagsterRunStatus.STARTED)
    assert tick(instance, "daily_ingest", after(3)) == "every day that ended is made, or under way"
    assert ranges(tick(instance, "daily_ingest", after(4))) == [(str(after(3)), str(after(3)))]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_days_that_failed_are_asked_for_alone_and_once(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    (request,) = tick(instance, "daily_ingest", after(2))
    a_run(instance, request, status)
    alone = tick(instance, "daily_ingest", after(2))
    assert ranges(alone) == [(str(after(0)), str(after(0))), (str(after(1)), str(after(1)))]
    for one in alone:
        a_run(instance, one, status)  # type: ignore[arg-type]
    assert "no source file has changed since" in tick(instance, "daily_ingest", after(2))
    # They hold up no other day, and are asked for again when a file has changed.
    assert ranges(tick(instance, "daily_ingest", after(3))) == [(str(after(2)), str(after(2)))]
    SOURCES["files"] = "mended"
    assert len(ranges(tick(instance, "daily_ingest", after(3)))) == 3


def test_weeks_are_asked_for_in_order_once_their_days_are_there(instance: dg.DagsterInstance) -> None:
    complete = (WEEK - START).days + 7
    record_days(instance, complete - 1)
    assert tick(instance, "weekly_snapshot", after(complete - 1)) == "no week is complete yet"
    missing = str(after(complete - 1))
    assert f"week {WEEK} waits for" in tick(instance, "weekly_snapshot", after(complete))
    assert missing in tick(instance, "weekly_snapshot", after(complete))
    for plan in [PLANS[name] for name in ASSETS["days"] if name in PLANS]:
        record(instance, plan, [str(after(complete - 2)), missing])
    (request,) = tick(instance, "weekly_snapshot", after(complete))
    snapshot = {*ASSETS["models_week"], *ASSETS["segments_week"]}
    assert (request.partition_key, {key.to_user_string() for key in request.asset_selection}) == (str(WEEK), snapshot)

    # A week later nobody has made it yet: it comes first.
    record_days(instance, complete + 7, ["days"])
    (first,) = tick(instance, "weekly_snapshot", after(complete + 7))
    assert first.partition_key == str(WEEK)
    record_week(instance, WEEK, ["models_week"])
    (rest,) = tick(instance, "weekly_snapshot", after(complete + 7))
    assert {key.to_user_string() for key in rest.asset_selection} == set(ASSETS["segments_week"])
    record_week(instance, WEEK, ["segments_week"])
    (second,) = tick(instance, "weekly_snapshot", after(complete + 7))
    assert second.partition_key == str(WEEK + timedelta(weeks=1))
    record_week(instance, WEEK + timedelta(weeks=1), ["models_week", "segments_week"])
    assert tick(instance, "weekly_snapshot", after(complete + 7)) == "the followed weeks are made"


def test_a_week_that_failed_is_not_asked_for_again_with_the_same_days(instance: dg.DagsterInstance) -> None:
    complete = (WEEK - START).days + 7
    record_days(instance, complete)
    (request,) = tick(instance, "weekly_snapshot", after(complete))
    tags = {**request.tags, "dagster/partition": str(WEEK)}
    run = instance.create_run_for_job(
        defs.resolve_job_def("snapshot_week"), tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    assert "under way" in tick(instance, "weekly_snapshot", after(complete))
    instance.report_run_failed(run)
    record_week(instance, WEEK, ["models_week"])
    assert "run it again by hand" in tick(instance, "weekly_snapshot", after(complete)), "part of it was made"
    record(instance, PLANS["events"], [str(FIRST)], content="other")
    record(instance, PLANS["sessions"], [str(FIRST)], content="other")
    for name in ("user_days", "day_reports", "session_embeddings"):
        record(instance, PLANS[name], [str(FIRST)], content="other")
    assert len(tick(instance, "weekly_snapshot", after(complete))) == 1
