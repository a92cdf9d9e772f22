"""The identity of segments over time: which cluster of this snapshot continues which segment of the one before.

What does not live here: the clustering itself, what was recorded of other weeks and the names (`history.py`).
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

from segflow.config import LedgerConfig

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
    changed: bool = False  # survived, but a part of it became a segment, or it absorbed one


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


def match(
    previous: Mapping[str, Group],
    current: Mapping[int, Group],
    last_id: int,
    config: LedgerConfig,
    unplaced: Collection[str] = (),
    recorded: Mapping[str, Group] | None = None,
) -> Ledger:
    """Give every cluster of the current snapshot its segment id, and say what became of every previous segment.

    Clusters are paired with previous segments one to one so that their summed similarity is largest (Hungarian
    method). The similarity is the Jaccard of members over users of both snapshots. Where there are fewer than
    `evidence_users` of them, because most have left, centroids stand for the missing ones: they count as shared if the
    centroids are closer than `centroid_ratio` times the spread of all centroids, and as not shared if they are not.
    Centroid distance breaks ties. A pair whose similarity reaches `survive_jaccard` survives.

    The other transitions follow MONIC (Spiliopoulou et al., KDD 2006). A segment splits when at least two clusters each
    take `split_share` of its members who are still there, and at least one of them continues no other segment. A
    segment is absorbed when it does not survive and one cluster takes `merge_share` of its members who are still there,
    beside members of others. A segment that does not survive and that most members have left vanishes, wherever the
    others are now. New ids continue above `last_id`, larger clusters first; an id is never used twice. Cluster
    numbers have no influence.

    unplaced: users of the current snapshot without a cluster. They are still there: who moved from a segment to nowhere
    speaks against its survival, who left does not.
    recorded: segments that were born when the current snapshot was matched before. A new cluster that is one of them, by
    the same threshold, takes its id again.

    Raises ValueError for an empty or overlapping group, and for an id above `last_id`.
    """
    old, new = sorted(previous, key=number_of), _canonical(current)
    if any(number_of(segment_id) > last_id for segment_id in [*old, *(recorded or {})]):
        raise ValueError(f"last_id is {last_id}, but higher ids exist: pass the highest number ever used")
    shared = _shared_users([previous[o].members for o in old], [current[n].members for n in new], unplaced)
    pairs = _survivors(shared, [previous[o].centroid for o in old], [current[n].centroid for n in new], config)
    ids = {n: old[o] for o, n in pairs.items()}
    born = [n for n in range(len(new)) if n not in ids]
    ids |= {born[at]: known for known, at in _again(recorded or {}, [current[new[n]] for n in born], config).items()}
    for n in born:
        if n not in ids:
            last_id += 1
            ids[n] = f"s{last_id:03d}"
    sizes = [len(previous[o].members) for o in old], [len(current[n].members) for n in new]
    splits = _splits(shared, pairs, config)
    found = _Transitions(shared, pairs, splits, _merges(shared, pairs, splits, config))
    rows = _living(found, old, new, ids, *sizes) + _ended(found, old, sizes[0])
    rows.sort(key=lambda row: number_of(row.segment_id))
    return Ledger(rows, {new[n]: ids[n] for n in range(len(new))}, last_id)


class _Shared(NamedTuple):
    """Users of both snapshots; row and column are previous segment and cluster."""

    counts: NDArray[np.int64]  # (P, C) members of both
    present: NDArray[np.int64]  # (P,) members of the segment who are in the current snapshot, in a cluster or not
    size: NDArray[np.int64]  # (P,) all members of the segment

    @property
    def union(self) -> NDArray[np.int64]:
        """(P, C) users of both snapshots who are in the segment, in the cluster, or in both."""
        return self.present[:, None] + self.counts.sum(axis=0) - self.counts

    @property
    def jaccard(self) -> NDArray[np.float64]:
        """(P, C) similarity of members, 0 where there is nobody to tell."""
        return self.counts / np.maximum(self.union, 1)

    @property
    def moved(self) -> NDArray[np.float64]:
        """(P, C) part of the segment's members who are still there that the cluster took; 0 if most of them left."""
        there = (2 * self.present >= self.size)[:, None]
        return np.where(there, self.counts / np.maximum(self.present, 1)[:, None], 0.0)


class _Transitions(NamedTuple):
    """What the matching found; previous segments and clusters are row and column of `shared`."""

    shared: _Shared
    pairs: dict[int, int]  # previous segment -> cluster that continues it
    splits: dict[int, list[int]]  # previous segment -> clusters that are its parts
    merges: dict[int, list[int]]  # cluster -> previous segments that it absorbed


def _splits(shared: _Shared, pairs: Mapping[int, int], config: LedgerConfig) -> dict[int, list[int]]:
    continued = {n: o for o, n in pairs.items()}
    splits = {}
    for o, moved in enumerate(shared.moved):
        takers = np.flatnonzero(moved >= config.split_share).tolist()
        # Who moved into another segment that goes on has migrated; that is no part of a split.
        parts = [n for n in takers if continued.get(n, o) == o]
        if len(takers) > 1 and any(n not in continued for n in parts):
            splits[o] = parts
    return splits


def _merges(
    shared: _Shared, pairs: Mapping[int, int], splits: Mapping[int, list[int]], config: LedgerConfig
) -> dict[int, list[int]]:
    merges = {}
    for n, moved in enumerate(shared.moved.T):
        absorbed = [int(o) for o in np.flatnonzero(moved >= config.merge_share) if o not in pairs]
        others = {o for o, parts in splits.items() if n in parts} | {o for o, own in pairs.items() if own == n}
        if absorbed and len(others.union(absorbed)) > 1:
            merges[n] = absorbed
    return merges


def _living(
    found: _Transitions, old: list[str], new: list[int], ids: dict[int, str], before: list[int], now: list[int]
) -> list[LedgerRow]:
    """Rows of the segments of this snapshot."""
    counts, similarity = found.shared.counts, found.shared.jaccard
    source_of = {n: o for o, n in found.pairs.items()}
    rows = []
    for n, cluster in enumerate(new):
        source = source_of.get(n)
        split_from = [o for o, parts in found.splits.items() if n in parts]
        absorbed = found.merges.get(n, [])
        migration = {old[o]: int(counts[o, n]) for o in range(len(old)) if counts[o, n]}
        if newcomers := now[n] - sum(migration.values()):
            migration[NEWCOMERS] = newcomers
        if source is None:
            event = "merge" if absorbed else "split" if split_from else "emerge"
            row = LedgerRow(ids[n], event, cluster, now[n], 0, None)
        else:
            row = LedgerRow(ids[n], "survive", cluster, now[n], before[source], float(similarity[source, n]))
            row = replace(row, changed=bool(source in found.splits or absorbed))
        parents = {*split_from, *absorbed} | ({source} if source is not None else set())
        rows.append(replace(row, parents=[old[o] for o in sorted(parents)], migration=migration))
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


def _again(recorded: Mapping[str, Group], born: list[Group], config: LedgerConfig) -> dict[str, int]:
    """Recorded segment -> place of the group in `born` that it is."""
    known = sorted(recorded, key=number_of)
    similarity = _shared_users([recorded[one].members for one in known], [group.members for group in born], ()).jaccard
    allowed = similarity >= config.survive_jaccard
    chosen = zip(*linear_sum_assignment(np.where(allowed, similarity, 0), maximize=True), strict=True)
    return {known[row]: int(at) for row, at in chosen if allowed[row, at]}


def _canonical(current: Mapping[int, Group]) -> list[int]:
    """Cluster numbers in an order that does not depend on them: by falling size, then by the first member."""
    if any(not group.members for group in current.values()):
        raise ValueError("a cluster without members cannot be matched")
    return sorted(current, key=lambda cluster: (-len(current[cluster].members), min(current[cluster].members)))


def _shared_users(old: list[Collection[str]], new: list[Collection[str]], unplaced: Collection[str]) -> _Shared:
    for groups in (old, [*new, unplaced]):
        if len(set().union(*groups)) != sum(len(group) for group in groups):
            raise ValueError("a user belongs to two groups of one snapshot, or twice to one")
    place = {user: column for column, group in enumerate([*new, unplaced]) for user in group}
    # The last column holds those without a cluster.
    counts = np.zeros((len(old), len(new) + 1), dtype=np.int64)
    for row, group in enumerate(old):
        for user in group:
            if user in place:
                counts[row, place[user]] += 1
    return _Shared(counts[:, :-1], counts.sum(axis=1), np.array([len(group) for group in old], np.int64))


def _survivors(
    shared: _Shared, old: list[NDArray[np.floating]], new: list[NDArray[np.floating]], config: LedgerConfig
) -> dict[int, int]:
    """Previous segment -> cluster that continues it."""
    if not shared.counts.size:
        return {}
    centroids = np.asarray([*old, *new], np.float64)
    spread = np.sqrt(((centroids - centroids.mean(axis=0)) ** 2).sum(axis=1).mean())
    distance = cdist(np.asarray(old, np.float64), np.asarray(new, np.float64))
    missing = np.maximum(config.evidence_users - shared.union, 0)
    near = distance <= config.centroid_ratio * spread
    # Without anybody to tell and no centroid to stand for them (evidence_users is 0), nothing is alike.
    similarity = (shared.counts + missing * near) / np.maximum(shared.union + missing, 1)
    allowed = similarity >= config.survive_jaccard
    nearness = 1 / (1 + distance / spread) if spread > 0 else np.ones_like(distance)
    chosen = zip(*linear_sum_assignment(np.where(allowed, similarity + _TIE * nearness, 0), maximize=True), strict=True)
    return {int(o): int(n) for o, n in chosen if allowed[o, n]}
