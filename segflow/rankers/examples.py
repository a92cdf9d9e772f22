"""Training and scoring examples: one user at one cut, with everything the rankers read, computed once and cached.

Lives here: the cut schedule, the cached arrays and the mini-batches made from them. Does not live here: the rankers.

The backbone is frozen, so its states are part of the cache: no ranker, segment or control arm runs it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config import RankerConfig
from segflow.rankers.features import Features, ItemHistory, Pairs
from segflow.rankers.scorers import cooccurrence, fit_cooccurrence
from segflow.representation.behavior import BehaviorModel
from segflow.representation.sequences import MICROSECONDS_PER_WEEK, EventSequences


@dataclass(frozen=True)
class Batch:
    """Tensors of B examples over C candidates; P pairs are the items these users already had."""

    states: Tensor  # (B, width + 1)
    context: Tensor  # (B, K)
    cooccurrence: Tensor  # (B, C)
    log_popularity: Tensor  # (cuts, C, 2)
    cut: Tensor  # (B,) row of log_popularity
    pair_row: Tensor  # (P,)
    pair_item: Tensor  # (P,)
    pair_values: Tensor  # (P, F)
    target_row: Tensor  # (T,)
    target_item: Tensor  # (T,)


@dataclass(frozen=True)
class Examples:
    """E examples in a fixed order; ``users`` index the sequences, ``cut`` the rows of ``log_popularity``."""

    users: npt.NDArray[np.int64]
    cut: npt.NDArray[np.int64]
    states: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    cooccurrence: npt.NDArray[np.float16]
    log_popularity: npt.NDArray[np.float32]
    had: Pairs
    values: npt.NDArray[np.float32]
    wanted: Pairs

    def __len__(self) -> int:
        return len(self.users)

    @property
    def candidates(self) -> int:
        """Number of candidate items."""
        return self.log_popularity.shape[1]

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """The examples ``rows`` as tensors."""
        pair, pair_row = self.had.take(rows)
        target, target_row = self.wanted.take(rows)
        return Batch(
            states=torch.from_numpy(self.states[rows]),
            context=torch.from_numpy(self.context[rows]),
            cooccurrence=torch.from_numpy(self.cooccurrence[rows].astype(np.float32)),
            log_popularity=torch.from_numpy(self.log_popularity),
            cut=torch.from_numpy(self.cut[rows]),
            pair_row=torch.from_numpy(pair_row),
            pair_item=torch.from_numpy(self.had.items[pair]),
            pair_values=torch.from_numpy(self.values[pair]),
            target_row=torch.from_numpy(target_row),
            target_item=torch.from_numpy(self.wanted.items[target]),
        )


def training_cuts(snapshot_us: int, weeks: int) -> list[int]:
    """The last ``weeks`` cuts whose target week is over before the snapshot, oldest first."""
    return [snapshot_us - back * MICROSECONDS_PER_WEEK for back in range(weeks, 0, -1)]


def build_examples(
    sequences: EventSequences,
    history: ItemHistory,
    backbone: BehaviorModel,
    cuts: Iterable[int],
    config: RankerConfig,
    *,
    only_with_targets: bool = True,
) -> Examples:
    """Examples of all users at each cut: features from before the cut, targets from the week after it.

    With ``only_with_targets`` users without a target are left out (they teach and test nothing); without it every user
    is there, in order, for scoring.
    """
    cuts = list(cuts)
    parts = [_at_cut(history, cut, config, only_with_targets) for cut in cuts]
    users = np.concatenate([users for users, *_ in parts])
    when = np.repeat(np.arange(len(cuts)), [len(users) for users, *_ in parts])
    had, pair = _stack([features.pairs for _, features, _, _ in parts], [users for users, *_ in parts])
    wanted, _ = _stack([wanted for *_, wanted in parts], [users for users, *_ in parts])
    return Examples(
        users=users,
        cut=when,
        states=backbone.states(sequences, np.asarray(cuts, np.int64)[when], users, "last"),
        context=np.concatenate([features.context[users] for users, features, _, _ in parts]),
        cooccurrence=np.concatenate([scores for _, _, scores, _ in parts]),
        log_popularity=np.stack([features.log_popularity for _, features, _, _ in parts]),
        had=had,
        values=np.concatenate([f.values[index] for (_, f, _, _), index in zip(parts, pair, strict=True)]),
        wanted=wanted,
    )


def _at_cut(
    history: ItemHistory, cut: int, config: RankerConfig, only_with_targets: bool
) -> tuple[npt.NDArray[np.int64], Features, npt.NDArray[np.float16], Pairs]:
    features = history.at(cut, config.half_life_days)
    wanted = history.had(cut, cut + MICROSECONDS_PER_WEEK)
    users = np.arange(history.users)
    if only_with_targets:
        users = users[np.diff(wanted.offsets) > 0]
    weights = fit_cooccurrence(features, config.cooccurrence_regularization, config.cooccurrence_items)
    blocks = [cooccurrence(features, weights, users[k : k + 1024]) for k in range(0, len(users), 1024)]
    empty = np.zeros((0, len(history.candidates)), np.float32)
    return users, features, np.concatenate([empty, *blocks]).astype(np.float16), wanted


def _stack(parts: list[Pairs], rows: list[npt.NDArray[np.int64]]) -> tuple[Pairs, list[npt.NDArray[np.int64]]]:
    """The chosen rows of several Pairs below one another, and which pairs were taken of each."""
    taken = [part.take(row)[0] for part, row in zip(parts, rows, strict=True)]
    lengths = np.concatenate([np.diff(part.offsets)[row] for part, row in zip(parts, rows, strict=True)])
    items = np.concatenate([part.items[index] for part, index in zip(parts, taken, strict=True)])
    return Pairs(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), items), taken
