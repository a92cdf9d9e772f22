"""What notices that something is dead: the watch of processes, the launcher, and the tidying of what was left open."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.utils import make_new_run_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.server import wait_for_grpc_server
from dagster_shared.record import replace

from segflow.compute.processes import end_with_parent
from segflow.config import TrackingConfig
from segflow.defs.launcher import WatchedRunLauncher
from segflow.defs.processes import PROCESS_TAG, is_gone, this_process, worker_of, worker_tag
from segflow.defs.reconcile import tidy
from segflow.tracking import Tracking
from segflow.tracking.backfills import BACKFILL, PARENT, parent_of
from segflow.tracking.orphans import CLOSED, PROCESS
from segflow_tests.defs.family import parent


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_process_ends_with_the_one_that_started_it(method: str) -> None:
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=parent, args=(method, there))
    worker.start()
    assert here.poll(60)
    children = [here.recv()]
    assert here.poll(60)
    children.append(here.recv())
    assert all(psutil.pid_exists(number) for number in children)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join(10)
    end = time.monotonic() + 10
    while any(psutil.pid_exists(number) for number in children):
        assert time.monotonic() < end, "a child outlived its parent"
        time.sleep(0.02)


def test_without_a_parent_nothing_ends() -> None:
    assert multiprocessing.parent_process() is None
    end_with_parent()


def dead_process() -> str:
    """The name of a process that has ended."""
    command = "from segflow.defs.processes import this_process; print(this_process())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, env=os.environ)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def dead() -> str:
    return dead_process()


def test_a_process_is_known_by_more_than_its_number(dead: str) -> None:
    host, number, started = this_process().rsplit(":", 2)
    assert not is_gone(this_process())
    assert is_gone(dead)
    assert is_gone(f"{host}:{number}:{int(started) - 1}"), "the number was given again"
    assert not is_gone(f"elsewhere:{number}:1"), "nothing is known of another host"
    assert not is_gone("")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def started_run(instance: dg.DagsterInstance, process: str = "", **tags: str) -> dg.DagsterRun:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def job() -> None:
        nothing()

    run_id = make_new_run_id()
    named = {PROCESS_TAG: f"{run_id}@{process}"} if process else {}
    run = instance.create_run_for_job(job, run_id=run_id, tags=named | tags, status=dg.DagsterRunStatus.STARTED)
    assert run.status == dg.DagsterRunStatus.STARTED
    return run


def test_a_silent_code_server_is_given_some_time(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = started_run(instance, **{GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": str(tmp_path / "gone")})})
    launcher = WatchedRunLauncher(grace_seconds=1)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    time.sleep(1.1)
    found = launcher.check_run_worker_health(run)
    assert found.status == WorkerStatus.FAILED
    assert "does not answer" in str(found.msg)


def test_a_run_is_told_by_its_process(instance: dg.DagsterInstance, dead: str) -> None:
    launcher = WatchedRunLauncher()
    runs = {
        "alive": started_run(instance, this_process()),
        "over": started_run(instance, dead),
        "with the tag of the run that it repeats": started_run(instance, **{PROCESS_TAG: f"another@{dead}"}),
    }
    found = {name: launcher.check_run_worker_health(run).status for name, run in runs.items()}
    assert [name for name, status in found.items() if status != WorkerStatus.RUNNING] == ["over"]
    assert found["over"] == WorkerStatus.FAILED
    assert worker_of("r", worker_tag("r")) == this_process()


def code_server(code: Path, socket: Path) -> subprocess.Popen[bytes]:
    """A real server of the definitions in `code`, which answers."""
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-f", str(code), "--socket", str(socket)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_grpc_server(process, DagsterGrpcClient(socket=str(socket)), command)
    return process


def test_a_dead_run_fails_when_its_code_can_be_asked_for_again(dead: str, tmp_path: Path) -> None:
    code, socket = tmp_path / "code.py", tmp_path / "socket"
    code.write_text("import dagster as dg\n@dg.asset\ndef one() -> None: ...\ndefs = dg.Definitions([one])\n")
    server = code_server(code, socket)
    target = GrpcServerTarget("localhost", None, str(socket), "here")
    try:
        with (
            dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
            WorkspaceProcessContext(instance, target) as workspaces,
        ):
            workspace = workspaces.create_request_context()
            (repository,) = workspace.get_code_location("here").get_repositories().values()
            (job,) = repository.get_all_jobs()
            run = replace(started_run(instance, dead), remote_job_origin=job.get_remote_origin())
            launcher = WatchedRunLauncher()
            launcher.register_instance(instance)
            launcher.launch_run(LaunchRunContext(run, workspace))
            server.kill()
            server.wait()
            waiting = launcher.check_run_worker_health(run)
            assert (waiting.status, "waits for its code server" in str(waiting.msg)) == (WorkerStatus.RUNNING, True)
            server = code_server(code, socket)
            found = launcher.check_run_worker_health(run)
            assert (found.status, "is gone" in str(found.msg)) == (WorkerStatus.FAILED, True)
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    opened = Tracking(TrackingConfig(root=str(tmp_path_factory.mktemp("tracking") / "mlflow")))
    opened.initialize()
    return opened


def test_what_is_over_is_closed_and_nothing_else(instance: dg.DagsterInstance, tracking: Tracking, dead: str) -> None:
    under_way, ended = started_run(instance), started_run(instance)
    instance.report_run_failed(ended)
    abandoned = started_run(instance, dead)
    experiment = tracking.experiment("segflow events")
    tags = {
        "alive": {"dagster.run_id": under_way.run_id, PROCESS: this_process()},
        "process gone": {"dagster.run_id": under_way.run_id, PROCESS: dead},
        "run over": {"dagster.run_id": ended.run_id, PROCESS: this_process()},
        "another instance": {"dagster.run_id": "unknown", PROCESS: "elsewhere:1:2"},
    }
    runs = {name: tracking.client.create_run(experiment, tags=one).info.run_id for name, one in tags.items()}
    said = tidy(instance, tracking)
    found = {name: tracking.client.get_run(run_id) for name, run_id in runs.items()}
    assert {name: run.info.status for name, run in found.items()} == {
        "alive": "RUNNING", "process gone": "KILLED", "run over": "KILLED", "another instance": "RUNNING",
    }  # fmt: skip
    assert found["process gone"].data.tags[CLOSED] == "its process is gone"
    assert found["run over"].data.tags[CLOSED] == "its Dagster run is over: FAILURE"
    assert said == "closed 1 runs, closed 2 MLflow runs"
    assert instance.get_run_by_id(abandoned.run_id).status == dg.DagsterRunStatus.FAILURE
    assert tidy(instance, tracking) == ""
    for run_id in (runs["alive"], runs["another instance"]):
        tracking.client.set_terminated(run_id)


def test_slots_of_dead_processes_are_given_back(instance: dg.DagsterInstance, tracking: Tracking, dead: str) -> None:
    """Where no daemon runs, the next step would wait for them for ever."""
    instance.event_log_storage.set_concurrency_slots("segflow", 2)
    runs = {name: started_run(instance, process) for name, process in {"over": dead, "alive": this_process()}.items()}
    for run in runs.values():
        instance.event_log_storage.claim_concurrency_slot("segflow", run.run_id, "step")
    assert tidy(instance, tracking) == "closed 1 runs"
    held = instance.event_log_storage.get_concurrency_info("segflow")
    assert held.active_run_ids == {runs["alive"].run_id}


def test_a_run_that_was_killed_before_it_began_is_failed(
    instance: dg.DagsterInstance, tracking: Tracking, dead: str
) -> None:
    @dg.job
    def job() -> None: ...

    for process, expected in ((dead, "FAILURE"), (this_process(), "NOT_STARTED")):
        run_id = make_new_run_id()
        tags = {PROCESS_TAG: f"{run_id}@{process}"}
        instance.create_run_for_job(job, run_id=run_id, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
        tidy(instance, tracking)
        found = instance.get_run_by_id(run_id)
        assert found is not None
        assert found.status.value == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (BulkActionStatus.REQUESTED, "RUNNING"),
        (BulkActionStatus.CANCELING, "RUNNING"),
        (BulkActionStatus.COMPLETED_SUCCESS, "FINISHED"),
        (BulkActionStatus.COMPLETED_FAILED, "FAILED"),
        (BulkActionStatus.CANCELED, "KILLED"),
    ],
)
def test_a_parent_ends_as_its_backfill(
    instance: dg.DagsterInstance, tracking: Tracking, status: BulkActionStatus, expected: str
) -> None:
    name = f"b-{status.value}"
    instance.add_backfill(
        PartitionBackfill(backfill_id=name, status=status, from_failure=False, tags={}, backfill_timestamp=time.time())
    )
    parent_id = parent_of(tracking, name, "segflow events")
    tidy(instance, tracking)
    assert tracking.client.get_run(parent_id).info.status == expected


def test_steps_that_begin_together_get_one_parent(tracking: Tracking) -> None:
    # Each with a seam of its own, as the processes of steps have.
    groups = ["events", "representation"] * 3
    with ThreadPoolExecutor(len(groups)) as pool:
        parents = set(
            pool.map(lambda group: parent_of(Tracking(tracking.config), "b-many", f"segflow {group}"), groups)
        )
    assert len(parents) == 1
    found = tracking.client.get_run(parents.pop())
    assert (found.info.status, found.data.tags[BACKFILL]) == ("RUNNING", "b-many")
    assert PARENT not in found.data.tags
