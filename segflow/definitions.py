"""The one entry point that `workspace.yaml` names."""

from __future__ import annotations

import dagster as dg

from segflow.defs import jobs
from segflow.defs.automation import downstream
from segflow.defs.evaluation import assets as evaluation
from segflow.defs.evaluation import pooled
from segflow.defs.events import assets as events
from segflow.defs.events.sensors import late_files
from segflow.defs.executor import recovering_executor
from segflow.defs.notify import failed_runs
from segflow.defs.progress import progress
from segflow.defs.rankers import assets as rankers
from segflow.defs.rankers import serving
from segflow.defs.reconcile import reconcile
from segflow.defs.representation import assets as representation
from segflow.defs.resources import Segflow
from segflow.defs.schedules import daily_ingest, weekly_snapshot
from segflow.defs.segments import assets as segments
from segflow.defs.segments.sensors import new_segments
from segflow.tracking import SLOW_IMPORTS

# Each step has a process of its own, forked from one that has imported already: that takes longer than many a step's work.
executor = recovering_executor([__name__, *SLOW_IMPORTS])

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([events, representation, segments, rankers, serving, evaluation, pooled]),
    jobs=jobs.ALL,
    schedules=[daily_ingest, weekly_snapshot],
    sensors=[late_files, downstream, new_segments, failed_runs, reconcile],
    resources={"segflow": Segflow()},
    executor=executor,
    loggers={"console": dg.colored_console_logger, "progress": progress},
)
