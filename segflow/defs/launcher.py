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
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value

from segflow.defs.processes import PROCESS_TAG, is_gone

_ANSWER_SECONDS = 5


class WatchedRunLauncher(DefaultRunLauncher):
    """Asks the code server that a run was given to whether it still works on it.

    grace_seconds: how long a server may be out of reach before its runs count as dead. Their workers end with their server,
    so nothing goes on behind it.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None, grace_seconds: int = 20):
        super().__init__(inst_data)
        self._grace_seconds = grace_seconds
        self._silent_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> Any:
        return {"grace_seconds": Field(IntSource, is_required=False, default_value=20)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> WatchedRunLauncher:
        return cls(inst_data, **config_value)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run is worked on. A run that no code server was asked for is its own process's affair."""
        if GRPC_INFO_TAG not in run.tags:
            name = run.tags.get(PROCESS_TAG, "")
            if is_gone(name):
                return CheckRunHealthResult(WorkerStatus.FAILED, f"the process {name} is gone")
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            known = _knows(run)
        except DagsterUserCodeUnreachableError as error:
            silent = time.monotonic() - self._silent_since.setdefault(run.run_id, time.monotonic())
            status = WorkerStatus.RUNNING if silent < self._grace_seconds else WorkerStatus.FAILED
            said = str(error).partition("\n")[0]
            return CheckRunHealthResult(status, f"its code server does not answer since {silent:.0f} s: {said}")
        self._silent_since.pop(run.run_id, None)
        if known:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its code server knows nothing of it: it was started anew")


def _knows(run: DagsterRun) -> bool:
    """Whether the code server of the run has a living process for it. Raises DagsterUserCodeUnreachableError."""
    server = json.loads(run.tags[GRPC_INFO_TAG])
    client = DagsterGrpcClient(
        port=server.get("port"),
        socket=server.get("socket"),
        host=server.get("host"),
        use_ssl=bool(server.get("use_ssl", False)),
    )
    answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_ANSWER_SECONDS)
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel
