"""The classic scorers with the settings that are tried for each; the tuning weeks choose, once for each of the two tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from segflow.rankers import scorers
from segflow.rankers.features import Features, ItemHistory
from segflow.rankers.scorers import TifuSettings
from segflow_tests.benchmarks.ranking_protocol import Protocol, Scores, Window, per_user

HALF_LIFE = 120.0
TASKS = ("all", "new")


@dataclass
class Known:
    """What the scorers read at the start of a window; made once for each cut."""

    history: ItemHistory
    text_vectors: npt.NDArray[np.float32]
    _features: dict[tuple[int, float], Features] = field(default_factory=dict)

    def at(self, window: Window, half_life: float = HALF_LIFE) -> Features:
        """Features before the window."""
        key = (window.start_us, half_life)
        if key not in self._features:
            self._features[key] = self.history.at(*key)
        return self._features[key]


Scorer = Callable[[Known, Window], Scores]


def _popularity(known: Known, window: Window) -> Scores:
    return scorers.recent_popularity(known.at(window), window.users)


def _ever_popular(known: Known, window: Window) -> Scores:
    return scorers.all_time_popularity(known.at(window), window.users)


def _frequency(half_life: float, known: Known, window: Window) -> Scores:
    return scorers.personal_frequency(known.at(window, half_life), window.users)


def _ease(regularization: float, known: Known, window: Window) -> Scores:
    weights = scorers.fit_cooccurrence(known.at(window), regularization, len(known.history.candidates))
    return scorers.cooccurrence(known.at(window), weights, window.users)


def _neighbours(count: int, shrinkage: float, known: Known, window: Window) -> Scores:
    weights = scorers.fit_item_neighbours(known.at(window), count, shrinkage, len(known.history.candidates))
    return scorers.cooccurrence(known.at(window), weights, window.users)


def _tifu(settings: TifuSettings, known: Known, window: Window) -> Scores:
    vectors = scorers.tifu_vectors(known.history, window.start_us, settings)
    return scorers.tifu_knn(vectors, window.users, settings)


def _text(known: Known, window: Window) -> Scores:
    return scorers.text_similarity(known.at(window), known.text_vectors, window.users)


TIFU = {
    f"group {settings.group}, {settings.within:g} within, {settings.between:g} between, "
    f"{settings.neighbours} users, {settings.own:g} own": partial(_tifu, settings)
    for settings in (
        TifuSettings(),
        TifuSettings(within=1.0),
        TifuSettings(within=1.0, group=3),
        TifuSettings(within=1.0, group=14),
        TifuSettings(within=1.0, between=0.6),
        TifuSettings(within=1.0, between=0.8),
        TifuSettings(within=1.0, neighbours=100),
        TifuSettings(within=1.0, neighbours=900),
        TifuSettings(within=1.0, own=0.5),
        TifuSettings(within=1.0, own=0.9),
    )
}
CLASSICS: Mapping[str, Mapping[str, Scorer]] = {
    "popularity, 7 days": {"": _popularity},
    "popularity, all time": {"": _ever_popular},
    "personal frequency": {f"half-life {days:g} d": partial(_frequency, days) for days in (60.0, 90.0, 120.0, 180.0)},
    "TIFU-KNN": TIFU,
    "EASE": {f"ridge {ridge:g}": partial(_ease, ridge) for ridge in (100.0, 300.0, 1000.0, 3000.0)},
    "item-kNN": {
        f"{count} items, shrinkage {shrinkage:g}": partial(_neighbours, count, shrinkage)
        for count in (50, 200, 800)
        for shrinkage in (0.0, 50.0)
    },
    "text similarity": {"": _text},
}


@dataclass(frozen=True)
class Judged:
    """A scorer as it was chosen for one task: its settings, and (U,) NDCG@10 on the test weeks, NaN where not asked."""

    name: str
    task: str
    settings: str
    tuning: float
    test: npt.NDArray[np.float64]


def judge(
    protocol: Protocol, known: Known, classics: Mapping[str, Mapping[str, Scorer]] = CLASSICS
) -> Iterator[Judged]:
    """Every classic under the settings that the tuning weeks chose, for each task its own."""
    users = len(protocol.log.sequences.user_ids)

    def measured(scorer: Scorer, windows: Sequence[Window]) -> npt.NDArray[np.float64]:
        return per_user(windows, [scorer(known, window) for window in windows], users)

    for name, grid in classics.items():
        tuned = {settings: np.nanmean(measured(scorer, protocol.tuning), axis=0) for settings, scorer in grid.items()}
        tested: dict[str, npt.NDArray[np.float64]] = {}
        for column, task in enumerate(TASKS):
            best = max(tuned, key=lambda settings, column=column: tuned[settings][column])
            if best not in tested:
                tested[best] = measured(grid[best], protocol.test)
            yield Judged(name, task, best, float(tuned[best][column]), tested[best][:, column])
