"""Runs of single partitions below the run of a range: finished when they are made, all of them at once.

MLflow's client takes three calls for such a run, and the embedded store a transaction for each: a year of days would spend
longer on its runs than on its rows. The embedded store is therefore given all of them in one transaction, as MLflow's own
client would have written them; a server gets them call by call.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segflow.tracking.backfills import PARENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BUSY_SECONDS = 60
_NAME = "mlflow.runName"


@dataclass(frozen=True)
class Child:
    """A run of one partition: its name, tags and figures."""

    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def call_children(
    client: MlflowClient, experiment_id: str, parent: str, children: Sequence[Child], began: int
) -> list[str]:
    """The ids of runs that are made through the client. began: milliseconds since 1970."""
    from mlflow.entities import Metric

    made = []
    for child in children:
        run_id = client.create_run(experiment_id, began, {**child.tags, PARENT: parent}, child.name).info.run_id
        now = _now()
        client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in child.metrics.items()])
        client.set_terminated(run_id, "FINISHED", now)
        made.append(run_id)
    return made


def insert_children(
    uri: str, artifacts: str, experiment_id: str, parent: str, children: Sequence[Child], began: int
) -> list[str]:
    """The ids of runs that are written to the sqlite file of the embedded store. artifacts: the experiment's location."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.orm import Session

    engine = create_engine(uri, poolclass=NullPool, connect_args={"timeout": _BUSY_SECONDS})
    ids = [uuid.uuid4().hex for _ in children]
    with Session(engine) as session, session.begin():
        for run_id, child in zip(ids, children, strict=True):
            session.add_all(_rows(run_id, artifacts, experiment_id, parent, child, began))
    return ids


def _rows(run_id: str, artifacts: str, experiment_id: str, parent: str, child: Child, began: int) -> list[Any]:
    from mlflow.entities import LifecycleStage, RunStatus, SourceType
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlRun, SqlTag
    from mlflow.utils.uri import append_to_uri_path

    now = _now()
    tags = {**child.tags, PARENT: parent, _NAME: child.name}
    figures = [
        {"run_uuid": run_id, "key": key, "value": value, "timestamp": now, "step": 0, "is_nan": False}
        for key, value in child.metrics.items()
    ]
    return [
        SqlRun(
            run_uuid=run_id,
            name=child.name,
            artifact_uri=append_to_uri_path(artifacts, run_id, "artifacts"),
            experiment_id=int(experiment_id),
            source_type=SourceType.to_string(SourceType.UNKNOWN),
            source_name="",
            entry_point_name="",
            source_version="",
            user_id="unknown",
            status=RunStatus.to_string(RunStatus.FINISHED),
            start_time=began,
            end_time=now,
            lifecycle_stage=LifecycleStage.ACTIVE,
        ),
        *(SqlTag(run_uuid=run_id, key=key, value=str(value)) for key, value in tags.items()),
        *(kind(**figure) for figure in figures for kind in (SqlMetric, SqlLatestMetric)),
    ]


def _now() -> int:
    return int(time.time() * 1000)
