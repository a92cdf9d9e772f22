"""Small statistics that the segment stage shares: overlaps of two partitions, contrasts with intervals, corrections.

What does not live here: anything that knows about users, events or segment names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, norm, random_table, wasserstein_distance

_Z95 = float(norm.ppf(0.975))
# Below: rounding of float32 inputs.
_SMALLEST_SPREAD = 1e-6
_CELLS_AT_ONCE = 4_000_000

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
    spread = np.sqrt(_pooled_variance(inside, outside))
    difference = inside.mean(axis=0, dtype=np.float64) - outside.mean(axis=0, dtype=np.float64)
    d = np.divide(difference, spread, out=np.full(spread.shape, np.nan), where=spread > _SMALLEST_SPREAD)
    g = d * (1 - 3 / (4 * freedom - 1))
    return _normal(g, np.sqrt((n + m) / (n * m) + g**2 / (2 * (n + m))))


def wasserstein(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Floats:
    """How far each column (n, F) must be moved to be distributed as the other's (m, F), in pooled standard deviations.

    The first Wasserstein distance: unlike a difference of means it sees shapes too. A column without variation gives nan.
    """
    spread = np.sqrt(_pooled_variance(inside, outside))
    distances = [wasserstein_distance(a, b) for a, b in zip(inside.T, outside.T, strict=True)]
    return np.divide(distances, spread, out=np.full(spread.shape, np.nan), where=spread > _SMALLEST_SPREAD)


def _pooled_variance(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Floats:
    n, m = len(inside), len(outside)
    a, b = np.asarray(inside, np.float64), np.asarray(outside, np.float64)
    pooled: Floats = ((n - 1) * a.var(axis=0, ddof=1) + (m - 1) * b.var(axis=0, ddof=1)) / (n + m - 2)
    return pooled


def log_ratio(estimate: ArrayLike, error: ArrayLike) -> Contrast:
    """A ratio from its logarithm and the standard error of that logarithm: estimate and interval as ratios."""
    normal = _normal(np.asarray(estimate, np.float64), np.asarray(error, np.float64))
    return Contrast(np.exp(normal.estimate), np.exp(normal.low), np.exp(normal.high), normal.p_value)


def _normal(estimate: Floats, error: Floats) -> Contrast:
    valid = np.isfinite(estimate) & np.isfinite(error) & (error > 0)
    z = np.divide(estimate, error, out=np.full(np.shape(estimate), np.nan), where=valid)
    spread = np.where(valid, _Z95 * error, np.nan)
    return Contrast(np.where(valid, estimate, np.nan), estimate - spread, estimate + spread, 2 * norm.sf(np.abs(z)))


def surely_above(share: float, units: int) -> float:
    """What a share seen among `units` independent units surely exceeds: the lower end of Wilson's 95 % interval (1927)."""
    z2 = _Z95**2 / units
    return float((share + z2 / 2 - np.sqrt(z2 * share * (1 - share) + z2**2 / 4)) / (1 + z2))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values that control the false discovery rate (Benjamini and Hochberg 1995); nan is no test."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested):
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return adjusted


class Association(NamedTuple):
    """How much two variables have in common (0 nothing, 1 all), the mean of that by chance, and its p-value."""

    estimate: float
    by_chance: float
    p_value: float


def cramers_v(
    first: NDArray[np.integer], second: NDArray[np.integer], permutations: int, rng: np.random.Generator
) -> Association:
    """Cramer's V of two code vectors of one length (n,), against permutations of one of them.

    Returns nan throughout when either variable has a single value.
    """
    counts = _cross(first, second)
    if min(counts.shape) < 2:
        return Association(np.nan, np.nan, np.nan)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    most = counts.sum() * (min(counts.shape) - 1)

    def statistic(tables: NDArray[np.integer]) -> Floats:
        return np.sqrt(((tables - expected) ** 2 / expected).sum(axis=(1, 2)) / most)

    return _against_chance(counts, statistic, permutations, rng)


def eta_squared(
    groups: NDArray[np.integer], values: NDArray[np.floating], permutations: int, rng: np.random.Generator
) -> Association:
    """Share of the variance of `values` (n,) that lies between the groups of codes (n,), against permutations.

    Returns nan throughout when there is a single group or a single value.
    """
    levels, codes = np.unique(np.asarray(values, np.float64), return_inverse=True)
    counts = _cross(groups, codes)
    if min(counts.shape) < 2:
        return Association(np.nan, np.nan, np.nan)
    centred = levels - counts.sum(axis=0) @ levels / counts.sum()
    total = float(counts.sum(axis=0) @ centred**2)
    size = counts.sum(axis=1)

    def statistic(tables: NDArray[np.integer]) -> Floats:
        return ((tables @ centred) ** 2 / size).sum(axis=1) / total

    return _against_chance(counts, statistic, permutations, rng)


def _cross(first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int64]:
    rows, a = np.unique(first, return_inverse=True)
    columns, b = np.unique(second, return_inverse=True)
    return contingency(a, b, len(rows), len(columns))


def _against_chance(
    counts: NDArray[np.int64], statistic: Callable[[NDArray[np.integer]], Floats], permutations: int,
    rng: np.random.Generator,
) -> Association:  # fmt: skip
    """The statistic of a table beside those of permuted users: tables (permutations, r, c) with the same margins.

    Permuted users give tables of this distribution (Patefield 1981), which costs what the table costs, not what the
    users do. The p-value is exact in level (Phipson and Smyth 2010).
    """
    observed = float(statistic(counts[None])[0])
    null = random_table(counts.sum(axis=1), counts.sum(axis=0))
    at_once = max(1, _CELLS_AT_ONCE // counts.size)
    sizes = [min(at_once, permutations - start) for start in range(0, permutations, at_once)]
    permuted = np.concatenate([statistic(null.rvs(size=size, random_state=rng)) for size in sizes])
    # The small slack keeps ties ties: equal tables may differ in the last bits of the sum.
    as_large = int((permuted >= observed * (1 - 1e-9)).sum())
    return Association(observed, float(permuted.mean()), (1 + as_large) / (1 + permutations))
