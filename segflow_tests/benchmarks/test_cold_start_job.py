"""The measurement of cold starts on a small log: all steps are there, and what is planted is found."""

from __future__ import annotations

import numpy as np
import pytest

from segflow_tests.benchmarks.cold_start_job import CHAIN, POPULARITY, Measured, measured, report
from segflow_tests.benchmarks.new_items_job import CATEGORY, RANDOM, TEXT
from segflow_tests.benchmarks.ranking_protocol import Log, Protocol
from segflow_tests.sequences import sequences_of

DAY = 86_400_000_000
USERS, ITEMS, DAYS = 120, 60, 141


def _log() -> tuple[Log, np.ndarray, dict[str, dict[str, str]]]:
    """Four tastes of fifteen items, of which texts and what is said of users tell; some items are liked more."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        for day in np.flatnonzero(rng.random(DAYS - 1) < 0.15):
            for item in set((user % 4 * 15 + 15 * rng.beta(1, 3, 2)).astype(int)):
                rows.append((user, day * DAY, item))
        rows.append((user, (DAYS - 1) * DAY, 0))
    tastes = np.arange(ITEMS) // 15
    vectors = np.eye(4, 8, dtype=np.float32)[tastes] + rng.normal(0, 0.1, (ITEMS, 8)).astype(np.float32)
    texts = tuple(f"shop > shelf {item // 20} > item {item}" for item in range(ITEMS))
    attributes = {f"u{user:03}": {"town": f"town {user % 4}"} for user in range(USERS)}
    return Log(sequences_of(rows, USERS, ITEMS), texts), vectors, attributes


@pytest.fixture(scope="module")
def found() -> Measured:
    log, vectors, attributes = _log()
    return measured(Protocol(log), vectors, attributes, seed=0)


def test_what_is_planted_is_found(found: Measured) -> None:
    earned = {trial.step: trial.earned for trial in found.trials}
    assert earned["content"], "an item tells the taste"
    assert earned["attributes"], "so does the town"
    assert all(model.better_than_prior for model in found.attributes)
    assert [trial.earned for trial in found.friends.values()] == [False, True, True]
    gains = [trial.ndcg - trial.below for trial in found.friends.values()]
    assert gains == sorted(gains)


def test_the_chain_is_what_was_chosen(found: Measured) -> None:
    np.testing.assert_array_equal(found.steps["no event"][CHAIN], found.steps["no event"][POPULARITY])
    for known_by, arm in (("items had last: 1", "content"), ("attributes", "segment")):
        figures = found.steps[known_by]
        np.testing.assert_array_equal(figures[CHAIN], figures[arm])
        assert figures[CHAIN].mean() > figures[POPULARITY].mean() + 0.1


def test_texts_place_new_items_better_than_a_category_that_says_little(found: Measured) -> None:
    means = {name: values.mean() for name, values in found.new_items.ndcg.items()}
    assert means[TEXT] > means[CATEGORY] > means[RANDOM]
    assert len(found.new_items.lists) == 3


def test_everything_is_reported(found: Measured) -> None:
    text = "\n".join(report(found))
    for name in (*found.steps, *found.new_items.ndcg, *(trial.step for trial in found.trials), "turns; nats"):
        assert name in text
