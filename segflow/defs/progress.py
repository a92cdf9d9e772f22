"""A Dagster logger for the command line: what steps say to people goes to `PROGRESS`, Dagster's own events do not."""

from __future__ import annotations

import logging

import dagster as dg

PROGRESS = logging.getLogger("segflow.progress")
PROGRESS.setLevel(logging.DEBUG)
PROGRESS.propagate = False


@dg.logger(None, description="Lines for people who watch a run on the command line.")
def progress(_context: dg.InitLoggerContext) -> logging.Logger:
    """The logger that `segflow run` listens to."""
    return PROGRESS
