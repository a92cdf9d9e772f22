"""Settings of how long things are kept. By default everything is; `segflow retain` removes what they let go."""

from __future__ import annotations

from pydantic import Field

from segflow.config.base import Section


class RetentionConfig(Section):
    """How long things are kept; null: for ever. Nothing is removed but by `segflow retain`."""

    raw_days: int | None = Field(
        None,
        ge=1,
        description="days from today for which raw rows and quarantine are kept; their events stay, and are not made again",
    )
    weeks: int | None = Field(
        None,
        ge=2,
        description="newest snapshot weeks that are kept, with the earlier ones that they read; reports and verdicts stay",
    )
    versions_days: int | None = Field(
        None, ge=1, description="days for which older versions of tables can be read after they were replaced"
    )
    runs_days: int | None = Field(
        None, ge=1, description="days after its end for which an MLflow run is kept; runs of registered models stay"
    )
    pages_days: int | None = Field(None, ge=1, description="days for which a page below `report.folder` is kept")
    cache_days: int | None = Field(None, ge=1, description="days for which vectors below `text.cache` are kept")
    checkpoints_days: int | None = Field(
        None, ge=1, description="days for which what interrupted trainings left is kept"
    )
    log: str = Field(
        "data/retained.jsonl",
        description="file with a line for each `segflow retain`; it says which days and weeks are over",
    )
