"""MLflow runs whose step is over although nobody closed them: a killed process cannot.

Lives here: finding and closing them. Does not live here: how to tell that a step is over (``segflow.defs.reconcile``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from segflow.tracking.backfills import BACKFILL, search

if TYPE_CHECKING:
    from segflow.tracking.runs import Tracking

PROCESS = "segflow.process"
"""Tag of a run: the name of the process that holds it open."""

CLOSED = "segflow.closed"
"""Tag of a run that was closed for its step: why."""


def close_orphans(tracking: Tracking, over: Callable[[Mapping[str, str]], str | None]) -> list[str]:
    """End as KILLED every running run of a step that is over; returns their ids.

    over: tags of a run -> why its step cannot be at work any more, or None if it may be.
    """
    closed = []
    for run in search(tracking, "attributes.status = 'RUNNING'"):
        if BACKFILL in run.data.tags or not (why := over(run.data.tags)):
            continue
        # It may have come to its end since it was looked up.
        if tracking.client.get_run(run.info.run_id).info.status == "RUNNING":
            tracking.client.set_tag(run.info.run_id, CLOSED, why)
            tracking.client.set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_id))
    return closed
