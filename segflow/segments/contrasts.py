"""How a segment differs from everybody else: features, static attributes and categories, each with an interval.

What does not live here: the statistics themselves (`statistics.py`) and the choice of what to tell (`profiles.py`).
Every function returns plain rows (dictionaries); a figure that is undefined is None.
"""

from __future__ import annotations

import re
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
    eta_squared,
    log_ratio,
    standardized_difference,
    wasserstein,
)

Row = dict[str, Any]

# A number, a range of numbers, or an open range, such as "25-34", "Under 15K", "250K+": the parts that tell its place.
_RANGE = re.compile(
    r"\s*(?P<below>under|below|less than|up to|<=?)?\s*[$€£]?(?P<start>\d+(?:\.\d+)?)\s*[km%]?\s*"
    r"(?:(?:-|–|to)\s*[$€£]?\d+(?:\.\d+)?\s*[km%]?|(?P<above>\+|or more|and over))?\s*",
    re.IGNORECASE,
)


def feature_contrasts(features: UserFeatures, segments: Sequence[str], clustered_on: bool, min_cell: int) -> list[Row]:
    """Each numeric feature of each segment against all other users.

    Means, variances and medians are in natural units, Hedges' g with interval and the Wasserstein distance in pooled
    standard deviations. `segments[u]` is the segment of `features.user_ids[u]`. When the clustering saw the features,
    a difference is certain before any test, so such rows carry no p-value. Nothing is said with fewer than `min_cell`
    users on either side.
    """
    labels = np.asarray(segments)
    rows: list[Row] = []
    for segment in sorted(set(segments)):
        inside, outside = features.matrix[labels == segment], features.matrix[labels != segment]
        if min(len(inside), len(outside)) < max(min_cell, 2):
            continue
        contrast, distance = standardized_difference(inside, outside), wasserstein(inside, outside)
        for column, name in enumerate(features.names):
            if np.isnan(contrast.estimate[column]):
                continue
            rows.append(
                {"segment_id": segment, "kind": "feature", "feature": name, "clustered_on": clustered_on}
                | _location(name, inside[:, column], outside[:, column])
                | {"wasserstein": float(distance[column])}
                | _figures(contrast, column, "difference", clustered_on)
            )
    return rows


def _location(name: str, inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Row:
    figures: Row = {}
    for side, values in (("segment", inside), ("rest", outside)):
        figures["shown_as"], natural = natural_units(name, np.asarray(values, np.float64))
        figures[f"median_{side}"] = float(np.median(natural))
        figures[f"mean_{side}"] = float(natural.mean())
        figures[f"variance_{side}"] = float(natural.var(ddof=1))
    return figures


def attribute_contrasts(
    attributes: pd.DataFrame, members: pd.DataFrame, clustered_on: bool, min_cell: int
) -> list[Row]:
    """Share of each value of each static attribute in a segment against the rest, as a lift with interval.

    `attributes` has user_id, attribute and value, `members` user_id and segment_id. Shares are among users whose
    attribute is known. Interval of a ratio of proportions after Katz et al., Biometrics 34, 1978. Left out are values
    with fewer than `min_cell` users on either side; there is no p-value where the clustering saw the attributes.
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
                if min(inside[i, j], outside[i, j]) < min_cell:
                    continue
                rows.append(
                    {
                        "segment_id": segment,
                        "kind": "attribute",
                        "attribute": attribute,
                        "value": value,
                        "share_segment": float(inside[i, j] / size[i, 0]),
                        "share_rest": float(outside[i, j] / rest[i, 0]),
                        "clustered_on": clustered_on,
                    }
                    | _figures(contrast, (i, j), "lift", clustered_on)
                )
    return rows


def category_affinity(amounts: pd.DataFrame, members: pd.DataFrame, clustered_on: bool, min_cell: int) -> list[Row]:
    """Share of a segment's spend (or events) in each category against the rest's share, as a lift with interval.

    `amounts` has user_id, category and a non-negative amount, `members` user_id and segment_id. Users, not events,
    are the sampling unit: the error of a share is that of a ratio estimator linearized over users (Cochran, Sampling
    Techniques, 1977, chapter 6). Categories with fewer than `min_cell` users on either side are left out. Where the
    clustering saw what users take, categories had a part in it: the interval then tells the size of a difference, and
    there is no p-value, since it would be no independent evidence for the segments.
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
        enough = np.minimum(inside.users, outside.users) >= min_cell
        rows.extend(
            {
                "segment_id": segment,
                "kind": "category",
                "category": categories[int(j)],
                "share_segment": float(inside.share[j]),
                "share_rest": float(outside.share[j]),
                "clustered_on": clustered_on,
            }
            | _figures(contrast, j, "lift", clustered_on)
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


def attribute_associations(
    attributes: pd.DataFrame, members: pd.DataFrame, permutations: int, seed: int, min_cell: int
) -> list[Row]:
    """How much segments and each static attribute have in common, against chance; unknown values are left out.

    Cramer's V for every attribute; for one of numbers or of ranges of them also eta squared, of the numbers or of the
    places of the ranges in their order. `*_by_chance` is what users shuffled among the segments would show.
    """
    known = members.merge(attributes, on="user_id").dropna(subset=["value"]).sort_values("user_id")
    rows: list[Row] = []
    for attribute, frame in known.groupby("attribute", sort=True):
        if len(frame) < min_cell:
            continue
        segments, values = (pd.factorize(frame[column], sort=True)[0] for column in ("segment_id", "value"))
        nominal = cramers_v(segments, values, permutations, np.random.default_rng(seed))
        row = {
            "attribute": attribute,
            "users": len(frame),
            "cramers_v": _number(nominal.estimate),
            "cramers_v_by_chance": _number(nominal.by_chance),
            "p_value": _number(nominal.p_value),
            "eta_squared": None,
            "eta_squared_by_chance": None,
            "eta_p_value": None,
        }
        places = _places(frame["value"])
        if places is not None:
            ordered = eta_squared(segments, places, permutations, np.random.default_rng(seed))
            row["eta_squared"], row["eta_squared_by_chance"], row["eta_p_value"] = map(_number, ordered)
        rows.append(row)
    return rows


def _places(values: pd.Series) -> NDArray[np.float64] | None:
    """Numbers as they are, ranges as their place in order from 0; None when the values have no such order."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all():
        return numbers.to_numpy(np.float64)
    levels = {value: _RANGE.fullmatch(str(value)) for value in values.unique()}
    starts = {
        value: (float(found["start"]), -1 if found["below"] else 1 if found["above"] else 0)
        for value, found in levels.items()
        if found
    }
    if len(starts) < len(levels) or len(set(starts.values())) < len(levels):
        return None
    ranks = {value: rank for rank, value in enumerate(sorted(starts, key=lambda value: starts[value]))}
    return values.map(ranks).to_numpy(np.float64)


def adjust(rows: Sequence[Row]) -> list[Row]:
    """The rows with `q_value` added: Benjamini-Hochberg over every test in `rows` together."""
    p_values = [np.nan if row["p_value"] is None else row["p_value"] for row in rows]
    adjusted = benjamini_hochberg(p_values)
    return [row | {"q_value": _number(q)} for row, q in zip(rows, adjusted, strict=True)]


def _figures(contrast: Contrast, place: Any, estimate: str, clustered_on: bool) -> Row:
    return {
        estimate: _number(contrast.estimate[place]),
        "low": _number(contrast.low[place]),
        "high": _number(contrast.high[place]),
        "p_value": None if clustered_on else _number(contrast.p_value[place]),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
