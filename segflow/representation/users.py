"""User vectors: engagement features, pooled text profiles, static attributes, and the fusion of views into one vector.

What does not live here: the encoding of text and the behaviour model (they hand their vectors in), and the clustering.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from segflow import sql
from segflow.config import UserEmbeddingConfig
from segflow.errors import UserError

FloatArray = NDArray[np.float32]

# Counts, durations and amounts are heavy-tailed: they enter as sign(x) * ln(1 + |x|) under the name "log_<name>".
# Shares, entropy and the price level are already bounded or logarithmic.
_LOGGED = (
    "recency_days",
    "tenure_days",
    "sessions_per_week_recent",
    "sessions_per_week_long",
    "value_total",
    "value_per_session",
    "events_per_session",
    "minutes_per_session",
    "gap_days_mean",
    "gap_days_std",
    "distinct_items",
    "distinct_categories",
)


# A value that fewer users share says who somebody is rather than what they are like.
_RARE_SHARE = 0.01


class UserFeatures(NamedTuple):
    """One view of the users: row u of `matrix` (U, F) float32 describes `user_ids[u]`; column f is `names[f]`."""

    user_ids: list[str]
    matrix: FloatArray
    names: list[str]


def engagement_features(
    events: pa.Table,
    sessions: pa.Table,
    week_start: datetime,
    config: UserEmbeddingConfig,
    prices: pa.Table | None = None,
) -> UserFeatures:
    """Recency, frequency, value, rhythm, variety and price level of every user with an event before `week_start`.

    `events` has user_id, item_id, event_type, ts, value and category (top level, or null); `sessions` has user_id,
    start, end, events and value. Times are UTC; `week_start` without a zone is taken as UTC. Rows at or after
    `week_start` are ignored. Rows come back in the order of user_id. `prices` are `category_prices` of the whole log, where
    `events` are those of some users. The features extend the recency-frequency-monetary scheme (Hughes, Strategic Database
    Marketing, 1994).
    """
    start = _without_zone(week_start)
    statement = sql.render(
        "representation/engagement.sql", week_start=start, recent_days=config.recent_days, long_days=config.long_days
    )
    # One thread: sums of floats depend on their order, and the same log must give the same bytes.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("events", events)
        connection.register("sessions", sessions)
        if prices is None:
            prices = category_prices(connection, week_start, config)
        connection.register("category_prices", prices)
        rows = connection.sql(statement).to_arrow_table()
    names = [name for name in rows.column_names if name != "user_id"]
    columns = []
    for name in names:
        column = rows[name].to_numpy().astype(np.float64)
        columns.append(np.sign(column) * np.log1p(np.abs(column)) if name in _LOGGED else column)
    matrix = np.stack(columns, axis=1).astype(np.float32)
    named = [f"log_{name}" if name in _LOGGED else name for name in names]
    return UserFeatures(rows["user_id"].to_pylist(), matrix, named)


def category_prices(
    connection: duckdb.DuckDBPyConnection, week_start: datetime, config: UserEmbeddingConfig
) -> pa.Table:
    """category and mean_log_value of what the view `events` holds of the long window; the same in whatever order it is added."""
    start = _without_zone(week_start)
    statement = sql.render("representation/category_prices.sql", week_start=start, long_days=config.long_days)
    return connection.sql(statement).to_arrow_table()


def _without_zone(moment: datetime) -> datetime:
    """In UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def natural_units(name: str, values: NDArray[np.floating]) -> tuple[str, NDArray[np.floating]]:
    """Name and values of a feature in the units a person reads: undoes the logarithm of the "log_" features."""
    if not name.startswith("log_"):
        return name, values
    return name.removeprefix("log_"), np.sign(values) * np.expm1(np.abs(values))


class TextProfiles:
    """Recency-decayed weighted mean direction of each user's sessions, whose vectors are there for a moment only.

    Holds (users, D) float32, and nothing of a session.
    """

    def __init__(self, users: int, half_life_days: float) -> None:
        self._users, self._half_life = users, half_life_days
        self._sums: FloatArray | None = None

    def add(
        self,
        session_vectors: FloatArray,
        session_user: NDArray[np.integer],
        session_days_ago: NDArray[np.floating],
        weights: NDArray[np.floating],
    ) -> None:
        """Session s (row of `session_vectors` (S, D)) belongs to user `session_user[s]`, lies `session_days_ago[s]` days back
        and counts `weights[s]` * 2 ** (-days / half_life_days).

        Raises ValueError when a session lies in the future.
        """
        if len(session_days_ago) and float(session_days_ago.min()) < 0:
            raise ValueError("text profiles: a session lies after the snapshot (days ago < 0)")
        decayed = np.asarray(weights, np.float64) * np.exp2(-np.asarray(session_days_ago, np.float64) / self._half_life)
        if self._sums is None:
            self._sums = np.zeros((self._users, session_vectors.shape[1]), np.float32)
        rows, place = np.unique(session_user, return_inverse=True)
        pool = sparse.csr_matrix((decayed, (place, np.arange(len(decayed)))), shape=(len(rows), len(decayed)))
        self._sums[rows] += pool @ session_vectors.astype(np.float64)

    def finish(self) -> FloatArray:
        """(users, D) of unit length; a user without sessions has a zero row. Nothing can be added afterwards."""
        sums, self._sums = self._sums, None
        if sums is None:
            return np.zeros((self._users, 0), np.float32)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.divide(sums, length, out=sums, where=length > 0)


def text_profiles(
    session_vectors: FloatArray,
    session_user: NDArray[np.integer],
    session_days_ago: NDArray[np.floating],
    weights: NDArray[np.floating],
    half_life_days: float,
    users: int,
) -> FloatArray:
    """(users, D) float32 `TextProfiles` of sessions that are all there at once; raises ValueError as it does."""
    profiles = TextProfiles(users, half_life_days)
    profiles.add(session_vectors, session_user, session_days_ago, weights)
    return profiles.finish()


def attribute_features(attributes: pa.Table, users: list[str]) -> UserFeatures:
    """Static attributes of `users`, one-hot: (U, A) float32 of 0 and 1 with columns named `attribute=value`.

    `attributes` has user_id, attribute and value. Values that fewer than 1 % of the users with the attribute have are
    one column, `attribute=other`. A user without the attribute has zeros there.
    """
    row = pc.index_in(attributes["user_id"], pa.array(users, pa.string()))
    rows, row = attributes.filter(row.is_valid()), row.drop_null().to_numpy()
    pairs = pc.binary_join_element_wise(rows["attribute"], rows["value"], "=").combine_chunks().dictionary_encode()
    code, texts = pairs.indices.to_numpy(), pairs.dictionary.to_pylist()
    holders = np.bincount(code, minlength=len(texts))
    attribute = [text.split("=", 1)[0] for text in texts]
    known = {one: sum(n for n, name in zip(holders, attribute, strict=True) if name == one) for one in set(attribute)}
    shown = [
        text if count >= _RARE_SHARE * known[name] else f"{name}=other"
        for text, count, name in zip(texts, holders, attribute, strict=True)
    ]
    names = sorted(set(shown))
    column = np.array([names.index(one) for one in shown], int)
    found = np.zeros((len(users), len(names)), np.float32)
    found[row, column[code]] = 1.0
    return UserFeatures(users, found, names)


@dataclass(frozen=True)
class ViewProjection:
    """How one view (U, d) becomes its block (U, p) of the fused vector: (x - mean) @ projection."""

    mean: NDArray[np.float64]  # (d,)
    projection: NDArray[np.float64]  # (d, p): standardization, principal axes and the view's weight in one matrix


@dataclass(frozen=True)
class Fusion:
    """A fitted fusion: applies to any users that have the same views."""

    views: dict[str, ViewProjection]

    @property
    def columns(self) -> list[str]:
        """Names of the fused columns: `<view>_pc<number>`, numbers from 1."""
        return [f"{name}_pc{axis + 1}" for name, view in self.views.items() for axis in range(view.projection.shape[1])]

    def apply(self, views: Mapping[str, FloatArray]) -> FloatArray:
        """The fused vectors (U, D) float32 of users described by `views` (each (U, d) with the fitted width d)."""
        if set(views) != set(self.views):
            raise ValueError(f"fusion was fitted on the views {sorted(self.views)}, not on {sorted(views)}")
        blocks = [(views[name] - view.mean) @ view.projection for name, view in self.views.items()]
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def to_tensors(self) -> dict[str, NDArray[np.float64]]:
        """Everything needed to rebuild the fusion, as named arrays for safetensors."""
        tensors = {}
        for name, view in self.views.items():
            tensors[f"{name}.mean"] = view.mean
            tensors[f"{name}.projection"] = np.ascontiguousarray(view.projection)
        return tensors

    @staticmethod
    def from_tensors(tensors: Mapping[str, NDArray[np.float64]]) -> Fusion:
        """The fusion written by `to_tensors`."""
        names = sorted(key.removesuffix(".mean") for key in tensors if key.endswith(".mean"))
        return Fusion({n: ViewProjection(tensors[f"{n}.mean"], tensors[f"{n}.projection"]) for n in names})


class Fused(NamedTuple):
    """Fused users (U, D) float32, their column names, and the fitted fusion for other users."""

    matrix: FloatArray
    columns: list[str]
    fusion: Fusion


def fuse(views: Mapping[str, FloatArray], config: UserEmbeddingConfig) -> Fused:
    """Standardize each view (U, d), keep its first principal components, weight and concatenate them.

    Each block is scaled to a total variance equal to the view's weight (weights sum to one), so that a weight is the
    view's share of the mean squared distance between two users however many columns it has; compare the block
    scaling of multiple factor analysis (Escofier and Pages, 1994). Principal components from scikit-learn with the
    sign that makes the largest loading positive. Columns that do not vary are dropped from the distance; a view
    that does not vary at all adds zeros. Views are taken in the order of their names.

    Raises UserError when no view has a positive weight.
    """
    configured = {str(name): weight for name, weight in config.view_weights.items()}
    weights = {name: configured.get(name, 1.0) for name in sorted(views)}
    total = sum(weights.values())
    if total <= 0:
        raise UserError(f"users.view_weights are 0 for {', '.join(weights)}; give at least one a positive weight")
    fusion = Fusion({name: _project(views[name], config.view_dims, weights[name] / total) for name in weights})
    return Fused(fusion.apply(views), fusion.columns, fusion)


def _project(view: FloatArray, dims: int, weight: float) -> ViewProjection:
    exact = view.astype(np.float64)
    mean, spread = exact.mean(axis=0), exact.std(axis=0)
    # float32 inputs: a spread this far below the magnitude is rounding, not variation.
    varies = spread > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
    components = min(dims, int(varies.sum()), len(view) - 1)
    if components < 1:
        return ViewProjection(mean, np.zeros((view.shape[1], 1)))
    pca = PCA(n_components=components, svd_solver="covariance_eigh").fit((exact - mean) * scale)
    block = np.sqrt(weight / pca.explained_variance_.sum())
    return ViewProjection(mean, scale[:, None] * pca.components_.T * block)
