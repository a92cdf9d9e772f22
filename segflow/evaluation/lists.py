"""Properties of recommended lists beside accuracy: coverage, novelty, diversity, calibration, exposure, popularity bias.

What lives here: one row of such figures per arm, and for the arm that is recommended one per weight of diversity, beside
what that costs. What does not: accuracy by user (metrics.py). High accuracy with low coverage or poor calibration means that
everyone is shown the same few things.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIVERSITY_WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Weights of diversity that the trade-off is told for, beside 0."""


@dataclass(frozen=True)
class ListQuality:
    """Averages over the recommended lists of one arm; see `list_quality` for each definition."""

    arm: str
    diversity_weight: float
    ndcg_10: float
    coverage: float
    novelty: float
    diversity: float
    distance: float
    miscalibration: float
    gini: float
    popularity: float
    profile_popularity: float | None
    popularity_lift: float | None


@dataclass(frozen=True)
class Judges:
    """What lists are judged by, besides what users went on to choose.

    popularity: (C,) past users of each candidate; users: of how many; categories: (C,) category code of each candidate;
    history: (U, G) each user's past items per category; profiles: (U,) mean of `popularity` over each user's past items,
    NaN without any; vectors: (C, d) text vectors of length one.
    """

    popularity: npt.NDArray[np.floating]
    users: int
    categories: npt.NDArray[np.integer]
    history: npt.NDArray[np.floating]
    profiles: npt.NDArray[np.floating]
    vectors: npt.NDArray[np.floating]


def list_quality(
    arm: str,
    recommended: npt.NDArray[np.integer],
    ndcg: npt.NDArray[np.floating],
    judges: Judges,
    diversity_weight: float = 0.0,
) -> ListQuality:
    """How varied, fresh and fitting the recommended lists are, beside their (U,) NDCG.

    recommended: (U, N) candidate indices; diversity_weight: by which they were re-ranked, 0 for not at all.

    - coverage: share of candidates recommended to at least one user;
    - novelty: mean of -log2 of a recommended item's share of all popularity, in bits (Vargas & Castells 2011);
      an item without history counts as if it had been seen once;
    - diversity: mean share of pairs within a list whose categories differ;
    - distance: mean of one minus the cosine of the texts of a pair within a list (Ziegler et al. 2005);
    - miscalibration: mean Jensen-Shannon divergence, in bits, between the categories of the list and of the user's
      history (after Steck 2018), over users with a history: 0 when they agree, 1 when they share nothing;
    - gini: Gini coefficient of how often each candidate is recommended (exposure; Fleder & Hosanagar 2009): 0 when all are
      alike, near 1 when one item has every place that it can have;
    - popularity: mean over users of the mean share of all users who ever had a recommended item (average recommendation
      popularity, Abdollahpouri et al. 2019, "Managing Popularity Bias in Recommender Systems with Personalized Re-ranking");
    - profile_popularity, popularity_lift: the same of what the users with a history had, and how much more popular their
      lists are than that, relatively (Abdollahpouri et al. 2019, "The Unfairness of Popularity Bias in Recommendation");
      None when nobody has a history.
    """
    users, length = recommended.shape
    groups = judges.history.shape[1]
    shares = np.maximum(judges.popularity, 1.0) / np.maximum(judges.popularity, 1.0).sum()
    of_list = judges.categories[recommended] + np.arange(users)[:, None] * groups
    counts = np.bincount(of_list.ravel(), minlength=users * groups).reshape(users, groups)
    pairs = max(length * (length - 1), 1)
    same_pairs = (counts * (counts - 1)).sum(axis=1) / pairs
    known = judges.history.sum(axis=1) > 0
    past = judges.history[known] / judges.history[known].sum(axis=1, keepdims=True)
    divergence = _jensen_shannon(counts[known] / length, past)
    # The cosines of all pairs sum to the square of the vectors' sum, less those of each with itself.
    sums = np.stack([judges.vectors[one].sum(axis=0) for one in recommended])
    itself = (judges.vectors**2).sum(axis=1)[recommended].sum(axis=1)
    alike = ((sums**2).sum(axis=1) - itself) / pairs
    popularity, profile, lift = _popularity(recommended, judges)
    return ListQuality(
        arm=arm,
        diversity_weight=diversity_weight,
        ndcg_10=float(ndcg.mean()),
        coverage=len(np.unique(recommended)) / len(judges.popularity),
        novelty=float(-np.log2(shares[recommended]).mean()),
        diversity=float(1.0 - same_pairs.mean()),
        distance=max(0.0, float(1.0 - alike.mean())),  # of vectors that are of length one but for rounding
        miscalibration=float(divergence.mean()) if known.any() else 0.0,
        gini=gini(np.bincount(recommended.ravel(), minlength=len(judges.popularity))),
        popularity=popularity,
        profile_popularity=profile,
        popularity_lift=lift,
    )


def _popularity(recommended: npt.NDArray[np.integer], judges: Judges) -> tuple[float, float | None, float | None]:
    """`popularity`, `profile_popularity` and `popularity_lift`."""
    of_lists = judges.popularity[recommended].mean(axis=1) / judges.users
    known = np.isfinite(judges.profiles)
    profile = float(judges.profiles[known].mean()) / judges.users if known.any() else None
    return float(of_lists.mean()), profile, float(of_lists[known].mean()) / profile - 1.0 if profile else None


def gini(counts: npt.NDArray[np.integer]) -> float:
    """Gini coefficient of (C,) counts: the mean absolute difference of two of them over twice their mean (Gini 1912)."""
    ordered = np.sort(counts).astype(np.float64)
    if not ordered.any():
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def _jensen_shannon(p: npt.NDArray[np.floating], q: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Jensen-Shannon divergence of each row, in bits; 0 log 0 is 0."""
    middle = (p + q) / 2.0

    def divergence(part: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        ratio = np.divide(part, middle, out=np.ones_like(part), where=part > 0)
        return (part * np.log2(ratio)).sum(axis=1)

    return (divergence(p) + divergence(q)) / 2.0
