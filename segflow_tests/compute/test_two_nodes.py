"""Two real Ray nodes: the same tables as in one process, also when a node is killed midway. Configuration is all that differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segflow import tables
from segflow_tests.compute.cluster import Cluster, two_nodes
from segflow_tests.compute.pieces import PATIENCE, PIECES
from segflow_tests.pipeline.project import ROOT, SOURCE, Deployment, Project
from segflow_tests.planted import PlantedLog, planted_log

pytest.importorskip("ray", reason="the engine of several machines is not installed")
pytestmark = pytest.mark.slow

WEEK = "behavior_model,text_adapter,user_views,user_embeddings,segmentation,segment_ledger,user_segments"
"""From the sessions to who belongs to which segment."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as made:
        yield made


@pytest.fixture
def second_node(cluster: Cluster) -> Cluster:
    """The cluster with both of its nodes, also after a test that killed one."""
    if cluster.second.process.poll() is not None:
        cluster.second = cluster.join()
    return cluster


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PlantedLog:
    """One log for all projects: a source file is known by its path."""
    return planted_log(tmp_path_factory.mktemp("log"), users=300, weeks=8)


@pytest.fixture(scope="module")
def embedded(log: PlantedLog, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What one process makes."""
    project = make(log, tmp_path_factory.mktemp("embedded"))
    to_segments(project, log)
    return project


@pytest.fixture(scope="module")
def spread(log: PlantedLog, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What two nodes make."""
    project = make(log, tmp_path_factory.mktemp("spread"), cluster)
    to_segments(project, log)
    return project


def make(log: PlantedLog, folder: Path, cluster: Cluster | None = None) -> Project:
    """A project over the log. What is not the same for both engines stands here and nowhere else."""
    files = {name: {**SOURCE[name], "path": str(file)} for name, file in (("events", log.events), ("items", log.items))}
    # Small enough for several spans of days.
    compute: dict[str, Any] = {"memory_limit": "1GB", "threads": 1, "rows_at_once": 10_000}
    if cluster is None:
        return Project.make(folder, log.start, log.end, source=files, compute=compute)
    compute |= {"engine": "ray", "address": cluster.address}
    deployment = Deployment(environment=cluster.environment)
    return Project.make(folder, log.start, log.end, deployment, source=files, compute=compute)


def days_of(log: PlantedLog) -> str:
    return f"{log.start}..{log.end - timedelta(days=1)}"


def week_of(log: PlantedLog) -> str:
    """The last week that can be tested."""
    week = log.end - timedelta(weeks=2)
    return f"{week}..{week}"


def to_segments(project: Project, log: PlantedLog) -> None:
    """From source files to segments, as users type it."""
    for arguments in ((days_of(log), "catalogue,days"), (week_of(log), WEEK)):
        backfill(project, *arguments)


def backfill(project: Project, span: str, assets: str) -> None:
    done = project.segflow("backfill", span, "--assets", assets)
    assert done.returncode == 0, done.stderr


def driver(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    """A process that gives pieces to the cluster."""
    script = f"from segflow_tests.compute.pieces import drive; drive({cluster.address!r}, {str(folder)!r})"
    environment = {**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result_of(process: subprocess.Popen[str]) -> tuple[str, list[tuple[int, int]]]:
    """What was said, and the pieces with the nodes that they came to."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    said, _, last = out.rstrip().rpartition("\n")
    return said, [(number, node) for number, node in json.loads(last)]


def same_content(left: Project, right: Project) -> None:
    """Every table has the same rows, to the last bit, and the same versions of it were made."""
    differ = {}
    for table in tables.ALL.values():
        rows = [project.read(table) for project in (left, right)]
        if not rows[0].equals(rows[1]):
            differ[table.name] = [name for name in table.column_names if not equal(rows[0][name], rows[1][name])]
    assert differ == {}
    assert left.versions() == right.versions()


def equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    return bool(left.equals(right))


def test_pieces_come_to_both_nodes_and_errors_come_back(second_node: Cluster, tmp_path: Path) -> None:
    said, pieces = result_of(driver(second_node, tmp_path))
    assert [number for number, _ in pieces] == list(range(PIECES))
    assert len({node for _, node in pieces}) == 2
    assert said.startswith("row 3: wrong; give another On the node ")
    assert "in wrong" in said
    assert "lost" not in said


def test_a_killed_node_loses_nothing(second_node: Cluster, tmp_path: Path) -> None:
    process = driver(second_node, tmp_path)
    second_node.second.kill_at_work(process)
    said, pieces = result_of(process)
    assert [number for number, _ in pieces] == list(range(PIECES))
    assert said.startswith("compute: the worker of piece ")
    assert "was lost (" in said
    assert "another one makes it again" in said
    assert len({node for _, node in pieces[-4:]}) == 1


def test_a_head_that_dies_is_an_error_in_bounded_time(tmp_path: Path) -> None:
    with two_nodes() as own:
        process = driver(own, tmp_path)
        own.head.kill_at_work(process)
        began = time.monotonic()
        _, err = process.communicate(timeout=300)
        assert time.monotonic() - began < PATIENCE + 50
    assert process.returncode == 1
    assert "has not answered for 1" in err.splitlines()[-1]
    assert "compute.address: the Ray head at" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_tables_are_those_of_one_process(embedded: Project, spread: Project) -> None:
    assert len(spread.read(tables.SESSIONS)) > 5_000
    assert set(spread.read(tables.USER_SEGMENTS)["segment_id"].to_pylist()) > {"s001", "s002"}
    same_content(embedded, spread)
    assert list((spread.folder / "data" / "exchange").iterdir()) == []


def test_a_node_that_is_killed_midway_changes_nothing(
    second_node: Cluster, embedded: Project, log: PlantedLog, tmp_path: Path
) -> None:
    project = make(log, tmp_path, second_node)
    backfill(project, days_of(log), "catalogue,raw_events,events")
    exchange = tmp_path / "data" / "exchange"
    run = project.start("-m", "segflow.cli", "backfill", days_of(log), "--assets", "days")
    second_node.second.kill_at_work(run)
    out, err = run.communicate(timeout=1200)
    assert run.returncode == 0, err
    assert "was lost (" in out + err
    backfill(project, week_of(log), WEEK)
    same_content(embedded, project)
    assert list(exchange.iterdir()) == []


def test_a_whole_run_ends_with_the_same_report(
    second_node: Cluster, embedded: Project, spread: Project, log: PlantedLog
) -> None:
    for project in (embedded, spread):
        done = project.segflow("run", "--weeks", "1")
        assert done.returncode == 0, done.stderr
    assert len(spread.read(tables.EVALUATION_REPORT)) == 1
    same_content(embedded, spread)
