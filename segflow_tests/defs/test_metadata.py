"""What Dagster shows of the assets: tags, code references, links, and when an asset is late."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import CronFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time

from segflow import tables
from segflow.config import CalendarConfig, FreshnessConfig
from segflow.definitions import defs
from segflow.defs.logged import settings_of
from segflow.defs.materializes import PLANS
from segflow.defs.metadata import code_references, docs_link, freshness, readable
from segflow.defs.partitions import CONFIG
from segflow.defs.results import Results
from segflow.storage import Violation, ViolationsError
from segflow.tables import Table

OPEN = CalendarConfig(start=date(2024, 1, 3), week_starts="wednesday")
ROOT = Path(__file__).parents[2]


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_assets_are_chosen_by_stage_and_cadence() -> None:
    found = specs()
    assert found["events"].tags.items() >= {"stage": "events", "cadence": "daily"}.items()
    assert found["segment_rankers"].tags.items() >= {"stage": "rankers", "cadence": "weekly"}.items()
    assert found["items"].tags["cadence"] == "snapshot"
    daily = dg.AssetSelection.tag("cadence", "daily").resolve(list(defs.resolve_asset_graph().assets_defs))
    assert {key.to_user_string() for key in daily} == {
        name for name, table in tables.ALL.items() if table.partitions == ("day",)
    }


@pytest.mark.parametrize("name", tables.ALL)
def test_code_references_lead_to_the_body_and_its_statements(name: str) -> None:
    found = specs()[name].metadata["dagster/code_references"]
    assert isinstance(found, dg.CodeReferencesMetadataValue)
    body, *statements = found.code_references
    assert isinstance(body, dg.LocalFileCodeReference)
    plan = next(plan for plan in PLANS.values() if tables.ALL[name] in plan.tables)
    lines = Path(body.file_path).read_text(encoding="utf-8").splitlines()[(body.line_number or 0) - 1 :]
    assert lines[0].startswith("@materializes(")
    assert next(line for line in lines if line.startswith("def ")) == f"def {plan.name}(step: Step) -> None:"
    assert all(Path(one.source.rpartition(":")[0]).is_file() for one in statements)
    assert specs()[name].metadata["dagster/uri"] == f"{CONFIG.storage.root}/{name}"


def test_code_references_and_docs_are_addresses_where_the_settings_give_them() -> None:
    found = code_references(freshness, ["events/user_days.sql", "events/clean.py"], "https://code.example/blob/v1/")
    assert [one.source.partition("#")[0] for one in found.code_references] == [
        "https://code.example/blob/v1/segflow/defs/metadata.py",
        "https://code.example/blob/v1/sql/events/user_days.sql",
    ]
    shown = CONFIG.metadata.model_copy(update={"docs": "https://docs.example/tables/"})
    link = docs_link(tables.EVENTS, CONFIG.model_copy(update={"metadata": shown}))
    assert link["docs"].value == "https://docs.example/tables/#events"
    assert docs_link(tables.EVENTS, CONFIG) == {}


def test_notes_are_metadata_of_their_kind() -> None:
    shown = readable({"rows": 3, "reasons": {"duplicate": 2}, "page": Path("/reports/a.html"), "name": "x"})
    assert (shown["rows"], shown["name"]) == (3, "x")
    assert isinstance(shown["reasons"], dg.JsonMetadataValue)
    assert isinstance(shown["page"], dg.PathMetadataValue)


def test_settings_are_told_key_by_key() -> None:
    found = settings_of(CONFIG, ["sessions", "evaluation.popular_items", "source", "seed"])
    assert found["sessions.gap_minutes"] == str(CONFIG.sessions.gap_minutes)
    assert found["evaluation.popular_items"] == str(CONFIG.evaluation.popular_items)
    assert found["source.events.path"] == CONFIG.source.events.path
    assert found["seed"] == "0"
    assert "evaluation.power" not in found


def state(table: Table, made: datetime, now: datetime) -> FreshnessState:
    """What Dagster says at `now` of an asset of that table that was materialized at `made`."""

    @dg.asset(freshness_policy=freshness(table, OPEN, FreshnessConfig()))
    def one() -> None: ...

    definitions = dg.Definitions([one])
    with dg.DagsterInstance.ephemeral() as instance:
        with freeze_time(made):
            dg.materialize([one], instance=instance)
        with freeze_time(now):
            node = definitions.resolve_asset_graph().get(one.key)
            context = LoadingContextForTest(instance)
            return asyncio.run(CronFreshnessPolicyEvaluator().evaluate_freshness(context, node))


@pytest.mark.parametrize(
    ("table", "made", "now", "expected"),
    [
        # Six hours after midnight the day that ended has to be there; a run of the evening before was of another day.
        (tables.EVENTS, "2024-03-05T23:00", "2024-03-06T06:30", "FAIL"),
        (tables.EVENTS, "2024-03-06T02:00", "2024-03-06T06:30", "PASS"),
        (tables.EVENTS, "2024-03-06T02:00", "2024-03-07T05:30", "PASS"),
        (tables.EVENTS, "2024-03-06T08:00", "2024-03-06T09:00", "PASS"),
        # Weeks end on Wednesdays here; twelve hours later the weekly assets have to be made.
        (tables.USER_SEGMENTS, "2024-03-05T22:00", "2024-03-06T12:30", "FAIL"),
        (tables.USER_SEGMENTS, "2024-03-06T05:00", "2024-03-06T12:30", "PASS"),
        (tables.USER_SEGMENTS, "2024-03-06T05:00", "2024-03-13T11:30", "PASS"),
        (tables.USER_SEGMENTS, "2024-03-06T05:00", "2024-03-13T12:30", "FAIL"),
    ],
)
def test_an_asset_is_late_when_its_day_or_week_is_not_there_in_time(
    table: Table, made: str, now: str, expected: str
) -> None:
    moments = [datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (made, now)]
    assert state(table, *moments).value == expected


def test_a_closed_log_a_catalogue_and_what_is_switched_off_are_never_late() -> None:
    closed = OPEN.model_copy(update={"end": date(2024, 6, 1)})
    assert freshness(tables.EVENTS, closed, FreshnessConfig()) is None
    assert freshness(tables.ITEMS, OPEN, FreshnessConfig()) is None
    assert freshness(tables.EVENTS, OPEN, FreshnessConfig(days_within_hours=None)) is None
    assert freshness(tables.USER_VIEWS, OPEN, FreshnessConfig(weeks_within_hours=None)) is None


def test_every_hour_that_the_settings_allow_makes_a_policy() -> None:
    for hours in (1, 23, 24, 25, 120, 167):
        assert freshness(tables.USER_VIEWS, OPEN, FreshnessConfig(weeks_within_hours=hours)) is not None
    for hours in (1, 23):
        assert freshness(tables.EVENTS, OPEN, FreshnessConfig(days_within_hours=hours)) is not None


def test_a_failed_check_says_the_rule_the_rows_and_the_partition() -> None:
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    results = Results(PLANS["events"], [str(day) for day in days], [(day,) for day in days], {}, {})
    found = [
        Violation("ranges", 3, "events: 3 rows with weight below 0.0", where="2024-01-02"),
        Violation("schema", 1, "events: 1 rows without ts"),
    ]
    told = [
        (one.check_name, {name: value.value for name, value in one.metadata.items()})
        for one in results.failed(ViolationsError(tables.EVENTS, found))
    ]
    assert told == [
        ("ranges", {"rule": "3 rows with weight below 0.0", "rows": 3, "partition": "2024-01-02"}),
        ("schema", {"rule": "1 rows without ts", "rows": 1, "partition": "2024-01-01 … 2024-01-02"}),
    ]
