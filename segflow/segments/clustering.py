"""The clustering of a snapshot: chosen, fitted to everybody, its weak clusters mended, and how it places users.

What does not live here: the clusterers and their models, how candidates are judged (`selection.py`), segment ids (clusters are
numbered by size; `ledger.py` gives them an identity over time) and any description of the clusters (`profiles.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segflow.compute import IN_PROCESS, Engine
from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.clusterers import require_distinct
from segflow.segments.models import Centers, Labels, Model, model_from
from segflow.segments.passes import moved
from segflow.segments.population import Points, Population
from segflow.segments.projection import Projection
from segflow.segments.publication import Published, publish
from segflow.segments.selection import UNSTABLE, Row, choose, sweep
from segflow.segments.threads import for_each, one_thread

# Full passes over everybody, from centres fitted to a sample: what more of them change is far below what a resample does.
_PASSES = 3
# Users whose distance is computed at once: their vectors stay in the processor's cache.
_CHUNK = 8_192


class Assignment(NamedTuple):
    """Users placed in clusters; every array has one entry per user."""

    labels: Labels  # published cluster; -1: none
    probability: NDArray[np.float32]  # (U, k); rows sum to one, less what unpublished clusters have; zero if in none
    distance: NDArray[np.float64]  # to the own cluster's centroid, in the space of the user vectors; nan if in none
    outlier: NDArray[np.bool_]  # farther out than all but one percent of the cluster's fitted users


@dataclass(frozen=True)
class Clustering:
    """A fitted clustering with the table of candidates that justified it; published clusters are numbered by falling size.

    Without segment structure there is no model, k is 0, and everybody belongs to no cluster.
    """

    verdict: str  # "segments", "no segment structure" or "no stable segments"
    candidates: list[Row]
    algorithm: str = ""
    parameter: float = 0.0
    model: Model | None = None
    projection: Projection | None = None  # what the model's points have to pass first; None if it takes user vectors
    # Cluster of the model -> number it is published under; -1: not published. Merged clusters share a number.
    published: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    centroids: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))  # (k, D)
    outlier_distance: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (k,)
    stability: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (k,) mean bootstrap Jaccard

    @property
    def k(self) -> int:
        """The number of published clusters."""
        return len(self.centroids)

    def assign(self, population: Population) -> Assignment:
        """Cluster, membership probability, distance and outlier flag of users of any week.

        Raises ValueError when the vectors have another width than those the clustering was fitted on.
        """
        users = len(population)
        if self.model is None:
            nowhere = np.full(users, -1, np.int64)
            return Assignment(nowhere, np.zeros((users, 0), np.float32), np.full(users, np.nan), np.zeros(users, bool))
        if population.points.shape[1] != self.centroids.shape[1]:
            raise ValueError(
                f"clustering has {self.centroids.shape[1]} dimensions, the points {population.points.shape[1]}"
            )
        placed = self.model.place(_projected(population, self.projection))
        labels, probability = placed
        if not np.array_equal(self.published, np.arange(self.k)):
            # The entry behind the last is where -1 looks.
            labels = np.append(self.published, -1)[placed.labels]
            probability = placed.probability @ _membership(self.published, self.k)
            probability[labels < 0] = 0
        distance = _distances(population.points, self.centroids, labels)
        bound = np.append(self.outlier_distance, np.inf)[labels]
        return Assignment(labels, probability, distance, distance > bound)

    def to_bytes(self) -> bytes:
        """The clustering as a safetensors file. Raises ValueError when there is no model to write."""
        if self.model is None:
            raise ValueError(f"{self.verdict}: there is no clustering to write")
        tensors = {name: getattr(self, name) for name in _ARRAYS}
        tensors |= {f"model.{name}": tensor for name, tensor in self.model.to_tensors().items()}
        if self.projection is not None:
            tensors |= {f"projection.{name}": tensor for name, tensor in self.projection.to_tensors().items()}
        facts = {"kind": self.model.kind, "model": self.model.facts()} | {name: getattr(self, name) for name in _FACTS}
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

        def under(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

        projection = under("projection.")
        return Clustering(
            **({name: facts[name] for name in _FACTS} | {name: tensors[name] for name in _ARRAYS}),
            model=model_from(facts["kind"], under("model."), facts["model"]),
            projection=Projection.from_tensors(projection) if projection else None,
        )


_FACTS = ("verdict", "candidates", "algorithm", "parameter")
_ARRAYS = ("published", "centroids", "outlier_distance", "stability")


def select(population: Population, config: SegmentConfig, seed: int, engine: Engine = IN_PROCESS) -> Clustering:
    """Judge every candidate, choose one, fit it to everybody, and return it with the table of all candidates.

    Candidates are compared on at most `sample_users` users, along the first `dims` principal components of their
    vectors. How they are judged and chosen: `selection.sweep` and `selection.choose`. Clusters of the chosen one that
    are unstable or too small are merged or left unpublished (`publication.publish`). The answer is a clustering
    without clusters when nothing stands out from the null model, or nothing of it is stable.

    engine: where the passes over everybody are worked on.

    Raises UserError when there are too few users for the smallest k or for segments of `min_users`, and when their
    vectors do not differ.
    """
    _require_enough(len(population), config)
    require_distinct(population.points, config.k_min)
    drawn = np.random.default_rng(seed).permutation(len(population))[: config.sample_users]
    sample = population.take(np.sort(drawn))
    with one_thread():
        projection = Projection.fit(sample.points, config.dims)
    asked = config.model_copy(update={"k_max": _largest_k(len(population), config)})
    candidates = sweep(sample.points, _projected(sample, projection), asked, seed, len(population))
    rows = [candidate.row for candidate in candidates]
    chosen, verdict = choose(rows, config)
    if chosen is None:
        return Clustering(verdict, rows)
    row = rows[chosen]
    model, remaining = fit_everybody(candidates[chosen].model, projection, population, engine)
    labels = model.place(_projected(population, remaining)).labels
    found = publish(population.points, labels, model.k, candidates[chosen].overlaps, config)
    if found is None:
        return Clustering(UNSTABLE, rows)
    row["chosen"] = True
    fitted = Clustering(verdict, rows, row["algorithm"], row["parameter"], model, remaining)
    return _finish(fitted, population, found, config)


def fit_everybody(
    model: Model, projection: Projection, population: Population, engine: Engine = IN_PROCESS
) -> tuple[Model, Projection | None]:
    """A model of projected sample points as one of everybody, and the projection that it still needs.

    Centres are lifted into the space of the user vectors, where the nearest one is the same, and moved by a few of
    Lloyd's passes over everybody; they need no projection any more. Other models place everybody as they are.
    """
    if not isinstance(model, Centers):
        return model, projection
    lifted = projection.lift(model.centers).astype(np.float32)
    return Centers(moved(population.points, lifted, _PASSES, engine), model.variance), None


def _finish(fitted: Clustering, population: Population, found: Published, config: SegmentConfig) -> Clustering:
    """Learn the centroid and the outlier bound of each published cluster."""
    labels, points = found.labels, population.points
    centroids = np.stack([points[labels == one].mean(axis=0, dtype=np.float64) for one in range(found.k)])
    distance = _distances(points, centroids, labels)
    bounds = [np.quantile(distance[labels == one], config.outlier_quantile) for one in range(found.k)]
    return replace(
        fitted,
        published=found.numbers,
        centroids=centroids,
        outlier_distance=np.array(bounds),
        stability=found.stability,
    )


def _distances(points: Points, centroids: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Distance of each user (U, D) to the centroid of its own cluster; nan if it is in none."""
    found = np.empty(len(points))
    # The entry behind the last is where -1 looks.
    centres = np.vstack([centroids, np.full(centroids.shape[1], np.nan)]).astype(points.dtype)

    def measure(start: int) -> None:
        rows = slice(start, start + _CHUNK)
        apart = points[rows] - centres[labels[rows]]
        found[rows] = np.sqrt(np.einsum("ud,ud->u", apart, apart))

    for_each(measure, range(0, len(points), _CHUNK))
    return found


def _membership(published: NDArray[np.int64], k: int) -> NDArray[np.float32]:
    """(clusters of the model, k): 1 where the cluster is published under the number."""
    member = np.zeros((len(published), k), np.float32)
    shown = np.flatnonzero(published >= 0)
    member[shown, published[shown]] = 1
    return member


def _projected(population: Population, projection: Projection | None) -> Population:
    return population if projection is None else replace(population, points=projection.apply(population.points))


def _require_enough(users: int, config: SegmentConfig) -> None:
    if users < config.k_min:
        raise UserError(
            f"segments: {users} users cannot be divided into k_min = {config.k_min} segments; provide more history or "
            "lower segments.k_min"
        )
    if users < config.k_min * config.min_users:
        raise UserError(
            f"segments: {users} users are too few for k_min = {config.k_min} segments of at least min_users = "
            f"{config.min_users}; provide more history or lower segments.min_users"
        )


def _largest_k(users: int, config: SegmentConfig) -> int:
    """More segments than this cannot all have `min_users`."""
    return max(config.k_min, min(config.k_max, users // config.min_users))
