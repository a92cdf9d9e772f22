"""Settings of what runs by itself: schedules, sensors, automation, and what is told when a run fails."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from segflow.config.base import Address, Section

TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class NotifyConfig(Section):
    """What is told when a run fails and is not retried."""

    failures: bool = Field(True, description="the sensor `failed_runs` is on; it launches nothing")
    to: str = Field(
        "log",
        description="`log` (the sensor's own log in the UI), `webhook` (POST of JSON), `slack` (an incoming webhook), or a "
        "function of your own as `package.module:function`",
    )
    url_variable: str = Field(
        "SEGFLOW_NOTIFY_URL",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the URL; the URL is a secret and stands in no file",
    )
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="after which a receiver is given up")
    ui: Address = Field("http://127.0.0.1:3000", description="address of the Dagster UI, for links")

    @field_validator("to")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("log", "webhook", "slack") or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
            return value
        raise ValueError(f"'{value}' is none of log, webhook, slack, and no package.module:function")


class AutomationConfig(Section):
    """What runs by itself. All that launches runs is off by default; the Dagster UI turns it on and off too."""

    daily_ingest: bool = Field(False, description="schedule: the days that ended, from source files to sessions")
    ingest_at: TimeOfDay = Field("02:00", description="when `daily_ingest` runs, UTC")
    late_files: bool = Field(False, description="sensor: new and corrected files into the days that they touch")
    weekly_snapshot: bool = Field(
        False, description="schedule: models and segments of the newest week that is complete"
    )
    snapshot_at: TimeOfDay = Field(
        "04:00", description="when `weekly_snapshot` looks whether a week is due, UTC, daily"
    )
    downstream: bool = Field(
        False, description="sensor `downstream`: what follows from days and snapshots, by automation conditions"
    )
    followed_weeks: int = Field(
        4,
        ge=1,
        le=104,
        description="newest complete weeks that `weekly_snapshot` and `downstream` look after; the first two "
        "weeks of a log are history only",
    )
    new_segments: bool = Field(
        True, description="sensor: registers segments of the ledger that Dagster does not know; launches nothing"
    )
    reconcile: bool = Field(
        True, description="sensor: closes MLflow runs whose Dagster run has ended; launches nothing"
    )
    notify: NotifyConfig = NotifyConfig()
