"""A small population with three planted groups in everything that a clusterer may look at. No assertion is made here."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from segflow.representation.users import UserFeatures
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.population import Population

CENTERS = np.array([[0, 0, 0, 0], [6, 6, 6, 6], [6, -6, 6, -6]], np.float32)
ITEMS = [f"i{number:02d}" for number in range(12)]
PARAMETERS = {
    **dict.fromkeys(CLUSTERERS, 3.0),
    "hdbscan": 0.1,
    "dbscan": 0.9,
    "rfm": 0.0,
    "attribute": 0.05,
    "category": 0.05,
}
"""Of each clusterer, the parameter with which it finds the groups."""


def planted(sizes: tuple[int, ...] = (120, 80, 60), seed: int = 1) -> tuple[Population, np.ndarray]:
    """The users in random order, and the group of each."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    users = len(truth)
    points = (CENTERS[truth] + rng.normal(size=(users, 4))).astype(np.float32)
    rates = np.where(np.arange(len(ITEMS)) // 4 == truth[:, None], 4.0, 0.1)
    engagement = np.stack(
        [truth + rng.normal(0, 0.1, users), 3 - truth + rng.normal(0, 0.1, users), rng.gamma(2.0, size=users)], axis=1
    )
    names = ["log_recency_days", "log_sessions_per_week_long", "log_value_total"]
    population = Population(
        points,
        UserFeatures([f"u{row:04d}" for row in range(users)], engagement.astype(np.float32), names),
        sparse.csr_matrix(rng.poisson(rates).astype(np.float64)),
        ITEMS,
        np.where(rng.random(users) < 0.1, None, np.array(["young", "middle", "old"], object)[truth]),
        np.array(["bread", "fish", "milk"], object)[truth],
    )
    return population, truth
