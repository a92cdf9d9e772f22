"""A training of the global ranker in a process of its own, to be killed: its checkpoint and threads are the arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from segflow.rankers.global_ranker import fit_global_ranker
from segflow_tests.rankers.conftest import OFTEN, make_world


def main() -> None:
    torch.set_num_threads(int(sys.argv[2]))
    world = make_world()
    fit_global_ranker(
        world.training,
        world.validation,
        world.vectors,
        world.candidate_ids,
        OFTEN,
        seed=0,
        checkpoint=Path(sys.argv[1]),
    )


if __name__ == "__main__":
    main()
