"""Settings of what Dagster shows of the assets beside what they hold: owner, links, and when they are late."""

from __future__ import annotations

from pydantic import Field

from segflow.config.base import Section


class FreshnessConfig(Section):
    """When Dagster calls an asset late. Only while the log goes on: with `calendar.end` set, nothing is late."""

    days_within_hours: int | None = Field(
        6,
        ge=1,
        le=23,
        description="hours after midnight UTC by which the day that ended must be there; null: never late",
    )
    weeks_within_hours: int | None = Field(
        12,
        ge=1,
        le=167,
        description="hours after a week has ended by which the weekly assets must be made; null: never late",
    )


class MetadataConfig(Section):
    """What is shown of every asset."""

    owner: str = Field(
        "team:segflow",
        pattern=r"^(team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$",
        description="`team:NAME` or an e-mail address",
    )
    repository: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address under which the code is shown, such as https://github.com/me/segflow/blob/main; "
        "without it, code references name local files",
    )
    docs: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of the page that `docs/tables.md` became, for links to a table",
    )
    freshness: FreshnessConfig = FreshnessConfig()
