"""One stage of a project in a process of its own, made as `segflow run` makes it.

`python -m segflow_tests.benchmarks.scale_job STAGE` in the project that the environment names prints the rows of the tables that
the stage wrote, as JSON. The stage `nothing` makes an empty table again: what that takes, every process pays for its imports and
records, however small its log is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segflow.defs.runner import Runner

NOTHING = "nothing"
# The generated logs say nothing of their users.
_EMPTY = ("users",)
STAGES: Mapping[str, tuple[str, ...]] = {
    "catalogue": ("source_files", "items", "users", "user_edges"),
    "raw events": ("raw_events",),
    "events": ("events",),
    "sessions": ("sessions",),
    "days of users": ("user_days", "day_reports"),
    "item vectors": ("item_embeddings",),
    "session vectors": ("session_embeddings",),
    "behaviour model": ("behavior_model",),
    "global ranker": ("global_ranker",),
    "user views": ("user_views",),
    "user vectors": ("user_embeddings",),
    "segments": ("segmentation", "segment_ledger", "user_segments"),
    "profiles": ("segment_profiles", "segment_page"),
    "probe": ("representation_probe",),
    "segment rankers": ("segment_rankers",),
    "control rankers": ("control_rankers", "repeated_rankers"),
    "lists": ("recommendations",),
    "served ranker": ("served_ranker",),
    "test": ("ranking_results",),
    "report": ("evaluation_report", "champion"),
}
"""Stage -> its assets, each after those it reads. All read the last week that can be tested, or all days."""
DAY_STAGES = ("catalogue", "raw events", "events", "sessions")
"""The stages up to sessions."""


def make(stage: str) -> dict[str, int]:
    """Make the assets of a stage; returns the tables that they wrote, with their rows. Raises RunFailedError."""
    from segflow.definitions import defs
    from segflow.defs.materializes import PLANS
    from segflow.defs.resources import Segflow
    from segflow.defs.runner import open_runner
    from segflow.watching import Watcher

    made = STAGES.get(stage, _EMPTY)
    # By force: a stage that was stopped half-way is measured whole, and what is up to date is no measurement.
    with open_runner(defs, Watcher(), force=True) as runner:
        for name in made:
            _asset(runner, name)
    written = [table for name in made for table in PLANS[name].tables]
    return {table.name: sum(Segflow().storage.rows(table).values()) for table in written}


def _asset(runner: Runner, name: str) -> None:
    from datetime import timedelta

    from segflow.defs.jobs import ASSETS
    from segflow.defs.materializes import PLANS
    from segflow.defs.runner import day_keys, keys_of
    from segflow.settings import load

    (job,) = (job for job, names in ASSETS.items() if name in names)
    calendar = load().calendar
    if job == "catalogue":
        keys = [""]
    elif job == "days":
        keys = day_keys(calendar.start, calendar.last_day + timedelta(days=1))
    else:
        keys = keys_of(job, calendar.last_testable(1)[0])
    if keys:
        runner.asset(job, PLANS[name], keys)


if __name__ == "__main__":
    print(json.dumps(make(sys.argv[1])))
