"""The network of the behaviour model: moments in, user states and the answers of the task heads out.

Positions are rows of one flat matrix: no padding is ever computed. Only attention sees windows, those of one length
together.

Lives here: layers and heads. Does not live here: what the heads are trained on (``pretraining``), the training loop
(``behavior_training``), user states and bytes (``behavior``).

Sources: self-attentive sequential recommendation (Kang & McAuley 2018), linear attention biases (Press et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from segflow.config import BehaviorConfig
from segflow.representation.devices import moved
from segflow.representation.moments import GAP_EDGES, VALUE_BUCKETS, Batch

# Edges in days between the buckets of the time to the next session: 1 hour to 64 days, doubling.
WAIT_EDGES = np.array([1 / 24, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 21, 28, 42, 64])
_NEVER = -1e4
_SHAPES = 256  # rows come in multiples of it: kernels for bfloat16 products are made anew for each new shape


@dataclass(frozen=True)
class Items:
    """Some items of the catalogue as the network sees them at one step."""

    index: npt.NDArray[np.int64]  # (n,) ascending
    vectors: Tensor  # (n, width)
    bias: Tensor  # (n,)

    def places(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where ``items`` of the catalogue are in ``index``; -1 becomes n."""
        return np.where(items < 0, len(self.index), np.searchsorted(self.index, items))


class _Block(nn.Module):
    """One pre-norm transformer layer; ``slopes`` say how fast each attention head forgets."""

    def __init__(self, width: int, head_width: int, slopes: Tensor, hidden: int, dropout: float) -> None:
        super().__init__()
        self.head_width = head_width
        inner = len(slopes) * head_width
        self.slopes: Tensor
        self.register_buffer("slopes", slopes)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_forward = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, shapes: tuple[tuple[int, int], ...], distance: Tensor) -> Tensor:
        x = x + self.dropout(self.out(self.mixed(x, shapes, distance)))
        return x + self.dropout(self.down(self.active(x)))

    def mixed(self, x: Tensor, shapes: tuple[tuple[int, int], ...], distance: Tensor) -> Tensor:
        """(P, heads * head_width) what each head found in the positions before."""
        rows = self.query_key_value(self.norm_attention(x)).float()
        longest = max(length for _, length in shapes)
        near = distance[:longest, :longest]
        bias = torch.where(near < 0, _NEVER, -self.slopes[:, None, None] * near)
        parts = torch.split(rows, [windows * length for windows, length in shapes])
        # These products are small and of ever other shapes: float32 is faster than making bfloat16 kernels for them.
        with torch.autocast(rows.device.type, enabled=False):
            found = [self._attend(part, *shape, bias) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def active(self, x: Tensor) -> Tensor:
        """(P, hidden) activations of the feed-forward units."""
        return functional.gelu(self.up(self.norm_forward(x)))

    def _attend(self, rows: Tensor, windows: int, length: int, bias: Tensor) -> Tensor:
        heads = len(self.slopes)
        parts = rows.view(windows, length, 3, heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0] * self.head_width**-0.5, parts[1], parts[2]
        weights = torch.softmax(query @ key.transpose(-1, -2) + bias[:, :length, :length], dim=-1)
        return (weights @ value).transpose(1, 2).reshape(windows * length, heads * self.head_width)


class Network(nn.Module):
    """Moments in, states out, and the heads of the pre-training tasks.

    Args:
        item_vectors: (I, D) float32 text vectors of the catalogue; ignored unless the inputs name text.
        types: number of event types.
        shapes: (heads, feed-forward units) of each layer, where they differ from the configuration's.
    """

    def __init__(
        self,
        item_vectors: Tensor,
        types: int,
        config: BehaviorConfig,
        shapes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        width, count = config.width, len(item_vectors)
        self.inputs = frozenset(config.inputs)
        # Without either input the table is still what the next item is chosen from.
        self.has_text, self.has_ids = "text" in self.inputs, "item" in self.inputs or "text" not in self.inputs
        self.item_vectors: Tensor
        self.register_buffer("item_vectors", item_vectors if self.has_text else item_vectors[:, :0], persistent=False)
        self.item = nn.Parameter(torch.randn(count if self.has_ids else 0, width) * 0.1, requires_grad=False)
        self.item_bias = nn.Parameter(torch.zeros(count), requires_grad=False)
        if self.has_text:
            self.text = nn.Linear(item_vectors.shape[1], width, bias=False)
        self.mask = nn.Parameter(torch.zeros(2, width))
        self.event_type = nn.Embedding(types, width)
        self.gap = nn.Embedding(len(GAP_EDGES) + 2, width)
        self.hour = nn.Embedding(24, width)
        self.weekday = nn.Embedding(7, width)
        self.value = nn.Embedding(VALUE_BUCKETS, width)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        # One head looks at the whole context evenly, the others fade at different speeds.
        slopes = torch.cat([torch.zeros(1), 2.0 ** -torch.linspace(1, 6, config.heads)])[: config.heads]
        self.blocks = nn.ModuleList(
            _Block(width, width // config.heads, slopes[:heads].clone(), hidden, config.dropout)
            for heads, hidden in shapes or [(config.heads, 4 * width)] * config.layers
        )
        self.output_norm = nn.LayerNorm(width)
        self.next_item = nn.Linear(width, width)
        self.masked_item = nn.Linear(width, width)
        self.next_type = nn.Linear(width, types)
        self.returns = nn.Linear(width, 1)
        self.wait = nn.Linear(width, len(WAIT_EDGES) + 1)
        self.distance: Tensor
        step = torch.arange(config.context)
        self.register_buffer("distance", step[:, None] - step[None, :], persistent=False)
        if shapes is None:
            self._start_as_item_average()

    @classmethod
    def of(cls, tensors: dict[str, Tensor], types: int, config: BehaviorConfig) -> Network:
        """A network of these weights, their shapes and ``item_vectors`` included, ready to be used."""
        shapes = [
            (len(tensors[f"blocks.{layer}.slopes"]), len(tensors[f"blocks.{layer}.up.weight"]))
            for layer in range(config.layers)
        ]
        network = cls(tensors["item_vectors"], types, config, shapes)
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if name != "item_vectors"})
        return network.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs have to be."""
        return self.mask.device

    @property
    def layers(self) -> list[_Block]:
        """The transformer layers, first to last."""
        return [cast(_Block, block) for block in self.blocks]

    @torch.no_grad()
    def _start_as_item_average(self) -> None:
        """Begin with a state that is the average of the items so far, pointing at those same items.

        From the usual random start, a log of this size never got past popularity within the time allowed.
        """
        width = self.next_item.in_features
        nn.init.eye_(self.next_item.weight)
        nn.init.eye_(self.masked_item.weight)
        first = self.layers[0]
        nn.init.eye_(first.query_key_value.weight[2 * width :])
        first.query_key_value.weight[: 2 * width] *= 0.1
        nn.init.eye_(first.out.weight)
        # With the default scale, the type, value and time of an event would drown its item.
        for small in (self.event_type, self.value, self.hour, self.weekday):
            nn.init.normal_(small.weight, std=0.02)
        nn.init.normal_(self.gap.weight, std=0.3)

    def items(self, index: npt.NDArray[np.int64], bias: Tensor | None = None, rows: Tensor | None = None) -> Items:
        """The items ``index``: what the log taught about each plus what its text says.

        Training passes ``bias`` (n,) and ``rows`` (n, width): its own copies of what is to be learned of each.
        """
        every = len(index) == len(self.item_bias)
        at = moved(index, self.device)
        if bias is None:
            bias = self.item_bias if every else self.item_bias[at]
        if rows is None and self.has_ids:
            rows = self.item if every else self.item[at]
        if self.has_text:
            spare = at.new_zeros(-len(at) % _SHAPES)
            said = self.text(self.item_vectors if every else self.item_vectors[torch.cat([at, spare])])[: len(at)]
            rows = said if rows is None else rows + said
        assert rows is not None
        return Items(index, rows.float(), bias)

    def forward(self, batch: Batch, items: Items, masked: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """(P, width) states of all positions; items and values of ``masked`` (P,) positions are hidden from them."""
        x = self.embed(batch, items, masked)
        for block in self.layers:
            x = block(x, batch.shapes, self.distance)
        return cast(Tensor, self.output_norm(x)).float()

    def embed(self, batch: Batch, items: Items, masked: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """(P, width) what the first layer reads."""
        x = self.input_norm(self._events(batch, items, masked))
        if "gap" in self.inputs:
            x = x + self.gap(batch.gaps)
        if "time" in self.inputs:
            x = x + self.hour(batch.hours) + self.weekday(batch.weekdays)
        return cast(Tensor, self.dropout(x))

    def _events(self, batch: Batch, items: Items, masked: npt.NDArray[np.bool_] | None) -> Tensor:
        """(P, width) the events of each moment, pooled."""
        zero = items.vectors.new_zeros(1, items.vectors.shape[1])
        pooled = zero.expand(len(batch.moments), -1)
        places, values = moved(items.places(batch.items), self.device), batch.values
        if masked is not None:
            hidden = moved(np.repeat(masked, batch.counts), self.device)
            places = places.masked_fill(hidden, len(items.index) + 1)
            values = values.masked_fill(hidden, VALUE_BUCKETS)
        if self.inputs & {"item", "text"}:
            pooled = pooled + _sum(torch.cat([items.vectors, zero, self.mask[:1]]), places, batch)
        if "value" in self.inputs:
            pooled = pooled + _sum(torch.cat([self.value.weight, self.mask[1:]]), values, batch)
        if "event_type" in self.inputs:
            pooled = pooled + _sum(self.event_type.weight, batch.types, batch)
        # Sum over sqrt(n): a large basket speaks louder than a small one, but not n times as loud.
        return pooled * batch.sizes.rsqrt()[:, None]


def _sum(table: Tensor, rows: Tensor, batch: Batch) -> Tensor:
    """(P, width) sum of the ``table`` rows of each moment's events."""
    return functional.embedding_bag(rows, table, batch.starts, mode="sum")
