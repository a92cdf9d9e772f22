"""Users of whom little is known get the best answer there is for them, new items are placed by their texts."""

from __future__ import annotations

from math import inf

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from segflow.rankers.attributes import fit_attribute_model
from segflow.rankers.cold_start import (
    HALF_LIFE_DAYS,
    STEPS,
    ColdUsers,
    Fallbacks,
    Shrinkage,
    contact_weights,
    fallback_scores,
    fit_fallbacks,
    known_days,
)
from segflow.rankers.cold_validation import choose_shrinkage, last_items, simulated_week
from segflow.rankers.features import ItemHistory
from segflow.rankers.new_items import hidden_beyond_cap, new_item_scores, text_neighbours
from segflow.rankers.recommend import top_items
from segflow_tests.rankers.conftest import ITEMS, SNAPSHOT, USERS, make_log

HALF = ITEMS // 2  # users of either group have the items of one half
GROUPS = np.eye(2, dtype=np.float32)[np.arange(USERS) % 2]
ALL_ON = Shrinkage(social=2.0, content=5.0, attributes=4.0, segment=3.0)


@pytest.fixture(scope="module")
def history() -> ItemHistory:
    return ItemHistory(make_log(), np.arange(ITEMS))


@pytest.fixture(scope="module")
def days(history: ItemHistory) -> sparse.csr_array:
    return known_days(history.at(SNAPSHOT, HALF_LIFE_DAYS))


@pytest.fixture(scope="module")
def known(days: sparse.csr_array) -> Fallbacks:
    return fit_fallbacks(days, GROUPS, ALL_ON)


def _rows(*rows: dict[int, float], width: int) -> sparse.csr_array:
    dense = np.zeros((len(rows), width), np.float32)
    for row, values in enumerate(rows):
        for column, value in values.items():
            dense[row, column] = value
    return sparse.csr_array(dense)


def _users(
    had: dict[int, float], segments: tuple[float, float] = (0.0, 0.0), contacts: dict[int, float] | None = None
) -> ColdUsers:
    return ColdUsers(_rows(had, width=ITEMS), np.array([segments], np.float32), _rows(contacts or {}, width=USERS))


def _step(known: Fallbacks, users: ColdUsers) -> str:
    return STEPS[fallback_scores(known, users)[1][0]]


def test_steps_follow_one_another(known: Fallbacks) -> None:
    everything = {"had": {3: 1.0}, "segments": (0.4, 0.6), "contacts": {7: 1.0}}
    assert _step(known, _users(**everything)) == "segment"
    assert _step(known, _users(everything["had"], contacts=everything["contacts"])) == "content"
    assert _step(known, _users({}, contacts=everything["contacts"])) == "social"
    assert _step(known, _users({})) == "popularity"
    assert _step(known, _users({}, (1.0, 0.0))) == "segment"


def test_a_step_that_is_off_answers_nobody(days: sparse.csr_array) -> None:
    off = fit_fallbacks(days, GROUPS, Shrinkage(content=inf))
    users = _users({3: 1.0}, (0.4, 0.6), {7: 1.0})
    assert _step(off, users) == "popularity"
    by_default = fit_fallbacks(days, GROUPS)
    assert _step(by_default, users) == "content", "the others have to earn their place first"


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular(known: Fallbacks, days: sparse.csr_array) -> None:
    scores, _ = fallback_scores(known, ColdUsers(_rows({}, {}, width=ITEMS)))
    np.testing.assert_allclose(scores, np.stack([days.toarray().mean(axis=0)] * 2), rtol=1e-5)


def test_one_event_is_answered_by_those_who_had_the_item(known: Fallbacks, days: sparse.csr_array) -> None:
    item = 3
    scores, _ = fallback_scores(known, _users({item: 0.2}))
    dense = days.toarray()
    weight = dense[:, item]
    expected = (weight @ dense + 5 * dense.mean(axis=0)) / (weight.sum() + 5)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4)
    assert (top_items(scores, 8)[0] < HALF).all(), "the item belongs to the first half"
    assert scores[0].argmax() == item, "it is what the user had itself"


def test_contacts_are_drawn_to_everybody_by_their_number(known: Fallbacks, days: sparse.csr_array) -> None:
    dense, ties = days.toarray(), {4: 1.0, 10: 0.5}
    scores, _ = fallback_scores(known, _users({}, contacts=ties))
    mean = sum(weight * dense[user] for user, weight in ties.items())
    np.testing.assert_allclose(scores[0], (mean + 2 * dense.mean(axis=0)) / (1.5 + 2), rtol=1e-4)


def test_segments_are_mixed_by_probability_above_what_lies_below(known: Fallbacks, days: sparse.csr_array) -> None:
    dense = days.toarray()
    below, _ = fallback_scores(known, _users({3: 1.0}))
    scores, _ = fallback_scores(known, _users({3: 1.0}, (0.25, 0.5)))
    drawn = [(dense[GROUPS[:, one] > 0].sum(axis=0) + 3 * below[0]) / (USERS / 2 + 3) for one in (0, 1)]
    np.testing.assert_allclose(scores[0], 0.25 * drawn[0] + 0.5 * drawn[1] + 0.25 * below[0], rtol=1e-4)


def test_scores_are_those_of_each_user_alone(known: Fallbacks) -> None:
    kinds = [
        _users({3: 1.0, 30: 0.5}, (0.4, 0.6), {7: 1.0}),
        _users({}),
        _users({5: 1.0}, contacts={2: 3.0}),
        _users({}, (0.0, 1.0)),
        _users({}, contacts={2: 3.0}),
    ]
    together = ColdUsers(
        sparse.vstack([one.days for one in kinds], format="csr"),
        np.concatenate([one.segments for one in kinds]),
        sparse.vstack([one.contacts for one in kinds], format="csr"),
    )
    scores, steps = fallback_scores(known, together)
    assert [STEPS[step] for step in steps] == ["segment", "popularity", "content", "segment", "social"]
    for row, one in enumerate(kinds):
        np.testing.assert_allclose(scores[row], fallback_scores(known, one)[0][0], rtol=1e-5)
    assert (scores >= 0).all()
    assert np.isfinite(scores).all()


def test_ids_that_nobody_knows_say_nothing(known: Fallbacks) -> None:
    edges = pa.table(
        {"user_id": ["new", "new", "other"], "other_id": ["u007", "gone", "u001"], "weight": [2.0, 1.0, 1.0]}
    )
    ties = contact_weights(edges, ["nobody", "new"], [f"u{user:03}" for user in range(USERS)])
    np.testing.assert_array_equal(ties.toarray(), _rows({}, {7: 2.0}, width=USERS).toarray())
    _, steps = fallback_scores(known, ColdUsers(_rows({3: 1.0}, {}, width=ITEMS), contacts=ties))
    assert [STEPS[step] for step in steps] == ["content", "social"]


def test_contacts_and_items_of_nobody_else_say_nothing(days: sparse.csr_array) -> None:
    rest = np.arange(1, USERS)
    silent = fit_fallbacks(days, None, ALL_ON, rest)
    assert _step(silent, _users({}, contacts={0: 1.0})) == "popularity"
    dense = days.toarray()
    dense[1:, 3] = 0
    alone = fit_fallbacks(sparse.csr_array(dense), None, ALL_ON, rest)
    assert _step(alone, _users({3: 1.0})) == "popularity"


def test_users_who_are_held_out_leave_no_trace(days: sparse.csr_array) -> None:
    rest = np.arange(10, USERS)
    changed = days.toarray()
    changed[:10] = 7
    one, two = (fit_fallbacks(table, GROUPS, ALL_ON, rest) for table in (days, sparse.csr_array(changed)))
    assert one.to_bytes() == two.to_bytes()
    np.testing.assert_array_equal(one.days.toarray(), two.days.toarray())
    np.testing.assert_array_equal(fit_fallbacks(days, GROUPS, ALL_ON, rest[::-1]).by_item, one.by_item)


def test_the_future_changes_nothing(history: ItemHistory) -> None:
    past = ItemHistory(make_log().before(SNAPSHOT), np.arange(ITEMS))
    one, two = (known_days(part.at(SNAPSHOT, HALF_LIFE_DAYS)) for part in (history, past))
    np.testing.assert_array_equal(one.toarray(), two.toarray())
    users = np.arange(USERS)
    last = [last_items(part, SNAPSHOT, users, 2, seed=0).toarray() for part in (history, past)]
    assert (last[0].sum(axis=1) == 2).all()
    np.testing.assert_array_equal(*last)


def test_the_last_items_are_the_last(history: ItemHistory) -> None:
    user, item, day = history.known(SNAPSHOT)
    for row, count in enumerate(last_items(history, SNAPSHOT, np.array([9, 4]), 3, seed=1).toarray()):
        mine = user == [9, 4][row]
        assert count.sum() == 3
        third = np.sort(day[mine])[-3]
        assert all(day[mine & (item == one)].max() >= third for one in np.flatnonzero(count))


def test_bytes_keep_everything_but_who_had_what(known: Fallbacks) -> None:
    again = Fallbacks.from_bytes(known.to_bytes())
    assert again.days is None
    assert again.shrinkage == known.shrinkage
    for users in (_users({3: 1.0}, (0.4, 0.6)), _users({})):
        np.testing.assert_array_equal(fallback_scores(again, users)[0], fallback_scores(known, users)[0])
    assert _step(again, _users({}, contacts={7: 1.0})) == "popularity"


def test_shrinkage_is_above_zero() -> None:
    with pytest.raises(ValueError, match="shrinkage social must be above zero"):
        Shrinkage(social=0.0)


def test_a_step_is_on_where_it_helps_and_off_where_it_does_not(history: ItemHistory) -> None:
    rng = np.random.default_rng(0)
    alike = np.equal.outer(np.arange(USERS) % 2, np.arange(USERS) % 2)
    ties = {
        "true": alike & (rng.random((USERS, USERS)) < 0.3),
        "by chance": rng.random((USERS, USERS)) < 0.15,
    }
    earned = {}
    for name, tie in ties.items():
        np.fill_diagonal(tie, False)
        contacts = sparse.csr_array(tie.astype(np.float32))
        shrinkage, trials = choose_shrinkage(simulated_week(history, SNAPSHOT, contacts=contacts))
        assert [trial.step for trial in trials] == ["social", "content"]
        assert shrinkage.content < inf, "an item tells the half of the catalogue"
        assert shrinkage.segment == shrinkage.attributes == inf, "nothing was known of segments"
        earned[name] = shrinkage.social < inf
    assert earned == {"true": True, "by chance": False}


def test_the_choice_is_the_same_again(history: ItemHistory) -> None:
    found = [choose_shrinkage(simulated_week(history, SNAPSHOT, seed=3)) for _ in range(2)]
    assert found[0] == found[1]


def _people(rng: np.random.Generator, told: float) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    """400 users of three segments; ``told`` is the share of them whose age tells it."""
    segments = rng.integers(3, size=400)
    ages = np.where(rng.random(400) < told, segments, rng.integers(3, size=400))
    users = [f"u{user:03}" for user in range(400)]
    attributes = {user: {"age": f"{age}0", "town": str(user)} for user, age in zip(users, ages, strict=True)}
    return attributes, dict(zip(users, segments.tolist(), strict=True))


def test_attributes_that_tell_the_segment_are_kept() -> None:
    attributes, segment_of = _people(np.random.default_rng(0), told=0.6)
    model = fit_attribute_model(attributes, segment_of, 4, seed=0)
    assert model is not None
    assert model.better_than_prior
    assert model.names == ("age=00", "age=10", "age=20"), "a town of one user tells nothing of others"
    found = model.probabilities([{"age": "10"}, {"age": "20", "town": "x"}, {"age": "x"}, {}])
    np.testing.assert_allclose(found.sum(axis=1), [1, 1, 0, 0], rtol=1e-6)
    assert found[:2].argmax(axis=1).tolist() == [1, 2]
    assert (found[:, 3] == 0).all(), "nobody is in the last segment"
    shuffled = dict(reversed(attributes.items())), dict(sorted(segment_of.items(), key=lambda one: one[1]))
    again = fit_attribute_model(*shuffled, 4, seed=0)
    assert again is not None
    np.testing.assert_array_equal(again.weights, model.weights)
    assert again.gain == model.gain


def test_attributes_that_tell_nothing_are_not_kept() -> None:
    kept = 0
    for seed in range(5):
        model = fit_attribute_model(*_people(np.random.default_rng(seed), told=0.0), 3, seed=0)
        assert model is not None
        kept += model.better_than_prior
    assert kept == 0


def test_two_segments_and_too_few_users() -> None:
    attributes, segment_of = _people(np.random.default_rng(1), told=0.9)
    two = {user: segment for user, segment in segment_of.items() if segment < 2}
    model = fit_attribute_model(attributes, two, 3, seed=0)
    assert model is not None
    found = model.probabilities([{"age": "00"}, {"age": "10"}])
    assert found.argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert fit_attribute_model(attributes, dict(list(two.items())[:15]), 3, seed=0) is None
    assert fit_attribute_model({}, segment_of, 3, seed=0) is None


def test_a_new_item_has_the_scores_of_what_reads_alike() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    new = np.array([[2, 0], [0, 3], [0, 0]], np.float32)
    near = text_neighbours(vectors, new, neighbours=2, shrinkage=0.0)
    expected = np.array([[1, 0.6**4, 0, 0], [0, 0.8**4, 1, 0], [0, 0, 0, 0]])
    total = np.array([[1 + 0.6**4], [1 + 0.8**4], [1]])
    np.testing.assert_allclose(near.toarray(), expected / total, atol=1e-6)
    scores = np.array([[4, 2, 0, 8], [0, 0, 1, 0]], np.float32)
    found = new_item_scores(scores, near)
    np.testing.assert_allclose(found, scores @ (expected / total).T, rtol=1e-6)
    shrunk = new_item_scores(scores, text_neighbours(vectors, new, neighbours=2, shrinkage=1.0))
    np.testing.assert_allclose(shrunk, found * (total / (total + 1)).T, rtol=1e-6)
    assert text_neighbours(vectors, new[:0]).shape == (0, 4)


def test_a_list_holds_no_more_new_items_than_its_cap() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=(30, 20)).astype(np.float32)
    new = np.zeros(20, bool)
    new[[2, 5, 11, 19]] = True
    for cap in (0, 1, 2, 4, 9):
        hidden = hidden_beyond_cap(scores, new, cap)
        assert not hidden[:, ~new].any()
        for row in range(30):
            best = sorted(np.flatnonzero(new), key=lambda item, row=row: (-scores[row, item], item))[:cap]
            assert set(np.flatnonzero(new & ~hidden[row])) == set(best)
