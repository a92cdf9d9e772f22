"""The behaviour model: it learns what the log holds, sees no future, and order within a moment means nothing to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segflow.config import BehaviorConfig, BehaviorInput
from segflow.errors import UserError
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.moments import expand, find_moments, full_batches, make_batch, windows_of
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


def _seldom(log: EventSequences) -> EventSequences:
    """Of most users, the first moment is all there is."""
    few = np.arange(USERS) % 8 == 0
    last = log.offsets[:-1] + np.where(few, np.diff(log.offsets), 3)
    kept = np.arange(len(log.items)) < last[log.user_of_event]
    return replace(
        log,
        offsets=np.append(0, np.cumsum(np.bincount(log.user_of_event[kept], minlength=USERS))),
        **{name: getattr(log, name)[kept] for name in ("items", "types", "times", "values")},
    )


@pytest.mark.parametrize("task", ["next_item", "masked", "next_type"])
def test_batches_in_which_nothing_is_to_be_predicted(log: EventSequences, vectors: np.ndarray, task: str) -> None:
    """Their windows teach nothing, and the others do."""
    tasks = {name: float(name == task) for name in ("next_item", "masked", "next_type", "return", "wait")}
    config = CONFIG.model_copy(update={"tasks": tasks, "batch_moments": 4, "epochs": 1})
    seen: list[dict[str, float]] = []
    fit_behavior_model(_seldom(log), vectors, config, 0, lambda _, metrics: seen.append(metrics))
    assert np.isfinite([seen[0]["train_loss"], seen[0]["valid_loss"]]).all()
    assert seen[0]["train_loss"] == pytest.approx(seen[0][f"train_{task}"])


def test_a_task_that_the_log_cannot_teach(log: EventSequences, vectors: np.ndarray) -> None:
    plain = replace(log, types=np.zeros_like(log.types), event_types=("buy",))
    tasks = {name: float(name == "next_type") for name in ("next_item", "masked", "next_type", "return", "wait")}
    with pytest.raises(UserError, match=r"anything to predict for behavior.tasks \(next_type\)"):
        fit_behavior_model(plain, vectors, CONFIG.model_copy(update={"tasks": tasks}), 0)


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


def _with(**settings: object) -> BehaviorConfig:
    return BehaviorConfig.model_validate(CONFIG.model_dump() | settings)


def test_only_the_listed_inputs_are_seen(log: EventSequences, vectors: np.ndarray) -> None:
    """Each input is changed alone: it moves the states if, and only if, it is listed."""
    rng = np.random.default_rng(5)
    users, end = np.arange(USERS), np.full(USERS, 90 * DAY)
    last_day = np.arange(len(log.times)) >= np.repeat(log.offsets[1:] - 6, np.diff(log.offsets))
    changed: dict[BehaviorInput, EventSequences] = {
        "item": replace(log, items=rng.permutation(log.items)),
        "event_type": replace(log, types=rng.permutation(log.types)),
        "gap": replace(log, times=log.times + 20 * DAY * last_day),
        "time": replace(log, times=log.times + 5 * DAY // 24),
        "value": replace(log, values=rng.lognormal(3, 1, len(log.values)).astype(np.float32)),
    }
    for inputs in (["item", "event_type"], ["gap", "value"], ["item", "time"]):
        model = fit_behavior_model(log, vectors, _with(inputs=inputs, epochs=1), seed=0)
        states = model.states(log, end, users)
        for name, other in changed.items():
            if name == "gap" and "time" in inputs:
                continue  # no gap can be moved that moves no time
            moves = np.abs(states - model.states(other, end, users)).max() > 1e-3
            assert moves == (name in inputs), (inputs, name)


def test_text_is_seen_only_if_listed(log: EventSequences, vectors: np.ndarray) -> None:
    users = np.arange(USERS)
    other = np.random.default_rng(9).normal(size=vectors.shape).astype(np.float32)
    for inputs, same in ((["item", "event_type"], True), (["text", "event_type"], False)):
        pair = [fit_behavior_model(log, v, _with(inputs=inputs, epochs=1), 0) for v in (vectors, other)]
        first, second = (model.states(log, _end(log), users) for model in pair)
        assert np.array_equal(first, second) == same


def test_an_item_without_an_event_is_known_by_its_text(log: EventSequences, vectors: np.ndarray) -> None:
    """A new item with the text of an old one stands near it, and a basket of it calls for what the old one calls for."""
    ids = np.append(log.item_ids, "i99")
    text = np.random.default_rng(2).normal(size=(ITEMS // 3, 12)).repeat(3, axis=0)
    text = np.concatenate([text, text[:1]]).astype(np.float32)
    model = fit_behavior_model(replace(log, item_ids=ids), text, _with(inputs=["text", "item"], epochs=6), seed=0)
    new = model.item_vectors()[-1] - model.item_vectors()[:-1].mean(0)
    nearest = (model.item_vectors()[:-1] - model.item_vectors()[:-1].mean(0)) @ new
    assert set(np.argsort(-nearest)[:3].tolist()) == {0, 1, 2}
    bought = replace(log, items=np.full_like(log.items, ITEMS), item_ids=ids)
    states = model.states(bought, _end(log)[:1], np.arange(1))
    scores = (model.queries(states) @ model.item_vectors()[:-1].T)[0]
    assert set(np.argsort(-scores)[:3].tolist()) == {0, 1, 2}


def test_tasks_are_switched_and_weighted(log: EventSequences, vectors: np.ndarray) -> None:
    seen: list[dict[str, float]] = []
    tasks = {"next_item": 3, "masked": 1, "next_type": 0, "return": 0, "wait": 0}
    fit_behavior_model(log, vectors, _with(tasks=tasks, epochs=4), 0, lambda _, metrics: seen.append(metrics))
    losses = {name for name in seen[0] if name.startswith("valid_")}
    assert losses == {"valid_loss", "valid_next_item", "valid_masked"}
    assert seen[0]["valid_loss"] == pytest.approx(
        (3 * seen[0]["valid_next_item"] + seen[0]["valid_masked"]) / 4, rel=1e-4
    )
    assert seen[-1]["valid_masked"] < seen[0]["valid_masked"]
    with pytest.raises(ValueError, match="weight 0"):
        _with(tasks=dict.fromkeys(["next_item", "next_type", "return", "wait"], 0))


def test_a_masked_moment_does_not_see_its_own_items(log: EventSequences, model: BehaviorModel) -> None:
    moments = find_moments(log, 30)
    starts, stops = moments.offsets[:4], moments.offsets[:4] + 10
    masked = np.zeros(40, bool)
    masked[[3, 17, 39]] = True
    states = []
    for items in (log.items, (log.items + 5) % ITEMS):
        own = np.zeros(len(log.items), bool)
        for moment in (starts.repeat(10) + np.tile(np.arange(10), 4))[masked]:
            own[moments.events[moment] : moments.events[moment + 1]] = True
        changed = replace(log, items=np.where(own, items, log.items).astype(np.int32))
        changed = replace(changed, values=np.where(own, items + 1, 1).astype(np.float32))
        with torch.inference_mode():
            catalogue = model.network.items(np.arange(ITEMS))
            batch = make_batch(changed, moments, starts, stops)
            states.append((model.network(batch, catalogue, masked).numpy(), model.network(batch, catalogue).numpy()))
    np.testing.assert_array_equal(states[0][0], states[1][0])
    assert np.abs(states[0][1] - states[1][1]).max() > 0.1


def test_packed_windows_are_what_each_window_is_alone(log: EventSequences, model: BehaviorModel) -> None:
    """Users of many lengths in one batch: nothing passes from one window to the next."""
    users, cuts = np.arange(USERS), (5 + np.arange(USERS)) * DAY
    together = model.states(log, cuts, users)
    alone = np.concatenate([model.states(log, cuts[[user]], users[[user]]) for user in users])
    np.testing.assert_allclose(together, alone, atol=0.03)


def test_every_moment_is_trained_once_an_epoch() -> None:
    rng = np.random.default_rng(0)
    end = np.cumsum(rng.integers(0, 40, 60))
    begin = np.concatenate([[0], end[:-1]])
    groups = full_batches(*windows_of(begin, end, 16, rng.integers(0, 16, 60)), 64)
    assert np.array_equal(np.sort(np.concatenate([expand(*group)[0] for group in groups])), np.arange(end[-1]))
    sizes = [int((stops - starts).sum()) for starts, stops in groups]
    assert set(sizes[:-1]) == {64}
    assert all((np.diff(stops - starts) <= 0).all() for starts, stops in groups)


def test_the_mean_state_is_the_mean_over_the_window(log: EventSequences, model: BehaviorModel) -> None:
    users = np.arange(3)
    cuts = np.sort(np.unique(log.times[: log.offsets[1]]))[:8] + 1
    each = np.stack([model.states(log, np.full(3, cut), users)[0] for cut in cuts])
    mean = model.states(log, np.full(3, cuts[-1]), users, "mean")[0]
    np.testing.assert_allclose(mean, each.mean(0), atol=0.03)


def test_a_loss_that_is_no_number_names_the_setting(log: EventSequences, vectors: np.ndarray) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "epochs": 20, "patience": 20})
    with pytest.raises(UserError, match=r"training step \d+; lower behavior\.learning_rate"):
        fit_behavior_model(log, vectors, config, seed=0)


def test_stored_bytes_are_checked(model: BehaviorModel) -> None:
    data = model.to_bytes()
    flipped = bytearray(data)
    flipped[-100] ^= 0x10
    spoilt = BehaviorModel.from_bytes(data)
    with torch.no_grad():
        spoilt.network.item[0, 0] = torch.nan
    for bad, what in ((data[: len(data) // 2], "cut short"), (bytes(flipped), "checksum"), (b"", "cut short")):
        with pytest.raises(UserError, match=what):
            BehaviorModel.from_bytes(bad)
    with pytest.raises(UserError, match="holds NaN or infinity in 'item'"):
        BehaviorModel.from_bytes(spoilt.to_bytes())


def test_mistakes_are_named(log: EventSequences, vectors: np.ndarray, model: BehaviorModel) -> None:
    with pytest.raises(UserError, match="item_vectors"):
        fit_behavior_model(log, vectors[:-1], CONFIG, seed=0)
    with pytest.raises(UserError, match=r"row 3 \(item i03\) holds NaN"):
        fit_behavior_model(log, np.where(np.arange(ITEMS)[:, None] == 3, np.nan, vectors), CONFIG, seed=0)
    with pytest.raises(UserError, match="no events"):
        fit_behavior_model(log.before(0), vectors, CONFIG, seed=0)
    with pytest.raises(UserError, match="validation_days"):
        fit_behavior_model(log.before(6 * DAY), vectors, CONFIG, seed=0)
    with pytest.raises(UserError, match="train it again"):
        model.states(replace(log, event_types=("buy", "look")), _end(log), np.arange(USERS))
