"""`python -m segflow_tests.benchmarks.automation_job [DAYS]`: seconds that one evaluation of the automation conditions takes.

The log of an instance is filled as real runs would fill it, for so many days and their weeks, but nothing is computed. Then: the
first tick, which reads everything, ticks on which nothing happened, and one after a new day.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import yaml

START = date(2024, 1, 1)


def _settings(folder: Path, days: int) -> None:
    values = {
        "source": {
            "events": {
                "path": "events.csv",
                "columns": {"user_id": "user", "item_id": "item", "ts": "time"},
                "event_type": "view",
            }
        },
        "calendar": {"start": START, "end": START + timedelta(days=days)},
    }
    (folder / "segflow.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    os.environ["SEGFLOW_CONFIG"] = str(folder / "segflow.yaml")


def fill(instance: dg.DagsterInstance, days: int, weeks: int) -> None:
    """Materializations of the last `weeks` weeks and all `days`, each with what it would record."""
    from segflow.defs.jobs import ASSETS
    from segflow.defs.materializes import PLANS
    from segflow.defs.provenance import ASPECTS, CODE, CONTENT, INPUTS, TABLE_VERSION, UPSTREAM, Provenance

    all_days = [(START + timedelta(days=number)).isoformat() for number in range(days)]
    first = days // 7 - weeks - 1
    all_weeks = [(START + timedelta(weeks=first + number)).isoformat() for number in range(weeks)]
    stages = [[plan] for stage in ("catalogue", "days") for name in ASSETS[stage] if (plan := PLANS.get(name))]
    weekly = [PLANS[name] for job in list(ASSETS)[2:] for name in ASSETS[job] if name in PLANS]

    def report(plans: list, key: str, provenance: Provenance) -> None:  # type: ignore[type-arg]
        for plan in plans:
            for table in plan.tables:
                facts = {
                    CONTENT: f"{table.name}{key}",
                    INPUTS: provenance.inputs(plan, key) if plan.observes is None else "outside",
                    TABLE_VERSION: 1,
                    CODE: plan.code_version,
                    UPSTREAM: json.dumps(provenance.contents(plan, key)),
                    **({ASPECTS: json.dumps({"s001": "a", "s002": "b"})} if table.name == "user_segments" else {}),
                }
                event = dg.AssetMaterialization(table.name, partition=key or None, metadata=facts)
                instance.report_runless_asset_event(event)

    for plans in stages:
        provenance = Provenance(instance)
        for key in all_days if plans[0].partitions else [""]:
            report(plans, key, provenance)
    instance.add_dynamic_partitions("segment", ["s001", "s002"])
    for week in all_weeks:
        for plan in weekly:
            provenance = Provenance(instance)
            if len(plan.tables[0].partitions) == 2:
                for segment in ("s001", "s002"):
                    report([plan], dg.MultiPartitionKey({"week": week, "segment": segment}), provenance)
            else:
                report([plan], week, provenance)


def main(days: int) -> None:
    """Fill, evaluate, print."""
    with TemporaryDirectory() as name:
        _settings(Path(name), days)
        from segflow.definitions import defs

        with dg.DagsterInstance.ephemeral() as instance:
            began = time.perf_counter()
            fill(instance, days, 4)
            print(f"{days} days and 4 weeks recorded in {time.perf_counter() - began:.1f} s")
            now = datetime.combine(START + timedelta(days=days), datetime.min.time(), UTC) + timedelta(hours=6)
            cursor = None
            for tick in ("first tick", "nothing new", "nothing new"):
                began = time.perf_counter()
                found = dg.evaluate_automation_conditions(
                    defs=defs, instance=instance, cursor=cursor, evaluation_time=now
                )
                cursor = found.cursor
                print(f"{tick}: {found.total_requested} partitions asked for, {time.perf_counter() - began:.2f} s")
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    "sessions", partition=str(START), metadata=_changed(instance, "sessions", str(START))
                )
            )
            began = time.perf_counter()
            found = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor, evaluation_time=now)
            took = time.perf_counter() - began
            print(f"one day changed: {found.total_requested} partitions asked for, {took:.2f} s")


def _changed(instance: dg.DagsterInstance, asset: str, key: str) -> dict[str, object]:
    """What the latest materialization recorded, with another content."""
    from segflow.defs.provenance import CONTENT

    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key])
    (latest,) = instance.fetch_materializations(wanted, limit=1).records
    assert latest.asset_materialization is not None
    return {**{name: one.value for name, one in latest.asset_materialization.metadata.items()}, CONTENT: "other"}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 730)
