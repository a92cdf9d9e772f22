"""New items on the Complete Journey: each tenth of the items is as if it had never been bought, and is placed by its texts.

The encoder never saw the log. Lists of known and new items together tell what a place for a new item costs or brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segflow.evaluation.metrics import ranking_metrics
from segflow.rankers.cold_start import (
    HALF_LIFE_DAYS,
    ColdUsers,
    Fallbacks,
    Shrinkage,
    fallback_scores,
    fit_fallbacks,
    known_days,
)
from segflow.rankers.cold_validation import ndcg
from segflow.rankers.new_items import hidden_beyond_cap, new_item_scores, text_neighbours
from segflow_tests.benchmarks.ranking_protocol import Protocol, Window

Floats = npt.NDArray[np.float32]
Figures = Mapping[str, npt.NDArray[np.float64]]

CAPS = (0, 1, 2)
RANDOM, CATEGORY, TEXT = "random", "same category", "nearest texts"
ORACLE = "popularity, had it been known"
_TURNS = 10


@dataclass(frozen=True)
class NewItems:
    """Values of households, averaged over the windows and turns that ask them, paired.

    Attributes:
        ndcg: who orders the new items among themselves -> NDCG@10 of the new ones a household had in the week.
        recall: the same by recall@10.
        lists: places for new items among ten -> NDCG@10 over all items, new and known.
    """

    ndcg: Figures
    recall: Figures
    lists: Figures


class Means:
    """Values of households under a name, averaged over all that was asked of each."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, ...], list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]] = {}

    def add(self, name: tuple[str, ...], users: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """One value for each of ``users``."""
        self._parts.setdefault(name, []).append((users, values))

    def of(self, *first: str) -> dict[str, npt.NDArray[np.float64]]:
        """Last part of the names that start so -> (households that were asked,) means."""
        found = {}
        for name, parts in self._parts.items():
            if name[:-1] == first:
                users = np.concatenate([users for users, _ in parts])
                count = np.bincount(users)
                total = np.bincount(users, np.concatenate([values for _, values in parts]))
                found[name[-1]] = total[count > 0] / count[count > 0]
        return found


def measure_new_items(protocol: Protocol, windows: Sequence[Window], vectors: Floats, seed: int) -> NewItems:
    """Each candidate is new in one of ten turns. vectors: (C, d) text vectors of the candidates."""
    means = Means()
    categories = np.array([" > ".join(protocol.log.texts[item].split(" > ")[:2]) for item in protocol.candidates])
    rng = np.random.default_rng(seed)
    turns = np.array_split(rng.permutation(len(categories)), _TURNS)
    for window in windows:
        days = known_days(protocol.history.at(window.start_us, HALF_LIFE_DAYS))
        everything = fit_fallbacks(days)
        wanted = window.wanted.dense(window.users, len(categories))
        for turn in turns:
            new = np.isin(np.arange(len(categories)), turn)
            users = ColdUsers(days[window.users][:, ~new])
            content, _ = fallback_scores(_without(everything, new), users)
            # Half of what a household has itself, half of what those have who share its items.
            scores = (users.days.toarray() + content) / 2
            asked = wanted[:, new].any(axis=1)
            arms = dict(_arms(scores, vectors, categories, new, rng))
            arms[ORACLE] = np.tile(everything.popularity[new], (len(scores), 1))
            for name, block in arms.items():
                found = ranking_metrics(block[asked], wanted[asked][:, new], cutoffs=(10,))
                for metric in ("ndcg", "recall"):
                    means.add((metric, name), window.users[asked], found[f"{metric}_10"])
            for cap in CAPS:
                listed = ndcg(_listed(scores, arms[TEXT], new, cap), wanted)
                means.add(("lists", f"{cap} of 10"), window.users, listed)
    return NewItems(means.of("ndcg"), means.of("recall"), means.of("lists"))


def _arms(
    scores: Floats,
    vectors: Floats,
    categories: npt.NDArray[np.str_],
    new: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Iterator[tuple[str, Floats]]:
    yield RANDOM, rng.random((len(scores), int(new.sum()))).astype(np.float32)
    alike = (categories[new][:, None] == categories[~new][None]).astype(np.float32)
    yield CATEGORY, scores @ (alike / np.maximum(alike.sum(axis=1, keepdims=True), 1)).T
    yield TEXT, new_item_scores(scores, text_neighbours(vectors[~new], vectors[new]))


def _without(known: Fallbacks, new: npt.NDArray[np.bool_]) -> Fallbacks:
    """The groups as they are if nobody had the new items."""
    return replace(
        known,
        popularity=known.popularity[~new],
        by_item=known.by_item[np.ix_(~new, ~new)],
        of_item=known.of_item[~new],
        by_segment=known.by_segment[:, ~new],
        shrinkage=Shrinkage(),
        days=None,
    )


def _listed(scores: Floats, new_scores: Floats, new: npt.NDArray[np.bool_], cap: int) -> Floats:
    """(B, C) scores of all items, those of new ones beyond the cap below all others."""
    everything = np.empty((len(scores), len(new)), np.float32)
    everything[:, ~new], everything[:, new] = scores, new_scores
    return np.where(hidden_beyond_cap(everything, new, cap), np.float32(-1), everything)
