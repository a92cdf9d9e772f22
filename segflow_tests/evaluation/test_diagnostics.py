"""What the ranker lives by: shuffled histories hold the same things at the same times, and nothing of the future."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from segflow.evaluation.diagnostics import active_days, shuffled_arm, shuffled_moments
from segflow.rankers.examples import Examples
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.representation.sequences import EventSequences
from segflow_tests.rankers.conftest import SNAPSHOT, USERS, make_log


def moments_of(log: EventSequences, user: int) -> dict[int, list[tuple[int, int, float]]]:
    """Time -> events of a user, in their order."""
    found: dict[int, list[tuple[int, int, float]]] = {}
    for row in range(log.offsets[user], log.offsets[user + 1]):
        event = (int(log.items[row]), int(log.types[row]), float(log.values[row]))
        found.setdefault(int(log.times[row]), []).append(event)
    return found


def test_times_stay_and_moments_stay_whole() -> None:
    log = make_log()
    rng = np.random.default_rng(0)
    log = replace(log, values=rng.random(len(log.values)).astype(np.float32))
    shuffled = shuffled_moments(log, seed=1)
    np.testing.assert_array_equal(shuffled.offsets, log.offsets)
    moved = 0
    for user in range(USERS):
        before, after = moments_of(log, user), moments_of(shuffled, user)
        assert list(before) == list(after)
        assert sorted(before.values()) == sorted(after.values())
        moved += sum(before[time] != after[time] for time in before)
    assert moved > 0.9 * sum(len(moments_of(log, user)) for user in range(USERS))
    np.testing.assert_array_equal(shuffled_moments(log, seed=1).items, shuffled.items)
    assert not np.array_equal(shuffled_moments(log, seed=2).items, shuffled.items)


def test_a_log_without_events_is_shuffled_to_itself() -> None:
    nothing = make_log().before(0)
    assert len(shuffled_moments(nothing, seed=0).items) == 0
    np.testing.assert_array_equal(active_days(nothing, SNAPSHOT), np.zeros(USERS))


def test_only_states_of_what_lies_before_the_test_week_are_new() -> None:
    log, read = make_log(), []

    class Backbone:
        def states(self, history: EventSequences, cuts: np.ndarray, users: np.ndarray, state: str) -> np.ndarray:
            read.append((history, cuts, users, state))
            return np.full((len(users), 3), 7, np.float32)

    class Ranker:
        def frozen(self, examples: Any, rows: np.ndarray) -> np.ndarray:
            return examples.states[rows] + examples.context[rows]

        def score(self, examples: Any, rows: np.ndarray, grouped: Any, frozen: np.ndarray) -> np.ndarray:
            assert grouped is None
            return frozen

    facts = {"users": np.array([4, 9, 30]), "states": np.zeros((3, 3), np.float32), "context": np.ones((3, 3))}
    facts |= dict.fromkeys(("cut", "scores", "trends", "had", "values", "wanted"), None)
    examples = Examples(**facts)  # type: ignore[arg-type]
    week = SimpleNamespace(sequences=log, start_us=SNAPSHOT, backbone=Backbone())
    arm = shuffled_arm(week, examples, Ranker(), seed=3)  # type: ignore[arg-type]
    assert (arm.name, arm.role) == ("global_shuffled", "diagnostic")
    np.testing.assert_array_equal(arm.score(np.array([2, 0])), np.full((2, 3), 8))
    ((history, cuts, users, state),) = read
    assert state == "last"
    assert users.tolist() == [4, 9, 30]
    assert set(cuts.tolist()) == {SNAPSHOT + WEEK}
    np.testing.assert_array_equal(np.unique(history.times), np.unique(log.times[log.times < SNAPSHOT + WEEK]))


def test_active_days_are_counted_before_the_cut() -> None:
    log = make_log()
    found = active_days(log, SNAPSHOT)
    for user in range(USERS):
        times = log.times[log.offsets[user] : log.offsets[user + 1]]
        assert found[user] == len({int(time) // DAY for time in times if time < SNAPSHOT})
