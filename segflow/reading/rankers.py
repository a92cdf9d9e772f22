"""What the rankers of a week read, in a step or in an engine's worker: the log, models, members and groups of the week.

Does not live here: reading for the other stages, which no worker does (``defs``).
"""

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
from segflow.arrow import matrix
from segflow.reading.reader import Reader
from segflow.sql import load, render

if TYPE_CHECKING:
    from segflow.rankers.cold_lists import Strangers
    from segflow.rankers.deltas import Grouped
    from segflow.rankers.global_ranker import GlobalRanker
    from segflow.rankers.rules import Catalogue
    from segflow.rankers.snapshot import RankingWeek
    from segflow.representation.behavior import BehaviorModel
    from segflow.representation.sequences import EventSequences

_KEPT: dict[Hashable, RankingWeek] = {}


def start_of(day: date) -> datetime:
    """Midnight UTC at which `day` begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def microseconds(day: date) -> int:
    """`start_of(day)` in microseconds since 1970."""
    return int(start_of(day).timestamp()) * 1_000_000


def item_vectors(reader: Reader) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Item ids in order, and their (I, d) text vectors."""
    rows = reader.read(tables.ITEM_EMBEDDINGS, ["item_id", "vector"])
    return rows["item_id"].to_pylist(), matrix(rows["vector"])


def event_sequences(reader: Reader, item_ids: list[str], event_types: tuple[str, ...] | None = None) -> EventSequences:
    """The declared window of events, per user in the one fixed order: time, then place in the source.

    event_types: those of a trained model; events of a type that it never saw are left out. Default: all there are.
    """
    reader.view(tables.EVENTS)
    return _sequences(reader, item_ids, event_types)


def _sequences(reader: Reader, item_ids: list[str], event_types: tuple[str, ...] | None = None) -> EventSequences:
    """Of the view `events`."""
    from segflow.representation.sequences import EventSequences

    rows = reader.query(load("representation/sequences.sql"))
    if event_types is None:
        event_types = tuple(sorted(rows["event_type"].unique().to_pylist()))
    else:
        rows = rows.filter(pc.is_in(rows["event_type"], pa.array(event_types, pa.string())))
    return EventSequences.from_arrow(rows, item_ids, event_types)


def some_sequences(reader: Reader, item_ids: list[str], most: int, seed: int) -> tuple[EventSequences, float]:
    """`event_sequences` of about `most` events at most, and the share of users they are of: the others are never in memory."""
    reader.view(tables.EVENTS)
    there = reader.query("SELECT count(*) AS events FROM events")["events"][0].as_py()
    share = min(1.0, most / max(there, 1))
    if share < 1:
        reader.view(tables.EVENTS, "log")
        chosen = render("representation/some_users.sql", seed=seed, below=int(share * 2**64))
        reader.connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {chosen}")
    return _sequences(reader, item_ids), share


def behavior_model_of(reader: Reader) -> BehaviorModel:
    """The behaviour model of the week, on a graphics card where there is one."""
    from segflow.representation.behavior import BehaviorModel
    from segflow.representation.devices import find_device

    return BehaviorModel.from_bytes(_behavior_model_bytes(reader), find_device())


def _behavior_model_bytes(reader: Reader) -> bytes:
    model: bytes = reader.read(tables.BEHAVIOR_MODEL, ["model"])["model"][0].as_py()
    return model


def segments_of(reader: Reader) -> dict[str, str]:
    """User -> segment in the week; users without a segment are left out."""
    return {user: segment for user, (segment, _) in members_of(reader).items()}


def members_of(reader: Reader) -> dict[str, tuple[str, float]]:
    """User -> segment and membership probability in the week; users without a segment are left out."""
    from segflow.segments.snapshots import UNASSIGNED

    rows = reader.read(tables.USER_SEGMENTS, ["user_id", "segment_id", "probability"])
    rows = rows.filter(pc.not_equal(rows["segment_id"], UNASSIGNED))
    users, segments, probability = (rows[name].to_pylist() for name in rows.column_names)
    return dict(zip(users, zip(segments, probability, strict=True), strict=True))


def ranking_week(reader: Reader) -> RankingWeek:
    """The declared window of events as the rankers of the week see it.

    The last one is kept: its training examples cost as much as the training, and the next step of a process often asks for
    the same. It is kept by the versions of the tables and the model it was made from, so it cannot be out of date.
    """
    import torch

    from segflow.rankers.snapshot import RankingWeek
    from segflow.representation.behavior import BehaviorModel

    # Other weeks' models share a table, so its version says nothing of this week's.
    model = _behavior_model_bytes(reader)
    versions = (reader.version(tables.EVENTS), reader.version(tables.ITEM_EMBEDDINGS))
    bounds, config = str(reader.bounds(tables.EVENTS)), reader.config.rankers
    digest, threads = hashlib.sha256(model).digest(), torch.get_num_threads()
    key = (reader.storage.root, reader.week, bounds, versions, digest, config, threads)
    if key not in _KEPT:
        _KEPT.clear()
        ids, _ = item_vectors(reader)
        # On the CPU wherever it is: pieces of this week's work may be done by nodes without a card, and are the same there.
        backbone = BehaviorModel.from_bytes(model)
        sequences = event_sequences(reader, ids, backbone.event_types)
        _KEPT[key] = RankingWeek.of(sequences, backbone, microseconds(reader.week), config)
    return _KEPT[key]


def candidate_vectors(reader: Reader, week: RankingWeek) -> npt.NDArray[np.float32]:
    """(C, d) text vectors of the week's candidates."""
    _, vectors = item_vectors(reader)
    return vectors[week.history.candidates]


def catalogue(reader: Reader) -> Catalogue:
    """Titles and categories of all items."""
    from segflow.rankers.rules import Catalogue

    rows = reader.read(tables.ITEMS, ["item_id", "title", "category"])
    ids = rows["item_id"].to_pylist()
    return Catalogue(
        dict(zip(ids, rows["title"].to_pylist(), strict=True)),
        dict(zip(ids, rows["category"].to_pylist(), strict=True)),
    )


def segment_names(reader: Reader) -> dict[str, str]:
    """Segment -> its name in the week."""
    if not segments_of(reader):
        return {}
    rows = reader.read(tables.SEGMENT_LEDGER, ["segment_id", "name"])
    return dict(zip(rows["segment_id"].to_pylist(), rows["name"].to_pylist(), strict=True))


def strangers(reader: Reader) -> Strangers:
    """Users of whom more is known than the log says."""
    from segflow.rankers.cold_lists import Strangers

    attributes: dict[str, dict[str, str]] = {}
    for row in reader.read(tables.USERS).to_pylist():
        attributes.setdefault(row["user_id"], {})[row["attribute"]] = row["value"]
    return Strangers(attributes, reader.read(tables.USER_EDGES), members_of(reader), reader.config.seed)


def global_ranker_of(reader: Reader) -> GlobalRanker:
    """The global ranker of the week."""
    from segflow.rankers.global_ranker import GlobalRanker

    return GlobalRanker.from_bytes(reader.read(tables.GLOBAL_RANKER, ["model"])["model"][0].as_py())


def segment_groups(reader: Reader, user_ids: Iterable[str]) -> Grouped | None:
    """What segments add for `user_ids` in the week; nothing in a week without segments."""
    from segflow.rankers.deltas import Grouped, Membership
    from segflow.rankers.segment_rankers import read_deltas

    members = members_of(reader)
    rows = reader.read(tables.SEGMENT_RANKERS, ["segment_id", "model"]).to_pylist() if members else []
    if not rows:
        return None
    deltas = read_deltas(row["model"] for row in rows)
    return Grouped(deltas, Membership.of(user_ids, [row["segment_id"] for row in rows], members))


def control_groups(reader: Reader, user_ids: Iterable[str]) -> dict[str, Grouped]:
    """Control arm -> what its groups add for `user_ids`; none in a week without segments."""
    return _arms_of(reader.read(tables.CONTROL_RANKERS).to_pylist() if members_of(reader) else [], list(user_ids))


def repeated_arms(
    reader: Reader, user_ids: Iterable[str]
) -> Iterator[tuple[int, GlobalRanker, dict[str, Grouped | None]]]:
    """Of each repeat of the training its seed, its global ranker, and arm -> what the arm's groups add for `user_ids`."""
    from segflow.rankers.arms import GLOBAL
    from segflow.rankers.global_ranker import GlobalRanker

    user_ids = list(user_ids)
    rows = reader.read(tables.REPEATED_RANKERS).to_pylist() if reader.config.rankers.repeats else []
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
