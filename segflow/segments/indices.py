"""How well a partition of users separates them, in numbers that need no truth.

What does not live here: stability under resampling and the comparison with a null (`selection.py`, `null.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, euclidean_distances

from segflow.segments.models import Labels
from segflow.segments.population import Points

Distances = NDArray[np.float32]

# Half the width of the borderland between two clusters, as a part of the line between their centroids.
_BORDER = 0.1


class Indices(NamedTuple):
    """Internal indices of one partition. None where fewer than two clusters have users."""

    calinski_harabasz: float | None
    davies_bouldin: float | None
    dunn: float | None


def distances(points: Points) -> Distances:
    """Euclidean distances (U, U) between all points (U, D): computed once, they serve every partition."""
    found: Distances = euclidean_distances(points).astype(np.float32, copy=False)
    return found


def silhouette(apart: Distances, labels: Labels) -> float:
    """Mean silhouette (Rousseeuw 1987) of users with `labels` (U,) whose distances are `apart` (U, U).

    A user alone in a cluster counts 0, as Rousseeuw has it, and so does one of no cluster (-1): leaving out whoever
    is hard to place would flatter. -1, the worst value, when there are fewer than two clusters.
    """
    found, own = np.unique(labels[labels >= 0], return_inverse=True)
    if len(found) < 2:
        return -1.0
    placed = np.flatnonzero(labels >= 0)
    member = np.zeros((len(labels), len(found)), np.float32)
    member[placed, own] = 1
    size = member.sum(axis=0)
    total = apart[placed] @ member if len(placed) < len(labels) else apart @ member
    each = np.arange(len(placed))
    within = total[each, own] / np.maximum(size[own] - 1, 1)
    mean = total / size
    mean[each, own] = np.inf
    beyond = mean.min(axis=1)
    width = np.maximum(np.maximum(within, beyond), np.finfo(np.float32).tiny)
    return float(np.where(size[own] > 1, (beyond - within) / width, 0).sum(dtype=np.float64) / len(labels))


def border(points: Points, labels: Labels) -> float:
    """Share of users, of points (U, D), who stand between two clusters: 0 when there is empty space between all clusters.

    On the line from the own centroid to the nearest other one, such a user is in the middle fifth, or nearer to the
    other. A cloud without a gap that is cut in two has many users there, and two clusters have few: the valley between
    two modes, which a test of unimodality looks for (Hartigan and Hartigan 1985), taken where the clusters meet.
    Users of no cluster (-1) are left out; 1 when there are fewer than two clusters.
    """
    placed = labels >= 0
    found, own = np.unique(labels[placed], return_inverse=True)
    if len(found) < 2:
        return 1.0
    inside, each = points[placed].astype(np.float64), np.arange(len(own))
    centroids = np.stack([inside[own == cluster].mean(axis=0) for cluster in range(len(found))])
    squared = euclidean_distances(inside, centroids, squared=True)
    mine = squared[each, own]
    squared[each, own] = np.inf
    other = squared.argmin(axis=1)
    line = euclidean_distances(centroids, squared=True)[own, other]
    return float((squared[each, other] - mine < 2 * _BORDER * line).mean())


def indices(points: Points, labels: Labels) -> Indices:
    """Calinski-Harabasz, Davies-Bouldin (both scikit-learn) and Dunn of points (U, D); users of no cluster (-1) are left out.

    Dunn's index is the generalized one of Bezdek and Pal (Some new indexes of cluster validity, 1998) with distances
    of centroids: the least distance between two centroids over the largest mean diameter, which is twice the mean
    distance of a cluster's users to their centroid. Dunn's own (1974) hangs on the two most unusual users.
    """
    placed = labels >= 0
    found, own = np.unique(labels[placed], return_inverse=True)
    inside = points[placed]
    if not 1 < len(found) < len(inside):
        return Indices(None, None, None)
    centroids = np.stack([inside[own == cluster].mean(axis=0, dtype=np.float64) for cluster in range(len(found))])
    distance = np.linalg.norm(inside - centroids[own], axis=1)
    diameter = 2 * (np.bincount(own, weights=distance) / np.bincount(own)).max()
    between = euclidean_distances(centroids)[np.triu_indices(len(found), 1)].min()
    return Indices(
        float(calinski_harabasz_score(inside, own)),
        float(davies_bouldin_score(inside, own)),
        float(between / diameter) if diameter > 0 else None,
    )
