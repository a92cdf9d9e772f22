"""What a clusterer finds where nothing is: copies of the data without clusters, and how well k-means seems to separate them.

What does not live here: what follows from the comparison (`selection.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]

from segflow.config import SegmentConfig
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.indices import border, distances, silhouette
from segflow.segments.population import Points, Population
from segflow.segments.projection import Projection
from segflow.segments.threads import one_thread

# Fits of fewer users are mostly Python, in which threads only wait for each other.
_WORTH_THREADS = 5_000


def workers(users: Sized) -> int:
    """How many threads to fit with, for joblib; the result is the same with any number."""
    return -1 if len(users) >= _WORTH_THREADS else 1


class NullReference(NamedTuple):
    """What k-means finds at one k on copies without clusters."""

    silhouette: float  # mean over the copies of the kind where it is higher
    border: float  # mean over the elliptical copies; permuted ones may have the gaps that single columns have


def permuted(points: Points, rng: np.random.Generator) -> Points:
    """Points (U, D) with each column in an order of its own: every column keeps its values, nothing goes together."""
    return rng.permuted(points, axis=0)


def elliptical(points: Points, rng: np.random.Generator) -> Points:
    """As many points (U, D) in one elliptical cloud: covariance and distances from the middle stay, directions are random.

    Correlated columns alone make long clouds, which are cut well with no gap anywhere; permuted columns cannot show
    that. Mahalanobis distances are dealt out anew to uniform directions, so that heavy tails stay as heavy.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    centred = points - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / len(points))
    varies = variance > 1e-9 * variance.max()  # below: rounding
    spread, axes = np.sqrt(variance[varies]), axes[:, varies]
    radius = np.linalg.norm(centred @ axes / spread, axis=1)
    direction = rng.normal(size=(len(points), len(spread)))
    direction *= (rng.permutation(radius) / np.linalg.norm(direction, axis=1))[:, None]
    return (mean + (direction * spread) @ axes.T).astype(points.dtype)


_COPIES: tuple[Callable[[Points, np.random.Generator], Points], ...] = (permuted, elliptical)


def null_reference(
    points: Points, numbers: Sequence[int], config: SegmentConfig, seed: int
) -> dict[int, NullReference]:
    """k -> what k-means reaches on copies of `points` (U, D) without clusters, for each k of `numbers`.

    `null_repeats` permuted and as many elliptical copies go the whole way: their own projection, their own fits.
    k-means stands in for every clusterer, since it looks for what the silhouette rewards; a clusterer that finds less
    separation than it does where nothing is has found nothing.
    """

    def of_copy(kind: int, repeat: int) -> list[tuple[float, float]]:
        copy = _COPIES[kind](points, np.random.default_rng((seed, kind, repeat)))
        with one_thread():
            population = Population(Projection.fit(copy, config.dims).apply(copy))
            apart = distances(population.points)
        found = []
        for k in numbers:
            labels = CLUSTERERS["kmeans"].fit(population, k, config.bootstrap_starts, seed).place(population).labels
            found.append((silhouette(apart, labels), border(population.points, labels)))
        return found

    pairs = [(kind, repeat) for kind in range(len(_COPIES)) for repeat in range(config.null_repeats)]
    found = Parallel(n_jobs=workers(points), prefer="threads")(delayed(of_copy)(*pair) for pair in pairs)
    reached = np.array(found).reshape(len(_COPIES), config.null_repeats, len(numbers), 2).mean(axis=1)
    return {
        k: NullReference(float(reached[:, at, 0].max()), float(reached[_COPIES.index(elliptical), at, 1]))
        for at, k in enumerate(numbers)
    }
