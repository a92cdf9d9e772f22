"""From the clusters of a chosen model to those that are published: weak ones are merged or left out, the rest numbered.

What does not live here: the choice of the model (`selection.py`) and how users are placed (`clustering.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segflow.config import SegmentConfig
from segflow.segments.models import Labels
from segflow.segments.population import Points
from segflow.segments.selection import Overlap, stability
from segflow.segments.statistics import jaccard


class Published(NamedTuple):
    """Published clusters, numbered by falling size."""

    numbers: NDArray[np.int64]  # (clusters of the model,) published number; -1: not published
    labels: Labels  # (U,) published number of each user; -1: none
    stability: NDArray[np.float64]  # (k,) mean bootstrap Jaccard

    @property
    def k(self) -> int:
        """The number of published clusters."""
        return len(self.stability)


def publish(
    points: Points, labels: Labels, k: int, overlaps: Sequence[Overlap], config: SegmentConfig
) -> Published | None:
    """Which of `k` clusters are published; None when fewer than two remain.

    `points` (U, D) and `labels` (U,) are those of everybody, `overlaps` what resampling told (`selection.Candidate`).
    As long as a cluster has fewer than `min_users` users or a stability below `unstable` (a dissolved cluster, Hennig
    2007), the weakest one is joined to the cluster with the nearest centroid, or is not published
    (`unstable_clusters`). A merged cluster is compared with the resampled clusters of which most users are in it, taken
    together.
    """
    sizes = np.bincount(labels[labels >= 0], minlength=k)
    sums = np.stack([points[labels == cluster].sum(axis=0, dtype=np.float64) for cluster in range(k)])
    # The group of each cluster, named after one of its members; -1: none.
    group = np.where(sizes > 0, np.arange(k), -1)
    single = stability(overlaps)
    while True:
        groups = np.unique(group[group >= 0])
        if len(groups) < 2:
            return None
        users = np.array([sizes[group == one].sum() for one in groups])
        stable = np.array(
            [single[one] if (group == one).sum() == 1 else _merged(overlaps, group, one) for one in groups]
        )
        weak = np.flatnonzero((users < config.min_users) | (stable < config.unstable))
        if not len(weak):
            return _numbered(group, groups, users, stable, labels)
        weakest = weak[np.lexsort((stable[weak], users[weak] >= config.min_users))[0]]
        if config.unstable_clusters == "unpublish":
            group = np.where(group == groups[weakest], -1, group)
            continue
        centroids = np.stack([sums[group == one].sum(axis=0) for one in groups]) / users[:, None]
        apart = np.linalg.norm(centroids - centroids[weakest], axis=1)
        apart[weakest] = np.inf
        group = np.where(group == groups[weakest], groups[apart.argmin()], group)


def _merged(overlaps: Sequence[Overlap], group: NDArray[np.intp], one: int) -> float:
    """Mean Jaccard similarity of the merged clusters `group == one` to what they became in each resample."""
    inside = np.append(False, group == one)  # row 0 of a table holds the users of no cluster
    found = []
    for counts in overlaps:
        within = counts[inside].sum(axis=0)
        mostly = within > counts.sum(axis=0) / 2
        mostly[0] = False
        both = np.array([[within[mostly].sum(), within[~mostly].sum()], [counts[~inside][:, mostly].sum(), 0]])
        found.append(jaccard(both)[0, 0])
    return float(np.mean(found))


def _numbered(
    group: NDArray[np.intp],
    groups: NDArray[np.intp],
    users: NDArray[np.intp],
    stable: NDArray[np.float64],
    labels: Labels,
) -> Published:
    order = np.lexsort((groups, -users))
    number = np.full(len(group) + 1, -1, np.int64)  # the entry behind the last is where -1 looks
    for rank, at in enumerate(order):
        number[:-1][group == groups[at]] = rank
    return Published(number[:-1], number[labels], stable[order])
