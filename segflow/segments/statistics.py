"""Small statistics that the segment stage shares: overlaps of two partitions, contrasts with intervals, corrections.

What does not live here: anything that knows about users, events or segment names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, norm

_Z95 = float(norm.ppf(0.975))

Floats = NDArray[np.float64]


class Contrast(NamedTuple):
    """An estimate with its 95 % interval and the two-sided p-value of "no difference"; nan where undefined."""

    estimate: Floats
    low: Floats
    high: Floats
    p_value: Floats


def contingency(rows: NDArray[np.integer], columns: NDArray[np.integer], r: int, c: int) -> NDArray[np.int64]:
    """Counts (r, c) of the pairs of codes 0..r-1 and 0..c-1."""
    return np.bincount(np.asarray(rows) * c + np.asarray(columns), minlength=r * c).reshape(r, c)


def jaccard(counts: NDArray[np.int64]) -> Floats:
    """Jaccard similarity (r, c) of each row set and column set, from their contingency counts; 0 for two empty sets."""
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    return np.divide(counts, union, out=np.zeros(counts.shape), where=union > 0)


def standardized_difference(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Contrast:
    """Hedges' g of each column between two groups (n, F) and (m, F), with its normal-approximation interval.

    Hedges and Olkin, Statistical Methods for Meta-Analysis, 1985. A column without variation gives nan.
    """
    n, m = len(inside), len(outside)
    freedom = n + m - 2
    a, b = np.asarray(inside, np.float64), np.asarray(outside, np.float64)
    pooled = ((n - 1) * a.var(axis=0, ddof=1) + (m - 1) * b.var(axis=0, ddof=1)) / freedom
    varies = pooled > 1e-12  # below: rounding of float32 inputs
    difference = a.mean(axis=0) - b.mean(axis=0)
    d = np.divide(difference, np.sqrt(pooled), out=np.full(pooled.shape, np.nan), where=varies)
    g = d * (1 - 3 / (4 * freedom - 1))
    return _normal(g, np.sqrt((n + m) / (n * m) + g**2 / (2 * (n + m))))


def log_ratio(estimate: ArrayLike, error: ArrayLike) -> Contrast:
    """A ratio from its logarithm and the standard error of that logarithm: estimate and interval as ratios."""
    normal = _normal(np.asarray(estimate, np.float64), np.asarray(error, np.float64))
    return Contrast(np.exp(normal.estimate), np.exp(normal.low), np.exp(normal.high), normal.p_value)


def _normal(estimate: Floats, error: Floats) -> Contrast:
    valid = np.isfinite(estimate) & np.isfinite(error) & (error > 0)
    z = np.divide(estimate, error, out=np.full(np.shape(estimate), np.nan), where=valid)
    spread = np.where(valid, _Z95 * error, np.nan)
    return Contrast(np.where(valid, estimate, np.nan), estimate - spread, estimate + spread, 2 * norm.sf(np.abs(z)))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values that control the false discovery rate (Benjamini and Hochberg 1995); nan is no test."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested):
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return adjusted


class Association(NamedTuple):
    """Cramer's V of two nominal variables (0 none, 1 complete) and its permutation p-value."""

    cramers_v: float
    p_value: float


def cramers_v(
    first: NDArray[np.integer], second: NDArray[np.integer], permutations: int, rng: np.random.Generator
) -> Association:
    """Association of two code vectors of one length; the p-value is exact in level (Phipson and Smyth 2010).

    Returns nan for both when either variable has a single value.
    """
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    r, c = int(a.max(initial=0)) + 1, int(b.max(initial=0)) + 1
    if min(r, c) < 2:
        return Association(float("nan"), float("nan"))
    expected = np.outer(np.bincount(a), np.bincount(b)) / len(a)

    def chi_square(other: NDArray[np.integer]) -> float:
        return float(((contingency(a, other, r, c) - expected) ** 2 / expected).sum())

    observed = chi_square(b)
    # The small slack keeps ties ties: equal tables may differ in the last bits of the sum.
    as_large = sum(chi_square(rng.permutation(b)) >= observed * (1 - 1e-9) for _ in range(permutations))
    return Association(np.sqrt(observed / (len(a) * (min(r, c) - 1))), (1 + as_large) / (1 + permutations))
