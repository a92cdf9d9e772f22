"""What many users have: lately, ever, or within a group of users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.rankers.features import Features


def recent_popularity(features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(users, C) scores: how many users had the item in the last seven days; the same for everybody."""
    return np.repeat(features.popularity[None, :], len(users), axis=0)


def all_time_popularity(features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(users, C) scores: how many users ever had the item; the same for everybody."""
    count = np.bincount(features.pairs.items, minlength=len(features.popularity)).astype(np.float32)
    return np.repeat(count[None, :], len(users), axis=0)


def group_popularity(
    features: Features, groups: npt.NDArray[np.int64], users: npt.NDArray[np.int64], smoothing: float
) -> npt.NDArray[np.float32]:
    """(users, C) scores: the share of the user's group that ever had the item, drawn to the share of all users.

    The share of all counts like that of ``smoothing`` further members of the group, so that a thin group stays near
    everybody's: the posterior mean under a Beta prior (Gelman et al. 2013, Bayesian Data Analysis, ch. 2 and 5).

    Args:
        groups: (U,) group number of each user, -1 for none, who get the share of all users.
    """
    pairs, count = features.pairs, len(features.popularity)
    number = int(groups.max(initial=-1)) + 1
    owner = groups[pairs.user_of_pair]
    had = np.bincount(pairs.items, minlength=count) / max(len(groups), 1)
    member = owner >= 0
    cells = np.bincount(owner[member] * count + pairs.items[member], minlength=number * count).reshape(number, count)
    sizes = np.bincount(groups[groups >= 0], minlength=number)[:, None]
    shares = (cells + smoothing * had) / np.maximum(sizes + smoothing, 1e-9)
    return np.concatenate([shares, had[None]])[groups[users]].astype(np.float32)
