"""`segflow doctor`: nothing is wrong with a good project; each fault is told with its mend; nothing is left behind."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from segflow import cli, doctor, tables
from segflow.config import StorageConfig, TrackingConfig
from segflow.defs.health import dagster_findings
from segflow.errors import UserError
from segflow.findings import Finding
from segflow.storage import Storage
from segflow.storage.health import storage_findings
from segflow.tracking.health import database_finding, tracking_finding
from segflow_tests.pipeline.project import SMALL, Project
from segflow_tests.planted import planted_log


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    log = planted_log(tmp_path, users=10, weeks=2)
    monkeypatch.setenv("SEGFLOW_CONFIG", "replaced by the command, and restored after it")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return Project.make(tmp_path, log.start, log.end)


def examined(project: Project, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Finding]]:
    """The exit code, and area -> the worst that was found of it."""
    code = cli.main(["--config", str(project.folder / "segflow.yaml"), "doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    found = [Finding(**one) for one in told["findings"]]
    assert told["faults"] == sum(one.state == "fault" for one in found)
    assert all(one.mend for one in found if one.state != "ok")
    return code, worst(found)


def worst(found: Iterable[Finding]) -> dict[str, Finding]:
    order = ("ok", "warning", "fault")
    by_area: dict[str, Finding] = {}
    for one in found:
        if one.area not in by_area or order.index(one.state) > order.index(by_area[one.area].state):
            by_area[one.area] = one
    return by_area


def test_a_good_project_has_no_fault_and_is_left_as_it_was(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(project.folder.rglob("*"))
    code, found = examined(project, capsys)
    assert code == 0
    areas = {"python", "packages", "arithmetic", "settings", "encoder", "sources", "clock", "storage", "disk", "tables"}
    assert set(found) == areas | {"dagster", "mlflow", "ports"}
    assert {found[area].state for area in areas - {"packages", "arithmetic"}} == {"ok"}
    assert set(project.folder.rglob("*")) == before
    assert cli.main(["--config", str(project.folder / "segflow.yaml"), "doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("0 faults, ")
    assert any(line.split()[:2] == ["ok", "encoder"] for line in lines)


def test_faults_of_a_project_are_told_with_their_mend(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ahead = time.time() + 7200
    os.utime(project.folder / "events.csv", (ahead, ahead))
    (project.folder / "data").write_text("a file where a folder is due", encoding="utf-8")
    edit(project, "text", {**SMALL["text"], "encoder": "nobody/nothing-such"})
    code, found = examined(project, capsys)
    assert code == 1
    assert found["storage"].state == "fault"
    assert "120 minutes in the future" in found["sources"].says
    assert found["encoder"].state == "fault"
    edit(project, "txt", {})
    code, found = examined(project, capsys)
    assert code == 1
    assert found["settings"].state == "fault"
    assert "txt: unknown key" in found["settings"].says
    assert "known here" in found["settings"].mend


def edit(project: Project, key: str, value: object) -> None:
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**values, key: value}), encoding="utf-8")


def test_packages_are_held_against_what_is_asked_for_and_what_was_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==0.1\nnothing-such==1.0\n", encoding="utf-8")
    told = worst(doctor.installed(constraints))["packages"]
    assert told.state == "warning"
    assert "numpy" in told.says
    assert "(tested 0.1)" in told.says
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=999", "nothing-such>=1", 'absent; extra == "dev"'])
    told = worst(doctor.installed(tmp_path / "none"))["packages"]
    assert told.state == "fault"
    assert "numpy" in told.says
    assert "nothing-such missing (>=1)" in told.says
    assert "absent" not in told.says


@pytest.mark.parametrize("difference", ["a column more", "another type"])
def test_tables_of_another_version_are_told_when_examined_read_and_written(
    tmp_path: Path, difference: str, connection: duckdb.DuckDBPyConnection
) -> None:
    table = tables.USER_SEGMENTS
    old = table.arrow.append(pa.field("score", pa.float64())) if difference == "a column more" else None
    if old is None:
        place = table.arrow.get_field_index("distance")
        old = table.arrow.set(place, pa.field("distance", pa.string()))
    write_deltalake(str(tmp_path / table.name), old.empty_table(), partition_by=["week"])
    name = "score" if difference == "a column more" else "distance"
    told = worst(storage_findings(StorageConfig(root=str(tmp_path)), 0))["tables"]
    assert told.state == "fault"
    assert f"made by another version of segflow (columns that differ: {name})" in told.says
    assert "run `segflow run --force`" in told.mend
    storage = Storage(str(tmp_path))
    with pytest.raises(UserError, match=rf"columns that differ: {name}\); move storage.root aside"):
        storage.read(connection, table)
    columns = ", ".join(f"NULL AS {column}" for column in table.column_names)
    with pytest.raises(UserError, match=rf"columns that differ: {name}\); move storage.root aside"):
        storage.write(connection, table, f"SELECT {columns} LIMIT 0", [])


def test_data_files_are_compared_on_demand(
    project: Project, connection: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT 'u' || i AS user_id, 'city' AS attribute, 'Bern' AS value FROM range(100) AS t(i)"
    project.storage.write(connection, tables.USERS, query)
    command = ["--config", str(project.folder / "segflow.yaml"), "doctor", "--tables"]
    assert cli.main(command) == 0
    assert "1 files are as they were written" in capsys.readouterr().out
    ((_, file),) = project.storage.files(tables.USERS)
    spoilt = bytearray(file.read_bytes())
    spoilt[100] ^= 8
    file.write_bytes(spoilt)
    assert cli.main(command) == 1
    said = capsys.readouterr().out
    assert f"fault    data        {file}: its content is not what was written\n" in said
    assert "mend: restore it from a backup, or make it again with `segflow run --force`" in said


def test_places_by_uri_are_probed_and_little_room_is_told(tmp_path: Path) -> None:
    found = worst(storage_findings(StorageConfig(root=f"file://{tmp_path}"), 0))
    assert found["storage"].says.endswith("objects can be put, moved and removed")
    assert list(tmp_path.iterdir()) == []
    found = worst(storage_findings(StorageConfig(root=str(tmp_path / "tables")), 10**18))
    assert found["storage"].says.endswith("; it will be made")
    assert found["disk"].state == "warning"
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_dagster_that_is_locked_old_or_missing(tmp_path: Path) -> None:
    assert worst(dagster_findings(tmp_path / "none"))["dagster"].state == "fault"
    told = worst(dagster_findings(tmp_path))["dagster"]
    assert (told.state, "no dagster.yaml" in told.says) == ("warning", True)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)):
        pass
    assert worst(dagster_findings(tmp_path))["dagster"].state == "ok"
    runs = tmp_path / "history" / "runs.db"
    with sqlite3.connect(runs) as database:
        database.execute("BEGIN EXCLUSIVE")
        told = worst(dagster_findings(tmp_path))["dagster"]
    assert f"{runs}: is locked" in told.says
    with sqlite3.connect(runs) as database:
        database.execute("UPDATE alembic_version SET version_num = '001'")
    told = worst(dagster_findings(tmp_path))["dagster"]
    assert (told.state, "dagster instance migrate" in told.mend) == ("fault", True)


def test_a_tracking_store_that_is_locked_old_broken_or_away(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert database_finding(file, "sqlite:///it").state == "ok"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('long ago')")
    told = database_finding(file, "sqlite:///it")
    assert "its schema is long ago" in told.says
    assert "mlflow db upgrade sqlite:///it" in told.mend
    with sqlite3.connect(file) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert "locked" in database_finding(file, "sqlite:///it").says
    file.write_bytes(b"this is no database at all, " * 100)
    assert "restore it" in database_finding(file, "sqlite:///it").mend
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    told = tracking_finding(TrackingConfig(uri=address))
    assert (told.state, "does not answer" in told.says) == ("fault", True)


def test_a_port_that_is_taken() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        number = server.getsockname()[1]
        told = doctor.port("dagster", "127.0.0.1", number, "name another")
        assert (told.state, told.mend) == ("warning", "name another")
    assert doctor.port("dagster", "127.0.0.1", number, "name another").state == "ok"
