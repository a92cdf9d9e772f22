"""The processes that train one model together: what each of them adds to a step, and that all of them hold the same weights.

Every process sees every batch, works on its own windows of it, and makes the same step from the sum of what all found: a batch
is as large as with one process. Sums are those of torch.distributed, whose result has the same bits everywhere.

Lives here: the group as one of its processes sees it. Does not live here: starting processes and what happens when one is
lost (``training_processes``), and training (``behavior_training``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from segflow.representation.devices import CPU

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""What adds up tensors of a kind of device; nccl takes those of a card only, and a card for each process."""


@dataclass(frozen=True)
class Group:
    """Process ``rank`` of ``size``, which works on ``device``; a group of one does nothing at all."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def alone(self) -> bool:
        """Whether there is nobody to wait for."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def add_gradients(self, parameters: Sequence[Tensor], figures: Sequence[float]) -> list[float]:
        """Replace each gradient by the sum over all processes, and return the sums of ``figures``, in one exchange.

        A parameter without a gradient anywhere keeps none.
        """
        found = [one.grad is not None for one in parameters]
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        told = torch.tensor([*found, *figures], dtype=torch.float32, device=self.device)
        flat = torch.cat([*(part.reshape(-1) for part in parts), told])
        distributed.all_reduce(flat)
        *summed, anywhere, totals = flat.split([*(one.numel() for one in parameters), len(found), len(figures)])
        for one, gradient, somebody in zip(parameters, summed, anywhere.tolist(), strict=True):
            one.grad = gradient.view_as(one) if somebody else None
        return totals.tolist()

    def add(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums of ``figures``, which have the same names in all processes."""
        flat = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(flat)
        return dict(zip(figures, flat.tolist(), strict=True))

    def draw_apart(self, seed: int, step: int) -> None:
        """From now on torch draws other random numbers in each process, and the same ones whenever the training comes here."""
        drawn = np.random.SeedSequence([seed, step, self.rank]).generate_state(1)
        torch.manual_seed(int(drawn[0]))

    def require_same(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError unless ``weights`` are equal to the last bit in all processes."""
        digest = hashlib.sha256()
        for name in sorted(weights):
            digest.update(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        own = torch.tensor(list(digest.digest()), dtype=torch.int64, device=self.device)
        others = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(others, own)
        if differ := [rank for rank, other in enumerate(others) if not torch.equal(own, other)]:
            raise RuntimeError(f"training processes {self.rank} and {differ[0]} no longer have the same weights")


ALONE = Group()


@contextmanager
def joined(rank: int, size: int, folder: Path, patience: float, device: torch.device = CPU) -> Iterator[Group]:
    """This process as one of ``size`` that meet in ``folder``, on one machine, each with a ``device`` of one kind.

    patience: seconds to wait for the others, at any one exchange; then gloo raises RuntimeError, and nccl ends this process.
    """
    if device.type == "cuda":
        # Else whatever names no card would work on the first, in every process.
        torch.cuda.set_device(device)
    distributed.init_process_group(
        BACKENDS[device.type],
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=patience),
    )
    try:
        yield Group(rank, size, device)
    finally:
        distributed.destroy_process_group()
