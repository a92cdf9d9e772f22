"""The identity of segments over time: which cluster of this snapshot continues which segment of the one before.

What does not live here: the clustering itself, and names (given once, at birth, by `naming.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from segflow.config import SegmentConfig
from segflow.segments.statistics import jaccard

NEWCOMERS = "new"  # in a migration: users that the snapshot before did not hold

_ID = re.compile(r"s(\d{3,})")
# Makes centroid distance decide between equal overlaps and never against a larger one: two Jaccard similarities of
# fewer than 30,000 users that differ do so by more.
_TIE = 1e-9


@dataclass(frozen=True)
class Group:
    """Members of a segment or cluster, and its centroid in a space that both snapshots share."""

    members: Collection[str]
    centroid: NDArray[np.floating]


@dataclass(frozen=True)
class LedgerRow:
    """What became of one segment between two snapshots.

    A row with a cluster is a segment of this snapshot: it survived (kept its id), or its id is new and it was born of
    a split, of a merge, or from nothing (emerge). A row without a cluster is a segment that ended: it was split into
    others, absorbed by another (merge), or vanished. `parents` are the segments of the snapshot before that it came
    from, itself included when it survived.
    """

    segment_id: str
    event: str
    cluster: int | None
    users: int
    previous_users: int
    overlap: float | None  # Jaccard over users of both snapshots with the segment it continues; None if new or ended
    parents: list[str] = field(default_factory=list)
    migration: dict[str, int] = field(default_factory=dict)  # previous segment id or "new" -> users


@dataclass(frozen=True)
class Ledger:
    """The matching of one snapshot to the one before."""

    rows: list[LedgerRow]  # by segment id
    ids: dict[int, str]  # cluster -> segment id
    last_id: int  # the highest number ever used, to be passed to the next matching


def number_of(segment_id: str) -> int:
    """The number in a segment id: 7 of 's007'. Raises ValueError for anything that is not an id."""
    found = _ID.fullmatch(segment_id)
    if not found:
        raise ValueError(f"{segment_id!r} is not a segment id such as 's001'")
    return int(found.group(1))


def match(previous: Mapping[str, Group], current: Mapping[int, Group], last_id: int, config: SegmentConfig) -> Ledger:
    """Give every cluster of the current snapshot its segment id, and say what became of every previous segment.

    Clusters are paired with previous segments one to one so that the summed Jaccard similarity of members, counted
    over users in both snapshots, is largest (Hungarian method); centroid distance breaks ties. A pair whose
    similarity reaches `survive_jaccard` survives. A pair without any user in both snapshots survives when its
    centroids are closer than `centroid_ratio` times the spread of all centroids. The other transitions follow MONIC
    (Spiliopoulou et al., KDD 2006): a segment splits when at least two clusters each take `split_share` of its
    remaining users, and segments merge when one cluster takes `merge_share` of each of at least two. New ids continue
    above `last_id`, larger clusters first; an id is never used twice. Cluster numbers have no influence.

    Raises ValueError for an empty or overlapping group, and for an id above `last_id`.
    """
    old, new = sorted(previous), _canonical(current)
    if any(number_of(segment_id) > last_id for segment_id in old):
        raise ValueError(f"last_id is {last_id}, but the segments {old} exist: pass the highest number ever used")
    counts = _shared_users([previous[o].members for o in old], [current[n].members for n in new])
    pairs = _survivors(counts, [previous[o].centroid for o in old], [current[n].centroid for n in new], config)
    ids = {n: old[o] for o, n in pairs.items()}
    for n in range(len(new)):
        if n not in ids:
            last_id += 1
            ids[n] = f"s{last_id:03d}"
    sizes = [len(previous[o].members) for o in old], [len(current[n].members) for n in new]
    found = _Transitions(counts, pairs, *_splits_and_merges(counts, config))
    rows = _living(found, old, new, ids, *sizes) + _ended(found, old, sizes[0])
    rows.sort(key=lambda row: number_of(row.segment_id))
    return Ledger(rows, {new[n]: ids[n] for n in range(len(new))}, last_id)


class _Transitions(NamedTuple):
    """What the matching found; previous segments and clusters are row and column of `counts`."""

    counts: NDArray[np.int64]  # users in common
    pairs: dict[int, int]  # previous segment -> cluster that continues it
    splits: dict[int, list[int]]  # previous segment -> clusters that are its parts
    merges: dict[int, list[int]]  # cluster -> previous segments that it absorbed


def _splits_and_merges(
    counts: NDArray[np.int64], config: SegmentConfig
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    remaining = counts.sum(axis=1, keepdims=True)
    moved = np.divide(counts, remaining, out=np.zeros(counts.shape), where=remaining > 0)
    parts = {o: np.flatnonzero(moved[o] >= config.split_share).tolist() for o in range(counts.shape[0])}
    sources = {n: np.flatnonzero(moved[:, n] >= config.merge_share).tolist() for n in range(counts.shape[1])}
    return (
        {o: found for o, found in parts.items() if len(found) > 1},
        {n: found for n, found in sources.items() if len(found) > 1},
    )


def _living(
    found: _Transitions, old: list[str], new: list[int], ids: dict[int, str], before: list[int], now: list[int]
) -> list[LedgerRow]:
    """Rows of the segments of this snapshot."""
    similarity = jaccard(found.counts)
    source_of = {n: o for o, n in found.pairs.items()}
    rows = []
    for n, cluster in enumerate(new):
        source = source_of.get(n)
        split_from = [o for o, parts in found.splits.items() if n in parts]
        merged_from = found.merges.get(n, [])
        migration = {old[o]: int(found.counts[o, n]) for o in range(len(old)) if found.counts[o, n]}
        if newcomers := now[n] - sum(migration.values()):
            migration[NEWCOMERS] = newcomers
        if source is None:
            event = "merge" if merged_from else "split" if split_from else "emerge"
            row = LedgerRow(ids[n], event, cluster, now[n], 0, None)
        else:
            row = LedgerRow(ids[n], "survive", cluster, now[n], before[source], float(similarity[source, n]))
        parents = {*split_from, *merged_from} | ({source} if source is not None else set())
        rows.append(replace(row, parents=sorted(old[o] for o in parents), migration=migration))
    return rows


def _ended(found: _Transitions, old: list[str], before: list[int]) -> list[LedgerRow]:
    """Rows of the previous segments that no cluster continues."""
    absorbed = {o for sources in found.merges.values() for o in sources}
    rows = []
    for o, segment_id in enumerate(old):
        if o not in found.pairs:
            event = "merge" if o in absorbed else "split" if o in found.splits else "vanish"
            rows.append(LedgerRow(segment_id, event, None, 0, before[o], None))
    return rows


def _canonical(current: Mapping[int, Group]) -> list[int]:
    """Cluster numbers in an order that does not depend on them: by falling size, then by the first member."""
    if any(not group.members for group in current.values()):
        raise ValueError("a cluster without members cannot be matched")
    return sorted(current, key=lambda cluster: (-len(current[cluster].members), min(current[cluster].members)))


def _shared_users(old: list[Collection[str]], new: list[Collection[str]]) -> NDArray[np.int64]:
    """Users (previous, current) that each previous segment and each current cluster have in common."""
    for groups in (old, new):
        if len(set().union(*groups)) != sum(len(group) for group in groups):
            raise ValueError("a user belongs to two groups of one snapshot, or twice to one")
    place = {user: column for column, group in enumerate(new) for user in group}
    counts = np.zeros((len(old), len(new)), dtype=np.int64)
    for row, group in enumerate(old):
        for user in group:
            if user in place:
                counts[row, place[user]] += 1
    return counts


def _survivors(
    counts: NDArray[np.int64],
    old: list[NDArray[np.floating]],
    new: list[NDArray[np.floating]],
    config: SegmentConfig,
) -> dict[int, int]:
    """Previous segment -> cluster that continues it."""
    if not counts.size:
        return {}
    similarity = jaccard(counts)
    centroids = np.asarray([*old, *new], np.float64)
    spread = np.sqrt(((centroids - centroids.mean(axis=0)) ** 2).sum(axis=1).mean())
    distance = cdist(np.asarray(old, np.float64), np.asarray(new, np.float64))
    nearness = 1 / (1 + distance / spread) if spread > 0 else np.ones_like(distance)
    # Without a single user in both snapshots members say nothing; then, and only then, the place in space decides.
    unseen = (counts.sum(axis=1) == 0)[:, None] & (counts.sum(axis=0) == 0)[None, :]
    near = unseen & (distance <= config.centroid_ratio * spread)
    score = similarity + np.where(near, config.survive_jaccard * nearness, 0) + _TIE * nearness
    allowed = (similarity >= config.survive_jaccard) | near
    chosen = zip(*linear_sum_assignment(np.where(allowed, score, 0), maximize=True), strict=True)
    return {int(o): int(n) for o, n in chosen if allowed[o, n]}
