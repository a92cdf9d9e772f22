"""How sure a mean or a difference is: bootstrap over users, detectable effects, multiplicity.

What lives here: estimates with intervals for any per-user numbers. What does not: which arms are compared and
what follows from it (summary.py, verdict.py). The user is the unit everywhere: values of several seeds are
averaged per user before they come here, because seeds of one user are no independent observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# Resampled users held in memory at once; 4 million counts are 32 MB.
_CHUNK_CELLS = 4_000_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its uncertainty; `p_value` tests whether the mean is 0 (two-sided)."""

    mean: float
    low: float
    high: float
    standard_error: float
    p_value: float
    minimum_detectable_effect: float
    users: int


def bootstrap_means(values: FloatArray, samples: int, seed: int) -> FloatArray:
    """Means of `samples` resamples of the rows of values (U, M), drawn with replacement: (samples, M).

    All columns share each resample, so a difference of two columns is a paired difference.
    Memory stays near 100 MB whatever U and `samples` are, up to U of 4 million.
    """
    users = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((samples, values.shape[1]))
    chunk = max(1, _CHUNK_CELLS // users)
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = rng.integers(0, users, size=(size, users)) + np.arange(size)[:, None] * users
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        means[start : start + size] = counts.astype(np.float64) @ values / users
    return means


def estimate(values: FloatArray, *, confidence: float, power: float, samples: int, seed: int) -> list[Estimate]:
    """One Estimate for each column of values (U, M): the mean over users and how sure it is.

    The interval is the bootstrap percentile interval (Efron & Tibshirani 1993, ch. 13). The p-value inverts
    it: twice the smaller share of resampled means on either side of 0, both counted with one added
    (Davison & Hinkley 1997, ch. 4), hence never below 2 / (samples + 1).
    Pass paired differences as columns to compare two arms. Raises ValueError on fewer than 2 users or NaN.
    """
    users = len(values)
    if users < 2 or np.isnan(values).any():
        raise ValueError(f"an estimate needs at least 2 users and no NaN, got {users} users")
    means = bootstrap_means(values, samples, seed)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    one_sided = np.minimum((means <= 0.0).sum(axis=0), (means >= 0.0).sum(axis=0))
    p_values = np.minimum(1.0, 2.0 * (one_sided + 1.0) / (samples + 1.0))
    errors = values.std(axis=0, ddof=1) / np.sqrt(users)
    return [
        Estimate(
            mean=float(values[:, column].mean()),
            low=float(low[column]),
            high=float(high[column]),
            standard_error=float(errors[column]),
            p_value=float(p_values[column]),
            minimum_detectable_effect=minimum_detectable_effect(
                float(errors[column]), confidence=confidence, power=power
            ),
            users=users,
        )
        for column in range(values.shape[1])
    ]


def minimum_detectable_effect(standard_error: float, *, confidence: float, power: float) -> float:
    """The true mean that a two-sided test at level 1 - confidence finds with probability `power`.

    (z of 1 - alpha / 2 plus z of power) times the standard error (Bloom 1995, Evaluation Review 19:547-556).
    """
    normal = NormalDist()
    return (normal.inv_cdf((1.0 + confidence) / 2.0) + normal.inv_cdf(power)) * standard_error
