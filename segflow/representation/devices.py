"""Where torch computes: on a graphics card if there is one, else on the processor.

Lives here: the choice of the device, and of the precision that pays on it. Does not live here: what is computed there, and how
several processes add up what they found (``process_group``).
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

CPU = torch.device("cpu")


def find_device(rank: int = 0) -> torch.device:
    """The card of process ``rank`` of this machine, or the CPU if there is none.

    Cards are dealt out in a circle. An environment with ``CUDA_VISIBLE_DEVICES=-1`` hides them all.
    """
    count = torch.cuda.device_count()
    return torch.device("cuda", rank % count) if count else CPU


def use_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware (else it would be slower than float32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def rounded(device: torch.device) -> torch.autocast:
    """Inside it, layers on ``device`` multiply in bfloat16 where that is fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(device))


def moved(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """``array`` on ``device``; on the CPU both share their memory."""
    return torch.from_numpy(array).to(device)
