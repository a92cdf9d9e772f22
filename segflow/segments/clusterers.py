"""The clusterers that can be named in `segments.algorithms`: how each is fitted, and which parameters of it are tried.

Those that look at points are scikit-learn's; the rest are plain baselines. What does not live here: placing users in a fitted
model (`models.py`), and comparing models (`selection.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import (
    DBSCAN,
    HDBSCAN,
    AgglomerativeClustering,
    BisectingKMeans,
    KMeans,
    MiniBatchKMeans,
    SpectralClustering,
)
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.models import Centers, Landmarks, Levels, Mixture, Model, Tiers, Topics
from segflow.segments.population import Points, Population
from segflow.segments.threads import one_thread

Labels = NDArray[np.integer]

# Clusterers whose cost grows with the square of the users are fitted on so many; the others follow the nearest of these.
_LANDMARKS = 5_000
# Part of the mean variance that is added to the variances of a mixture, so that no component collapses on a few users.
_REGULARIZATION = 1e-3
# Users per component and dimension from which a mixture learns correlations.
_FULL_COVARIANCE = 10
# Quantiles of the distance to the last of `_core_size` neighbours that DBSCAN takes as its radius.
_RADII = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Least clusters of HDBSCAN, as shares of the users.
_CLUSTER_SIZES = (0.01, 0.02, 0.05, 0.1)
_TOPIC_PASSES = 20
_RFM = ("log_recency_days", "log_sessions_per_week_long", "log_value_total")


@dataclass(frozen=True)
class Clusterer:
    """A way to cluster: `fit(population, parameter, starts, seed)`, and the parameters worth trying.

    Both raise UserError when the population cannot be clustered that way.
    """

    fit: Callable[[Population, float, int, int], Model]
    grid: Callable[[Population, SegmentConfig], list[float]]
    needs: frozenset[str] = frozenset()  # fields of `Population` beyond points


def require_distinct(points: Points, k: int) -> None:
    """Raise UserError when fewer than `k` of the points (U, D) differ."""
    # A few rows nearly always suffice, and sorting all of them costs more than a clustering.
    if len(np.unique(points[: 4 * k], axis=0)) >= k:
        return
    distinct = len(np.unique(points, axis=0))
    if distinct == 1 < k:
        raise UserError(
            f"user_embeddings: all {len(points)} users have one and the same vector, so there is nothing to segment; "
            "add views under users.views or provide more history"
        )
    if distinct < k:
        raise UserError(
            f"segments: {k} segments cannot be made of {len(points)} users with {distinct} different vectors; "
            "lower segments.k_min and k_max or provide more history"
        )


def fit_centers(estimator: type[KMeans | MiniBatchKMeans | BisectingKMeans]) -> Callable[..., Model]:
    """How k-means or a relative is fitted; the parameter is the number of clusters."""

    def fit(population: Population, parameter: float, starts: int, seed: int) -> Model:
        require_distinct(population.points, int(parameter))
        with one_thread():
            fitted = estimator(int(parameter), n_init=starts, random_state=seed).fit(population.points)
        return Centers(fitted.cluster_centers_, float(fitted.inertia_) / population.points.size)

    return fit


def fit_mixture(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """A mixture of that many Gaussians, correlated inside only where there are users enough to learn it from."""
    k, points = int(parameter), population.points.astype(np.float64)
    require_distinct(points, k)
    full = len(points) >= _FULL_COVARIANCE * k * points.shape[1]
    fitted = GaussianMixture(
        k,
        covariance_type="full" if full else "diag",
        reg_covar=_REGULARIZATION * float(points.var(axis=0).mean()),
        n_init=starts,
        random_state=seed,
    )
    with one_thread():
        fitted.fit(points)
    return Mixture(fitted.weights_, fitted.means_, fitted.precisions_cholesky_)


def fit_ward(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """Agglomerative clustering of a sample into that many clusters, by Ward's criterion."""
    points = _landmarks(population, int(parameter), seed)
    labels = AgglomerativeClustering(int(parameter), linkage="ward").fit_predict(points)
    return _voting(points, labels, np.full(len(points), np.inf))


def fit_spectral(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """Spectral clustering of a sample into that many clusters, on the graph of nearest neighbours."""
    points = _landmarks(population, int(parameter), seed)
    neighbors = max(2, min(_core_size(points), len(points) - 1))
    estimator = SpectralClustering(
        int(parameter),
        affinity="nearest_neighbors",
        n_neighbors=neighbors,
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with one_thread(), warnings.catch_warnings():
        # Clusters without any link between them are the best that can happen.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        labels = estimator.fit_predict(points)
    return _voting(points, labels, np.full(len(points), np.inf))


def fit_dbscan(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """DBSCAN of a sample. The parameter is the share of users that shall be inside a cluster rather than at its edge.

    The radius is that quantile of the distance to the last of the neighbours a core point must have, as many as twice
    the dimensions (Sander et al., Data Mining and Knowledge Discovery 2, 1998). Whoever is within it of a core point
    belongs to the point's cluster, as DBSCAN itself has it.
    """
    points = _landmarks(population, 2, seed)
    size = _core_size(points)
    radius = float(np.quantile(_core_distance(points, size), parameter))
    with one_thread():
        fitted = DBSCAN(eps=max(radius, float(np.finfo(np.float32).tiny)), min_samples=size).fit(points)
    core = fitted.core_sample_indices_
    return _voting(points[core], fitted.labels_[core], np.full(len(core), radius))


def fit_hdbscan(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """HDBSCAN of a sample; the parameter is the least share of users in a cluster.

    A user belongs to a cluster when it is as near to a member as the member's own neighbours are.
    """
    points = _landmarks(population, 2, seed)
    least = max(5, round(parameter * len(points)))
    size = min(least, _core_size(points))
    with one_thread():
        labels = HDBSCAN(min_cluster_size=least, min_samples=size, copy=True).fit_predict(points)
    inside = labels >= 0
    return _voting(points[inside], labels[inside], _core_distance(points, size)[inside])


def fit_topics(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """Latent Dirichlet allocation of item counts into that many topics, from one start."""
    counts = population.items
    if counts is None or not counts.nnz:
        raise UserError(
            "segments.algorithms: `lda` finds segments by items, and no item was taken by two users; remove `lda`"
        )
    fitted = LatentDirichletAllocation(
        int(parameter), learning_method="batch", max_iter=_TOPIC_PASSES, random_state=seed
    )
    with one_thread():
        fitted.fit(counts.astype(np.float64))
    return Topics(np.ascontiguousarray(fitted.exp_dirichlet_component_), list(population.item_names))


def fit_tiers(population: Population, parameter: float, starts: int, seed: int) -> Model:
    """RFM tiers: each user scores one to five for recency, frequency and value by quintiles; the mean score decides.

    Quintile scores: Hughes, Strategic Database Marketing, 1994; their sum as one figure: Miglautsch, Journal of Database
    Marketing 8(1), 2000. High-value from a mean of four (a sum of 12), ordinary up to two and a half (7). What does
    not vary, such as value in a log without values, is left out.
    """
    if population.engagement is None:
        raise ValueError("tiers are fitted on engagement, and this population has none")
    _, matrix, names = population.engagement
    columns = {name: matrix[:, names.index(name)].astype(np.float64) for name in _RFM}
    varying = [name for name, column in columns.items() if column.min() < column.max()]
    if not varying:
        raise UserError(
            f"segments.algorithms: `rfm` cannot tell {len(matrix)} users apart, who are equal in recency, frequency and "
            "value; remove `rfm`"
        )
    cuts = np.stack([np.quantile(columns[name], (0.2, 0.4, 0.6, 0.8)) for name in varying])
    return Tiers(varying, cuts)


def fit_levels(field: str) -> Callable[..., Model]:
    """How each value of a nominal field becomes a cluster; the parameter is the least share of users with that value."""

    def fit(population: Population, parameter: float, starts: int, seed: int) -> Model:
        column = pd.Series(getattr(population, field), dtype=object)
        counts = column.value_counts()
        values = sorted(counts.index[counts >= max(1.0, parameter * len(column))])
        if not values:
            raise UserError(
                f"segments.algorithms: no {field} is known of {parameter:.0%} of {len(column)} users or more; "
                f"remove `{field}` or lower segments.min_share"
            )
        return Levels(field, values)

    return fit


def _landmarks(population: Population, k: int, seed: int) -> Points:
    require_distinct(population.points, k)
    drawn = np.random.default_rng(seed).permutation(len(population))[:_LANDMARKS]
    return population.points[np.sort(drawn)]


def _voting(points: Points, labels: Labels, reach: NDArray[np.floating]) -> Landmarks:
    return Landmarks(points, labels.astype(np.int64), reach.astype(np.float64), int(labels.max(initial=-1)) + 1)


def _core_size(points: Points) -> int:
    """Neighbours that make a point of (N, D) one of the core: twice the dimensions, but few of few points."""
    return min(2 * points.shape[1], max(5, len(points) // 50))


def _core_distance(points: Points, size: int) -> NDArray[np.float64]:
    """Distance (N,) to the last of `size` neighbours, the point itself being the first."""
    with one_thread():
        distance, _ = NearestNeighbors(n_neighbors=min(size, len(points))).fit(points).kneighbors(points)
    return np.asarray(distance[:, -1], np.float64)


def _numbers(population: Population, config: SegmentConfig) -> list[float]:
    require_distinct(population.points, config.k_min)
    return [float(k) for k in range(config.k_min, config.k_max + 1)]


def _topics(population: Population, config: SegmentConfig) -> list[float]:
    return [float(k) for k in range(config.k_min, config.k_max + 1)]


def _radii(population: Population, config: SegmentConfig) -> list[float]:
    return list(_RADII)


def _sizes(population: Population, config: SegmentConfig) -> list[float]:
    return sorted({max(size, config.min_share) for size in _CLUSTER_SIZES})


def _rule(population: Population, config: SegmentConfig) -> list[float]:
    return [0.0]


def _least_share(population: Population, config: SegmentConfig) -> list[float]:
    return [config.min_share]


CLUSTERERS: dict[str, Clusterer] = {
    "kmeans": Clusterer(fit_centers(KMeans), _numbers),
    "minibatch_kmeans": Clusterer(fit_centers(MiniBatchKMeans), _numbers),
    "bisecting_kmeans": Clusterer(fit_centers(BisectingKMeans), _numbers),
    "gaussian_mixture": Clusterer(fit_mixture, _numbers),
    "hdbscan": Clusterer(fit_hdbscan, _sizes),
    "dbscan": Clusterer(fit_dbscan, _radii),
    "ward": Clusterer(fit_ward, _numbers),
    "spectral": Clusterer(fit_spectral, _numbers),
    "lda": Clusterer(fit_topics, _topics, frozenset({"items"})),
    "rfm": Clusterer(fit_tiers, _rule, frozenset({"engagement"})),
    "attribute": Clusterer(fit_levels("attribute"), _least_share, frozenset({"attribute"})),
    "category": Clusterer(fit_levels("category"), _least_share, frozenset({"category"})),
}
