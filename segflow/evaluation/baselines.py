"""The simple arms of the test, each as strong as its settings make it.

What lives here: which settings are tried for each simple scorer, the choice among them on the snapshot week, and the arms with
what was chosen. What does not: the scorers (`segflow.rankers.scorers`), and any training by gradient steps.

Every scorer that has settings gets the same number of tries. The test week plays no part: settings are chosen by NDCG@10 over
all items in the snapshot week, from what is known before it. Then the scorer is fitted anew to all that is known before the
test week, as it would be in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.evaluation.content import TuningRow
from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.protocol import Arm
from segflow.rankers.examples import Examples
from segflow.rankers.features import Features, ItemHistory, Pairs
from segflow.rankers.scorers import (
    TifuSettings,
    all_time_popularity,
    group_popularity,
    nearest_mean,
    recent_popularity,
    shared_users,
    solve_ease,
    tifu_mixed,
    tifu_vectors,
)
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.sequences import MICROSECONDS_PER_WEEK

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Scorer = Callable[[IntArray], FloatArray]
"""(n,) users of the log -> (n, C) scores."""

MOST_USERS = 5000
"""Users that settings are chosen by; of more, a sample: the grids are coarse."""
_BLOCK = 512


@dataclass(frozen=True)
class _Nearest:
    """TIFU's vectors of all users, and the mean of the users nearest to each of `users`."""

    vectors: sparse.csr_array
    users: IntArray
    others: FloatArray


@dataclass(frozen=True)
class Known:
    """What simple scorers may read at a cut; what several of them or several tries share is made once.

    groups: (U,) number of each user's segment, -1 for none. ease_items: most items in EASE. reference_users: among whom the
    nearest are sought; of more users, a sample.
    """

    history: ItemHistory
    cut_us: int
    features: Features
    groups: IntArray
    ease_items: int
    reference_users: int
    _kept: dict[TifuSettings, _Nearest] = field(default_factory=dict)

    @cached_property
    def shared(self) -> tuple[IntArray, FloatArray]:
        """What EASE is solved from."""
        return shared_users(self.features, self.ease_items)

    @cached_property
    def reference(self) -> IntArray:
        """Users who had anything, ascending; the same sample each time."""
        users = np.flatnonzero(np.diff(self.features.pairs.offsets))
        if len(users) > self.reference_users:
            users = np.sort(np.random.default_rng(0).choice(users, self.reference_users, replace=False))
        return users

    def nearest(self, settings: TifuSettings, users: IntArray) -> _Nearest:
        """The last answer is kept, for tries that differ by nothing but `own`."""
        key = replace(settings, own=1.0)
        kept = self._kept.get(key)
        if kept is None or not np.array_equal(kept.users, users):
            vectors = tifu_vectors(self.history, self.cut_us, settings) if kept is None else kept.vectors
            others = nearest_mean(vectors, users, settings.neighbours, self.reference)
            kept = self._kept[key] = _Nearest(vectors, users, others)
        return kept


def _popular_lately(known: Known) -> Scorer:
    return partial(recent_popularity, known.features)


def _popular_ever(known: Known) -> Scorer:
    return partial(all_time_popularity, known.features)


def _popular_in_segment(smoothing: float, known: Known) -> Scorer:
    return lambda users: group_popularity(known.features, known.groups, users, smoothing)


def _frequency(half_life: float, known: Known) -> Scorer:
    pairs, values = known.features.pairs, known.history.frequency(known.cut_us, half_life)
    # Recent popularity orders what the user never had.
    rest = known.features.popularity * np.float32(1e-6)
    return lambda users: pairs.dense(users, len(rest), values) + rest


def _tifu(settings: TifuSettings, known: Known) -> Scorer:
    def score(users: IntArray) -> FloatArray:
        found = known.nearest(settings, users)
        return tifu_mixed(found.vectors, users, found.others, settings.own)

    return score


def _ease(ridge: float, known: Known) -> Scorer:
    items, shared = known.shared
    weights = solve_ease(shared, ridge)
    pairs, count = known.features.pairs, len(known.features.popularity)

    def score(users: IntArray) -> FloatArray:
        found = np.zeros((len(users), count), np.float32)
        found[:, items] = pairs.dense(users, count, np.float32(1))[:, items] @ weights
        return found

    return score


GRIDS: Mapping[str, Mapping[str, Callable[[Known], Scorer]]] = {
    "popularity_7_days": {"none": _popular_lately},
    "popularity_all_time": {"none": _popular_ever},
    "popularity_per_segment": {
        f"smoothing {users} users": partial(_popular_in_segment, users) for users in (100, 1, 10, 1000, 10_000)
    },
    "personal_frequency": {f"half-life {days} days": partial(_frequency, days) for days in (120, 30, 60, 240, 480)},
    "tifu_knn": {
        f"group decay {between}, own weight {own}": partial(_tifu, TifuSettings(between=between, own=own))
        for between, own in ((0.7, 0.7), (0.7, 0.5), (0.7, 0.9), (0.6, 0.7), (0.8, 0.7))
    },
    "ease": {f"ridge {ridge}": partial(_ease, ridge) for ridge in (1000, 100, 300, 3000, 10_000)},
}
"""Arm -> settings that are tried -> scorer. The first stands where the snapshot week says nothing, or the same of all."""


def tuned_baselines(
    week: RankingWeek, examples: Examples, features: Features, segment_of: Mapping[str, str]
) -> tuple[list[Arm], list[TuningRow]]:
    """Every simple arm with the settings that the snapshot week chose, and all that was tried.

    Args:
        examples: test examples. features: what is known before the test week.
        segment_of: user -> segment; others are ranked by what everybody has, so in a week without segments
            `popularity_per_segment` is `popularity_all_time`.
    """
    before = _known(week, week.start_us, week.history.at(week.start_us, week.config.half_life_days), segment_of)
    rows = tuning(before, week.history.had(week.start_us, week.start_us + MICROSECONDS_PER_WEEK))
    after = _known(week, week.start_us + MICROSECONDS_PER_WEEK, features, segment_of)
    arms = []
    for row in rows:
        if row.chosen:
            scorer = GRIDS[row.arm][row.settings](after)
            arms.append(Arm(row.arm, "baseline", partial(_of_examples, scorer, examples.users)))
    return arms, rows


def tuning(known: Known, wanted: Pairs) -> list[TuningRow]:
    """NDCG@10 of every try over the users who had something that was `wanted`, a row for each user of the log.

    Of equal tries the first is chosen.
    """
    users = np.flatnonzero(np.diff(wanted.offsets))
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(0).choice(users, MOST_USERS, replace=False))
    scorers = {(arm, name): make(known) for arm, grid in GRIDS.items() if len(users) for name, make in grid.items()}
    found = dict.fromkeys(scorers, 0.0)
    for start in range(0, len(users), _BLOCK):
        block = users[start : start + _BLOCK]
        relevant = wanted.dense(block, len(known.features.popularity))
        for key, scorer in scorers.items():
            found[key] += float(ranking_metrics(scorer(block), relevant, cutoffs=(10,))["ndcg_10"].sum())
    rows = []
    for arm, grid in GRIDS.items():
        gains = [found.get((arm, name), 0.0) for name in grid]
        for place, (name, gain) in enumerate(zip(grid, gains, strict=True)):
            ndcg = gain / len(users) if len(users) else None
            rows.append(TuningRow(arm, name, len(users), ndcg, place == gains.index(max(gains))))
    return rows


def _known(week: RankingWeek, cut_us: int, features: Features, segment_of: Mapping[str, str]) -> Known:
    numbers = {segment: number for number, segment in enumerate(sorted(set(segment_of.values())))}
    users = map(str, week.sequences.user_ids)
    groups = np.array([numbers.get(segment_of.get(user, ""), -1) for user in users], np.int64)
    config = week.config
    return Known(week.history, cut_us, features, groups, config.cooccurrence_items, config.reference_users)


def _of_examples(scorer: Scorer, users: IntArray, rows: IntArray) -> FloatArray:
    return scorer(users[rows])
