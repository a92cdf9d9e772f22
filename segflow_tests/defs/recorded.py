"""An event log as runs would have left it: materializations with what they record, and nothing computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import dagster as dg

from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.partitions import CONFIG
from segflow.defs.provenance import ASPECTS, CODE, CONTENT, INPUTS, TABLE_VERSION, UPSTREAM, Provenance
from segflow.defs.representation.assets import encoder_files

MEMBERS: Mapping[str, str] = {"s001": "a", "s002": "b"}
"""The segments of every week, with digests of their members."""


def record(
    instance: dg.DagsterInstance,
    plan: Plan,
    keys: Iterable[str],
    content: str = "",
    code: str | None = None,
    members: Mapping[str, str] = MEMBERS,
) -> None:
    """`plan` makes the partitions `keys` of what is there now; all of its tables then hold `content`."""
    provenance = Provenance(instance)
    for key in keys:
        for table in plan.tables:
            facts = {
                CONTENT: content or f"{table.name} {key}",
                # What is observed outside needs the files of a project; an installed encoder has none of its own.
                INPUTS: provenance.inputs(plan, key) if plan.observes in (None, encoder_files) else "outside",
                TABLE_VERSION: 1,
                CODE: plan.code_version if code is None else code,
                UPSTREAM: json.dumps(provenance.contents(plan, key)),
            }
            if table.name == "user_segments":
                facts[ASPECTS] = json.dumps(dict(members))
            event = dg.AssetMaterialization(table.name, partition=key or None, metadata=facts)
            instance.report_runless_asset_event(event)


def record_days(instance: dg.DagsterInstance, count: int, jobs: Iterable[str] = ("catalogue", "days")) -> list[str]:
    """The catalogue and the first `count` days of the calendar, by the plans of `jobs`; returns the days."""
    days = [(CONFIG.calendar.start + timedelta(days=number)).isoformat() for number in range(count)]
    for job in jobs:
        for plan in plans(job):
            record(instance, plan, days if plan.partitions else [""])
    return days


def record_week(instance: dg.DagsterInstance, week: date, jobs: Iterable[str]) -> None:
    """All that `jobs` make of `week`."""
    instance.add_dynamic_partitions("segment", list(MEMBERS))
    for job in jobs:
        for plan in plans(job):
            record(instance, plan, keys_of(plan, week))


def keys_of(plan: Plan, week: date) -> list[str]:
    """The partitions of `plan` in `week`."""
    if len(plan.tables[0].partitions) == 1:
        return [week.isoformat()]
    return [str(dg.MultiPartitionKey({"week": week.isoformat(), "segment": segment})) for segment in MEMBERS]


def plans(job: str) -> list[Plan]:
    """The plans of a job in their order."""
    return [PLANS[name] for name in ASSETS[job] if name in PLANS]
