"""Segments: the clustering, the identity of its segments, who belongs to them, and what they are like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.defs.materializes import materializes
from segflow.defs.partitions import (
    EARLIER_WEEKS,
    HISTORY,
    SAME_WEEK,
    SEGMENTS,
    SNAPSHOT,
    THIS_AND_EARLIER_WEEKS,
    WEEKLY,
)
from segflow.defs.reading import events_with_category
from segflow.defs.step import Step

if TYPE_CHECKING:
    from datetime import date

    from segflow.segments.snapshots import Snapshot

GROUP = "segments"


@materializes(
    tables.SEGMENTATION,
    group=GROUP,
    reads={tables.USER_EMBEDDINGS: SAME_WEEK},
    partitions=WEEKLY,
    code=["segments/clustering.py", "segments/statistics.py"],
    settings=["segments", "seed"],
    kinds=["scikitlearn"],
)
def segmentation(step: Step) -> None:
    """The smallest k within a tolerance of the best silhouette, among those whose clusters survive resampling."""
    from segflow.arrow import matrix
    from segflow.segments.clustering import select

    users = step.read(tables.USER_EMBEDDINGS, ["fused", "enough_history"])
    clustering = select(matrix(users.filter(users["enough_history"])["fused"]), step.config.segments, step.config.seed)
    model = clustering.to_bytes()
    rows = [
        {"week": step.week, **candidate, "model": model if candidate["chosen"] else None}
        for candidate in clustering.candidates
    ]
    chosen = next(row for row in clustering.candidates if row["chosen"])
    step.note(**{name: value for name, value in chosen.items() if name not in ("chosen", "eligible")})
    step.note(selection=clustering.selection)
    step.run.text(json.dumps(clustering.candidates, indent=1), "candidates.json")
    step.write(tables.SEGMENTATION, pa.Table.from_pylist(rows, schema=tables.SEGMENTATION.arrow))


@materializes(
    tables.SEGMENT_LEDGER,
    group=GROUP,
    reads={
        tables.SEGMENTATION: THIS_AND_EARLIER_WEEKS,
        tables.USER_EMBEDDINGS: THIS_AND_EARLIER_WEEKS,
        tables.USER_VIEWS: THIS_AND_EARLIER_WEEKS,
        tables.SEGMENT_LEDGER: EARLIER_WEEKS,
        tables.EVENTS: HISTORY,
        tables.ITEMS: SNAPSHOT,
    },
    partitions=WEEKLY,
    code=["segments/snapshots.py", "segments/ledger.py", "segments/naming.py", "segments/contrasts.py"],
    settings=["segments"],
    kinds=["python"],
)
def segment_ledger(step: Step) -> None:
    """Clusters are matched to the segments of the latest snapshot before; the numbering of the clusterer has no say."""
    from segflow.segments.snapshots import ledger_rows

    step.view(tables.SEGMENT_LEDGER)
    history = step.query("SELECT * FROM segment_ledger ORDER BY week, segment_id")
    latest = pc.max(history["week"]).as_py()
    rows = ledger_rows(
        step.week,
        _snapshot(step, step.week),
        _snapshot(step, latest) if latest else None,
        history,
        events_with_category(step),
        step.config.segments,
        step.config.seed,
    )
    step.write(tables.SEGMENT_LEDGER, rows)
    living = rows.filter(pc.is_valid(rows["cluster"]))
    step.context.instance.add_dynamic_partitions(str(SEGMENTS.name), living["segment_id"].to_pylist())
    step.note(
        segments=living.num_rows,
        what_happened=json.dumps(dict(zip(rows["segment_id"].to_pylist(), rows["event"].to_pylist(), strict=True))),
    )


@materializes(
    tables.USER_SEGMENTS,
    group=GROUP,
    reads={
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_VIEWS: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.SEGMENT_LEDGER: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["segments/snapshots.py"],
    kinds=["python"],
)
def user_segments(step: Step) -> None:
    """Every user of the history window, with or without a segment."""
    from segflow.segments.snapshots import UNASSIGNED, user_segment_rows

    everybody = step.read(tables.USER_EMBEDDINGS, ["user_id"])["user_id"].to_pylist()
    rows = user_segment_rows(step.week, everybody, _snapshot(step, step.week), _segment_ids(step))
    assigned = rows.filter(pc.not_equal(rows["segment_id"], UNASSIGNED))
    step.note(assigned_users=assigned.num_rows, unassigned_users=rows.num_rows - assigned.num_rows)
    step.write(tables.USER_SEGMENTS, rows)


@materializes(
    tables.SEGMENT_PROFILES,
    group=GROUP,
    reads={
        tables.USER_SEGMENTS: SAME_WEEK,
        tables.SEGMENT_LEDGER: SAME_WEEK,
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_VIEWS: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.EVENTS: HISTORY,
        tables.ITEMS: SNAPSHOT,
        tables.USERS: SNAPSHOT,
    },
    partitions=WEEKLY,
    code=["segments/profiles.py", "segments/contrasts.py", "segments/rules.py", "segments/statistics.py"],
    settings=["segments", "seed"],
    kinds=["python"],
)
def segment_profiles(step: Step) -> None:
    """Static attributes were not clustered on: how much they differ between segments validates the segments."""
    from segflow.segments.profiles import profile_segments
    from segflow.segments.snapshots import members

    snapshot = _snapshot(step, step.week)
    attributes = step.read(tables.USERS).to_pandas()
    found = profile_segments(
        events_with_category(step),
        members(snapshot, _segment_ids(step)),
        snapshot.engagement,
        attributes if len(attributes) else None,
        step.config.segments,
        step.config.seed,
    )
    names = _names(step)
    shared = {"associations": found.associations, "surrogate": found.surrogate}
    rows = [
        {
            "week": step.week,
            "segment_id": one.segment_id,
            "name": names[one.segment_id],
            "users": one.users,
            "share_of_users": one.share_of_users,
            "value": one.value,
            "share_of_value": one.share_of_value,
            "summary": one.summary,
            "details": json.dumps({**one.details, **shared}),
        }
        for one in found.profiles
    ]
    step.note(**{one.segment_id: f"{names[one.segment_id]}: {one.summary}" for one in found.profiles})
    step.write(tables.SEGMENT_PROFILES, pa.Table.from_pylist(rows, schema=tables.SEGMENT_PROFILES.arrow))


def _snapshot(step: Step, week: date) -> Snapshot:
    from segflow.segments.clustering import Clustering
    from segflow.segments.snapshots import Snapshot

    candidates = step.read(tables.SEGMENTATION, ["chosen", "model"], week=week)
    model = candidates.filter(candidates["chosen"])["model"][0].as_py()
    return Snapshot.of(
        step.read(tables.USER_EMBEDDINGS, week=week),
        step.read(tables.USER_VIEWS, ["user_id", "engagement", "engagement_names"], week=week),
        Clustering.from_bytes(model),
    )


def _segment_ids(step: Step) -> dict[int, str]:
    rows = step.read(tables.SEGMENT_LEDGER, ["cluster", "segment_id"]).to_pylist()
    return {row["cluster"]: row["segment_id"] for row in rows if row["cluster"] is not None}


def _names(step: Step) -> dict[str, str]:
    rows = step.read(tables.SEGMENT_LEDGER, ["segment_id", "name"]).to_pylist()
    return {row["segment_id"]: row["name"] for row in rows}
