"""Runs that are older than they are to be kept. Runs whose models are registered stay, and so does what goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from segflow.tracking.backfills import search
from segflow.tracking.runs import Tracking

_DAY_MS = 86_400_000


def aged_runs(tracking: Tracking, days: int) -> list[str]:
    """Ids of the runs of all experiments of ours that ended more than so many days ago, oldest first."""
    limit = int(time.time() * 1000) - days * _DAY_MS
    registered = {one.run_id for one in tracking.client.search_model_versions(f"name = '{tracking.config.model}'")}
    ended = search(tracking, f"attributes.status != 'RUNNING' AND attributes.end_time < {limit}")
    return [run.info.run_id for run in ended if run.info.run_id not in registered]


def remove_runs(tracking: Tracking, runs: Sequence[str]) -> None:
    """Remove the runs for good, with their artifacts. On a server they are marked as deleted, for its `mlflow gc`."""
    for run in runs:
        artifacts = tracking.client.get_run(run).info.artifact_uri
        tracking.client.delete_run(run)
        if tracking.config.uri is None:
            # What `mlflow gc` does, without the seconds that it takes to start.
            tracking.client._tracking_client.store._hard_delete_run(run)
            folder = Path(unquote(urlsplit(artifacts).path) if artifacts.startswith("file://") else artifacts)
            if folder.resolve().is_relative_to(Path(tracking.artifacts).resolve()):
                shutil.rmtree(folder, ignore_errors=True)
