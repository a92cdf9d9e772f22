"""What the behaviour model is trained on: its tasks, their targets and their losses.

All are targets of one position, which has seen the moments up to its own: the items of the next moment, its event types,
whether the next session starts within the horizon, when it starts, and the items of the position's own moment where
those were hidden.

Lives here: targets and losses of a batch. Does not live here: the layers (``behavior_network``) and the training loop.

Sources: logQ-corrected sampled softmax (Bengio & Senecal 2008; Yi et al. 2019), discrete-time survival with
right-censoring (Tutz & Schmid 2016), masked items (Sun et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from segflow.config import BehaviorConfig
from segflow.representation.behavior_network import WAIT_EDGES, Items, Network
from segflow.representation.devices import moved, use_bfloat16
from segflow.representation.moments import Batch, Moments, expand
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

_SHAPES = 128  # drawn items come in multiples of it: kernels for bfloat16 products are made anew for each new shape


@dataclass(frozen=True)
class Wanted:
    """The events that some positions are to predict; those of one position are one set."""

    positions: npt.NDArray[np.int64]  # (n,) rows of the states
    events: npt.NDArray[np.int64]  # (T,) index into the sequences
    owner: npt.NDArray[np.int64]  # (T,) which of the n positions

    def only(self, place: npt.NDArray[np.int64]) -> Wanted:
        """Of the positions that have a ``place`` among others alone; -1 for none."""
        rows = place[self.positions]
        there = rows >= 0
        events = there[self.owner]
        return Wanted(rows[there], self.events[events], (np.cumsum(there) - 1)[self.owner[events]])


@dataclass(frozen=True)
class Plan:
    """What one step looks at, decided before any vector is computed."""

    positions: npt.NDArray[np.int64]  # (n,) positions of the batch that are scored
    masked: npt.NDArray[np.bool_] | None  # (P,) positions whose moment is hidden
    following: Wanted
    hidden: Wanted
    drawn: tuple[npt.NDArray[np.int64], Tensor] | None  # (k,) distinct items and their corrections; none: all items
    items: npt.NDArray[np.int64]  # distinct items that the step needs

    def only(self, positions: npt.NDArray[np.int64]) -> Plan:
        """The same plan for some (k,) ascending positions of a batch whose positions are all scored; items stay."""
        place = np.full(len(self.positions), -1)
        place[positions] = np.arange(len(positions))
        return replace(
            self,
            positions=np.arange(len(positions)),
            masked=None if self.masked is None else self.masked[positions],
            following=self.following.only(place),
            hidden=self.hidden.only(place),
        )


class PretrainingTasks:
    """The pre-training losses of a batch. Items are drawn by their share of the events before ``split_us``."""

    def __init__(
        self, network: Network, sequences: EventSequences, moments: Moments, config: BehaviorConfig, split_us: int
    ) -> None:
        self.network, self.sequences, self.moments, self.config = network, sequences, moments, config
        self.count = len(sequences.item_ids)
        counts = np.bincount(
            sequences.items[(sequences.items >= 0) & (sequences.times < split_us)], minlength=self.count
        )
        self.seen = counts > 0
        share = np.cumsum(counts + 1.0)
        self._cumulative = share / share[-1]
        self._share = np.diff(self._cumulative, prepend=0)
        self._sampled = config.softmax == "sampled" or (config.softmax == "auto" and self.count > config.negatives)

    def plan(self, batch: Batch, scored: npt.NDArray[np.bool_], end_us: int, rng: np.random.Generator) -> Plan:
        """What to predict at the ``scored`` (P,) positions; everything from ``end_us`` on counts as unknown."""
        positions = np.flatnonzero(scored)
        index = batch.moments[positions]
        ahead = self.moments.times[np.minimum(index + 1, len(self.moments.times) - 1)]
        known = np.flatnonzero(self.moments.follows[index] & (ahead < end_us))
        following = self._wanted(known, index[known] + 1)
        masked = None
        hidden = Wanted(*[np.zeros(0, np.int64)] * 3)
        if self.config.tasks["masked"]:
            masked = scored & (rng.random(len(scored)) < self.config.mask_share)
            rows = np.flatnonzero(masked[positions])
            hidden = self._wanted(rows, index[rows])
        drawn = self._draw(rng) if self._sampled else None
        items = self._needed(batch, following, hidden, drawn[0]) if drawn else np.arange(self.count)
        return Plan(positions, masked, following, hidden, drawn, items)

    def losses(self, batch: Batch, plan: Plan, items: Items, end_us: int) -> dict[str, Tensor]:
        """Mean loss over the planned positions, of each task that has a weight and something to predict."""
        states = self.network(batch, items, plan.masked)
        if len(plan.positions) < len(states):
            states = states[moved(plan.positions, states.device)]
        weights, losses = self.config.tasks, {}
        if weights["next_item"] and self._holds_items(plan.following):
            losses["next_item"] = self._items(self.network.next_item, states, plan.following, plan, items)
        if weights["masked"] and self._holds_items(plan.hidden):
            losses["masked"] = self._items(self.network.masked_item, states, plan.hidden, plan, items)
        if weights["next_type"] and len(plan.following.events) and len(self.sequences.event_types) > 1:
            losses["next_type"] = self._next_type(states, plan.following)
        if weights["return"] or weights["wait"]:
            losses.update(self._return(states, batch.moments[plan.positions], end_us))
        return losses

    def counts(self, batch: Batch, plan: Plan, end_us: int) -> dict[str, int]:
        """Over how many positions each of the ``losses`` is a mean."""
        weights, found = self.config.tasks, {}
        following, hidden = plan.following, plan.hidden
        if weights["next_item"]:
            found["next_item"] = self._with_items(following)
        if weights["masked"]:
            found["masked"] = self._with_items(hidden)
        if weights["next_type"] and len(self.sequences.event_types) > 1:
            found["next_type"] = len(following.positions)
        index = batch.moments[plan.positions]
        if weights["return"]:
            _, decided = self._returned(*self._waited(index, end_us))
            found["return"] = len(decided)
        if weights["wait"]:
            found["wait"] = len(index)
        return {name: count for name, count in found.items() if count}

    def total(self, losses: dict[str, Tensor], among: Iterable[str] | None = None) -> Tensor:
        """The weighted mean of the losses; ``among``: the tasks whose weights are counted, those of the losses by default."""
        weights = self.config.tasks
        summed = sum((weights[name] * one for name, one in losses.items()), torch.zeros(()))  # type: ignore[index]
        counted: list[float] = [weights[name] for name in among or losses]  # type: ignore[index]
        return summed / sum(counted)

    def _wanted(self, positions: npt.NDArray[np.int64], moments: npt.NDArray[np.int64]) -> Wanted:
        return Wanted(positions, *expand(self.moments.events[moments], self.moments.events[moments + 1]))

    def _holds_items(self, wanted: Wanted) -> bool:
        return bool((self.sequences.items[wanted.events] >= 0).any())

    def _with_items(self, wanted: Wanted) -> int:
        return len(np.unique(wanted.owner[self.sequences.items[wanted.events] >= 0]))

    def _draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Items drawn with replacement, each once, and the log of how often it came over how often it is expected.

        The loss is that of all draws, for fewer rows.
        """
        draws = self.config.negatives
        drawn = np.minimum(np.searchsorted(self._cumulative, rng.random(draws), side="right"), self.count - 1)
        pool, times = np.unique(drawn, return_counts=True)
        correction = np.log(times / (draws * self._share[pool])).astype(np.float32)
        return pool, moved(correction, self.network.device)

    def _needed(
        self, batch: Batch, following: Wanted, hidden: Wanted, pool: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        wanted = self.sequences.items[np.concatenate([following.events, hidden.events])]
        needed = np.unique(np.concatenate([batch.items, wanted, pool]))
        return needed[np.searchsorted(needed, 0) :]

    def _items(self, head: torch.nn.Module, states: Tensor, wanted: Wanted, plan: Plan, items: Items) -> Tensor:
        """Softmax loss of each wanted item, the mean over positions of the mean over a position's items."""
        targets = self.sequences.items[wanted.events].astype(np.int64)
        owner, targets = wanted.owner[targets >= 0], targets[targets >= 0]
        device = states.device
        weight = moved((1.0 / np.bincount(owner, minlength=1))[owner].astype(np.float32), device)
        # All states, wanted or not: one shape at every step costs less than a few rows.
        queries = head(states).float()
        vectors, bias = items.vectors, items.bias
        among, offset = vectors, bias
        if plan.drawn is not None:
            pool, correction = plan.drawn
            spare = -len(pool) % _SHAPES
            at = moved(np.pad(items.places(pool), (0, spare)), device)
            among, offset = vectors[at], bias[at] + functional.pad(correction, (0, spare), value=-1e4)
        against = _LogSumExp.apply(queries, among, offset)
        rows, columns = moved(wanted.positions[owner], device), moved(items.places(targets), device)
        positive = (queries[rows] * vectors[columns]).sum(1) + bias[columns]
        total = against[rows]
        if plan.drawn is not None:
            total = torch.logaddexp(total, positive)
        return ((total - positive) * weight).sum() / weight.sum()

    def _next_type(self, states: Tensor, wanted: Wanted) -> Tensor:
        types = len(self.sequences.event_types)
        cell = wanted.owner * types + self.sequences.types[wanted.events]
        shares = np.bincount(cell, minlength=len(wanted.positions) * types).reshape(-1, types).astype(np.float32)
        shares /= shares.sum(1, keepdims=True)
        answers = self.network.next_type(states)[moved(wanted.positions, states.device)].float()
        return functional.cross_entropy(answers, moved(shares, states.device))

    def _return(self, states: Tensor, index: npt.NDArray[np.int64], end_us: int) -> dict[str, Tensor]:
        """Whether the next session starts within the horizon, and when; both right-censored at the end of the log."""
        seen, waited = self._waited(index, end_us)
        device, losses = states.device, {}
        if self.config.tasks["return"]:
            back, decided = self._returned(seen, waited)
            if len(decided):
                answers = self.network.returns(states)[moved(decided, device), 0].float()
                target = moved(back[decided].astype(np.float32), device)
                losses["return"] = functional.binary_cross_entropy_with_logits(answers, target)
        if self.config.tasks["wait"]:
            log_share = torch.log_softmax(self.network.wait(states).float(), dim=1)
            bucket = moved(np.searchsorted(WAIT_EDGES, waited), device)[:, None]
            exact = log_share.gather(1, bucket)
            # A censored wait says only "not yet": the probability of this bucket and all later ones.
            later = torch.flip(torch.logcumsumexp(torch.flip(log_share, [1]), dim=1), [1]).gather(1, bucket)
            losses["wait"] = -torch.where(moved(seen, device)[:, None], exact, later).mean()
        return losses

    def _waited(
        self, index: npt.NDArray[np.int64], end_us: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Whether each moment's next session is known, and the days until it starts, or else until the log ends."""
        now, then = self.moments.times[index], self.moments.next_session[index]
        seen = (then >= 0) & (then < end_us)
        return seen, np.where(seen, then - now, end_us - now) / MICROSECONDS_PER_DAY

    def _returned(
        self, seen: npt.NDArray[np.bool_], waited: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Who came back within the horizon, and of which positions it is known whether they did."""
        back = seen & (waited <= self.config.horizon_days)
        return back, np.flatnonzero(back | (waited > self.config.horizon_days))


class _LogSumExp(torch.autograd.Function):
    """log sum exp(queries @ vectors.T + offset) of each query, (n,).

    The matrix of scores is by far the largest of a step: its gradient is made in place, and in one pass.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, offset: Tensor) -> Tensor:
        kind = torch.bfloat16 if use_bfloat16(queries.device) else torch.float32
        queries, vectors = queries.to(kind), vectors.to(kind)
        scores = (queries @ vectors.T).float().add_(offset)
        highest = scores.amax(1, keepdim=True)
        total = scores.sub_(highest).exp_().sum(1, keepdim=True)
        ctx.save_for_backward(queries, vectors, scores, total)
        return (total.log() + highest)[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, vectors, scores, total = ctx.saved_tensors
        share = scores.mul_(gradients[0][:, None] / total)
        low = share.to(queries.dtype)
        return (low @ vectors).float(), (low.T @ queries).float(), share.sum(0)
