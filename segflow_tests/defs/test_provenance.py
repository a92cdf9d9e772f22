"""What partitions were made of, read from the event log: all that is asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from segflow.defs.materializes import PLANS
from segflow.defs.provenance import CONTENT, INPUTS, TABLE_VERSION, Provenance
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


def report(instance: dg.DagsterInstance, asset: str, content: str, partition: str | None = None) -> None:
    metadata = {CONTENT: content, INPUTS: "i", TABLE_VERSION: 1}
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
