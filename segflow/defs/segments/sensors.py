"""The sensor that registers segments which the ledger names and Dagster does not know."""

from __future__ import annotations

import dagster as dg

from segflow import tables
from segflow.defs.partitions import CONFIG, SEGMENTS
from segflow.defs.resources import Segflow
from segflow.storage import connect


@dg.sensor(
    name="new_segments",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING if CONFIG.automation.new_segments else dg.DefaultSensorStatus.STOPPED,
    description="Registers the segments of the ledger as partitions, for a new Dagster home over tables that are there already.",
)
def new_segments(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """The step of the ledger registers what it finds; this is for tables that came from elsewhere. Launches nothing."""
    segflow = Segflow()
    version = segflow.storage.version(tables.SEGMENT_LEDGER)
    if version is None:
        return dg.SkipReason("there is no ledger yet")
    known = set(context.instance.get_dynamic_partitions(str(SEGMENTS.name)))
    # The home may be a new one, so what was seen counts only together with what is registered.
    seen = f"{version} {len(known)}"
    if context.cursor == seen:
        return dg.SkipReason("the ledger is as it was")
    with connect(CONFIG.compute) as connection:
        rows = segflow.storage.read(connection, tables.SEGMENT_LEDGER, columns=["segment_id", "cluster"]).to_pylist()
    new = sorted({row["segment_id"] for row in rows if row["cluster"] is not None} - known)
    return dg.SensorResult(
        dynamic_partitions_requests=[SEGMENTS.build_add_request(new)] if new else [],
        skip_reason=None if new else dg.SkipReason("all segments are registered"),
        cursor=f"{version} {len(known) + len(new)}",
    )
