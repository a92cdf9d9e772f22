"""Fitted clusterings: where each kind of model puts a user of any week, and how it is kept.

What does not live here: the fitting (`clusterers.py`), the choice among fitted models and the numbers under which clusters
are published (`clustering.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import softmax
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from segflow.segments.population import Points, Population
from segflow.segments.threads import for_each, one_thread

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Tensors = Mapping[str, NDArray[Any]]
Facts = Mapping[str, Any]

# Users placed at once: scores of so many stay in the processor's cache.
_CHUNK = 16_384
# Two probabilities whose logarithms are this close may be the same number once rounded.
_EVEN = 1e-5
# Landmarks that have a say in where a user belongs.
_VOTES = 5
# Mean scores, of five, from which a user is high-value, and up to which ordinary.
_HIGH_VALUE, _ORDINARY = 4.0, 2.5


class Placement(NamedTuple):
    """Where a model puts users."""

    labels: Labels  # (U,) cluster of the model; -1: belongs to none
    probability: NDArray[np.float32]  # (U, k): rows sum to one, or are zero where the label is -1


class Model(Protocol):
    """A fitted clustering of k clusters, numbered as the clusterer happened to."""

    kind: ClassVar[str]

    @property
    def k(self) -> int:
        """The number of clusters."""

    def place(self, population: Population) -> Placement:
        """Cluster and membership probability of users of any week, also of such that were not fitted."""

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays that the model consists of, for safetensors."""

    def facts(self) -> dict[str, Any]:
        """The rest of it, for JSON."""


@dataclass(frozen=True)
class Centers:
    """k-means and its relatives: a user belongs to the nearest centre.

    The probability is the posterior under equal spherical Gaussians around the centres, the mixture whose hard limit
    k-means is (Bishop, Pattern Recognition and Machine Learning, 9.3.2); its mode is always the label.
    """

    kind: ClassVar[str] = "centers"

    centers: Points  # (k, D)
    variance: float  # within-cluster variance per dimension, pooled over the clusters

    @property
    def k(self) -> int:
        """The number of clusters."""
        return len(self.centers)

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the vectors have another width than the centres."""
        points = population.points
        _require_width(points, self.centers.shape[1])
        labels = np.empty(len(points), np.int64)
        # One row per cluster: numpy goes through a few long rows many times faster than through many short ones.
        scores = np.empty((self.k, len(points)), np.float32)

        def place(start: int) -> None:
            rows = slice(start, start + _CHUNK)
            self._place(np.asarray(points[rows], np.float32), labels[rows], scores[:, rows])

        for_each(place, range(0, len(points), _CHUNK))
        return Placement(labels, scores.T)

    def _place(self, points: Points, labels: Labels, scores: NDArray[np.float32]) -> None:
        """Fill in labels (n,) and probabilities (k, n) of points (n, D)."""
        exact = self.centers.astype(np.float64)
        lengths = (exact**2).sum(axis=1)
        eps = float(np.finfo(np.float32).eps)
        # Users that lie on their centres leave no variance: what float32 can tell apart is the least there is.
        precision = 1 / max(2 * self.variance, eps * float(lengths.max()), float(np.finfo(np.float32).tiny))
        # Squared distances less the squared length of the point, which is the same for every centre.
        np.copyto(scores, np.matmul(points, (-2 * exact.T).astype(np.float32)).T)
        scores += lengths.astype(np.float32)[:, None]
        scores -= scores.min(axis=0)
        reach = float(np.sqrt(lengths.max()) * np.sqrt(np.vdot(points, points)))
        rounding = eps * points.shape[1] * (float(lengths.max()) + 2 * reach)
        near = scores <= max(rounding, _EVEN / precision)
        # Where one centre alone is near, the sum of the numbers of those that are is its number.
        labels[:] = np.multiply(near, np.arange(self.k, dtype=np.uint16)[:, None]).sum(axis=0, dtype=np.uint16)
        scores *= -precision
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
        close = np.flatnonzero(near.sum(axis=0, dtype=np.uint16) > 1)
        if len(close):
            # The last bits of a product depend on how many rows are multiplied together. Where they could decide,
            # each user is looked at alone.
            squared = ((points[close, None, :].astype(np.float64) - exact) ** 2).sum(axis=2)
            scores[:, close] = softmax(-squared * precision, axis=1).T
            labels[close] = scores[:, close].argmax(axis=0)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {"centers": self.centers}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {"variance": self.variance}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Centers:
        """The model that wrote these."""
        return cls(tensors["centers"], facts["variance"])


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians (Bishop 9.2): a user belongs to the component that is most probably its own."""

    kind: ClassVar[str] = "mixture"

    weights: Floats  # (k,)
    means: Floats  # (k, D)
    cholesky: Floats  # (k, D, D) of the precisions or, for components without correlations, (k, D)

    @property
    def k(self) -> int:
        """The number of components."""
        return len(self.weights)

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the vectors have another width than the components."""
        points = population.points
        _require_width(points, self.means.shape[1])
        fitted = GaussianMixture(self.k, covariance_type="full" if self.cholesky.ndim == 3 else "diag")
        fitted.weights_, fitted.means_, fitted.precisions_cholesky_ = self.weights, self.means, self.cholesky
        probability = np.zeros((len(points), self.k), np.float32)

        def place(start: int) -> None:
            rows = slice(start, start + _CHUNK)
            probability[rows] = fitted.predict_proba(points[rows].astype(np.float64))

        for_each(place, range(0, len(points), _CHUNK))
        return _most_probable(probability)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {"weights": self.weights, "means": self.means, "cholesky": self.cholesky}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Mixture:
        """The model that wrote these."""
        return cls(tensors["weights"], tensors["means"], tensors["cholesky"])


@dataclass(frozen=True)
class Landmarks:
    """Clusters of any shape: a user belongs where most of the nearest landmarks do, nearer ones counting more.

    Votes are weighted by the inverse of the distance (Dudani, IEEE Transactions on Systems, Man, and Cybernetics 6(4),
    1976). A landmark counts for users within its reach only; a user within the reach of none belongs to no cluster.
    """

    kind: ClassVar[str] = "landmarks"

    points: Points  # (L, D)
    labels: Labels  # (L,)
    reach: Floats  # (L,) largest distance at which a landmark has a vote
    k: int

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the vectors have another width than the landmarks."""
        points = population.points
        _require_width(points, self.points.shape[1])
        probability = np.zeros((len(points), self.k), np.float32)
        if len(self.points) and len(points):
            search = NearestNeighbors(n_neighbors=min(2 * _VOTES, len(self.points)), algorithm="brute").fit(self.points)
            for start in range(0, len(points), _CHUNK):
                rows = slice(start, start + _CHUNK)
                near = search.kneighbors(points[rows], return_distance=False)
                probability[rows] = self._votes(points[rows].astype(np.float64), near)
        return _most_probable(probability)

    def _votes(self, points: Floats, near: NDArray[np.intp]) -> Floats:
        """Shares of the votes (n, k), from the landmarks (n, >= _VOTES) that are nearest but for rounding."""
        near = np.sort(near, axis=1)
        distance = np.sqrt(((points[:, None] - self.points[near]) ** 2).sum(axis=2))
        order = np.argsort(distance, axis=1, kind="stable")[:, :_VOTES]
        near, distance = np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)
        # In units of the nearest one's vote, so that a distance of zero divides nothing.
        votes = np.divide(distance[:, :1], distance, out=np.ones_like(distance), where=distance > 0)
        votes[distance > self.reach[near]] = 0
        shares, row = np.zeros((len(points), self.k)), np.arange(len(points))
        for voter in range(votes.shape[1]):
            shares[row, self.labels[near[:, voter]]] += votes[:, voter]
        total = shares.sum(axis=1, keepdims=True)
        return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {"points": self.points, "labels": self.labels, "reach": self.reach}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {"k": self.k}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Landmarks:
        """The model that wrote these."""
        return cls(tensors["points"], tensors["labels"], tensors["reach"], facts["k"])


@dataclass(frozen=True)
class Topics:
    """Latent Dirichlet allocation over items (Blei et al., JMLR 3, 2003): a user belongs to the topic of most events.

    Users without any item of the vocabulary belong to none.
    """

    kind: ClassVar[str] = "topics"

    words: Floats  # (k, V) exponential of the expected logarithm of each topic's item probabilities
    items: list[str]  # (V,)

    @property
    def k(self) -> int:
        """The number of topics."""
        return len(self.words)

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the population comes without items."""
        if population.items is None:
            raise ValueError("topics are found by items, and this population has none")
        counts = _in_vocabulary(population.items, population.item_names, self.items)
        fitted = LatentDirichletAllocation(self.k)
        fitted.components_ = fitted.exp_dirichlet_component_ = self.words
        fitted.doc_topic_prior_ = 1 / self.k
        known = np.asarray(counts.sum(axis=1)).ravel() > 0
        probability = np.zeros((len(population), self.k), np.float32)
        if known.any():
            with one_thread():
                probability[known] = fitted.transform(counts[known])
        return _most_probable(probability)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {"words": self.words}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {"items": self.items}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Topics:
        """The model that wrote these."""
        return cls(tensors["words"], list(facts["items"]))


@dataclass(frozen=True)
class Tiers:
    """High-value, potential and ordinary users, by scores of recency, frequency and value; see `clusterers.fit_tiers`."""

    kind: ClassVar[str] = "tiers"
    NAMES: ClassVar[tuple[str, ...]] = ("high-value", "potential", "ordinary")

    FALLING: ClassVar[frozenset[str]] = frozenset({"log_recency_days"})  # of these features, little is good

    features: list[str]  # (F,) engagement features
    cuts: Floats  # (F, 4) quintiles

    @property
    def k(self) -> int:
        """The number of tiers."""
        return len(self.NAMES)

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the population comes without the engagement features."""
        if population.engagement is None:
            raise ValueError("tiers are found by engagement, and this population has none")
        scores = np.zeros(len(population))
        for feature, cuts in zip(self.features, self.cuts, strict=True):
            column = population.engagement.matrix[:, population.engagement.names.index(feature)]
            above = np.searchsorted(cuts, column.astype(np.float64), side="left")
            scores += len(cuts) + 1 - above if feature in self.FALLING else above + 1
        mean = scores / len(self.features)
        return _certain(np.where(mean >= _HIGH_VALUE, 0, np.where(mean > _ORDINARY, 1, 2)), self.k)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {"cuts": self.cuts}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {"features": self.features}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Tiers:
        """The model that wrote these."""
        return cls(list(facts["features"]), tensors["cuts"])


@dataclass(frozen=True)
class Levels:
    """Each value of something nominal is a cluster; users with another value, or none known, belong to no cluster."""

    kind: ClassVar[str] = "levels"

    field: str  # "attribute" or "category" of the population
    values: list[str]

    @property
    def k(self) -> int:
        """The number of values."""
        return len(self.values)

    def place(self, population: Population) -> Placement:
        """See `Model.place`. Raises ValueError when the population comes without the field."""
        column = getattr(population, self.field)
        if column is None:
            raise ValueError(f"levels are those of {self.field}, and this population has none")
        return _certain(pd.Index(self.values, dtype=object).get_indexer(pd.Index(column, dtype=object)), self.k)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """See `Model`."""
        return {}

    def facts(self) -> dict[str, Any]:
        """See `Model`."""
        return {"field": self.field, "values": self.values}

    @classmethod
    def restore(cls, tensors: Tensors, facts: Facts) -> Levels:
        """The model that wrote these."""
        return cls(facts["field"], list(facts["values"]))


def _most_probable(probability: NDArray[np.float32]) -> Placement:
    """The most probable cluster of each row (U, k); none for a row of zeros."""
    if not probability.shape[1]:
        return Placement(np.full(len(probability), -1, np.int64), probability)
    return Placement(np.where(probability.any(axis=1), probability.argmax(axis=1), -1).astype(np.int64), probability)


def _certain(labels: NDArray[np.integer], k: int) -> Placement:
    """Labels (U,) that leave no doubt; -1 is none."""
    probability = (labels[:, None] == np.arange(k)).astype(np.float32)
    return Placement(labels.astype(np.int64), probability)


def _in_vocabulary(counts: sparse.csr_matrix, names: Sequence[str], vocabulary: list[str]) -> sparse.csr_matrix:
    """The columns (U, V) of `counts` that the vocabulary names, in its order; zeros for names that are not there."""
    column = pd.Index(vocabulary).get_indexer(pd.Index(names))
    cells = counts.tocoo()
    kept = column[cells.col] >= 0
    at = (cells.row[kept], column[cells.col[kept]])
    return sparse.csr_matrix((cells.data[kept].astype(np.float64), at), shape=(counts.shape[0], len(vocabulary)))


def _require_width(points: Points, width: int) -> None:
    if points.shape[1] != width:
        raise ValueError(f"clustering has {width} dimensions, the points {points.shape[1]}")


_KINDS = {model.kind: model for model in (Centers, Mixture, Landmarks, Topics, Tiers, Levels)}


def model_from(kind: str, tensors: Tensors, facts: Facts) -> Model:
    """The model that `to_tensors` and `facts` of a model of that kind wrote.

    Raises KeyError for an unknown kind.
    """
    return _KINDS[kind].restore(tensors, facts)
