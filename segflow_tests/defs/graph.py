"""The asset graph as a text, for a test to compare with `graph.txt`: `python -m segflow_tests.defs.graph` writes it anew.

Names only, so that a change of the graph shows in a review as what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from segflow.definitions import defs

FILE = Path(__file__).with_name("graph.txt")


def graph() -> str:
    """Assets with groups, partitions, dependencies and checks (`!` for blocking ones); jobs, schedules and sensors."""
    return "\n".join([*_assets(), *_jobs(), *_ticking()]) + "\n"


def _assets() -> Iterator[str]:
    nodes = defs.resolve_asset_graph()
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda one: (str(one.group_name), one.key)):
        checks = sorted(key for key in nodes.asset_check_keys if key.asset_key == spec.key)
        yield f"asset {spec.group_name}/{spec.key.to_user_string()}"
        yield f"  partitions: {_partitions(spec.partitions_def)}"
        yield f"  depends on: {_listed(dep.asset_key.to_user_string() for dep in spec.deps)}"
        yield f"  checks: {_listed(key.name + ('!' if nodes.get(key).blocking else '') for key in checks)}"


def _partitions(partitions: dg.PartitionsDefinition | None) -> str:
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        return _listed(f"{one.name} {_partitions(one.partitions_def)}" for one in partitions.partitions_defs)
    return "none" if partitions is None else type(partitions).__name__.removesuffix("PartitionsDefinition").lower()


def _jobs() -> Iterator[str]:
    for job in sorted(defs.resolve_all_job_defs(), key=lambda one: one.name):
        if not job.name.startswith("__"):
            yield f"job {job.name}"
            yield f"  assets: {_listed(key.to_user_string() for key in job.asset_layer.selected_asset_keys)}"


def _ticking() -> Iterator[str]:
    repository = defs.get_repository_def()
    for schedule in sorted(repository.schedule_defs, key=lambda one: one.name):
        yield f"schedule {schedule.name}: {schedule.job_name}"
    for sensor in sorted(repository.sensor_defs, key=lambda one: one.name):
        yield f"sensor {sensor.name}: {_listed(target.job_name for target in sensor.targets)}"


def _listed(names: Iterator[str]) -> str:
    return ", ".join(sorted(names)) or "none"


if __name__ == "__main__":
    FILE.write_text(graph(), encoding="utf-8")
