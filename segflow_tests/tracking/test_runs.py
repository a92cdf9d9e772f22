"""Runs: finished or failed, complete, created once, and nothing outside the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from segflow.config import TrackingConfig
from segflow.tracking import Tracking
from segflow.tracking.runs import created_once

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One store for all tests: creating it takes seconds."""
    opened = Tracking(TrackingConfig(root=str(tmp_path_factory.mktemp("tracking") / "mlflow")))
    opened.initialize()
    return opened


@pytest.fixture(scope="module")
def client(tracking: Tracking) -> MlflowClient:
    return MlflowClient(tracking.uri)


def test_a_run_holds_what_was_logged(
    tracking: Tracking, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with tracking.run("events", "2024-01-02", {"dagster.run": "r-1"}) as run:
        assert client.get_run(run.run_id).info.status == "RUNNING"
        run.parameters({"k": 4, "long": "x" * 7000})
        run.metrics({"loss": 0.5}, step=1)
        run.metrics({"loss": 0.25}, step=2)
        run.tags({"verdict": "segment"})
        run.text("<p>report</p>", "pages/report.html")
        run.bytes(b"\x00\x01", "model/ranker.safetensors")
        run.bytes(b"\x02", "plain.safetensors")
    found = client.get_run(run.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "2024-01-02")
    assert found.data.params["k"] == "4"
    assert found.data.params["long"] in "x" * 7000
    assert [(one.step, one.value) for one in client.get_metric_history(run.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert (found.data.tags["dagster.run"], found.data.tags["verdict"]) == ("r-1", "segment")
    assert "segflow.error" not in found.data.tags
    assert run.url.endswith(f"/#/experiments/{found.info.experiment_id}/runs/{run.run_id}")
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(tracking.artifacts)
    assert (artifacts / "pages" / "report.html").read_text() == "<p>report</p>"
    assert (artifacts / "model" / "ranker.safetensors").read_bytes() == b"\x00\x01"
    assert (artifacts / "plain.safetensors").read_bytes() == b"\x02"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_closes_the_run_as_failed(
    tracking: Tracking, client: MlflowClient, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="no such luck"), tracking.run("events", "bad", {}) as run:
        raise error("no such luck")
    found = client.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["segflow.error"] == error.__name__
    assert found.info.end_time is not None


def test_all_of_many_metrics_arrive(tracking: Tracking, client: MlflowClient) -> None:
    values = {f"metric_{number:04d}": float(number) for number in range(1500)}
    with tracking.run("events", "many", {}) as run:
        run.metrics(values)
        for step in range(700):
            run.metrics({"series": float(step)}, step=step)
    found = client.get_run(run.run_id)
    assert {name: value for name, value in found.data.metrics.items() if name != "series"} == values
    assert [one.value for one in client.get_metric_history(run.run_id, "series")] == [
        float(step) for step in range(700)
    ]


def test_an_experiment_exists_once(tracking: Tracking, client: MlflowClient) -> None:
    for _ in range(2):
        with Tracking(tracking.config).run("once", "run", {}):
            pass
    assert [one.name for one in client.search_experiments(filter_string="name = 'once'")] == ["once"]


PROGRAM = """
import os, sys
import mlflow.store.tracking.sqlalchemy_store  # once for all: importing it six times would be most of the time
from segflow.config import TrackingConfig
from segflow.tracking import Tracking
from segflow.tracking.runs import created_once

def child(number):
    with Tracking(TrackingConfig(root=sys.argv[1])).run("events", str(number), {}) as run:
        run.metrics({"number": float(number)})

children = []
for number in range(6):
    pid = os.fork()
    if not pid:
        child(number)
        os._exit(0)  # after an exception the interpreter ends the child with code 1
    children.append(pid)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


def test_processes_that_start_on_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "mlflow", tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("events")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["number"] for run in runs) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert {run.info.status for run in runs} == {"FINISHED"}
    # Nothing was left where the processes ran.
    assert list(elsewhere.iterdir()) == []


def test_what_another_process_creates_in_between_is_taken_as_it_is(tracking: Tracking, client: MlflowClient) -> None:
    made = client.create_experiment("in between")
    seen = iter([None, client.get_experiment_by_name("in between")])
    found = created_once(lambda: next(seen), lambda: client.create_experiment("in between"))
    assert found.experiment_id == made
    with pytest.raises(MlflowException, match="experiment name"):
        created_once(lambda: None, lambda: client.create_experiment(""))
