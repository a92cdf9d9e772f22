"""How steps are run: each in a process of its own, forked from one that has imported already.

As Dagster's own, but made for being killed: a run worker ends with its code server, a step process with its run worker
(``processes``), and a step whose process was killed is made again in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutor

from segflow.compute.processes import end_with_parent
from segflow.defs.processes import worker_tag

_CRASHED = "ChildProcessCrashException"
# As many as a run: `run_retries.max_retries` in dagster.yaml, which does not count killed steps.
KILLED_STEP_RETRIES = 3


class RecoveringExecutor(MultiprocessExecutor):
    """Makes a killed step again, at most `KILLED_STEP_RETRIES` times. A step that raised is not: it would raise again."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        """Run the steps, unless the code server that started this run worker is gone: then nobody would know of its end."""
        end_with_parent()
        run_id = plan_context.dagster_run.run_id
        plan_context.instance.add_run_tags(run_id, worker_tag(run_id))
        yield from super().execute(plan_context, execution_plan)

    def log_failure_or_retry_event_after_error(
        self, step_context: Any, err_info: Any, known_state: Any
    ) -> DagsterEvent:
        """What becomes of a step whose process ended without a word."""
        attempts = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        if err_info.cls_name == _CRASHED and attempts < KILLED_STEP_RETRIES:
            return DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info, seconds_to_wait=0))
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)


def recovering_executor(preload: Sequence[str]) -> dg.ExecutorDefinition:
    """The executor as Dagster knows it; preload: modules that the process imports from which steps are forked."""

    @dg.executor(name="multiprocess", requirements=dg.multiple_process_executor_requirements())
    def multiprocess(_: dg.InitExecutorContext) -> RecoveringExecutor:
        return RecoveringExecutor(
            RetryMode.ENABLED, None, start_method="forkserver", explicit_forkserver_preload=list(preload)
        )

    return multiprocess
