"""One MLflow run for each Dagster backfill, as the parent of the runs of its steps.

Lives here: finding, creating and ending that run. Does not live here: what a backfill is and how it stands, which Dagster knows.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from segflow.tracking.runs import Tracking

BACKFILL = "segflow.backfill"
"""Tag of the parent: the id of the backfill."""

PARENT = "mlflow.parentRunId"
"""Tag of the children, by which MLflow's UI nests them: the id of their parent."""

_PAGE = 1000


def parent_of(tracking: Tracking, backfill: str, experiment: str) -> str:
    """The id of the parent run of a backfill. The first step that asks has it created, in the experiment of that step."""
    # Both have a lock of their own, so they come first.
    client, experiment_id = tracking.client, tracking.experiment(experiment)
    with _once(tracking):
        if found := next(search(tracking, f"tags.`{BACKFILL}` = '{backfill}'"), None):
            return str(found.info.run_id)
        created = client.create_run(experiment_id, run_name=f"backfill {backfill}", tags={BACKFILL: backfill})
        return str(created.info.run_id)


def end_parents(tracking: Tracking, ended: Callable[[str], str | None]) -> list[str]:
    """End the parents of backfills that are over; returns the ids of these backfills.

    ended: id of a backfill -> FINISHED, FAILED or KILLED, or None while it goes on or if nobody here knows it.
    """
    over = []
    for run in search(tracking, f"attributes.status = 'RUNNING' AND tags.`{BACKFILL}` != ''"):
        backfill = run.data.tags[BACKFILL]
        if status := ended(backfill):
            tracking.client.set_terminated(run.info.run_id, status)
            over.append(backfill)
    return over


def _once(tracking: Tracking) -> FileLock:
    """One process at a time; with a server, of those on this machine."""
    if not tracking.config.uri:
        return FileLock(f"{tracking.config.root}/create.lock")
    name = hashlib.sha256(tracking.uri.encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"segflow-{name}.lock")


def search(tracking: Tracking, where: str) -> Iterator[MlflowRun]:
    """Runs of all experiments of ours that meet a condition of MLflow's search, oldest first."""
    client = tracking.client
    ours = [one.experiment_id for one in client.search_experiments(filter_string="name LIKE 'segflow %'")]
    token = None
    while ours:
        page = client.search_runs(
            ours, where, max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
