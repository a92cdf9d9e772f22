"""How sure a mean or a difference is: bootstrap and permutation of users, detectable effects, noise of seeds.

What lives here: estimates with intervals for any per-user numbers. What does not: which arms are compared and
what follows from it (summary.py, verdict.py). The user is the unit everywhere: values of several seeds are averaged
per user before they come here, and the weeks of one user are drawn together, because neither are independent
observations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.stats import f as fisher
from scipy.stats import t as student

# Weights of users held in memory at once; 4 million are 32 MB.
_CHUNK_CELLS = 4_000_000
# Sums of the same numbers may differ in the last bits; a tie must stay one.
_TIE = 1e-9

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty; `p_value` tests whether the mean is 0 (two-sided)."""

    mean: float
    low: float
    high: float
    standard_error: float
    p_value: float
    minimum_detectable_effect: float
    users: int


def estimate(
    values: FloatArray, *, confidence: float, power: float, samples: int, seed: int, users: IntArray | None = None
) -> list[Estimate]:
    """One Estimate for each column of values (R, M): the mean over rows and how sure it is.

    The mean counts every row alike, so the mean over several weeks is that of the weeks' means by their numbers of
    users. What is drawn and flipped is a user with all their rows (cluster bootstrap, Davison & Hinkley 1997, ch. 3.8).
    All columns share what is drawn; pass paired differences as columns to compare two arms.

    - `low` and `high`: the wider, at each end, of the bootstrap percentile interval (Efron & Tibshirani 1993, ch. 13)
      and Student's with the standard error. Differences of NDCG are mostly zeros with a few large values, where the
      percentile interval of some hundred users is too narrow, and skewed, where Student's is; BCa and studentized
      intervals did worse than these two.
    - `standard_error`: over users, robust to what the rows of one user share (Liang & Zeger 1986).
    - `p_value`: signs of users flipped at random (Fisher 1935, Pitman 1937), exact in level where the two arms could be
      exchanged; never below 1 / (samples + 1) (Phipson & Smyth 2010).

    Args:
        users: (R,) codes 0..U-1 of the rows' users; each row is a user of its own when left out.

    Raises ValueError on fewer than 2 users, a code without a row, or NaN.
    """
    rows = np.arange(len(values)) if users is None else users
    sizes = np.bincount(rows).astype(np.float64)
    count = len(sizes)
    if count < 2 or not sizes.all() or np.isnan(values).any():
        raise ValueError(f"an estimate needs at least 2 users, a row of each and no NaN, got {count} users")
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, rows, values)
    mean = sums.sum(axis=0) / len(values)
    spread = np.sqrt(((sums - sizes[:, None] * mean) ** 2).sum(axis=0) * count / (count - 1))
    error = spread / len(values)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(bootstrap_means(sums, sizes, samples, seed), [tail, 1.0 - tail], axis=0)
    reach = student.ppf(1.0 - tail, count - 1) * error
    p_values = sign_flip_p_values(sums, samples, seed)
    return [
        Estimate(
            mean=float(mean[column]),
            low=float(min(low[column], mean[column] - reach[column])),
            high=float(max(high[column], mean[column] + reach[column])),
            standard_error=float(error[column]),
            p_value=float(p_values[column]),
            minimum_detectable_effect=minimum_detectable_effect(
                float(error[column]), confidence=confidence, power=power
            ),
            users=count,
        )
        for column in range(values.shape[1])
    ]


def bootstrap_means(sums: FloatArray, sizes: FloatArray, samples: int, seed: int) -> FloatArray:
    """Means (samples, M) of users drawn with replacement, from their sums (U, M) over `sizes` (U,) rows.

    Memory stays near 100 MB whatever U and `samples` are, up to U of 4 million.
    """
    rng = np.random.default_rng(seed)
    users = len(sums)

    def times_drawn(size: int) -> FloatArray:
        drawn = rng.integers(0, users, size=(size, users)) + np.arange(size)[:, None] * users
        return np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)

    totals = _weighted_sums(times_drawn, np.column_stack([sums, sizes]), samples)
    means: FloatArray = totals[:, :-1] / totals[:, -1:]
    return means


def sign_flip_p_values(sums: FloatArray, samples: int, seed: int) -> FloatArray:
    """How often (M,) random signs of the users' sums (U, M) make a total as far from 0 as theirs."""
    # A stream apart from the resamples of the same seed.
    rng = np.random.default_rng([seed, 1])

    def signs(size: int) -> FloatArray:
        return (2 * rng.integers(0, 2, size=(size, len(sums)), dtype=np.int8) - 1).astype(np.float64)

    flipped = np.abs(_weighted_sums(signs, sums, samples))
    observed = np.abs(sums.sum(axis=0))
    p_values: FloatArray = (1.0 + (flipped >= observed * (1.0 - _TIE)).sum(axis=0)) / (1.0 + samples)
    return p_values


def _weighted_sums(weights: Callable[[int], FloatArray], columns: FloatArray, samples: int) -> FloatArray:
    """The columns (U, M) summed by `samples` rows of weights over users, made a chunk at a time: (samples, M)."""
    chunk = max(1, _CHUNK_CELLS // len(columns))
    sizes = [min(chunk, samples - start) for start in range(0, samples, chunk)]
    return np.concatenate([weights(size) @ columns for size in sizes])


def together(parts: Sequence[Estimate], confidence: float) -> tuple[float, float]:
    """Mean over the users of disjoint groups, and the lower end of its normal interval, from the groups' estimates."""
    users = np.array([part.users for part in parts], np.float64)
    mean = float(users @ [part.mean for part in parts] / users.sum())
    error = float(np.linalg.norm(users * [part.standard_error for part in parts]) / users.sum())
    return mean, mean - NormalDist().inv_cdf((1.0 + confidence) / 2.0) * error


def same_mean_p_value(parts: Sequence[Estimate]) -> float:
    """Whether disjoint groups of users may all have one mean: analysis of variance (Fisher 1925), from their estimates.

    The variance within groups is pooled, for that of a small group is known badly, and a group that nothing was done for
    has none. 1 for less than two groups.
    """
    if len(parts) < 2:
        return 1.0
    users = np.array([part.users for part in parts], np.float64)
    means = np.array([part.mean for part in parts])
    freedom = len(parts) - 1, float((users - 1.0).sum())
    within = (users - 1.0) @ (users * np.array([part.standard_error**2 for part in parts])) / freedom[1]
    between = users @ (means - users @ means / users.sum()) ** 2 / freedom[0]
    if within == 0.0:
        return float(between == 0.0)
    return float(fisher.sf(between / within, *freedom))


def seed_share(values: FloatArray, standard_error: float) -> float:
    """How much of the squared standard error of a mean over users is noise of the seeds, 0 to 1.

    Each row's mean over S seeds carries its variance between seeds divided by S. What a seed does to all users alike is
    left out, since a standard error over users does not hold it: the spread of the seeds' means tells that, and no number
    of users makes it smaller.

    Args:
        values: (S, R) of at least two seeds.
        standard_error: of the mean over the R rows after averaging the seeds.
    """
    seeds, rows = values.shape
    apart = values - values.mean(axis=1, keepdims=True)
    noise = float(apart.var(axis=0, ddof=1).mean()) / (seeds * rows)
    return min(1.0, noise / standard_error**2) if standard_error > 0.0 else 0.0


def minimum_detectable_effect(standard_error: float, *, confidence: float, power: float) -> float:
    """The true mean that a two-sided test at level 1 - confidence finds with probability `power`.

    (z of 1 - alpha / 2 plus z of power) times the standard error (Bloom 1995, Evaluation Review 19:547-556).
    """
    normal = NormalDist()
    return (normal.inv_cdf((1.0 + confidence) / 2.0) + normal.inv_cdf(power)) * standard_error
