"""Training and scoring examples: one user at one cut, with everything the rankers read, computed once and cached.

Lives here: the cut schedule, the cached arrays and the mini-batches made from them. Does not live here: the rankers.

The backbone is frozen, so its states are part of the cache: no ranker, segment or control arm runs it again. What the
simple scorers say is cached too, within a limit of memory: of training examples beyond it a sample is left, and where all
users are wanted, scores are made again whenever they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config import RankerConfig
from segflow.rankers.features import ITEM_FEATURES, Features, ItemHistory, Pairs
from segflow.rankers.scorers.fitted import SCORERS, FittedScorers
from segflow.representation.behavior import BehaviorModel
from segflow.representation.sequences import MICROSECONDS_PER_WEEK, EventSequences

MEGABYTE = 1_000_000
_BLOCK = 1024


@dataclass(frozen=True)
class Batch:
    """Tensors of B examples over C candidates; P pairs are the items these users already had."""

    states: Tensor  # (B, width + 1)
    context: Tensor  # (B, len(CONTEXT_FEATURES))
    inputs: Tensor  # (B, C, len(SCORERS) + len(ITEM_FEATURES)) what is known of every candidate
    pair_row: Tensor  # (P,)
    pair_item: Tensor  # (P,)
    pair_values: Tensor  # (P, len(PAIR_FEATURES))
    target_row: Tensor  # (T,)
    target_item: Tensor  # (T,)


def starts_of(owner: Tensor, size: int) -> Tensor:
    """(size + 1,) where the entries of each of ``size`` rows start; ``owner`` is the row of each entry, ascending."""
    return torch.searchsorted(owner, torch.arange(size + 1))


def entries_of(rows: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the entries of ``rows``, and for each the place of its row there; ``starts`` as of ``starts_of``."""
    first = starts[rows]
    lengths = starts[rows + 1] - first
    shift = torch.repeat_interleave(first - lengths.cumsum(0) + lengths, lengths)
    return shift.add_(torch.arange(len(shift))), torch.repeat_interleave(torch.arange(len(rows)), lengths)


class Space:
    """Memory that is used again and again, since new memory costs more than what is copied into it."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def rows(self, name: str, source: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
        """``source`` at ``rows`` of one dimension, which holds until the next of that name is asked for."""
        return torch.index_select(source, dim, rows, out=self.like(name, source, len(rows), dim))

    def like(self, name: str, source: Tensor, rows: int, dim: int = 0) -> Tensor:
        """Anything, of the shape of ``source`` but for the ``rows`` of one dimension."""
        shape = (*source.shape[:dim], rows, *source.shape[dim + 1 :])
        kept = self._kept.get(name)
        if kept is None or len(kept) < math.prod(shape):
            kept = self._kept[name] = source.new_empty(math.prod(shape))
        return kept[: math.prod(shape)].view(shape)


@dataclass(frozen=True)
class LazyScores:
    """What the scorers say of ``users`` (E,) at ``cut`` (E,), made whenever it is asked for."""

    fitted: Sequence[FittedScorers]
    features: Sequence[Features]
    users: npt.NDArray[np.int64]
    cut: npt.NDArray[np.int64]

    def __call__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """(rows, C, len(SCORERS))."""
        found = np.empty((len(rows), len(self.features[0].popularity), len(SCORERS)), np.float16)
        for cut in np.unique(self.cut[rows]):
            here = np.flatnonzero(self.cut[rows] == cut)
            found[here] = self.fitted[cut].score(self.features[cut], self.users[rows[here]])
        return found


@dataclass(frozen=True)
class Examples:
    """E examples in a fixed order; ``users`` index the sequences, ``cut`` the rows of ``trends``.

    Attributes:
        states: (E, width + 1) float32 of the backbone.
        context: (E, len(CONTEXT_FEATURES)) float32.
        scores: rows -> (rows, C, len(SCORERS)) float16, what the simple scorers say.
        trends: (cuts, C, len(ITEM_FEATURES)) float32.
        had: what each user already had, with ``values`` (P, len(PAIR_FEATURES)) float32.
        wanted: what each user had in the week after the cut.
        left_out: examples that there was no memory for.
    """

    users: npt.NDArray[np.int64]
    cut: npt.NDArray[np.int64]
    states: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    scores: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float16]]
    trends: npt.NDArray[np.float32]
    had: Pairs
    values: npt.NDArray[np.float32]
    wanted: Pairs
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.users)

    @property
    def candidates(self) -> int:
        """Number of candidate items."""
        return self.trends.shape[1]

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """The examples ``rows`` as tensors."""
        pair, pair_row = self.had.take(rows)
        target, target_row = self.wanted.take(rows)
        inputs = np.empty((len(rows), self.candidates, len(SCORERS) + len(ITEM_FEATURES)), np.float32)
        inputs[:, :, : len(SCORERS)] = self.scores(rows)
        inputs[:, :, len(SCORERS) :] = self.trends[self.cut[rows]]
        return Batch(
            states=torch.from_numpy(self.states[rows]),
            context=torch.from_numpy(self.context[rows]),
            inputs=torch.from_numpy(inputs),
            pair_row=torch.from_numpy(pair_row),
            pair_item=torch.from_numpy(self.had.items[pair]),
            pair_values=torch.from_numpy(self.values[pair]),
            target_row=torch.from_numpy(target_row),
            target_item=torch.from_numpy(self.wanted.items[target]),
        )

    def inputs(
        self,
        rows: npt.NDArray[np.int64],
        columns: Sequence[int],
        row: npt.NDArray[np.int64],
        item: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Some of `Batch.inputs`, for who does not need them all: (columns, rows, C), and all inputs of the pairs (P, inputs)."""
        said, cut = self.scores(rows), self.cut[rows]
        found = np.empty((len(columns), len(rows), self.candidates), np.float32)
        for plane, column in zip(found, columns, strict=True):
            trend = column - len(SCORERS)
            plane[:] = said[:, :, column] if trend < 0 else self.trends[:, :, trend][cut]
        return found, np.concatenate([said[row, item].astype(np.float32), self.trends[cut[row], item]], axis=1)


def training_cuts(snapshot_us: int, weeks: int) -> list[int]:
    """The last ``weeks`` cuts whose target week is over before the snapshot, oldest first."""
    return [snapshot_us - back * MICROSECONDS_PER_WEEK for back in range(weeks, 0, -1)]


def build_examples(
    sequences: EventSequences,
    history: ItemHistory,
    backbone: BehaviorModel,
    cuts: Sequence[int],
    config: RankerConfig,
    *,
    only_with_targets: bool = True,
    sample: bool = False,
) -> Examples:
    """Examples of the users at each cut: features from before the cut, targets from the week after it.

    Args:
        only_with_targets: leave out users without a target: they teach and test nothing. Else every user is there, in order.
        sample: leave out a random part if what the scorers say of all needs more than `rankers.example_memory`. Without it
            every example is there, and scores that need more are not kept.
    """
    wanted = [history.had(cut, cut + MICROSECONDS_PER_WEEK) for cut in cuts]
    everybody = np.arange(history.users)
    users = [everybody[np.diff(one.offsets) > 0] if only_with_targets else everybody for one in wanted]
    total = sum(map(len, users))
    room = config.example_memory * MEGABYTE // (2 * len(SCORERS) * len(history.candidates))
    if sample:
        users = _sample(users, room)
    owner = np.concatenate(users)
    when = np.repeat(np.arange(len(cuts)), [len(part) for part in users])
    known = _known_at(history, cuts, users, config, keep=len(owner) <= room)
    return Examples(
        users=owner,
        cut=when,
        states=backbone.states(sequences, np.asarray(cuts, np.int64)[when], owner, "last"),
        context=np.concatenate([one.context for one in known.parts]),
        scores=LazyScores(known.fitted, known.features, owner, when)
        if known.scores is None
        else known.scores.__getitem__,
        trends=np.stack([one.trends for one in known.parts]),
        had=_joined([one.had for one in known.parts]),
        values=np.concatenate([one.values for one in known.parts]),
        wanted=_joined([one.of(part) for one, part in zip(wanted, users, strict=True)]),
        left_out=total - len(owner),
    )


class _OfCut(NamedTuple):
    """What is known of the users chosen at one cut; ``trends`` are of all items."""

    context: npt.NDArray[np.float32]
    trends: npt.NDArray[np.float32]
    had: Pairs
    values: npt.NDArray[np.float32]


class _Known(NamedTuple):
    """What is known at all cuts: scores (E, C, len(SCORERS)) if there is memory for them, else what makes them."""

    parts: list[_OfCut]
    scores: npt.NDArray[np.float16] | None
    fitted: list[FittedScorers]
    features: list[Features]


def _known_at(
    history: ItemHistory,
    cuts: Sequence[int],
    users: Sequence[npt.NDArray[np.int64]],
    config: RankerConfig,
    keep: bool,
) -> _Known:
    """Cut by cut: features of everybody are much more than what is kept of the users, and are there for one cut at a time."""
    size = sum(map(len, users))
    found = _Known([], np.empty((size, len(history.candidates), len(SCORERS)), np.float16) if keep else None, [], [])
    row = 0
    for cut, chosen in zip(cuts, users, strict=True):
        features = history.at(cut, config.half_life_days)
        fitted = FittedScorers.of(features, config)
        index, _ = features.pairs.take(chosen)
        of_users = features.pairs.of(chosen), features.values[index]
        found.parts.append(_OfCut(features.context[chosen], features.trends, *of_users))
        if found.scores is None:
            found.fitted.append(fitted)
            found.features.append(features)
            continue
        # A block at a time: only the half precision is ever there as a whole.
        for start in range(0, len(chosen), _BLOCK):
            block = chosen[start : start + _BLOCK]
            found.scores[row : row + len(block)] = fitted.score(features, block)
            row += len(block)
    return found


def _sample(users: list[npt.NDArray[np.int64]], room: int) -> list[npt.NDArray[np.int64]]:
    """At most ``room`` of all, each as likely as any other; the same ones for every seed of a training."""
    total = sum(map(len, users))
    if total <= room:
        return users
    kept = np.zeros(total, bool)
    kept[np.random.default_rng(0).choice(total, room, replace=False)] = True
    parts = np.split(kept, np.cumsum([len(part) for part in users])[:-1])
    return [part[chosen] for part, chosen in zip(users, parts, strict=True)]


def _joined(parts: list[Pairs]) -> Pairs:
    """The rows of several Pairs below one another."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return Pairs(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.concatenate([part.items for part in parts])
    )
