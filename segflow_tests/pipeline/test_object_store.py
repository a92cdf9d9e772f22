"""The whole run in an object store: source files, tables and MLflow's artifacts; every table is that of a run on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ComputeConfig
from segflow.storage import connect
from segflow.storage.content import digests
from segflow.tables import Table
from segflow_tests.object_store import BUCKET, ObjectStore
from segflow_tests.pipeline.conftest import Made, run_two_weeks
from segflow_tests.pipeline.project import ROOT, SOURCE, Deployment, Project
from segflow_tests.servers import answers, free_ports, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Credentials, and the store's address for what takes it from the environment: source files and MLflow."""
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    return objects.environment


@pytest.fixture
def mlflow_server(objects: ObjectStore, environment: Mapping[str, str], tmp_path: Path) -> Iterator[str]:
    """MLflow's server as in production, with its artifacts in the store."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    own = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "SEGFLOW_ARTIFACTS": objects.root("artifacts"),
        "SEGFLOW_MLFLOW_PORT": str(port),
        "SEGFLOW_MLFLOW_WORKERS": "1",
    }
    command = [ROOT / "deploy" / "service", "run", "mlflow"]
    with serving(command, lambda: answers(f"{address}/health"), tmp_path, {**environment, **own}, "mlflow", 180):
        yield address


def source(objects: ObjectStore) -> dict[str, Any]:
    """The source section, with the files in the store."""
    return {name: {**one, "path": objects.root(f"source/{one['path']}")} for name, one in SOURCE.items()}


def content(project: Project, table: Table) -> dict[tuple[Any, ...], tuple[int, str]]:
    """Partition -> rows and digest. Of source files, without when they were put there and by which settings they were mapped."""
    with connect(ComputeConfig(spill=str(project.folder / "spill"), threads=1)) as connection:
        project.storage.view(connection, table)
        if table is tables.SOURCE_FILES:
            connection.execute(
                "CREATE TEMP VIEW same AS SELECT * REPLACE (0 AS modified, '' AS mapping) FROM source_files"
            )
        return digests(connection, table, "same" if table is tables.SOURCE_FILES else table.name)


def _made(run: mlflow.entities.Run) -> tuple[str | None, str | None]:
    """Asset and partition of an MLflow run."""
    return run.data.tags.get("dagster.asset"), run.data.tags.get("dagster.partition")


def test_every_table_is_that_of_a_run_on_disk(
    made: Made, objects: ObjectStore, environment: Mapping[str, str], mlflow_server: str, tmp_path: Path
) -> None:
    for name in ("events.csv", "items.csv"):
        objects.client().upload_file(str(made.project.folder / name), BUCKET, f"source/{name}")
    place = {"root": objects.root("whole-run"), "options": objects.options}
    deployment = Deployment(environment=environment, mlflow=mlflow_server, storage=place)
    done = run_two_weeks(tmp_path / "project", deployment, source=source(objects))
    project = done.project
    # Nothing was read from the files that the log was made as.
    assert not (project.folder / "data" / "tables").exists()

    written = [table for table in tables.ALL.values() if made.project.storage.version(table) is not None]
    assert len(written) > 30
    differ = [table.name for table in written if content(project, table) != content(made.project, table)]
    assert differ == []
    assert {str(one) for one in objects.names("artifacts/")}
    mlflow.set_tracking_uri(mlflow_server)
    (report,) = [
        run
        for run in mlflow.search_runs(search_all_experiments=True, output_format="list")
        if _made(run) == ("evaluation_report", str(done.weeks[1]))
    ]
    page = mlflow.artifacts.load_text(f"{report.info.artifact_uri}/report.html")
    (row,) = project.read(tables.EVALUATION_REPORT, {"week": done.weeks[1]}).to_pylist()
    assert page == row["html"]

    # Once more: nothing is to be done.
    versions = project.versions()
    again = project.segflow("run", "--weeks", "2")
    assert again.returncode == 0, again.stderr
    assert project.versions() == versions
    looked = project.segflow("doctor", "--json", "--tables")
    assert looked.returncode == 0, looked.stdout
    found = {one["area"]: one["state"] for one in json.loads(looked.stdout)["findings"]}
    assert {found[area] for area in ("sources", "storage", "tables", "data")} == {"ok"}
    exported = project.segflow("export", str(tmp_path / "members.parquet"))
    assert exported.returncode == 0, exported.stderr

    user = project.read(tables.USER_SEGMENTS)["user_id"][0].as_py()
    erased = project.segflow("erase", "--user", user, "--yes", "--json")
    assert erased.returncode == 0, erased.stderr
    told = json.loads(erased.stdout)
    assert (told["outcome"], told["left"]) == ("erased", [])
    assert told["rows"]["events"] > 0
    assert list(told["source_files"]) == ["events.csv"]
    for table in tables.ALL.values():
        for column in table.user_columns:
            values = project.read(table)[column.name]
            flat = values.combine_chunks().flatten() if pa.types.is_list(values.type) else values
            assert user not in flat.to_pylist(), table.name
