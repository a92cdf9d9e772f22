"""Dagster's run launcher for one machine, and whether the runs that it launched are still worked on.

Dagster's default launcher cannot tell: a run whose code server died with it stays "started" for hours, and nobody tries it
again. `dagster.yaml` names this class instead; run monitoring asks it every few seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun
from dagster._config import Field, IntSource
from dagster._core.errors import (
    DagsterCodeLocationLoadError,
    DagsterCodeLocationNotFoundError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult, GetCurrentRunsResult
from dagster._serdes import ConfigurableClassData, deserialize_value

from segflow.defs.processes import is_gone, is_here, worker_of

_ANSWER_SECONDS = 5
# The daemon starts a code server that has died anew after a minute at most.
_RELOAD_SECONDS = 180
_NO_SUCH_QUESTION = "UNIMPLEMENTED"  # gRPC's name of the error, which Dagster's message ends with


class WatchedRunLauncher(DefaultRunLauncher):
    """Looks for the process of a run, or asks the code server that it was given to.

    grace_seconds: how long a server may be out of reach before its runs count as dead. Their workers end with their server,
    so nothing goes on behind it.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None, grace_seconds: int = 20):
        super().__init__(inst_data)
        self._grace_seconds = grace_seconds
        self._silent_since: dict[str, float] = {}
        self._gone_since: dict[str, float] = {}
        self._workspaces: IWorkspaceProcessContext | None = None

    @classmethod
    def config_type(cls) -> Any:
        return {"grace_seconds": Field(IntSource, is_required=False, default_value=20)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> WatchedRunLauncher:
        return cls(inst_data, **config_value)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def launch_run(self, context: LaunchRunContext) -> None:
        if context.workspace is not None:
            self._workspaces = context.workspace.process_context
        super().launch_run(context)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run is worked on: by its process if that is one of this host, else by what its code server says.

        What neither can tell counts as running, up to the longest time that a run may take. So does, for a while, a dead run
        whose code cannot be asked for: Dagster tries a failed run again at once, and if it cannot read its job then, never.
        """
        found = self._health(run)
        if found.status == WorkerStatus.RUNNING:
            return found
        waited = time.monotonic() - self._gone_since.setdefault(run.run_id, time.monotonic())
        if waited < _RELOAD_SECONDS and not self._code_answers(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"{found.msg}; a retry waits for its code server")
        del self._gone_since[run.run_id]
        return found

    def _code_answers(self, run: DagsterRun) -> bool:
        """Whether the code of the run can be asked for its job now. Where nothing was launched yet, it was just loaded."""
        if self._workspaces is None or run.remote_job_origin is None:
            return True
        name = run.remote_job_origin.repository_origin.code_location_origin.location_name
        try:
            location = self._workspaces.create_request_context().get_code_location(name)
            if isinstance(location, GrpcServerCodeLocation):
                location.client.ping("")
        except (DagsterCodeLocationLoadError, DagsterCodeLocationNotFoundError, DagsterUserCodeUnreachableError):
            return False
        return True

    def _health(self, run: DagsterRun) -> CheckRunHealthResult:
        name = worker_of(run.run_id, run.tags)
        if is_here(name):
            alive = not is_gone(name)
            return CheckRunHealthResult(
                WorkerStatus.RUNNING if alive else WorkerStatus.FAILED, None if alive else f"its process {name} is gone"
            )
        if GRPC_INFO_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            lost = _is_lost(run)
        except DagsterUserCodeUnreachableError as error:
            silent = time.monotonic() - self._silent_since.setdefault(run.run_id, time.monotonic())
            status = WorkerStatus.RUNNING if silent < self._grace_seconds else WorkerStatus.FAILED
            said = str(error).partition("\n")[0]
            return CheckRunHealthResult(status, f"its code server does not answer since {silent:.0f} s: {said}")
        self._silent_since.pop(run.run_id, None)
        if lost:
            return CheckRunHealthResult(WorkerStatus.FAILED, "its code server knows nothing of it: it was started anew")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _is_lost(run: DagsterRun) -> bool:
    """Whether the code server of the run answers, and has no process for it. Raises DagsterUserCodeUnreachableError."""
    server = json.loads(run.tags[GRPC_INFO_TAG])
    client = DagsterGrpcClient(
        port=server.get("port"),
        socket=server.get("socket"),
        host=server.get("host"),
        use_ssl=bool(server.get("use_ssl", False)),
    )
    answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_ANSWER_SECONDS)
    if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
        return False
    try:
        current = deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs
    except DagsterUserCodeUnreachableError as error:
        if _NO_SUCH_QUESTION in str(error):
            # `dagster code-server start` answers for the code as it is now, and not for runs of the code before a reload.
            return False
        raise
    return run.run_id not in current
