"""Lists for everybody against the floor: one product of users and items, and torch.topk. Made-up vectors, one process.

Lives here: the timing. `python -m segflow_tests.benchmarks.recommend_job` prints it; `measure` is for other benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import RecommendationConfig
from segflow.rankers.recommend import Lists, make_lists
from segflow.rankers.reranking import unit_vectors
from segflow.rankers.rules import Rules

USERS, ITEMS, WIDTH, TEXT, HAD, COUNT = 100_000, 5_000, 64, 384, 60, 20
BLOCK = 1024
REPEATS = 3
ASKED_RATIO = 3.0


@dataclass(frozen=True)
class Speed:
    """Best seconds of several runs that take turns: the floor, its product alone, plain lists, lists without seen items."""

    floor: float
    product: float
    lists: float
    unseen: float

    @property
    def ratio(self) -> float:
        """Plain lists over the floor."""
        return self.lists / self.floor

    @property
    def unseen_ratio(self) -> float:
        """Lists that leave out what users had, over the floor."""
        return self.unseen / self.floor


class Log:
    """Vectors of users and items whose products are the scores, and what each user had."""

    def __init__(self, users: int = USERS, items: int = ITEMS) -> None:
        generator = torch.Generator().manual_seed(0)
        self.users = torch.randn(users, WIDTH, generator=generator)
        self.items = torch.randn(items, WIDTH, generator=generator)
        self.texts = np.random.default_rng(0).normal(size=(items, TEXT)).astype(np.float32)
        self._had = np.random.default_rng(1).integers(0, items, (users, HAD))

    def score(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(rows, C) scores."""
        return (self.users[torch.from_numpy(rows)] @ self.items.T).numpy()

    def had(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The pairs of a user and an item it had."""
        return np.repeat(np.arange(len(rows)), HAD), self._had[rows].ravel()

    def lists(self, config: RecommendationConfig) -> Lists:
        """Everybody's lists."""
        rules = Rules(np.zeros(len(self.items), np.float32), 0)
        return make_lists(self.score, np.arange(len(self.users)), config, rules, self.texts, self.had)

    def floor(self) -> None:
        """The product and the selection, and nothing else."""
        for start in range(0, len(self.users), BLOCK):
            torch.topk(self.users[start : start + BLOCK] @ self.items.T, COUNT)

    def product(self) -> None:
        """The product alone."""
        for start in range(0, len(self.users), BLOCK):
            self.users[start : start + BLOCK] @ self.items.T


def measure(users: int = USERS, items: int = ITEMS) -> Speed:
    """Time everything on the threads that torch has. The runs take turns, so that a busy machine is busy for all."""
    log = Log(users, items)
    jobs: dict[str, Callable[[], object]] = {
        "floor": log.floor,
        "product": log.product,
        "lists": lambda: log.lists(RecommendationConfig(count=COUNT)),
        "unseen": lambda: log.lists(RecommendationConfig(count=COUNT, exclude_seen=True)),
    }
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(REPEATS):
        for name, job in jobs.items():
            best[name] = min(best[name], _seconds(job))
    return Speed(**best)


def measure_reranking(users: int = USERS // 10, items: int = ITEMS) -> dict[str, float]:
    """Seconds for a thousand users of lists that are varied, and of lists with a cap on exposure."""
    log = Log(users, items)
    unit_vectors(log.texts)
    wanted = {"diversity": {"diversity": 0.3}, "exposure": {"exposure": 3 * COUNT / items}}
    return {
        name: _seconds(lambda keys=keys: log.lists(RecommendationConfig.model_validate({"count": COUNT, **keys})))  # type: ignore[misc]
        * 1000
        / users
        for name, keys in wanted.items()
    }


def _seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


if __name__ == "__main__":
    found = measure()
    print(f"{USERS:,} users, {ITEMS:,} items, lists of {COUNT}, {torch.get_num_threads()} threads")
    print(f"floor {found.floor:.2f} s, of which the product {found.product:.2f} s")
    print(f"lists {found.lists:.2f} s, {found.ratio:.2f} x the floor (asked: {ASKED_RATIO:g})")
    print(f"without what users had {found.unseen:.2f} s, {found.unseen_ratio:.2f} x the floor")
    for name, seconds in measure_reranking().items():
        print(f"with {name}: {seconds:.3f} s for a thousand users")
