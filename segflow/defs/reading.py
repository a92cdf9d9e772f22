"""What several asset bodies read in the same way: events as sequences, events with their category, item vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.arrow import matrix, vector_column
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
    from segflow.rankers.cold_lists import Strangers
    from segflow.rankers.deltas import Grouped
    from segflow.rankers.global_ranker import GlobalRanker
    from segflow.rankers.rules import Catalogue
    from segflow.rankers.snapshot import RankingWeek
    from segflow.representation.adaptation import Adapter
    from segflow.representation.behavior import BehaviorModel
    from segflow.representation.sequences import EventSequences
    from segflow.representation.views import ViewSources
    from segflow.segments.naming import Namer
    from segflow.tables import Table


_KEPT: dict[Hashable, RankingWeek] = {}


def start_of(day: date) -> datetime:
    """Midnight UTC at which `day` begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def microseconds(day: date) -> int:
    """`start_of(day)` in microseconds since 1970."""
    return int(start_of(day).timestamp()) * 1_000_000


def item_vectors(step: Step) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Item ids in order, and their (I, d) text vectors."""
    rows = step.read(tables.ITEM_EMBEDDINGS, ["item_id", "vector"])
    return rows["item_id"].to_pylist(), matrix(rows["vector"])


def event_sequences(step: Step, item_ids: list[str], event_types: tuple[str, ...] | None = None) -> EventSequences:
    """The declared window of events, per user in the one fixed order: time, then place in the source.

    event_types: those of a trained model; events of a type that it never saw are left out. Default: all there are.
    """
    from segflow.representation.sequences import EventSequences

    step.view(tables.EVENTS)
    rows = step.query(load("representation/sequences.sql"))
    if event_types is None:
        event_types = tuple(sorted(rows["event_type"].unique().to_pylist()))
    else:
        rows = rows.filter(pc.is_in(rows["event_type"], pa.array(event_types, pa.string())))
    return EventSequences.from_arrow(rows, item_ids, event_types)


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


def behavior_model_of(step: Step) -> BehaviorModel:
    """The behaviour model of the step's week."""
    from segflow.representation.behavior import BehaviorModel

    return BehaviorModel.from_bytes(_behavior_model_bytes(step))


def _behavior_model_bytes(step: Step) -> bytes:
    model: bytes = step.read(tables.BEHAVIOR_MODEL, ["model"])["model"][0].as_py()
    return model


def segments_of(step: Step) -> dict[str, str]:
    """User -> segment in the step's week; users without a segment are left out."""
    return {user: segment for user, (segment, _) in members_of(step).items()}


def members_of(step: Step) -> dict[str, tuple[str, float]]:
    """User -> segment and membership probability in the step's week; users without a segment are left out."""
    from segflow.segments.snapshots import UNASSIGNED

    rows = step.read(tables.USER_SEGMENTS, ["user_id", "segment_id", "probability"])
    rows = rows.filter(pc.not_equal(rows["segment_id"], UNASSIGNED))
    users, segments, probability = (rows[name].to_pylist() for name in rows.column_names)
    return dict(zip(users, zip(segments, probability, strict=True), strict=True))


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


def ranking_week(step: Step) -> RankingWeek:
    """The declared window of events as the rankers of the step's week see it.

    The last one is kept: its training examples cost as much as the training, and the next step of a process often asks for
    the same. It is kept by the versions of the tables and the model it was made from, so it cannot be out of date.
    """
    from segflow.rankers.snapshot import RankingWeek
    from segflow.representation.behavior import BehaviorModel

    # Other weeks' models share a table, so its version says nothing of this week's.
    model = _behavior_model_bytes(step)
    versions = (step.storage.version(tables.EVENTS), step.storage.version(tables.ITEM_EMBEDDINGS))
    bounds, config = str(step.bounds(tables.EVENTS)), step.config.rankers
    key = (step.storage.root, step.week, bounds, versions, hashlib.sha256(model).digest(), config)
    if key not in _KEPT:
        _KEPT.clear()
        ids, _ = item_vectors(step)
        backbone = BehaviorModel.from_bytes(model)
        sequences = event_sequences(step, ids, backbone.event_types)
        _KEPT[key] = RankingWeek.of(sequences, backbone, microseconds(step.week), config)
    return _KEPT[key]


def candidate_vectors(step: Step, week: RankingWeek) -> npt.NDArray[np.float32]:
    """(C, d) text vectors of the week's candidates."""
    _, vectors = item_vectors(step)
    return vectors[week.history.candidates]


def catalogue(step: Step) -> Catalogue:
    """Titles and categories of all items."""
    from segflow.rankers.rules import Catalogue

    rows = step.read(tables.ITEMS, ["item_id", "title", "category"])
    ids = rows["item_id"].to_pylist()
    return Catalogue(
        dict(zip(ids, rows["title"].to_pylist(), strict=True)),
        dict(zip(ids, rows["category"].to_pylist(), strict=True)),
    )


def segment_names(step: Step) -> dict[str, str]:
    """Segment -> its name in the step's week."""
    if not segments_of(step):
        return {}
    rows = step.read(tables.SEGMENT_LEDGER, ["segment_id", "name"])
    return dict(zip(rows["segment_id"].to_pylist(), rows["name"].to_pylist(), strict=True))


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


def strangers(step: Step) -> Strangers:
    """Users of whom more is known than the log says."""
    from segflow.rankers.cold_lists import Strangers

    attributes: dict[str, dict[str, str]] = {}
    for row in step.read(tables.USERS).to_pylist():
        attributes.setdefault(row["user_id"], {})[row["attribute"]] = row["value"]
    return Strangers(attributes, step.read(tables.USER_EDGES), members_of(step), step.config.seed)


def global_ranker_of(step: Step) -> GlobalRanker:
    """The global ranker of the step's week."""
    from segflow.rankers.global_ranker import GlobalRanker

    return GlobalRanker.from_bytes(step.read(tables.GLOBAL_RANKER, ["model"])["model"][0].as_py())


def segment_groups(step: Step, user_ids: Iterable[str]) -> Grouped | None:
    """What segments add for `user_ids` in the step's week; nothing in a week without segments."""
    from segflow.rankers.deltas import Grouped, Membership
    from segflow.rankers.segment_rankers import read_deltas

    members = members_of(step)
    rows = step.read(tables.SEGMENT_RANKERS, ["segment_id", "model"]).to_pylist() if members else []
    if not rows:
        return None
    deltas = read_deltas(row["model"] for row in rows)
    return Grouped(deltas, Membership.of(user_ids, [row["segment_id"] for row in rows], members))


def control_groups(step: Step, user_ids: Iterable[str]) -> dict[str, Grouped]:
    """Control arm -> what its groups add for `user_ids`; none in a week without segments."""
    return _arms_of(step.read(tables.CONTROL_RANKERS).to_pylist() if members_of(step) else [], list(user_ids))


def repeated_arms(step: Step, user_ids: Iterable[str]) -> Iterator[tuple[int, GlobalRanker, dict[str, Grouped | None]]]:
    """Of each repeat of the training its seed, its global ranker, and arm -> what the arm's groups add for `user_ids`."""
    from segflow.rankers.arms import GLOBAL
    from segflow.rankers.global_ranker import GlobalRanker

    user_ids = list(user_ids)
    rows = step.read(tables.REPEATED_RANKERS).to_pylist() if step.config.rankers.repeats else []
    for seed in sorted({row["seed"] for row in rows}):
        of_seed = [row for row in rows if row["seed"] == seed]
        (whole,) = (row["model"] for row in of_seed if row["arm"] == GLOBAL)
        groups = _arms_of([row for row in of_seed if row["arm"] != GLOBAL], user_ids)
        yield seed, GlobalRanker.from_bytes(whole), {GLOBAL: None, **groups}


def _arms_of(rows: Iterable[dict[str, Any]], user_ids: Sequence[str]) -> dict[str, Grouped]:
    """Arm -> what its groups, which are the rows, add for `user_ids`."""
    from segflow.rankers.deltas import Grouped, Membership
    from segflow.rankers.segment_rankers import read_deltas

    arms: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault(row["arm"], []).append(row)
    found = {}
    for arm, groups in arms.items():
        members = {
            user: (row["group_id"], share)
            for row in groups
            for user, share in zip(row["users"], row["shares"], strict=True)
        }
        deltas = read_deltas(row["model"] for row in groups)
        found[arm] = Grouped(deltas, Membership.of(user_ids, [row["group_id"] for row in groups], members))
    return found
