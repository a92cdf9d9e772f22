"""Simple scorers: hard to beat, cheap, and the baselines of every comparison.

Lives here: popularity, personal frequency, item co-occurrence, nearest users and item texts, each in a module of its own
with its source. Does not live here: anything trained by gradient steps, and how scorers are mixed.

A scorer is a function of what is known at a cut and of the users to score, and returns (users, C) float32 scores: higher
is better, and only the order within a row means anything.
"""

from segflow.rankers.scorers.cooccurrence import (
    cooccurrence,
    fit_cooccurrence,
    fit_item_neighbours,
    shared_users,
    solve_ease,
)
from segflow.rankers.scorers.fitted import COOCCURRENCE, SCORERS, FittedScorers
from segflow.rankers.scorers.frequency import personal_frequency
from segflow.rankers.scorers.popularity import all_time_popularity, group_popularity, recent_popularity
from segflow.rankers.scorers.text import text_similarity
from segflow.rankers.scorers.tifu_knn import TifuSettings, nearest_mean, tifu_knn, tifu_mixed, tifu_vectors
from segflow.rankers.scorers.user_knn import ReferenceUsers

__all__ = [
    "COOCCURRENCE",
    "SCORERS",
    "FittedScorers",
    "ReferenceUsers",
    "TifuSettings",
    "all_time_popularity",
    "cooccurrence",
    "fit_cooccurrence",
    "fit_item_neighbours",
    "group_popularity",
    "nearest_mean",
    "personal_frequency",
    "recent_popularity",
    "shared_users",
    "solve_ease",
    "text_similarity",
    "tifu_knn",
    "tifu_mixed",
    "tifu_vectors",
]
