"""The production set-up of `deploy/`, with a real PostgreSQL: every test of the whole run, and days by way of its services.

The services are the commands of `deploy/service`, which containers and systemd start; only the containers are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

import segflow_tests.pipeline.test_run as whole_run
from segflow import tables
from segflow_tests.deploy.postgres import BINARIES, postgres
from segflow_tests.pipeline.conftest import Made, open_instance, run_two_weeks
from segflow_tests.pipeline.project import ROOT, Deployment, Project
from segflow_tests.planted import planted_log
from segflow_tests.servers import free_ports, serving
from segflow_tests.ui.servers import Servers

pytestmark = pytest.mark.postgres

DEPLOY = ROOT / "deploy"
SERVICE = DEPLOY / "service"

# The same tests, with another `made` and another `instance`.
globals().update({name: test for name, test in vars(whole_run).items() if name.startswith("test_")})


@dataclass(frozen=True)
class Production:
    """What the services read from the environment, and the deployment for a project."""

    environment: Mapping[str, str]
    deployment: Deployment

    def healthy(self, service: str) -> bool:
        """The answer of the health check that containers use."""
        done = subprocess.run([SERVICE, "check", service], env=dict(self.environment), capture_output=True, check=False)
        return done.returncode == 0


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """A PostgreSQL server, and MLflow over it."""
    if BINARIES is None:
        pytest.fail("no PostgreSQL: install Debian's `postgresql`, or leave out `make test-postgres`")
    folder = tmp_path_factory.mktemp("production")
    code, webserver, mlflow = free_ports(3)
    with postgres(["dagster", "mlflow"]) as (dagster_url, mlflow_url):
        records = {"DAGSTER_POSTGRES_URL": dagster_url}
        environment = {
            **os.environ,
            **records,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MLFLOW_BACKEND_STORE_URI": mlflow_url,
            "SEGFLOW_ARTIFACTS": str(folder / "artifacts"),
            "SEGFLOW_CODE_HOST": "127.0.0.1",
            "SEGFLOW_CODE_PORT": str(code),
            "SEGFLOW_WEBSERVER_PORT": str(webserver),
            "SEGFLOW_MLFLOW_PORT": str(mlflow),
            "SEGFLOW_MLFLOW_WORKERS": "1",
        }
        deployment = Deployment(DEPLOY / "dagster.yaml", records, f"http://127.0.0.1:{mlflow}")
        found = Production(environment, deployment)
        with serving([SERVICE, "run", "mlflow"], lambda: found.healthy("mlflow"), folder, environment, "mlflow", 180):
            yield found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, production: Production) -> Made:
    return run_two_weeks(tmp_path_factory.mktemp("project"), production.deployment)


@pytest.fixture(scope="session")
def instance(made: Made) -> Iterator[dg.DagsterInstance]:
    with open_instance(made.project) as opened:
        yield opened


def test_nothing_is_recorded_in_files(made: Made) -> None:
    assert not list(made.project.folder.rglob("*.db"))


def test_services_are_healthy_and_run_a_range_of_days(tmp_path: Path, production: Production) -> None:
    log = planted_log(tmp_path, users=20, weeks=3)
    project = Project.make(tmp_path, log.start, log.end, production.deployment)
    (tmp_path / "workspace.yaml").write_text((DEPLOY / "workspace.yaml").read_text())
    environment = {**project.environment, **production.environment}
    live = Production(environment, production.deployment)
    servers = Servers(tmp_path, f"http://127.0.0.1:{environment['SEGFLOW_WEBSERVER_PORT']}", "")
    days = [str(log.start + timedelta(days=number)) for number in range(14)]
    with ExitStack() as stack:
        for name in ("code", "webserver", "daemon"):
            assert not live.healthy(name), f"{name} is healthy before it was started"
            stack.enter_context(
                serving([SERVICE, "run", name], lambda name=name: live.healthy(name), tmp_path, environment, name, 180)
            )
        project.materialize("catalogue", "", only=["source_files", "items"])
        before = servers.runs()
        backfill = _backfill(servers, ["raw_events", "events", "quarantined_events", "sessions"], days)
        assert _ended(servers, backfill) == "COMPLETED_SUCCESS"
        runs = servers.ended(before)
    assert {run["status"] for run in runs} == {"SUCCESS"}
    sessions = project.read(tables.SESSIONS)
    assert set(map(str, sessions["day"].to_pylist())) == set(days)


_LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message stack }
  }
}
"""


def _backfill(servers: Servers, assets: list[str], days: list[str]) -> str:
    """Launch a backfill as the UI does; its id."""
    chosen = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": days}
    found = servers.ask(_LAUNCH, {"params": chosen})["launchPartitionBackfill"]
    assert found["__typename"] == "LaunchBackfillSuccess", found
    return str(found["backfillId"])


def _ended(servers: Servers, backfill: str) -> str:
    asked = "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
    for _ in range(180):
        status = str(servers.ask(asked, {"id": backfill})["partitionBackfillOrError"]["status"])
        if status not in ("REQUESTED", "COMPLETING"):
            return status
        time.sleep(1)
    raise AssertionError(f"backfill {backfill} does not end: {status}")


def test_the_instance_is_that_of_one_machine_but_for_its_storage() -> None:
    production, one = (yaml.safe_load((place / "dagster.yaml").read_text()) for place in (DEPLOY, ROOT))
    assert production.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert one.pop("event_log_storage")
    assert one.pop("run_storage")
    assert production == one


def test_every_service_of_the_composition_is_one_that_was_started() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    own = {name: one for name, one in services.items() if name != "postgres"}
    assert {name: one["command"] for name, one in own.items()} == {name: [name] for name in own}
    assert set(own) == {"code", "webserver", "daemon", "mlflow"}
    for name, one in own.items():
        assert one["healthcheck"]["test"] == ["CMD", "/opt/segflow/deploy/service", "check", name]
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
