"""What partitions were made of, read from the event log: all that is asked for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from segflow.defs.materializes import PLANS
from segflow.defs.provenance import ASPECTS, CONTENT, INPUTS, TABLE_VERSION, Made, Provenance
from segflow_tests.defs.test_definitions import CONFIG

FIRST = CONFIG.calendar.start
DAYS = [(FIRST + timedelta(days=number)).isoformat() for number in range(12)]
FOREIGN = (FIRST + timedelta(days=12)).isoformat()
"""A day that was not made by a step: nothing is known of it."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Twelve days of events, each made twice, and items."""
    with dg.DagsterInstance.ephemeral() as opened:
        for turn in ("old", "new"):
            for day in DAYS:
                report(opened, "events", f"{turn} {day}", day)
        report(opened, "items", "items")
        opened.report_runless_asset_event(dg.AssetMaterialization("events", partition=FOREIGN))
        yield opened


def report(
    instance: dg.DagsterInstance,
    asset: str,
    content: str,
    partition: str | None = None,
    aspects: Mapping[str, str] | None = None,
) -> None:
    metadata: dict[str, Any] = {CONTENT: content, INPUTS: "i", TABLE_VERSION: 1}
    if aspects is not None:
        metadata[ASPECTS] = json.dumps(aspects)
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, metadata=metadata))


def test_the_latest_of_every_partition_is_known(instance: dg.DagsterInstance) -> None:
    provenance = Provenance(instance)
    assert {day: made.content for day, made in provenance.made("events").items()} == {day: f"new {day}" for day in DAYS}
    assert [(key, made.content) for key, made in provenance.made("items").items()] == [("", "items")]
    assert provenance.made("sessions") == {}
    report(instance, "events", "newest", DAYS[3])
    assert provenance.made("events")[DAYS[3]].content == f"new {DAYS[3]}"
    provenance.forget("events")
    assert provenance.made("events")[DAYS[3]].content == "newest"


def test_the_inputs_of_a_day_are_its_window_and_no_other_record_is_read(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLANS["sessions"]
    before = {day: Provenance(instance).inputs(plan, day) for day in DAYS}
    assert len(set(before.values())) == len(DAYS)

    read: list[int] = []
    fetch = instance.fetch_materializations

    def counting(records_filter: Any, limit: int) -> Any:
        found = fetch(records_filter, limit=limit)
        read.extend(record.storage_id for record in found.records if record.partition_key)
        return found

    monkeypatch.setattr(instance, "fetch_materializations", counting)
    provenance = Provenance(instance)
    assert provenance.inputs(plan, DAYS[4]) == before[DAYS[4]]
    assert len(read) == 3
    provenance.read_ahead(plan, DAYS[3:6])
    assert len(read) == 5
    assert {day: provenance.inputs(plan, day) for day in DAYS[3:6]} == {day: before[day] for day in DAYS[3:6]}
    assert len(read) == len(set(read)) == 5

    report(instance, "events", "other", DAYS[4])
    changed = Provenance(instance)
    assert [day for day in DAYS if changed.inputs(plan, day) != before[day]] == [DAYS[4]]


def test_a_ranker_of_a_segment_follows_its_own_members_alone() -> None:
    week = "2024-03-04"
    keys = {name: str(dg.MultiPartitionKey({"week": week, "segment": name})) for name in ("s001", "s002", "s003")}
    plan = PLANS["segment_rankers"]

    def inputs(shared: str, **members: str) -> dict[str, str]:
        with dg.DagsterInstance.ephemeral() as instance:
            report(instance, "user_segments", shared, week, members)
            provenance = Provenance(instance)
            assert {key: provenance.contents(plan, key)["user_segments"] for key in keys.values()}
            return {name: provenance.inputs(plan, key) for name, key in keys.items()}

    before = inputs("one", s001="a", s002="b")
    after = inputs("other", s001="a", s002="c")
    assert before["s001"] == after["s001"]
    assert before["s002"] != after["s002"]
    assert before["s003"] == after["s003"] != before["s001"], "a segment that does not live in the week"


def test_what_changed_is_told_by_table(instance: dg.DagsterInstance) -> None:
    plan = PLANS["sessions"]
    before = Provenance(instance).contents(plan, DAYS[4])
    report(instance, "items", "newer")
    after = Provenance(instance).contents(plan, DAYS[4])
    assert set(before) == {"events", "items"}
    assert [table for table in before if before[table] != after[table]] == ["items"]


def test_records_that_are_known_are_not_read_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[int, Made | None] = {}
    before = Provenance(instance, known).made("events")
    assert len(known) == len(DAYS) + 1, "the foreign day too"
    report(instance, "events", "newest", DAYS[3])
    fetch, read = instance.fetch_materializations, []

    def counting(records_filter: Any, limit: int) -> Any:
        read.extend(records_filter.storage_ids)
        return fetch(records_filter, limit=limit)

    monkeypatch.setattr(instance, "fetch_materializations", counting)
    after = Provenance(instance, known).made("events")
    assert len(read) == 1
    assert {day for day in DAYS if before[day] != after[day]} == {DAYS[3]}
