"""Weights as bytes: each row of a matrix is a step size times whole numbers from -127 to 127.

Lives here: tensors to bytes and back. Does not live here: which model is stored so (``compression``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_MARK, _STEP = ".int8", ".step"
_LARGEST = 127


def quantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every float matrix as int8 with one float32 step per row, symmetric around zero; other tensors as they are."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or not tensor.numel():
            small[name] = tensor
            continue
        step = _coarse(tensor.abs().amax(1) / _LARGEST)
        whole = torch.round(tensor / step.clamp_min(torch.finfo(torch.float32).tiny)[:, None])
        small[name + _MARK] = whole.clamp_(-_LARGEST, _LARGEST).to(torch.int8)
        small[name + _STEP] = step
    return small


def dequantize(small: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 tensors, a multiple of the row's step where they were stored as int8."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in small.items():
        if name.endswith(_MARK):
            plain = name.removesuffix(_MARK)
            tensors[plain] = tensor.float() * small[plain + _STEP][:, None]
        elif not name.endswith(_STEP):
            tensors[name] = tensor
    return tensors


def _coarse(step: Tensor) -> Tensor:
    # With its last eight bits cleared, 127 steps are exact: storing again what was read gives the same bytes.
    return (step.contiguous().view(torch.int32) & ~0xFF).view(torch.float32)
