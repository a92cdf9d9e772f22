"""The work of `bench_segments`: a selection, a fit to everybody and an assignment, beside scikit-learn as it comes.

No target stands here, and nothing is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from segflow.config import SegmentConfig
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.clustering import Clustering, fit_everybody, select
from segflow.segments.models import Centers
from segflow.segments.population import Points, Population
from segflow.segments.projection import Projection
from segflow.segments.statistics import contingency, jaccard

Result = TypeVar("Result")

_RESAMPLES = 3


@dataclass(frozen=True)
class Selected:
    """Seconds of both selections on one plant, and the numbers of segments that they came to."""

    users: int
    planted: int
    ours: float
    theirs: float
    our_k: int
    their_k: int
    bootstraps: int
    stability: float  # least of our segments

    @property
    def share(self) -> float:
        """Our time over theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True)
class Fitted:
    """Seconds of a fit to everybody with a known k, and the mean squared distance to the centres."""

    users: int
    ours: float
    theirs: float
    our_inertia: float
    their_inertia: float

    @property
    def ratio(self) -> float:
        """How many times as fast."""
        return self.theirs / self.ours


@dataclass(frozen=True)
class Assigned:
    """Seconds of the one matrix product that everybody needs, to place everybody (segment and probabilities), and of all.

    All is distances and outlier flags too, for which the vectors have to be read once more.
    """

    users: int
    placed: float
    assigned: float
    floor: float


def planted(users: int, width: int, k: int, seed: int = 0) -> Points:
    """Points (users, width) float32 in k spherical groups of falling sizes, the largest three times the smallest."""
    rng = np.random.default_rng(seed)
    share = np.geomspace(3, 1, k)
    label = rng.choice(k, size=users, p=share / share.sum())
    centers = rng.normal(size=(k, width)).astype(np.float32)
    return centers[label] + rng.normal(size=(users, width), scale=1.5).astype(np.float32)


def selected(users: int, width: int, k: int, config: SegmentConfig) -> Selected:
    """The whole selection, beside a loop over k with scikit-learn on all users."""
    points = planted(users, width, k)
    ours, clustering = _timed(lambda: select(Population(points), config, 0))
    theirs, their_k = _timed(lambda: by_the_book(points, config.k_min, config.k_max, config.silhouette_users))
    least = float(clustering.stability.min(initial=1))
    return Selected(users, k, ours, theirs, clustering.k, their_k, config.bootstraps, least)


def by_the_book(points: Points, k_min: int, k_max: int, silhouette_users: int) -> int:
    """k with the best silhouette of those whose clusters come back; every fit on all users, three resamples."""
    scores = {}
    for k in range(k_min, k_max + 1):
        labels = KMeans(k, n_init=3, random_state=0).fit_predict(points)
        score = silhouette_score(points, labels, sample_size=min(silhouette_users, len(points)), random_state=0)
        calinski_harabasz_score(points, labels)
        davies_bouldin_score(points, labels)
        stability = np.zeros(k)
        for repeat in range(_RESAMPLES):
            drawn = np.random.default_rng(repeat).integers(len(points), size=len(points))
            again = KMeans(k, random_state=repeat).fit(points[drawn]).predict(points)
            stability += jaccard(contingency(labels, again, k, k)).max(axis=1) / _RESAMPLES
        scores[k] = score if (stability >= 0.75).mean() > 0.5 else -1.0
    return max(scores, key=scores.__getitem__)


def fitted(users: int, width: int, k: int, config: SegmentConfig) -> tuple[Fitted, Assigned]:
    """A fit to everybody with k given, and then everybody's assignment."""
    points = planted(users, width, k)
    population = Population(points)
    theirs, reference = _timed(lambda: KMeans(k, random_state=0).fit(points))
    ours, model = _timed(lambda: fit(population, k, config))
    placed = model.place(population)
    clustering = _published(model, points, placed.labels)
    fits = Fitted(
        users, ours, theirs, _inertia(points, model.centers, placed.labels), float(reference.inertia_) / users
    )
    centers = model.centers.T.astype(np.float32)
    floor = min(_timed(lambda: points @ centers)[0] for _ in range(5))
    place = min(_timed(lambda: model.place(population))[0] for _ in range(5))
    assignment = min(_timed(lambda: clustering.assign(population))[0] for _ in range(5))
    return fits, Assigned(users, place, assignment, floor)


def fit(population: Population, k: int, config: SegmentConfig) -> Centers:
    """k-means of everybody as `select` fits the chosen candidate: starts on a sample, then passes over everybody."""
    drawn = np.random.default_rng(0).permutation(len(population))[: config.sample_users]
    sample = population.take(np.sort(drawn))
    projection = Projection.fit(sample.points, config.dims)
    projected = Population(projection.apply(sample.points))
    model, _ = fit_everybody(CLUSTERERS["kmeans"].fit(projected, k, config.starts, 0), projection, population)
    if not isinstance(model, Centers):
        raise TypeError("k-means has centres")
    return model


def _published(model: Centers, points: Points, labels: np.ndarray) -> Clustering:
    centroids = np.stack([points[labels == one].mean(axis=0, dtype=np.float64) for one in range(model.k)])
    return Clustering(
        "segments", [], "kmeans", float(model.k), model,
        published=np.arange(model.k), centroids=centroids,
        outlier_distance=np.full(model.k, 20.0), stability=np.ones(model.k),
    )  # fmt: skip


def _inertia(points: Points, centers: Points, labels: np.ndarray) -> float:
    apart = [((points[labels == one] - center) ** 2).sum(dtype=np.float64) for one, center in enumerate(centers)]
    return float(sum(apart)) / len(points)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
