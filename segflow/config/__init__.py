"""The settings of `segflow.yaml`: every default, unit and bound in one place. `settings.py` reads the file.

Unknown keys are refused: a misspelled key that silently keeps the default is the worst kind of bug.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

# This package is the one door to what stands in its modules.
from segflow.config.automation import AutomationConfig, NotifyConfig
from segflow.config.base import Address, LocalPath, Section, did_you_mean
from segflow.config.metadata import FreshnessConfig, MetadataConfig
from segflow.config.rankers import RankerConfig
from segflow.config.recommendations import BoostConfig, ExclusionConfig, RecommendationConfig
from segflow.config.representation import (
    AdaptationConfig,
    BehaviorConfig,
    BehaviorInput,
    ProbeConfig,
    TextConfig,
    UserEmbeddingConfig,
    View,
)
from segflow.config.retention import RetentionConfig
from segflow.config.segments import ExportConfig, LedgerConfig, ProfileConfig, SegmentConfig
from segflow.config.source import (
    WEEKDAYS,
    BotConfig,
    CalendarConfig,
    CleaningConfig,
    CsvDialect,
    EdgeSource,
    EventSource,
    ImputeConfig,
    Input,
    ItemSource,
    PseudonymConfig,
    SessionConfig,
    SourceConfig,
    UserSource,
)
from segflow.secrets import is_telling, is_variable


class EvaluationConfig(Section):
    """The test protocol and the verdict's thresholds, fixed before anything is run."""

    minimum_relative_gain: float = Field(
        0.01, ge=0, le=1, description="NDCG@10 gain over the best control that is worth segmenting for, 0.01 = 1 %"
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="level of all intervals; 1 - it is the false-discovery rate over segments"
    )
    power: float = Field(
        0.8, ge=0.5, le=0.999, description="chance to find an effect as large as the minimum detectable effect"
    )
    bootstrap_samples: int = Field(5000, ge=1000, le=100_000, description="resamples of the users for each interval")
    minimum_users: int = Field(
        50, ge=2, description="test users below which nothing is concluded, for all users and for each segment"
    )
    harm_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of the best control's NDCG@10 that a segment may be proven to lose on any task before its ranker "
        "is kept from serving",
    )
    pooled_weeks: int = Field(
        8, ge=1, le=52, description="snapshot weeks whose tests the pooled verdict takes together"
    )
    popular_items: int = Field(
        50, ge=1, description="most popular items of the last seven days, which the task `beyond_popular` leaves out"
    )


_STORES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "file")


class StorageConfig(Section):
    """Where tables live."""

    root: Address = Field("data/tables", description="folder or object-store URI of the Delta tables")
    options: dict[str, str] = Field(
        default_factory=dict,
        description="object-store options, such as its address; `${NAME}` stands for an environment variable, and secrets are "
        "written in no other way. One request lasts at most `connect_timeout` 5s, `timeout` 60s, `max_retries` 10 and "
        "`retry_timeout` 60s, unless set here",
    )
    erasures: LocalPath = Field(
        "data/erasures.jsonl", description="file with a line, without ids, for each time that users were erased"
    )

    @field_validator("root")
    @classmethod
    def _known_store(cls, root: str) -> str:
        scheme, found, _ = root.partition("://")
        if found and scheme not in _STORES:
            raise ValueError(f"'{root}': {scheme}:// is not known; known: {', '.join(_STORES)}, or a folder")
        return root

    @field_validator("options")
    @classmethod
    def _named(cls, options: dict[str, str]) -> dict[str, str]:
        for name, value in options.items():
            if is_telling(name) and not is_variable(value):
                raise ValueError(
                    f"{name} is a secret, which stands in no file; write ${{{name.upper()}}} and set that environment variable"
                )
        return options


class ComputeConfig(Section):
    """What one step may use, and where its pieces are worked on. Of this, `training_processes` alone changes what is made."""

    engine: Literal["in_process", "ray"] = Field(
        "in_process", description="where the pieces of a step are worked on: in its own process, or on a Ray cluster"
    )
    address: str = Field(
        "auto", description="of the Ray cluster: HOST:PORT of its head, or `auto` for the one that runs here"
    )
    exchange: str = Field(
        "data/exchange", description="folder or object-store URI that every node of the engine sees, where tables pass"
    )
    patience: float = Field(30, gt=0, le=3600, description="seconds until an engine that does not answer is an error")
    threads: int = Field(2, ge=1, le=256, description="threads of one step")
    processes: int = Field(2, ge=1, le=64, description="weeks that the command line works on side by side")
    training_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="processes of one machine that train the behaviour model together, by equal shares of each batch; another "
        "number changes last bits, so models are made anew",
    )
    memory_limit: str = Field("2GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|TB)$", description="DuckDB's memory in one step")
    days_per_run: int = Field(
        31,
        ge=1,
        le=3660,
        description="days that one run of a backfill makes; what a killed run has to do again is at most one step of them",
    )
    rows_at_once: int = Field(
        2_000_000,
        ge=10_000,
        description="events that are worked on at once; a range of days is cut to it, never a day, and so are the users whose "
        "views are made, never one of them",
    )
    spill: LocalPath = Field("data/spill", description="folder for what does not fit in memory")
    spill_limit: str = Field("20GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|TB)$", description="most that may be spilled")


class TrackingConfig(Section):
    """Where MLflow keeps runs."""

    root: LocalPath = Field("data/mlflow", description="folder of the sqlite backend and the artifacts")
    uri: Address | None = Field(None, description="an MLflow server to use instead of the embedded backend")
    ui: Address = Field("http://127.0.0.1:5000", description="address of the MLflow UI, for links")
    model: str = Field(
        "segflow", pattern=r"^[\w.-]+$", description="name under which rankers that serve are registered"
    )
    partition_runs: bool = Field(
        True, description="a run of its own for each partition of a range, below the run of the range"
    )
    system_metrics: bool = Field(
        True, description="processor, memory, disk and network while a step lasts, for steps of more than ten seconds"
    )


class ServingConfig(Section):
    """The ranker that answers requests."""

    variant: Literal["full", "int8"] = Field("full", description="how its matrices are stored")


class ReportConfig(Section):
    """Where report pages are written."""

    folder: LocalPath = Field("data/reports", description="folder of the HTML pages")


Seed = Annotated[int, Field(ge=0, lt=2**31, description="seed of everything random")]


class Config(Section):
    """The whole of `segflow.yaml`."""

    preset: str | None = Field(None, description="name of a preset in segflow/datasets/")
    source: SourceConfig
    calendar: CalendarConfig
    cleaning: CleaningConfig = CleaningConfig()
    sessions: SessionConfig = SessionConfig()
    text: TextConfig = TextConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    users: UserEmbeddingConfig = UserEmbeddingConfig()
    probe: ProbeConfig = ProbeConfig()
    segments: SegmentConfig = SegmentConfig()
    rankers: RankerConfig = RankerConfig()
    recommendations: RecommendationConfig = RecommendationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    storage: StorageConfig = StorageConfig()
    compute: ComputeConfig = ComputeConfig()
    tracking: TrackingConfig = TrackingConfig()
    serving: ServingConfig = ServingConfig()
    report: ReportConfig = ReportConfig()
    automation: AutomationConfig = AutomationConfig()
    metadata: MetadataConfig = MetadataConfig()
    retention: RetentionConfig = RetentionConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _agreeing(self) -> Config:
        if "adapted" in self.users.views and self.text.adaptation.method == "none":
            raise ValueError("users.views: 'adapted' needs a language model that learns; set text.adaptation.method")
        if self.source.pseudonyms.enabled and self.cleaning.bots.user_pattern is not None:
            raise ValueError(
                "cleaning.bots.user_pattern: never fits with source.pseudonyms, whose ids are hashed before; leave such users "
                "out by source.events.sql"
            )
        return self
