"""How a segment differs from everybody else: features, static attributes and categories, each with an interval.

What does not live here: the statistics themselves (`statistics.py`) and the choice of what to tell (`profiles.py`).
Every function returns plain rows (dictionaries); a figure that is undefined is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from segflow.representation.users import UserFeatures, natural_units
from segflow.segments.statistics import (
    Contrast,
    benjamini_hochberg,
    cramers_v,
    log_ratio,
    standardized_difference,
)

Row = dict[str, Any]

# With fewer users than this behind a share, the normal approximation of its logarithm says little.
MIN_USERS = 10
# Items and steps that are hardly more common than elsewhere set nobody apart, however frequent.
_MIN_LIFT = 1.2


def feature_contrasts(features: UserFeatures, segments: Sequence[str], clustered_on: bool) -> list[Row]:
    """Each feature of each segment against all other users: medians in natural units and Hedges' g with interval.

    `segments[u]` is the segment of `features.user_ids[u]`. When the clustering saw the features, a difference is
    certain before any test, so such rows carry no p-value.
    """
    labels = np.asarray(segments)
    rows: list[Row] = []
    for segment in sorted(set(segments)):
        inside, outside = features.matrix[labels == segment], features.matrix[labels != segment]
        if min(len(inside), len(outside)) < MIN_USERS:
            continue
        contrast = standardized_difference(inside, outside)
        for column, name in enumerate(features.names):
            if np.isnan(contrast.estimate[column]):
                continue
            shown, medians = natural_units(name, np.array([np.median(x[:, column]) for x in (inside, outside)]))
            rows.append(
                {
                    "segment_id": segment,
                    "kind": "feature",
                    "feature": name,
                    "shown_as": shown,
                    "median_segment": float(medians[0]),
                    "median_rest": float(medians[1]),
                    "clustered_on": clustered_on,
                }
                | _figures(contrast, column, "difference")
            )
            if clustered_on:
                rows[-1]["p_value"] = None
    return rows


def attribute_contrasts(attributes: pd.DataFrame, members: pd.DataFrame) -> list[Row]:
    """Share of each value of each static attribute in a segment against the rest, as a lift with interval.

    `attributes` has user_id, attribute and value, `members` user_id and segment_id. Shares are among users whose
    attribute is known. Interval of a ratio of proportions after Katz et al., Biometrics 34, 1978.
    """
    known = members.merge(attributes, on="user_id").dropna(subset=["value"])
    rows: list[Row] = []
    for attribute, frame in known.groupby("attribute", sort=True):
        table = pd.crosstab(frame["segment_id"], frame["value"]).sort_index(axis=0).sort_index(axis=1)
        inside = table.to_numpy(np.float64)
        size = inside.sum(axis=1, keepdims=True)
        outside = inside.sum(axis=0, keepdims=True) - inside
        rest = size.sum() - size
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(inside / size) - np.log(outside / rest)
            error = np.sqrt(1 / inside - 1 / size + 1 / outside - 1 / rest)
        contrast = log_ratio(ratio, error)
        for i, segment in enumerate(table.index):
            for j, value in enumerate(table.columns):
                if min(inside[i, j], outside[i, j]) < MIN_USERS:
                    continue
                rows.append(
                    {
                        "segment_id": segment,
                        "kind": "attribute",
                        "attribute": attribute,
                        "value": value,
                        "share_segment": float(inside[i, j] / size[i, 0]),
                        "share_rest": float(outside[i, j] / rest[i, 0]),
                    }
                    | _figures(contrast, (i, j), "lift")
                )
    return rows


def category_affinity(amounts: pd.DataFrame, members: pd.DataFrame) -> list[Row]:
    """Share of a segment's spend (or events) in each category against the rest's share, as a lift with interval.

    `amounts` has user_id, category and a non-negative amount, `members` user_id and segment_id. Users, not events,
    are the sampling unit: the error of a share is that of a ratio estimator linearized over users (Cochran, Sampling
    Techniques, 1977, chapter 6). Categories with fewer than ten users on either side are left out. Where text or
    behaviour was clustered on, categories had an indirect part in it: the interval then tells the size of a
    difference, and its p-value is no independent evidence for the segments.
    """
    users = pd.Index(members["user_id"])
    rows_of = users.get_indexer(pd.Index(amounts["user_id"]))
    codes, categories = pd.factorize(amounts["category"], sort=True)
    kept = rows_of >= 0
    cells = (amounts["amount"].to_numpy(np.float64)[kept], (rows_of[kept], codes[kept]))
    table = sparse.csr_matrix(cells, shape=(len(users), len(categories)))
    labels = members["segment_id"].to_numpy()
    rows: list[Row] = []
    for segment in sorted(set(labels)):
        inside = _Shares(table[labels == segment])
        outside = _Shares(table[labels != segment])
        with np.errstate(divide="ignore", invalid="ignore"):
            contrast = log_ratio(np.log(inside.share) - np.log(outside.share), np.hypot(inside.error, outside.error))
        enough = np.minimum(inside.users, outside.users) >= MIN_USERS
        rows.extend(
            {
                "segment_id": segment,
                "kind": "category",
                "category": categories[int(j)],
                "share_segment": float(inside.share[j]),
                "share_rest": float(outside.share[j]),
            }
            | _figures(contrast, j, "lift")
            for j in np.flatnonzero(enough)
        )
    return rows


class _Shares:
    """Category shares of a group: the share, the error of its logarithm, and the users behind each category."""

    def __init__(self, table: sparse.csr_matrix) -> None:
        total = np.asarray(table.sum(axis=1)).ravel()
        of_category = np.asarray(table.sum(axis=0)).ravel()
        n = len(total)
        self.users = np.asarray((table > 0).sum(axis=0)).ravel()
        self.share = of_category / max(total.sum(), np.finfo(float).tiny)
        # Sum over users of (amount - share * total)^2, expanded so that the table stays sparse.
        squares = np.asarray(table.multiply(table).sum(axis=0)).ravel()
        residual = squares - 2 * self.share * (table.T @ total) + self.share**2 * (total**2).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            self.error: NDArray[np.float64] = np.sqrt(np.maximum(residual, 0) * n / max(n - 1, 1)) / of_category


def attribute_associations(attributes: pd.DataFrame, members: pd.DataFrame, permutations: int, seed: int) -> list[Row]:
    """Cramer's V between segment and each static attribute, with a permutation p-value; unknown values left out."""
    known = members.merge(attributes, on="user_id").dropna(subset=["value"]).sort_values("user_id")
    rows: list[Row] = []
    for attribute, frame in known.groupby("attribute", sort=True):
        segments, values = (pd.factorize(frame[column], sort=True)[0] for column in ("segment_id", "value"))
        found = cramers_v(segments, values, permutations, np.random.default_rng(seed))
        rows.append(
            {
                "attribute": attribute,
                "users": len(frame),
                "cramers_v": _number(found.cramers_v),
                "p_value": _number(found.p_value),
            }
        )
    return rows


def adjust(rows: Sequence[Row]) -> list[Row]:
    """The rows with `q_value` added: Benjamini-Hochberg over every test in `rows` together."""
    p_values = [np.nan if row["p_value"] is None else row["p_value"] for row in rows]
    adjusted = benjamini_hochberg(p_values)
    return [row | {"q_value": _number(q)} for row, q in zip(rows, adjusted, strict=True)]


def distinctive_items(counts: pd.DataFrame, top: int) -> list[Row]:
    """The items that set each segment apart, by class-based TF-IDF: `top` rows per segment, best first.

    `counts` has segment_id, item_id, events and users. c-TF-IDF as in BERTopic (Grootendorst 2022, arXiv:2203.05794):
    an item's share of the segment's events, times log(1 + A / f) with A the mean events per segment and f the
    item's events overall. What is popular everywhere scores high as well, so only items with at least ten users and
    a lift of 1.2 over the other segments are kept.
    """
    if counts.empty:
        return []
    items, catalogue = pd.factorize(counts["item_id"], sort=True)
    rows_of, segments = pd.factorize(counts["segment_id"], sort=True)
    shape = (len(segments), len(catalogue))
    events, users = np.zeros(shape), np.zeros(shape)
    events[rows_of, items] = counts["events"]
    users[rows_of, items] = counts["users"]
    size = events.sum(axis=1, keepdims=True)
    overall = events.sum(axis=0)
    score = events / size * np.log1p(size.mean() / overall)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (events / size) / ((overall - events) / (size.sum() - size))
    rows: list[Row] = []
    for i, segment in enumerate(segments):
        kept = np.flatnonzero((users[i] >= MIN_USERS) & (lift[i] >= _MIN_LIFT))
        best = kept[np.argsort(-score[i, kept], kind="stable")][:top]
        rows.extend(
            {
                "segment_id": segment,
                "item_id": catalogue[j],
                "c_tf_idf": float(score[i, j]),
                "lift": _number(lift[i, j]),
                "users": int(users[i, j]),
            }
            for j in best
        )
    return rows


def transition_lifts(counts: pd.DataFrame, top: int) -> list[Row]:
    """The steps that set each segment's journeys apart: `top` rows per segment, best first.

    `counts` has segment_id, from_state, to_state, steps and users. `probability` is that of the next state given the
    present one (a first-order Markov chain); the lift divides it by the same probability among all other users.
    Kept are steps with ten users on either side and a lift of 1.2, in the order of their part in the divergence of
    the two chains (share of the segment's steps * log lift): by lift alone the rarest steps would lead.
    """
    states = pd.Index(sorted(set(counts["from_state"]) | set(counts["to_state"])))
    origins = states.get_indexer(pd.Index(counts["from_state"]))
    targets = states.get_indexer(pd.Index(counts["to_state"]))
    rows_of, segments = pd.factorize(counts["segment_id"], sort=True)
    shape = (len(segments), len(states), len(states))
    steps, users = np.zeros(shape), np.zeros(shape)
    steps[rows_of, origins, targets] = counts["steps"]
    users[rows_of, origins, targets] = counts["users"]
    rows: list[Row] = []
    for i, segment in enumerate(segments):
        rest = steps.sum(axis=0) - steps[i]
        with np.errstate(divide="ignore", invalid="ignore"):
            probability = steps[i] / steps[i].sum(axis=1, keepdims=True)
            lift = probability / (rest / rest.sum(axis=1, keepdims=True))
        enough = np.minimum(users[i], users.sum(axis=0) - users[i]) >= MIN_USERS
        origin, target = np.nonzero(enough & (lift >= _MIN_LIFT))
        part = steps[i, origin, target] * np.log(lift[origin, target])
        best = np.argsort(-part, kind="stable")[:top]
        rows.extend(
            {
                "segment_id": segment,
                "from": states[origin[b]],
                "to": states[target[b]],
                "probability": float(probability[origin[b], target[b]]),
                "lift": float(lift[origin[b], target[b]]),
                "users": int(users[i, origin[b], target[b]]),
            }
            for b in best
        )
    return rows


def _figures(contrast: Contrast, place: Any, estimate: str) -> Row:
    return {
        estimate: _number(contrast.estimate[place]),
        "low": _number(contrast.low[place]),
        "high": _number(contrast.high[place]),
        "p_value": _number(contrast.p_value[place]),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
