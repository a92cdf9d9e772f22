"""The behaviour model's training beside RecTools' SASRec: the same log, catalogue, width, depth, length and users in a batch.

SASRec runs in a process of its own, because its packages are seen by nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from segflow_tests.benchmarks import behavior_job, sasrec_job

_NEGATIVES = 256
LOSSES: Mapping[str, tuple[str, int]] = {
    "full softmax": ("softmax", 0),
    "sampled softmax": ("sampled_softmax", _NEGATIVES),
    "one negative": ("BCE", 1),
}
"""What a loss of SASRec is -> RecTools' name of it and the negatives of each position."""

_ITEMS, _WIDTH, _LAYERS, _HEADS, _LENGTH = 10_000, 64, 2, 2, 50
_BATCH_USERS = 128
# Both take turns, so that a busy moment of the machine is not held against one of them.
_TURNS = 2


@dataclass(frozen=True)
class Trained:
    """Positions a second of both, medians over the turns; `theirs` by loss."""

    events: int
    items: int
    width: int
    layers: int
    length: int
    ours: float
    theirs: Mapping[str, float]


def training_speeds(users: int, threads: int, losses: Mapping[str, tuple[str, int]] = LOSSES) -> Trained:
    """Train both on a log of users of very different activity, which is what logs are like."""
    # SASRec learns from shifted pairs: of 51 events it sees 50 and predicts 50.
    log = behavior_job.log_of(users, _ITEMS, _LENGTH + 1)
    torch.set_num_threads(threads)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {loss: [] for loss in losses}
    mean_length = float(np.diff(log.offsets).mean())
    for _ in range(_TURNS):
        speed = behavior_job.positions_per_second(
            log,
            width=_WIDTH,
            layers=_LAYERS,
            heads=_HEADS,
            length=_LENGTH + 1,
            negatives=_NEGATIVES,
            batch_moments=int(_BATCH_USERS * mean_length),
        )
        ours.append(speed)
        for loss, speeds in theirs.items():
            speeds.append(_sasrec(users, *losses[loss], threads))
    found = {loss: float(np.median(speeds)) for loss, speeds in theirs.items()}
    return Trained(len(log.times), _ITEMS, _WIDTH, _LAYERS, _LENGTH, float(np.median(ours)), found)


def _sasrec(users: int, loss: str, negatives: int, threads: int) -> float:
    settings = json.dumps({"users": users, "loss": loss, "negatives": negatives, "threads": threads})
    command = [sys.executable, "-m", __name__, settings]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _main(settings: str) -> None:
    wanted = json.loads(settings)
    torch.set_num_threads(wanted["threads"])
    speed = sasrec_job.positions_per_second(
        behavior_job.log_of(wanted["users"], _ITEMS, _LENGTH + 1),
        width=_WIDTH,
        layers=_LAYERS,
        heads=_HEADS,
        length=_LENGTH,
        batch_users=_BATCH_USERS,
        loss=wanted["loss"],
        negatives=max(1, wanted["negatives"]),
    )
    print(speed)


if __name__ == "__main__":
    _main(sys.argv[1])
