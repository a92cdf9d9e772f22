"""What several asset bodies read in the same way, and in which windows. What workers read too is in `segflow.reading`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from segflow import tables
from segflow.arrow import vector_column
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
from segflow.reading.rankers import behavior_model_of, event_sequences, item_vectors
from segflow.sql import load

if TYPE_CHECKING:
    from segflow.representation.adaptation import Adapter
    from segflow.representation.views import ViewSources
    from segflow.segments.naming import Namer
    from segflow.tables import Table


def events_with_category(step: Step) -> pa.Table:
    """The declared window of events with the widest category of each item."""
    step.view(tables.EVENTS)
    step.view(tables.ITEMS)
    return step.query(load("representation/events_with_category.sql"))


def view_windows(history: Window) -> dict[Table, Window]:
    """What `view_sources` reads, with the log in `history`."""
    return {
        tables.EVENTS: history,
        tables.SESSIONS: history,
        tables.SESSION_EMBEDDINGS: history,
        tables.ITEMS: SNAPSHOT,
        tables.USERS: SNAPSHOT,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        **({tables.TEXT_ADAPTER: SAME_WEEK} if "adapted" in CONFIG.users.views else {}),
    }


def view_sources(step: Step) -> ViewSources:
    """What the views of users are made of, of the step's window."""
    from segflow.representation.views import ViewSources

    ids, _ = item_vectors(step)
    model = behavior_model_of(step)
    attributes = step.read(tables.USERS)
    return ViewSources(
        events_with_category(step),
        step.read(tables.SESSIONS, ["user_id", "start", "end", "events", "value"]),
        session_vectors(step),
        event_sequences(step, ids, model.event_types),
        model,
        attributes,
        attributes["user_id"].unique().to_pylist(),
    )


def session_vectors(step: Step) -> dict[str, pa.Table]:
    """For each configured view that pools sessions, their user_id, start and vector in the step's history."""
    from segflow.representation.encoder import Encoder
    from segflow.representation.text import journey_vectors
    from segflow.representation.text_cache import TextCache
    from segflow.representation.views import latest_sessions, session_pools

    config = step.config.text
    found: dict[str, pa.Table] = {}
    if "text" in step.config.users.views:
        found["text"] = step.read(tables.SESSION_EMBEDDINGS, ["user_id", "start", "vector"])
    if "journey" in step.config.users.views:
        latest = latest_sessions(step.read(tables.SESSIONS, ["user_id", "start", "text"]), config.journey_sessions)
        encoder = Encoder.load(config, step.config.compute.threads)
        vectors = journey_vectors(encoder, TextCache(config.cache), latest["text"], step.engine)
        found["journey"] = latest.select(["user_id", "start"]).append_column("vector", vector_column(vectors))
    if "adapted" in step.config.users.views:
        items = step.read(tables.ITEMS, ["item_id", "text"])
        encoder = text_adapter_of(step).apply(Encoder.load(config, step.config.compute.threads))
        vectors = TextCache(config.cache).vectors(encoder, items["text"].to_pylist(), engine=step.engine)
        sessions = step.read(tables.SESSIONS, ["user_id", "start", "items"])
        found["adapted"] = session_pools(sessions, items["item_id"].to_pylist(), vectors)
    return found


def text_adapter_of(step: Step) -> Adapter:
    """What the language model learned from the log before the step's week."""
    from segflow.representation.adaptation import Adapter

    return Adapter.from_bytes(step.read(tables.TEXT_ADAPTER, ["model"])["model"][0].as_py())


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
