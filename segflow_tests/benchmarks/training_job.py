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

LOSSES: Mapping[str, str] = {"softmax": "full softmax", "sampled_softmax": "sampled softmax", "BCE": "one negative"}
"""RecTools' name of a loss -> what it is."""

_ITEMS, _WIDTH, _LAYERS, _HEADS, _LENGTH = 10_000, 64, 2, 2, 50
_BATCH_USERS, _NEGATIVES = 128, 256
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


def training_speeds(users: int, threads: int, losses: Mapping[str, str] = LOSSES) -> Trained:
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
            speeds.append(_sasrec(users, loss, threads))
    found = {losses[loss]: float(np.median(speeds)) for loss, speeds in theirs.items()}
    return Trained(len(log.times), _ITEMS, _WIDTH, _LAYERS, _LENGTH, float(np.median(ours)), found)


def _sasrec(users: int, loss: str, threads: int) -> float:
    settings = json.dumps({"users": users, "loss": loss, "threads": threads})
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
        negatives=_NEGATIVES,
    )
    print(speed)


if __name__ == "__main__":
    _main(sys.argv[1])
