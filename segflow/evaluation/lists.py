"""Properties of recommended lists that need no ground truth: coverage, novelty, diversity, calibration.

What lives here: one row of such figures per arm. What does not: accuracy (metrics.py). High accuracy with low
coverage or poor calibration means that everyone is shown the same few things.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ListQuality:
    """Averages over the recommended lists of one arm; see `list_quality` for each definition."""

    arm: str
    coverage: float
    novelty: float
    diversity: float
    miscalibration: float


def list_quality(
    arm: str,
    recommended: npt.NDArray[np.integer],
    popularity: npt.NDArray[np.floating],
    categories: npt.NDArray[np.integer],
    history: npt.NDArray[np.floating],
) -> ListQuality:
    """How varied, fresh and fitting the recommended lists are.

    recommended: (U, N) candidate indices; popularity: (C,) past users or events of each candidate;
    categories: (C,) category code of each candidate; history: (U, G) each user's past events per category.

    - coverage: share of candidates recommended to at least one user;
    - novelty: mean of -log2 of a recommended item's share of all popularity, in bits (Vargas & Castells 2011);
      an item without history counts as if it had been seen once;
    - diversity: mean share of pairs within a list whose categories differ;
    - miscalibration: mean Jensen-Shannon divergence, in bits, between the categories of the list and of the user's
      history (after Steck 2018), over users with a history: 0 when they agree, 1 when they share nothing.
    """
    users, length = recommended.shape
    groups = history.shape[1]
    shares = np.maximum(popularity, 1.0) / np.maximum(popularity, 1.0).sum()
    of_list = categories[recommended] + np.arange(users)[:, None] * groups
    counts = np.bincount(of_list.ravel(), minlength=users * groups).reshape(users, groups)
    same_pairs = (counts * (counts - 1)).sum(axis=1) / max(length * (length - 1), 1)
    known = history.sum(axis=1) > 0
    past = history[known] / history[known].sum(axis=1, keepdims=True)
    divergence = _jensen_shannon(counts[known] / length, past)
    return ListQuality(
        arm=arm,
        coverage=len(np.unique(recommended)) / len(popularity),
        novelty=float(-np.log2(shares[recommended]).mean()),
        diversity=float(1.0 - same_pairs.mean()),
        miscalibration=float(divergence.mean()) if known.any() else 0.0,
    )


def _jensen_shannon(p: npt.NDArray[np.floating], q: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Jensen-Shannon divergence of each row, in bits; 0 log 0 is 0."""
    middle = (p + q) / 2.0

    def divergence(part: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        ratio = np.divide(part, middle, out=np.ones_like(part), where=part > 0)
        return (part * np.log2(ratio)).sum(axis=1)

    return (divergence(p) + divergence(q)) / 2.0
