"""The lineage of columns: complete, of columns that exist and tables that are read, and told to Dagster as declared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from segflow import tables
from segflow.definitions import defs
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.metadata import COLUMN_LINEAGE, column_lineage
from segflow.tables.schema import OUTSIDE, ROWS
from segflow_tests.pipeline.project import SMALL, SOURCE

ROOT = Path(__file__).parents[2]
READS = """
import json
import segflow.definitions
from segflow.defs.materializes import PLANS
print(json.dumps({name: [one.name for one in (*plan.reads, *plan.tables)] for name, plan in PLANS.items()}))
"""


def plan_of(table: str) -> Plan:
    """The plan of the asset that writes the table."""
    return next(plan for plan in PLANS.values() if tables.ALL[table] in plan.tables)


def upstream(table: str) -> set[str]:
    """The tables that columns of `table` are declared to come from."""
    return {one.partition(".")[0] for column in tables.ALL[table].columns for one in column.origin if "." in one}


@pytest.mark.parametrize("name", tables.ALL)
def test_every_column_says_what_it_is_made_from(name: str) -> None:
    for column in tables.ALL[name].columns:
        assert column.origin, column.name
        for one in column.origin:
            table, dot, origin = one.partition(".")
            known = {*tables.ALL[table].column_names, ROWS} if dot else OUTSIDE
            assert (origin if dot else one) in known, (column.name, one)


def test_columns_come_from_what_their_asset_reads_or_writes(tmp_path: Path) -> None:
    """By settings under which everything is read that any settings let be read."""
    settings = {
        "source": {**SOURCE, "users": {"path": "users.csv", "user_id": "user", "attributes": ["tier"]}},
        "calendar": {"start": "2024-01-01"},
        **SMALL,
        "users": {"views": SMALL["users"]["views"], "fuse": "auto"},
        "segments": {"algorithms": ["kmeans", "lda", "category", "attribute"], "attribute": "tier"},
    }
    (tmp_path / "segflow.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {**os.environ, "SEGFLOW_CONFIG": str(tmp_path / "segflow.yaml"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", READS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reads = json.loads(done.stdout)
    unknown = {name: upstream(name) - set(reads[plan_of(name).name]) for name in tables.ALL}
    assert {name: found for name, found in unknown.items() if found} == {}


def test_every_table_that_is_read_is_the_origin_of_a_column() -> None:
    """But those that decide only whether a step may go on, or which rows there are."""
    unused = {
        name: {read.name for read in plan.reads} - {one for table in plan.tables for one in upstream(table.name)}
        for name, plan in PLANS.items()
    }
    assert {name: found for name, found in unused.items() if found} == {"raw_events": {"source_files"}}


def test_dagster_is_told_the_declared_lineage() -> None:
    for spec in defs.resolve_all_asset_specs():
        table = tables.ALL[spec.key.to_user_string()]
        found = spec.metadata[COLUMN_LINEAGE]
        assert isinstance(found, dg.TableColumnLineage)
        assert list(found.deps_by_column) == table.column_names
        told = {one.asset_key for deps in found.deps_by_column.values() for one in deps}
        assert told <= {dep.asset_key for dep in spec.deps} | {
            dg.AssetKey(one.name) for one in plan_of(table.name).tables
        }


def test_the_number_of_rows_is_told_by_the_key_and_what_the_settings_leave_out_is_not() -> None:
    found = column_lineage(tables.SESSIONS, [tables.EVENTS]).deps_by_column
    assert [one.column_name for one in found["events"]] == list(tables.EVENTS.key)
    assert [(one.asset_key.to_user_string(), one.column_name) for one in found["text"]] == [("events", "item_id")]
