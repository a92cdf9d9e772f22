"""Linear layers in eight-bit integers: weights by output channel, inputs by token, both symmetric, sums in 32 bits.

Source of the method: Dettmers et al. 2022, LLM.int8(), vector-wise quantization without its outlier columns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

_LARGEST = 127


class IntegerLinear(nn.Module):
    """A linear layer whose product is one of integers. For inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        self.scale: Tensor
        self.weight: Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).t().contiguous())
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs) float32."""
        rows = inputs.flatten(0, -2).float()
        scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        sums = torch._int_mm((rows / scale).round().to(torch.int8), self.weight)
        outputs = sums * scale * self.scale
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.unflatten(0, inputs.shape[:-1])


def in_integers(model: nn.Module) -> nn.Module:
    """A copy of the model with every linear layer in integers; all else stays as it is."""
    return with_linear(model, IntegerLinear)


def with_linear(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """A copy of the model in which `make` replaced every linear layer."""
    return _replace(copy.deepcopy(model), make)


def _replace(module: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for name, part in list(module.named_children()):
        setattr(module, name, make(part) if type(part) is nn.Linear else _replace(part, make))
    return module
