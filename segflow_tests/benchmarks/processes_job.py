"""How many positions a second one and two processes of this machine train together, with as many threads in all.

`python -m segflow_tests.benchmarks.processes_job [users]` prints it. Runs take turns, so that a busy machine is busy for all.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from segflow.config import BehaviorConfig
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.training_processes import Processes
from segflow_tests.benchmarks.behavior_job import log_of

ITEMS, LONGEST, TURNS = 10_000, 50, 3
SHAPES = {
    "one process, one thread": (1, 1),
    "one process, two threads": (1, 2),
    "two processes, one thread each": (2, 2),
}


def speed(users: int, processes: int, threads: int) -> float:
    """Positions a second of the better of two epochs; starting the processes is not counted."""
    log = log_of(users, ITEMS, LONGEST)
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 384)).astype(np.float32)
    config = BehaviorConfig(epochs=2, patience=2, validation_days=1e-9)
    found: list[float] = []

    def note(_: int, metrics: dict[str, float]) -> None:
        found.append(metrics["positions_per_second"])

    torch.set_num_threads(threads)
    fit_behavior_model(log, vectors, config, 0, note, None, Processes(processes))
    return max(found)


if __name__ == "__main__":
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 8_000
    for turn in range(TURNS):
        for name, shape in SHAPES.items():
            print(f"turn {turn + 1}, {name}: {speed(users, *shape):,.0f} positions a second", flush=True)
