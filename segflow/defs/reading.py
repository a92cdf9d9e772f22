"""What several asset bodies read in the same way, and in which windows. What workers read too is in `segflow.reading`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from segflow import tables
from segflow.config import View
from segflow.defs.partitions import (
    CONFIG,
    HISTORY_AND_WEEK,
    SAME_WEEK,
    SEGMENTS_OF_WEEK,
    SNAPSHOT,
    WEEK_BEFORE,
    Window,
)
from segflow.defs.step import Step
from segflow.sql import load

if TYPE_CHECKING:
    from segflow.segments.naming import Namer
    from segflow.tables import Table


def events_with_category(step: Step) -> pa.Table:
    """The declared window of events with the widest category of each item."""
    step.view(tables.EVENTS)
    step.view(tables.ITEMS)
    return step.query(load("representation/events_with_category.sql"))


# What `fused_views` reads.
FUSED_WINDOWS: dict[Table, Window] = {tables.REPRESENTATION_PROBE: WEEK_BEFORE} if CONFIG.users.fuse == "auto" else {}


def fused_views(step: Step) -> list[View]:
    """The views that are clustered on in the step's week."""
    return chosen_views(step) if step.config.users.fuse == "auto" else step.config.users.listed


def chosen_views(step: Step) -> list[View]:
    """The views that the probe of the week before chose; the listed ones if there was none."""
    step.view(tables.REPRESENTATION_PROBE)
    rows = step.query("SELECT DISTINCT candidate FROM representation_probe WHERE chosen").to_pylist()
    if not rows:
        step.note(no_probe="the week before was not probed; all listed views are fused")
        return step.config.users.listed
    from segflow.representation.probe_rows import views_in

    return views_in(rows[0]["candidate"])


def stability_of(step: Step) -> dict[str, float]:
    """Segment -> how much of it comes back when users are drawn again (bootstrap Jaccard), in the step's week."""
    from segflow.segments.clustering import Clustering

    step.view(tables.SEGMENT_LEDGER)
    rows = step.query(f"SELECT segment_id, cluster FROM segment_ledger WHERE week = DATE '{step.week}'").to_pylist()
    models = [one for one in step.read(tables.SEGMENTATION, ["model"])["model"].to_pylist() if one is not None]
    if not models:
        return {}
    stability = Clustering.from_bytes(models[0]).stability
    return {row["segment_id"]: float(stability[row["cluster"]]) for row in rows if row["cluster"] is not None}


def namer_of(step: Step) -> Namer | None:
    """What proposes names of segments; None for the template alone."""
    from segflow.representation.encoder import Encoder
    from segflow.segments.language_names import LanguageNamer

    source = step.config.segments.profiles.namer
    if source == "template":
        return None
    return LanguageNamer.load(source, Encoder.load(step.config.text, step.config.compute.threads).encode)


# What lists are made from: those of the batch, and what makes the same ones for requests.
LIST_WINDOWS: dict[Table, Window] = {
    tables.EVENTS: HISTORY_AND_WEEK,
    tables.ITEMS: SNAPSHOT,
    tables.USERS: SNAPSHOT,
    tables.USER_EDGES: SNAPSHOT,
    tables.ITEM_EMBEDDINGS: SNAPSHOT,
    tables.BEHAVIOR_MODEL: SAME_WEEK,
    tables.GLOBAL_RANKER: SAME_WEEK,
    tables.SEGMENT_RANKERS: SEGMENTS_OF_WEEK,
    tables.USER_SEGMENTS: SAME_WEEK,
}
