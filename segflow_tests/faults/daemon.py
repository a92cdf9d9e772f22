"""A real `dagster-daemon` over a project, with the processes that it starts, each of which can be killed.

The daemon is started again when it was killed, as a service manager would. The only thing asserted here is that it starts.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus

from segflow_tests.pipeline.project import Project

ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_LAUNCH = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
KINDS = ("run worker", "step", "code server", "daemon")


@dataclass
class Daemon:
    """`dagster-daemon run` in a project's folder."""

    project: Project
    kills: list[str] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        """Start the daemon if it does not run."""
        if self._process is None or self._process.poll() is not None:
            with (self.project.folder / "daemon.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [_BIN / "dagster-daemon", "run", "-m", "segflow.definitions"],
                    cwd=self.project.folder, env=self.project.environment, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip

    def backfill(self, assets: Sequence[str], partitions: Sequence[str] | None = None) -> str:
        """Launch a backfill as the UI does, of these partitions or all of each asset; its id."""
        params: dict[str, Any] = {"assetSelection": [{"path": [name]} for name in assets]}
        params |= {"allPartitions": True} if partitions is None else {"partitionNames": list(partitions)}
        done = subprocess.run(
            [
                _BIN / "dagster-graphql", "-m", "segflow.definitions",
                "-t", _LAUNCH, "-v", json.dumps({"backfill": params}),
            ],
            cwd=self.project.folder, env=self.project.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert '"backfillId"' in done.stdout, done.stdout + done.stderr
        answer: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index('{"data"') :])[0]
        return str(answer["data"]["launchPartitionBackfill"]["backfillId"])

    def wait(self, instance: dg.DagsterInstance, backfill: str, seconds: float) -> BulkActionStatus:
        """How a backfill ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keep_alive()
            found = instance.get_backfill(backfill)
            if found and found.status in BULK_ACTION_TERMINAL_STATUSES:
                return found.status
            time.sleep(0.5)
        raise AssertionError(f"no end after {seconds} s\n{self.log()[-4000:]}")

    def log(self) -> str:
        """What the daemon and everything it started printed."""
        return (self.project.folder / "daemon.log").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Kind -> its living processes, told by the environment and the command line they were started with."""
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
        for one in psutil.process_iter():
            try:
                if one.environ().get("DAGSTER_HOME") == str(self.project.folder) and (kind := _kind(one)):
                    found[kind].append(one)
            except psutil.Error:
                continue
        return found

    def kill(self, kind: str, number: int) -> bool:
        """SIGKILL to one of a kind; False if there is none."""
        there = sorted(self.processes()[kind], key=lambda one: one.pid)
        if not there:
            return False
        victim = there[number % len(there)]
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.Error:
            return False
        self.kills.append(f"{kind} {victim.pid}")
        return True

    def stop(self) -> None:
        """End everything that was started."""
        for _ in range(3):
            for one in [one for processes in self.processes().values() for one in processes]:
                one.kill()
            time.sleep(0.2)
        if self._process is not None:
            self._process.wait(20)


@contextmanager
def daemon(project: Project) -> Iterator[Daemon]:
    """A running daemon, ended with all its processes at the end of the block."""
    started = Daemon(project)
    started.keep_alive()
    try:
        yield started
    finally:
        started.stop()


@contextmanager
def opened(project: Project) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(project.folder))
        with dg.DagsterInstance.from_config(str(project.folder)) as instance:
            yield instance


def _kind(process: psutil.Process) -> str | None:
    command = " ".join(process.cmdline())
    if "dagster-daemon" in command:
        return "daemon"
    if "api grpc" in command:
        return "code server"
    if "multiprocessing.spawn" in command:
        return "run worker"
    if "multiprocessing.forkserver" in command:
        # The process that steps are forked from has the same command line.
        parent = process.parent()
        return "step" if parent and "multiprocessing.forkserver" in " ".join(parent.cmdline()) else None
    return None
