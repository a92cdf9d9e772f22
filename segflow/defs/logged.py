"""What the MLflow run of a step is told of it: tags that lead back, the settings that decide the content, the tables read.

Does not live here: what a body logs (``step``), and how MLflow takes it (``tracking``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel

from segflow.config import Config
from segflow.defs.processes import this_process
from segflow.tracking import Dataset
from segflow.tracking.orphans import PROCESS

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan
    from segflow.defs.provenance import ReadTable


def run_tags(context: dg.AssetExecutionContext, plan: Plan, partition: str) -> dict[str, str]:
    """What leads from an MLflow run back to Dagster."""
    return {
        "dagster.run_id": context.run.run_id,
        "dagster.asset": ",".join(table.name for table in plan.tables),
        "dagster.partition": partition,
        "dagster.job": context.job_name,
        "dagster.step": context.get_step_execution_context().step.key,
        "segflow.code_version": plan.code_version,
        PROCESS: this_process(),
    }


def settings_of(config: Config, names: Sequence[str]) -> dict[str, str]:
    """Dotted name -> value of each setting in the sections, or of the single keys, `names`: text as it is, all else as JSON."""
    found: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            for key in type(value).model_fields:
                add(f"{name}.{key}", getattr(value, key))
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, default=_plain)

    for name in names:
        add(name, attrgetter(name)(config))
    return found


def dataset(read: ReadTable, uri: str) -> Dataset:
    """What a step read of a table, for MLflow."""
    columns = [(one.name, one.type, one.nullable) for one in read.table.columns]
    return Dataset(read.table.name, uri, read.version, read.content, columns, read.partitions)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
