"""The behaviour model: it learns what the log holds, sees no future, and order within a moment means nothing to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import EventSequences

ITEMS, USERS, DAYS = 24, 40, 60
CONFIG = BehaviorConfig(width=16, layers=1, heads=2, context=16, batch_moments=256, epochs=3, learning_rate=0.02)


@pytest.fixture(scope="module")
def log() -> EventSequences:
    """Each user loves three neighbouring items: every second day a basket of them, seen first and bought then."""
    rng = np.random.default_rng(0)
    items: list[int] = []
    types: list[int] = []
    times: list[int] = []
    offsets = [0]
    for user in range(USERS):
        love = (user % (ITEMS // 3)) * 3 + np.arange(3)
        for day in range(user % 2, DAYS, 2):
            basket = rng.permutation(love)
            for kind, minute in ((1, 0), (0, 10)):
                items.extend(basket)
                types.extend([kind] * 3)
                times.extend([day * DAY + minute * 60_000_000] * 3)
        offsets.append(len(items))
    return EventSequences(
        user_ids=np.array([f"u{user:03}" for user in range(USERS)]),
        offsets=np.array(offsets),
        items=np.array(items, np.int32),
        types=np.array(types, np.int8),
        times=np.array(times),
        values=np.ones(len(items), np.float32),
        item_ids=np.array([f"i{item:02}" for item in range(ITEMS)]),
        event_types=("buy", "view"),
    )


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def model(log: EventSequences, vectors: np.ndarray) -> BehaviorModel:
    return fit_behavior_model(log, vectors, CONFIG, seed=0)


def _end(log: EventSequences) -> np.ndarray:
    return np.full(USERS, DAYS * DAY)


def _found(log: EventSequences, model: BehaviorModel) -> float:
    """Share of each user's three best items that it loves; chance is 1 / 8."""
    states = model.states(log, _end(log), np.arange(USERS))
    best = np.argsort(-(model.queries(states) @ model.item_vectors().T), axis=1)[:, :3]
    love = (np.arange(USERS) % (ITEMS // 3))[:, None]
    return float((best // 3 == love).mean())


def test_learns_what_each_user_loves(log: EventSequences, model: BehaviorModel) -> None:
    assert _found(log, model) > 0.9


def test_validation_loss_falls_and_every_task_is_trained(log: EventSequences, vectors: np.ndarray) -> None:
    seen: list[dict[str, float]] = []
    fit_behavior_model(log, vectors, CONFIG, seed=0, log=lambda _, metrics: seen.append(metrics))
    assert seen[-1]["valid_loss"] < seen[0]["valid_loss"]
    tasks = ("next_item", "next_type", "return", "wait")
    assert {f"valid_{task}" for task in tasks} <= seen[0].keys()
    assert seen[0]["valid_loss"] == pytest.approx(np.mean([seen[0][f"valid_{task}"] for task in tasks]), rel=1e-4)


def test_one_event_type_means_no_type_task(log: EventSequences, vectors: np.ndarray) -> None:
    plain = replace(log, types=np.zeros_like(log.types), event_types=("buy",))
    seen: list[dict[str, float]] = []
    fit_behavior_model(plain, vectors, CONFIG.model_copy(update={"epochs": 1}), 0, lambda _, m: seen.append(m))
    assert "valid_next_type" not in seen[0]
    assert "valid_next_item" in seen[0]


def test_sampled_softmax_learns_too(log: EventSequences, vectors: np.ndarray) -> None:
    config = CONFIG.model_copy(update={"negatives": 16})
    model = fit_behavior_model(log, vectors, config, seed=0)
    assert _found(log, model) > 0.7


def test_the_future_changes_nothing(log: EventSequences, model: BehaviorModel) -> None:
    cut = np.full(USERS, 30 * DAY)
    whole = model.states(log, cut, np.arange(USERS))
    np.testing.assert_allclose(whole, model.states(log.before(30 * DAY), cut, np.arange(USERS)), atol=0.02)
    later = replace(log, items=np.where(log.times >= 30 * DAY, 0, log.items).astype(np.int32))
    np.testing.assert_array_equal(whole, model.states(later, cut, np.arange(USERS)))
    earlier = replace(log, items=np.where(log.times < 30 * DAY, 0, log.items).astype(np.int32))
    assert np.abs(whole - model.states(earlier, cut, np.arange(USERS))).max() > 0.1


def test_order_within_a_moment_means_nothing(log: EventSequences, model: BehaviorModel) -> None:
    moment = log.times * USERS + log.user_of_event
    shuffled = np.lexsort((np.random.default_rng(3).random(len(moment)), log.times, log.user_of_event))
    assert (moment[shuffled] == moment).all()
    other = replace(log, items=log.items[shuffled])
    assert (other.items != log.items).any()
    users, cut = np.arange(USERS), _end(log)
    np.testing.assert_allclose(model.states(log, cut, users), model.states(other, cut, users), atol=0.02)


def test_user_without_events_has_a_zero_state(log: EventSequences, model: BehaviorModel) -> None:
    states = model.states(log, np.array([0, DAYS * DAY]), np.array([0, 0]))
    assert not states[0].any()
    assert states[1, -1] == 1


def test_same_seed_same_model_and_bytes_round_trip(
    log: EventSequences, vectors: np.ndarray, model: BehaviorModel
) -> None:
    assert fit_behavior_model(log, vectors, CONFIG, seed=0).to_bytes() == model.to_bytes()
    back = BehaviorModel.from_bytes(model.to_bytes())
    assert back.config == CONFIG
    users = np.arange(USERS)
    np.testing.assert_array_equal(back.states(log, _end(log), users), model.states(log, _end(log), users))


def test_mistakes_are_named(log: EventSequences, vectors: np.ndarray, model: BehaviorModel) -> None:
    with pytest.raises(UserError, match="item_vectors"):
        fit_behavior_model(log, vectors[:-1], CONFIG, seed=0)
    with pytest.raises(UserError, match="no events"):
        fit_behavior_model(log.before(0), vectors, CONFIG, seed=0)
    with pytest.raises(UserError, match="validation_days"):
        fit_behavior_model(log.before(6 * DAY), vectors, CONFIG, seed=0)
    with pytest.raises(UserError, match="train it again"):
        model.states(replace(log, event_types=("buy", "look")), _end(log), np.arange(USERS))
