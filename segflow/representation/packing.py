"""Texts through a transformer without padding: one row of tokens that holds many texts, attention inside each of them.

Lives here: the packed attention, the pass with it and the pass with padding, and the pooling of either. Does not live here:
which of the two is used.

Source of the method: Krell et al. 2021, Efficient sequence packing without cross-contamination. Texts are sorted by length,
so a row holds few different lengths, and the texts of one length are one dense attention without a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from segflow.representation.language_model import Pooling

Tokens = Sequence[Sequence[int]]
_NAME = "segflow_packed"
# Tokens of a text up to which its attention is computed by plain products.
_PLAIN = 200
# Sums of exponentials between this and its inverse lose nothing, in bfloat16 or float32.
_SMALLEST = 1e-30
# (first token, texts, tokens of each) of the runs of texts of one length in the row that is being computed.
_RUNS: ContextVar[list[tuple[int, int, int]]] = ContextVar("runs")


def can_be_packed(model: nn.Module) -> bool:
    """Whether the model lets its attention be replaced and its positions be told. Agreement is for the caller to check."""
    causal = any(getattr(part, "is_causal", False) for part in model.modules())
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and "position_ids" in _arguments(model)
        and not causal
    )


@contextmanager
def packed_attention(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model's attention is the packed one."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _no_mask)
    before = model.config._attn_implementation  # type: ignore[union-attr]
    model.set_attn_implementation(_NAME)  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]


def packed_states(model: nn.Module, tokens: Tokens, first_position: int) -> Tensor:
    """(sum of lengths, d): the states of the texts' tokens one after the other, inside `packed_attention`.

    first_position: the model's number of a text's first place.
    """
    lengths = lengths_of(tokens)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths) + first_position
    ids = np.fromiter(chain.from_iterable(tokens), np.int64, int(ends[-1]))
    row = {"input_ids": torch.from_numpy(ids), "position_ids": torch.from_numpy(places)}
    runs, start = [], 0
    for length, alike in groupby(lengths.tolist()):
        texts = len(list(alike))
        runs.append((start, texts, length))
        start += texts * length
    token = _RUNS.set(runs)
    try:
        states: Tensor = model(**_on_device(model, {name: part[None] for name, part in row.items()})).last_hidden_state
    finally:
        _RUNS.reset(token)
    return states[0]


def padded_batch(model: nn.Module, tokens: Tokens, padding: int) -> dict[str, Tensor]:
    """input_ids and attention_mask, both (n, longest), on the model's device; padded on the right with the token `padding`."""
    rows = [torch.tensor(one) for one in tokens]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths_of(tokens))[:, None]
    return _on_device(model, {"input_ids": ids, "attention_mask": mask.long()})


def padded_states(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(sum of lengths, d): the states of a padded batch's texts one after the other, without the padding."""
    states: Tensor = model(**batch).last_hidden_state
    return states[batch["attention_mask"].bool()]


def pool(states: Tensor, lengths: npt.NDArray[np.int64], pooling: Pooling) -> Tensor:
    """(n, d) float32 of unit length from the states of n texts, one after the other."""
    counts = torch.from_numpy(lengths).to(states.device)
    states = states.float()
    if pooling == "cls":
        pooled = states[counts.cumsum(0) - counts]
    elif pooling == "lasttoken":
        pooled = states[counts.cumsum(0) - 1]
    else:
        pooled = torch.segment_reduce(states, pooling, lengths=counts)
    return functional.normalize(pooled, dim=1)


def lengths_of(tokens: Tokens) -> npt.NDArray[np.int64]:
    """(n,) tokens of each text."""
    return np.fromiter(map(len, tokens), np.int64, len(tokens))


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_ignored: Any,
) -> tuple[Tensor, None]:
    """(1, heads, tokens, d) each -> (1, tokens, heads, d): every token sees its own text."""
    heads, tokens, width = query.shape[1:]
    out = query.new_empty(tokens, heads, width)
    for start, texts, length in _RUNS.get():
        end = start + texts * length
        q, k, v = (one[0, :, start:end].unflatten(1, (texts, length)).transpose(0, 1) for one in (query, key, value))
        if length <= _PLAIN and q.shape == k.shape and q.device.type == "cpu":
            seen = _plain_attention(q, k, v, scaling or width**-0.5)
        else:
            seen = functional.scaled_dot_product_attention(q, k, v, scale=scaling, enable_gqa=key.shape[1] != heads)
        out[start:end].view(texts, length, heads, width).copy_(seen.transpose(1, 2))
    return out[None], None


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """(texts, heads, tokens, d) each: plain products, which take a processor half the time of the fused attention."""
    q, k, v = (one.flatten(0, 1) for one in (query, key, value))
    weights = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=scaling).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float32)
    # A softmax takes away the largest score first, in passes that cost more than both products. It is needed only where
    # exponentials leave what numbers can hold.
    least, most = total.aminmax()
    if not (least > _SMALLEST and most < 1 / _SMALLEST):
        return functional.scaled_dot_product_attention(query, key, value, scale=scaling)
    return (torch.bmm(weights, v) / total).unflatten(0, query.shape[:2])


def _no_mask(*_: Any, **__: Any) -> None:
    """Runs say what belongs together."""


def _on_device(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    if "token_type_ids" in _arguments(model):
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _arguments(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)
