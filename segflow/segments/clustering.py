"""Choosing and fitting the clustering: the sweep over k, the scores that justify the choice, and assignment of users.

What does not live here: segment ids (clusters are numbered by size; `ledger.py` gives them an identity over time) and
any description of the clusters (`profiles.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy.special import softmax
from sklearn.cluster import AgglomerativeClustering, BisectingKMeans, KMeans
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    euclidean_distances,
    pairwise_distances,
    silhouette_score,
)
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.statistics import contingency, jaccard

Points = NDArray[np.floating]
Labels = NDArray[np.int64]
Centers = NDArray[np.float64]
Row = dict[str, Any]


def _kmeans(points: Points, k: int, starts: int, seed: int) -> Centers:
    return KMeans(k, n_init=starts, random_state=seed, algorithm="lloyd").fit(points).cluster_centers_


def _bisecting(points: Points, k: int, starts: int, seed: int) -> Centers:
    return BisectingKMeans(k, n_init=starts, random_state=seed).fit(points).cluster_centers_


def _ward(points: Points, k: int, starts: int, seed: int) -> Centers:
    labels = AgglomerativeClustering(k, linkage="ward").fit_predict(points)
    return np.stack([points[labels == cluster].mean(axis=0) for cluster in range(k)])


# A clusterer turns points (N, D), k, a number of starts and a seed into k centers (k, D). Whatever the algorithm, a
# user belongs to the nearest center: that rule serves users of any week, which a list of labels cannot.
CLUSTERERS: dict[str, Callable[[Points, int, int, int], Centers]] = {
    "kmeans": _kmeans,
    "bisecting_kmeans": _bisecting,
    "ward": _ward,
}


class Assignment(NamedTuple):
    """Users placed in clusters; every array has one entry per user."""

    labels: Labels  # nearest center
    probability: NDArray[np.float64]  # (U, k) membership of every cluster, rows sum to one
    distance: NDArray[np.float64]  # Euclidean distance to the own center
    outlier: NDArray[np.bool_]  # farther out than all but one percent of the cluster's fitted users


@dataclass(frozen=True)
class Clustering:
    """A fitted clustering with the table of candidates that justified it; clusters are numbered by falling size."""

    algorithm: str
    centers: Centers  # (k, D)
    variance: float  # within-cluster variance per dimension, pooled over the clusters
    outlier_distance: NDArray[np.float64]  # (k,)
    stability: NDArray[np.float64]  # (k,) mean bootstrap Jaccard of each cluster
    selection: str  # "eligible", or "most stable (none eligible)"
    candidates: list[Row]

    @property
    def k(self) -> int:
        """The number of clusters."""
        return len(self.centers)

    def assign(self, points: Points) -> Assignment:
        """Cluster, membership probability, distance and outlier flag of users (U, D).

        The probability is the posterior under equal spherical Gaussians around the centers, the mixture whose hard
        limit k-means is (Bishop, Pattern Recognition and Machine Learning, 9.3.2); its mode is always the label.
        """
        if points.shape[1] != self.centers.shape[1]:
            raise ValueError(f"clustering has {self.centers.shape[1]} dimensions, the points {points.shape[1]}")
        squared = euclidean_distances(points.astype(np.float64), self.centers, squared=True)
        labels = squared.argmin(axis=1)
        distance = np.sqrt(squared[np.arange(len(points)), labels])
        probability = softmax(-squared / (2 * max(self.variance, np.finfo(float).tiny)), axis=1)
        return Assignment(labels, probability, distance, distance > self.outlier_distance[labels])

    def to_bytes(self) -> bytes:
        """The clustering as a safetensors file."""
        tensors = {"centers": self.centers, "outlier_distance": self.outlier_distance, "stability": self.stability}
        facts = {
            "algorithm": self.algorithm,
            "variance": self.variance,
            "selection": self.selection,
            "candidates": self.candidates,
        }
        return save_tensors(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            metadata={"clustering": json.dumps(facts)},
        )

    @staticmethod
    def from_bytes(data: bytes) -> Clustering:
        """The clustering written by `to_bytes`."""
        # safetensors: eight bytes of header length, then a JSON header that holds the metadata.
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["clustering"])
        tensors = load_tensors(data)
        return Clustering(
            algorithm=facts["algorithm"],
            centers=tensors["centers"],
            variance=facts["variance"],
            outlier_distance=tensors["outlier_distance"],
            stability=tensors["stability"],
            selection=facts["selection"],
            candidates=facts["candidates"],
        )


def select(points: Points, config: SegmentConfig, seed: int) -> Clustering:
    """Fit every candidate (algorithm, k), choose one, and return it with the table of all candidates.

    `points` is (U, D), one row per user. Candidates are compared on at most `sample_users` users; the winner is then
    refitted on everybody. A candidate is eligible when its smallest cluster holds at least `min_share` of the users,
    most of its clusters have a bootstrap Jaccard of at least `stable`, and none less than `unstable` (thresholds of
    Hennig, Cluster-wise assessment of cluster stability, 2007). Chosen is the smallest k whose silhouette lies within
    `silhouette_tolerance` of the best eligible one; if none is eligible, the most stable candidate, and `selection`
    says so. `null_silhouette` is the mean silhouette of the same clusterer on data with every column permuted.

    Raises UserError when there are too few users for the smallest k.
    """
    if len(points) < 10 * config.k_min:
        raise UserError(
            f"segments: {len(points)} users are too few for k_min = {config.k_min} segments; "
            "provide more history or lower segments.k_min"
        )
    rng = np.random.default_rng(seed)
    exact = np.asarray(points, np.float64)
    sample = exact[np.sort(rng.permutation(len(exact))[: config.sample_users])]
    # One thread: the order in which threads add up would change the last bits, and with them the result.
    with threadpool_limits(limits=1):
        fits = _sweep(sample, config, seed)
        chosen, selection = choose([row for row, *_ in fits], config)
        row, centers, stability = fits[chosen]
        row["chosen"] = True
        row["null_silhouette"] = _null_silhouette(sample, row["algorithm"], row["k"], config, seed)
        if len(sample) < len(exact):
            refit = KMeans(len(centers), init=centers, n_init=1, algorithm="lloyd").fit(exact)
            centers = refit.cluster_centers_
        return _finish(exact, row["algorithm"], centers, stability, selection, [row for row, *_ in fits], config)


def choose(rows: list[Row], config: SegmentConfig) -> tuple[int, str]:
    """Index of the chosen row of the candidate table, and how it was selected (see `select`)."""
    eligible = [index for index, row in enumerate(rows) if row["eligible"]]
    if not eligible:
        large = [i for i, row in enumerate(rows) if row["smallest_share"] >= config.min_share]
        pool = large or list(range(len(rows)))
        return max(pool, key=lambda index: rows[index]["stability_mean"]), "most stable (none eligible)"
    best = max(rows[index]["silhouette"] for index in eligible)
    floor = best - config.silhouette_tolerance * abs(best)
    near = [index for index in eligible if rows[index]["silhouette"] >= floor]
    return min(near, key=lambda index: (rows[index]["k"], -rows[index]["silhouette"])), "eligible"


def _sweep(sample: Points, config: SegmentConfig, seed: int) -> list[tuple[Row, Centers, NDArray[np.float64]]]:
    scored = np.random.default_rng(seed).permutation(len(sample))[: config.silhouette_users]
    distances = pairwise_distances(sample[scored])
    fits = []
    for algorithm in config.algorithms:
        for k in range(config.k_min, min(config.k_max, len(sample) // 10) + 1):
            centers = CLUSTERERS[algorithm](sample, k, config.starts, seed)
            labels = _nearest(sample, centers)
            stability = _bootstrap_stability(sample, labels, algorithm, k, config, seed)
            shares = np.bincount(labels, minlength=k) / len(sample)
            row = {
                "algorithm": algorithm,
                "k": k,
                "silhouette": _silhouette(distances, labels[scored]),
                "calinski_harabasz": float(calinski_harabasz_score(sample, labels)),
                "davies_bouldin": float(davies_bouldin_score(sample, labels)),
                "stability_mean": float(stability.mean()),
                "stability_min": float(stability.min()),
                "smallest_share": float(shares.min()),
                "eligible": bool(
                    shares.min() >= config.min_share
                    and (stability >= config.stable).mean() > 0.5  # most of them
                    and stability.min() >= config.unstable
                ),
                "chosen": False,
                "null_silhouette": None,
            }
            fits.append((row, centers, stability))
    return fits


def _bootstrap_stability(
    sample: Points, labels: Labels, algorithm: str, k: int, config: SegmentConfig, seed: int
) -> NDArray[np.float64]:
    """Mean over bootstraps of the largest Jaccard similarity of each cluster to a refitted one (Hennig 2007): (k,)."""
    best = np.zeros(k)
    for repeat in range(config.bootstraps):
        # The same resamples for every candidate: differences between candidates are then not resampling noise.
        drawn = np.random.default_rng((seed, repeat)).integers(len(sample), size=len(sample))
        centers = CLUSTERERS[algorithm](sample[drawn], k, config.bootstrap_starts, seed)
        present = np.unique(drawn)
        counts = contingency(labels[present], _nearest(sample[present], centers), k, k)
        best += jaccard(counts).max(axis=1)
    return best / config.bootstraps


def _null_silhouette(sample: Points, algorithm: str, k: int, config: SegmentConfig, seed: int) -> float:
    scores = []
    for repeat in range(config.null_repeats):
        rng = np.random.default_rng((seed, repeat))
        permuted = rng.permuted(sample, axis=0)
        labels = _nearest(permuted, CLUSTERERS[algorithm](permuted, k, config.bootstrap_starts, seed))
        scored = rng.permutation(len(sample))[: config.silhouette_users]
        scores.append(_silhouette(pairwise_distances(permuted[scored]), labels[scored]))
    return float(np.mean(scores))


def _finish(
    points: Points,
    algorithm: str,
    centers: Centers,
    stability: NDArray[np.float64],
    selection: str,
    candidates: list[Row],
    config: SegmentConfig,
) -> Clustering:
    """Number the clusters by size (ties by center) and learn the spread and the outlier bound of each."""
    labels = _nearest(points, centers)
    sizes = np.bincount(labels, minlength=len(centers))
    order = np.lexsort((*centers.T[::-1], -sizes))
    centers, labels = centers[order], np.argsort(order)[labels]
    squared = ((points - centers[labels]) ** 2).sum(axis=1)
    bounds = [
        np.sqrt(np.quantile(squared[labels == cluster], config.outlier_quantile)) if sizes[order[cluster]] else 0.0
        for cluster in range(len(centers))
    ]
    return Clustering(
        algorithm=algorithm,
        centers=centers,
        variance=float(squared.mean() / points.shape[1]),
        outlier_distance=np.array(bounds),
        stability=stability[order],
        selection=selection,
        candidates=candidates,
    )


def _nearest(points: Points, centers: Centers) -> Labels:
    return euclidean_distances(points, centers, squared=True).argmin(axis=1)


def _silhouette(distances: NDArray[np.float64], labels: Labels) -> float:
    """Mean silhouette (Rousseeuw 1987); -1, the worst value, when all scored users share one cluster."""
    found = len(np.unique(labels))
    if not 1 < found < len(labels):
        return -1.0
    return float(silhouette_score(distances, labels, metric="precomputed"))
