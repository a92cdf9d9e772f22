"""Smaller variants of a trained behaviour model, and what they cost.

Lives here: making the variants and measuring them. Does not live here: how weights become bytes (``quantization``).

Sources: per-row symmetric int8 weights (Krishnamoorthi 2018); units and heads ranked by the size of what they add to
the residual stream (after Molchanov et al. 2017, without gradients).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.representation.behavior import BehaviorModel, Variant
from segflow.representation.behavior_network import Network
from segflow.representation.behavior_training import Span, Trainer
from segflow.representation.devices import rounded
from segflow.representation.moments import batches_of, find_moments, make_batch
from segflow.representation.quantization import dequantize, quantize
from segflow.representation.sequences import EventSequences

_TOP = 10
_CALIBRATION_MOMENTS = 20_000


@dataclass(frozen=True)
class VariantRow:
    """One variant on the validation days: its size, its speed, and how well it still does what it was trained for."""

    variant: Variant
    bytes: int
    states_per_second: float
    recall_at_10: float  # of the items of the validation days, the state before them pointing at the catalogue
    losses: dict[str, float]  # validation loss of each task, and "loss", their weighted mean

    @property
    def figures(self) -> dict[str, float]:
        """The row's numbers by name."""
        sizes = {
            "bytes": self.bytes,
            "states_per_second": self.states_per_second,
            f"recall_at_{_TOP}": self.recall_at_10,
        }
        return {**sizes, **self.losses}

    @property
    def summary(self) -> str:
        """The row as one line of text."""
        losses = ", ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        return (
            f"{self.variant}: {self.bytes:,} bytes, {self.states_per_second:,.0f} states/s, "
            f"recall@{_TOP} {self.recall_at_10:.4f}, {losses}"
        )


def variant_of(model: BehaviorModel, sequences: EventSequences, variant: Variant) -> BehaviorModel:
    """``model`` as it is, with int8 weights, or without its least important units and heads.

    The ``sequences`` are those of the training: what matters least is measured on the days before the validation days.
    """
    if variant == "full":
        return model
    tensors = model.network.state_dict() | {"item_vectors": model.network.item_vectors}
    if variant == "int8":
        return _rebuilt(model, dequantize(quantize(tensors)), variant)
    for layer, (heads, units) in enumerate(_importance(model, sequences)):
        _cut(
            tensors,
            f"blocks.{layer}.",
            _kept(heads, model.config.pruned_share),
            _kept(units, model.config.pruned_share),
        )
    return _rebuilt(model, tensors, variant)


def variants_of(model: BehaviorModel, sequences: EventSequences) -> dict[Variant, BehaviorModel]:
    """Every variant of ``model``; see ``variant_of``."""
    return {variant: variant_of(model, sequences, variant) for variant in get_args(Variant)}


def compare(models: dict[Variant, BehaviorModel], sequences: EventSequences) -> list[VariantRow]:
    """A row for each of the models of one training, measured on the validation days of its ``sequences``."""
    return [_measure(variant, model, sequences) for variant, model in models.items()]


def _measure(variant: Variant, model: BehaviorModel, sequences: EventSequences) -> VariantRow:
    span = Span.of(sequences, model.config)
    users = np.arange(len(sequences.user_ids))
    began = time.perf_counter()
    states = model.states(sequences, np.full(len(users), span.split_us), users, "last")
    seconds = time.perf_counter() - began
    losses = Trainer(model.network, sequences, model.config, span, 0).validate()
    recall = _recall(model, states, sequences.between(span.split_us, span.end_us))
    filled = float(states[:, -1].sum())
    return VariantRow(variant, len(model.to_bytes()), filled / seconds, recall, losses)


def _recall(model: BehaviorModel, states: npt.NDArray[np.float32], later: EventSequences) -> float:
    """Mean over users with a state and a later item: share of their later items (ten at most) among the ten best."""
    vectors, shares = model.item_vectors().T, []
    for start in range(0, len(states), 1024):
        best = np.argsort(-(model.queries(states[start : start + 1024]) @ vectors), axis=1)[:, :_TOP]
        for user, top in enumerate(best, start):
            items = later.items[later.offsets[user] : later.offsets[user + 1]]
            wanted = np.unique(items[items >= 0])
            if len(wanted) and states[user, -1]:
                shares.append(np.isin(top, wanted).sum() / min(_TOP, len(wanted)))
    return float(np.mean(shares)) if shares else float("nan")


def _importance(model: BehaviorModel, sequences: EventSequences) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each layer: (heads,) and (units,) mean size of what each adds to a position."""
    network, config = model.network, model.config
    known = sequences.before(Span.of(sequences, config).split_us)
    moments = find_moments(known, config.session_gap_minutes)
    begin, stops = moments.offsets[:-1], moments.offsets[1:]
    starts = np.maximum(begin, stops - config.context)
    full = np.flatnonzero(stops > starts)
    batches = batches_of(starts[full], stops[full], config.batch_moments)
    # Evenly from the longest windows to the shortest.
    few = max(1, _CALIBRATION_MOMENTS // config.batch_moments)
    sums = [(torch.zeros(len(one.slopes)), torch.zeros(one.up.out_features)) for one in network.layers]
    network.eval()
    with torch.inference_mode(), rounded(network.device):
        items = network.items(np.unique(known.items[known.items >= 0]).astype(np.int64))
        for number in np.unique(np.linspace(0, len(batches) - 1, few).astype(int)):
            rows = full[batches[number]]
            batch = make_batch(known, moments, starts[rows], stops[rows])
            x = network.embed(batch, items)
            for block, (heads, units) in zip(network.layers, sums, strict=True):
                mixed = block.mixed(x, batch.shapes, network.distance).float()
                added = mixed.view(len(x), len(heads), -1).permute(1, 0, 2) @ block.out.weight.view(
                    len(block.out.weight), len(heads), -1
                ).permute(1, 2, 0)
                heads.add_(added.float().norm(dim=2).sum(1))
                x = x + block.out(mixed)
                active = block.active(x)
                units.add_(active.float().abs().sum(0) * block.down.weight.norm(dim=0))
                x = x + block.down(active)
    return iter(sums)


def _kept(importance: Tensor, share: float) -> Tensor:
    """The most important ones, in their order; at least one."""
    count = max(1, round(len(importance) * (1 - share)))
    return torch.sort(torch.topk(importance, count).indices).values


def _cut(tensors: dict[str, Tensor], layer: str, heads: Tensor, units: Tensor) -> None:
    """Keep only these heads and units of a layer: its matrices become smaller."""
    inner = tensors[f"{layer}out.weight"].shape[1]
    head_width = inner // len(tensors[f"{layer}slopes"])
    columns = (heads[:, None] * head_width + torch.arange(head_width)).ravel()
    rows = torch.cat([part * inner + columns for part in range(3)])
    tensors[f"{layer}slopes"] = tensors[f"{layer}slopes"][heads]
    for kind in ("weight", "bias"):
        tensors[f"{layer}query_key_value.{kind}"] = tensors[f"{layer}query_key_value.{kind}"][rows]
        tensors[f"{layer}up.{kind}"] = tensors[f"{layer}up.{kind}"][units]
    tensors[f"{layer}out.weight"] = tensors[f"{layer}out.weight"][:, columns]
    tensors[f"{layer}down.weight"] = tensors[f"{layer}down.weight"][:, units]


def _rebuilt(model: BehaviorModel, tensors: dict[str, Tensor], variant: Variant) -> BehaviorModel:
    network = Network.of(tensors, len(model.event_types), model.config)
    return replace(model, network=network, variant=variant)
