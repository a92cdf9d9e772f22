"""What several assets of the segments stage read in the same way: the clustering, its users, and what profiles are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.defs.partitions import CONFIG, HISTORY, SNAPSHOT
from segflow.defs.reading import events_with_category, fused_views
from segflow.defs.step import Step
from segflow.reading.rankers import start_of
from segflow.sql import render

if TYPE_CHECKING:
    from segflow.segments.clustering import Clustering
    from segflow.segments.population import Population
    from segflow.segments.profiles import Material
    from segflow.segments.snapshots import Snapshot

# What some clusterers look at beside the vectors.
POPULATION_WINDOWS = {
    **({tables.EVENTS: HISTORY, tables.ITEMS: SNAPSHOT} if {"lda", "category"} & {*CONFIG.segments.algorithms} else {}),
    **({tables.USERS: SNAPSHOT} if "attribute" in CONFIG.segments.algorithms else {}),
}


def profile_material(step: Step) -> Material:
    """What is known of the step's week that a profile can tell of."""
    from segflow.arrow import matrix
    from segflow.representation.users import UserFeatures
    from segflow.segments.profiles import Material, kinds_seen
    from segflow.segments.snapshots import UNASSIGNED

    views = step.read(tables.USER_VIEWS, ["user_id", "engagement", "engagement_names"])
    members = step.read(tables.USER_SEGMENTS, ["user_id", "segment_id", "distance"])
    events = events_with_category(step)
    step.view(tables.SESSIONS)
    attributes = step.read(tables.USERS).to_pandas()
    return Material(
        events,
        members.filter(pc.not_equal(members["segment_id"], UNASSIGNED)).to_pandas(),
        UserFeatures(views["user_id"].to_pylist(), matrix(views["engagement"]), views["engagement_names"][0].as_py()),
        sessions=step.query(render("segments/ended_sessions.sql", week_start=start_of(step.week))),
        items=step.query("SELECT item_id, title, category[1] AS category, text FROM items"),
        attributes=attributes if len(attributes) else None,
        vectors=matrix(step.read(tables.USER_EMBEDDINGS, ["fused"])["fused"]),
        seen=kinds_seen(fused_views(step), clustering_of(step).algorithm),
    )


def clustering_of(step: Step) -> Clustering:
    """The clustering of the step's week; one without clusters if the week has no segments."""
    from segflow.segments.clustering import Clustering

    rows = step.read(tables.SEGMENTATION, ["verdict", "model"])
    models = rows["model"].drop_null()
    return Clustering.from_bytes(models[0].as_py()) if len(models) else Clustering(rows["verdict"][0].as_py(), [])


def population_of(step: Step, embeddings: pa.Table, views: pa.Table) -> Population:
    """The users of `embeddings` with enough history, as the configured clusterers look at them."""
    from segflow.segments.clusterers import CLUSTERERS
    from segflow.segments.population import Population

    config = step.config.segments
    needs = frozenset[str]().union(*(CLUSTERERS[one].needs for one in config.algorithms))
    events = events_with_category(step) if needs & {"items", "category"} else None
    attributes = step.read(tables.USERS) if "attribute" in needs else None
    return Population.of(needs, embeddings, views, events, attributes, config.attribute)


def snapshot_of(step: Step) -> Snapshot:
    """The users of the step's week, and where its clustering puts them."""
    from segflow.segments.snapshots import Snapshot

    embeddings = step.read(tables.USER_EMBEDDINGS)
    views = step.read(tables.USER_VIEWS, ["user_id", "engagement", "engagement_names"])
    return Snapshot.of(embeddings, views, clustering_of(step), population_of(step, embeddings, views))


def segment_ids(step: Step, snapshot: Snapshot) -> dict[int, str]:
    """Cluster -> segment id; nothing if the week has no segments."""
    from segflow.segments.snapshots import ids_of

    step.view(tables.SEGMENT_LEDGER)
    living = step.query("SELECT cluster, segment_id, users FROM segment_ledger WHERE cluster IS NOT NULL")
    return ids_of(snapshot, living, step.week)


def segment_names(step: Step) -> dict[str, str]:
    """Segment id -> its name in the step's week."""
    rows = step.read(tables.SEGMENT_LEDGER, ["segment_id", "name"]).to_pylist()
    return {row["segment_id"]: row["name"] for row in rows}
