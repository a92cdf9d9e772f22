"""Runs: finished or failed, complete, created once, and nothing outside the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.data import get_source
from mlflow.exceptions import MlflowException
from mlflow.types import Schema

from segflow.config import TrackingConfig
from segflow.tracking import Child, Dataset, Run, Tracking, children
from segflow.tracking.runs import created_once
from segflow.tracking.system import system_metrics

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


def test_settings_beyond_a_batch_all_arrive(tracking: Tracking, client: MlflowClient) -> None:
    values = {f"section.key_{number}": str(number) for number in range(230)}
    with tracking.run("events", "settings", {}) as run:
        run.parameters(values)
    assert client.get_run(run.run_id).data.params == values


def test_a_run_says_which_versions_of_which_tables_it_read(tracking: Tracking, client: MlflowClient) -> None:
    columns = [("day", "DATE", False), ("items", "VARCHAR[]", True), ("counts", "MAP(VARCHAR, BIGINT)", False)]

    def read(version: int) -> Run:
        sessions = Dataset(
            "sessions", "/tables/sessions", version, "0123456789abcdef", columns, ["2024-01-01", "2024-01-02"]
        )
        with tracking.run("segments", "reads", {}) as run:
            run.inputs([sessions, Dataset("items", "s3://bucket/items", 3, "ab", [], [""])])
        return run

    read(6)
    inputs = {one.dataset.name: one for one in client.get_run(read(7).run_id).inputs.dataset_inputs}
    assert set(inputs) == {"sessions", "items"}
    found = inputs["sessions"].dataset
    assert (found.digest, found.source_type) == ("0123456789abcdef", "delta_table")
    assert get_source(found).to_dict() == {"path": "/tables/sessions", "delta_table_version": 6}
    assert found.schema is not None
    schema = Schema.from_json(json.dumps(json.loads(found.schema)["mlflow_colspec"]))
    assert [one.name for one in schema.inputs] == ["day", "items", "counts"]
    assert [one.required for one in schema.inputs] == [True, False, True]
    profile = {"partitions": 2, "first_partition": "2024-01-01", "last_partition": "2024-01-02"}
    assert json.loads(str(found.profile)) == profile
    # MLflow keeps one dataset of a name and digest; the run's own tag has the version that it read.
    assert {one.key: one.value for one in inputs["sessions"].tags}["segflow.table_version"] == "7"


def test_a_table_is_kept_as_mlflow_reads_it_back(tracking: Tracking, client: MlflowClient) -> None:
    rows = [{"segment_id": "s001", "users": 12, "gain": 0.5}, {"segment_id": "s002", "users": 7, "gain": None}]
    with tracking.run("segments", "tables", {}) as run:
        run.table(rows, "segments")
        run.table([], "nothing")
    kept = Path(client.get_run(run.run_id).info.artifact_uri.removeprefix("file://"))
    assert [one.name for one in kept.iterdir()] == ["segments.json"]
    found = json.loads((kept / "segments.json").read_text(encoding="utf-8"))
    assert found["columns"] == ["segment_id", "users", "gain"]
    assert found["data"] == [["s001", 12, 0.5], ["s002", 7, None]]
    logged = client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"]
    assert json.loads(logged) == [{"path": "segments.json", "type": "table"}]


def test_partitions_of_a_range_are_finished_runs_below_that_of_the_range(
    tracking: Tracking, client: MlflowClient
) -> None:
    days = ["2024-01-01", "2024-01-02"]
    with tracking.run("events", "events 2024-01-01…2024-01-02", {}) as run:
        pages = run.children([Child(f"events {day}", {"dagster.partition": day}, {"rows": 7.0}) for day in days], 1000)
    experiment = client.get_run(run.run_id).info.experiment_id
    below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}' AND metrics.rows > 6")
    assert {one.info.run_name: one.data.tags["dagster.partition"] for one in below} == {
        f"events {day}": day for day in days
    }
    assert {(one.info.status, one.info.start_time) for one in below} == {("FINISHED", 1000)}
    assert {page.rsplit("/", 1)[-1] for page in pages} == {one.info.run_id for one in below}
    assert all(page.startswith(f"{tracking.config.ui}/#/experiments/{experiment}/runs/") for page in pages)


def test_runs_that_are_written_at_once_are_those_that_the_client_would_make(
    tracking: Tracking, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_now", lambda: 5000)
    given = [Child("events 2024-01-01", {"dagster.partition": "2024-01-01", "empty": ""}, {"rows": 7.0, "rows/a": 0.0})]
    with tracking.run("events", "events", {}) as run:
        above = client.get_run(run.run_id).info
        place = client.get_experiment(above.experiment_id).artifact_location
        (called,) = children.call_children(client, above.experiment_id, run.run_id, given, 1000)
        (inserted,) = children.insert_children(tracking.uri, place, above.experiment_id, run.run_id, given, 1000)

    def told(run_id: str) -> str:
        found = client.get_run(run_id)
        history = [
            str(dict(one)) for name in sorted(found.data.metrics) for one in client.get_metric_history(run_id, name)
        ]
        return json.dumps([found.to_dictionary(), history], sort_keys=True).replace(run_id, "ID")

    assert told(inserted) == told(called)
    client.set_tag(inserted, "later", "tag")
    client.log_metric(inserted, "rows", 8.0)
    assert client.get_run(inserted).data.metrics["rows"] == 8.0


def system_metrics_of(client: MlflowClient, run_id: str) -> set[str]:
    """The kinds of system metrics that the run has."""
    return {name.split("/")[1] for name in client.get_run(run_id).data.metrics if name.startswith("system/")}


def test_system_metrics_are_logged_while_a_long_run_lasts(tracking: Tracking, client: MlflowClient) -> None:
    with tracking.run("events", "long", {}) as run, system_metrics(tracking.uri, run.run_id, after=0.05, every=0.05):
        deadline = time.monotonic() + 20
        while not (found := system_metrics_of(client, run.run_id)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert {"cpu_utilization_percentage", "system_memory_usage_megabytes"} <= found


def test_a_short_run_is_not_sampled(tracking: Tracking, client: MlflowClient) -> None:
    before = threading.active_count()
    with tracking.run("events", "short", {}) as run:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert system_metrics_of(client, run.run_id) == set()


def test_system_metrics_can_be_switched_off(tracking: Tracking) -> None:
    before = threading.active_count()
    with Tracking(tracking.config.model_copy(update={"system_metrics": False})).run("events", "off", {}):
        assert threading.active_count() == before


def test_runs_that_read_the_same_for_the_first_time_at_the_same_moment(
    tracking: Tracking, client: MlflowClient
) -> None:
    start = threading.Barrier(4)
    problems: list[BaseException] = []

    def read(run: Run) -> None:
        try:
            for number in range(5):
                start.wait(timeout=30)
                run.inputs([Dataset(f"table{one}", "s3://bucket/t", 1, f"{number}", [], ["a"]) for one in range(10)])
        except BaseException as error:
            problems.append(error)
            start.abort()

    with tracking.run("events", "at once", {}) as first:
        others = [client.create_run(tracking.experiment("events")) for _ in range(3)]
        runs = [first, *(Run(client, one.info.run_id, one.info.experiment_id, "", True) for one in others)]
        threads = [threading.Thread(target=read, args=(one,)) for one in runs]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert problems == []
    for one in runs:
        assert len(client.get_run(one.run_id).inputs.dataset_inputs) == 50
