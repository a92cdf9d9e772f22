"""The rows of the test: one for each user, arm and task, whatever the arm's scores are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from segflow import tables
from segflow.errors import UserError
from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.protocol import Arm, evaluate, list_qualities, popular_items, ranker_arms
from segflow.rankers.examples import Examples
from segflow.rankers.features import Pairs

USERS, ITEMS = 12, 30
HAD = Pairs(np.arange(USERS + 1) * 4, np.concatenate([np.arange(user, user + 4) for user in range(USERS)]))
WANTED = Pairs(np.arange(USERS + 1) * 3, np.concatenate([np.arange(user + 2, user + 5) for user in range(USERS)]))
WEEK = SimpleNamespace(
    sequences=SimpleNamespace(user_ids=np.array([f"u{user:02d}" for user in range(USERS)])),
    candidate_ids=tuple(f"i{item}" for item in range(ITEMS)),
    features_after=lambda: SimpleNamespace(pairs=HAD),
)
POPULAR = np.arange(ITEMS) < 5
DAYS = np.arange(USERS) * 3
SCORES = np.random.default_rng(1).permuted(np.tile(np.arange(ITEMS, dtype=np.float32), (USERS, 1)), axis=1)


def make_examples(users: int = USERS) -> Examples:
    examples = object.__new__(Examples)
    for name, value in {
        "users": np.arange(users),
        "had": HAD,
        "wanted": WANTED,
        "trends": np.zeros((1, ITEMS, 2), np.float32),
    }.items():
        object.__setattr__(examples, name, value)
    return examples


def rows_of(scores: np.ndarray) -> pa.Table:
    arms = [Arm("global", "global", lambda rows: SCORES[rows]), Arm("segments", "segments", lambda rows: scores[rows])]
    return evaluate(arms, WEEK, make_examples(), {"u03": "s001"}, 5, POPULAR, DAYS)  # type: ignore[arg-type]


def test_every_user_has_a_row_for_each_arm_and_task_with_every_metric() -> None:
    rows = rows_of(SCORES)
    assert ["week", *rows.column_names] == list(tables.RANKING_RESULTS.column_names)
    # The first two users want nothing but popular items, or items that they had: they are in no such task.
    wanted, had = (pairs.dense(np.arange(USERS), ITEMS) for pairs in (WANTED, HAD))
    asked = {"all": wanted, "new": wanted & ~had, "beyond_popular": wanted & ~POPULAR}
    assert rows.num_rows == 2 * sum(one.any(axis=1).sum() for one in asked.values())
    assert rows.num_rows < USERS * 2 * 3
    assert pc.all(rows["ranked"]).as_py()
    assert set(rows.filter(pc.equal(rows["user_id"], "u03"))["segment_id"].to_pylist()) == {"s001"}
    of_all = rows.filter((pc.field("task") == "all") & (pc.field("arm") == "segments")).sort_by("user_id")
    for name, values in ranking_metrics(SCORES, wanted).items():
        np.testing.assert_allclose(of_all[name], values)
    np.testing.assert_array_equal(of_all["active_days"], DAYS)


def test_beyond_the_popular_items_the_rest_is_ranked_as_if_they_were_not_there() -> None:
    rows = rows_of(SCORES)
    found = rows.filter((pc.field("task") == "beyond_popular") & (pc.field("arm") == "segments")).sort_by("user_id")
    wanted = WANTED.dense(np.arange(USERS), ITEMS)[:, ~POPULAR]
    asked = wanted.any(axis=1)
    for name, values in ranking_metrics(SCORES[asked][:, ~POPULAR], wanted[asked]).items():
        np.testing.assert_allclose(found[name], values)
    np.testing.assert_array_equal(found["relevant"], wanted.sum(axis=1)[asked])


def test_the_most_popular_items_are_those_of_the_last_week_and_no_other() -> None:
    features = SimpleNamespace(popularity=np.array([0, 3, 7, 0, 3, 1, 0, 3], np.float32))
    assert np.flatnonzero(popular_items(features, 3)).tolist() == [1, 2, 4]  # type: ignore[arg-type]
    assert np.flatnonzero(popular_items(features, 50)).tolist() == [1, 2, 4, 5, 7]  # type: ignore[arg-type]


def test_an_arm_trained_again_has_rows_of_its_own_seed() -> None:
    other = np.random.default_rng(2).permuted(SCORES, axis=1)
    arms = [
        Arm("popularity", "baseline", lambda rows: SCORES[rows]),
        Arm("global", "global", lambda rows: SCORES[rows]),
        Arm("global", "global", lambda rows: other[rows], seed=1005),
    ]
    rows = evaluate(arms, WEEK, make_examples(), {}, 5, POPULAR, DAYS)  # type: ignore[arg-type]
    rows = rows.filter(pc.field("task") == "all")
    counts = rows.group_by(["arm", "seed", "task"]).aggregate([("user_id", "count_distinct")]).to_pylist()
    assert {(row["arm"], row["seed"]) for row in counts} == {("popularity", 5), ("global", 5), ("global", 1005)}
    assert {row["user_id_count_distinct"] for row in counts} == {USERS}
    again = rows.filter(pc.field("seed") == 1005).sort_by("user_id")
    expected = ranking_metrics(other, WANTED.dense(np.arange(USERS), ITEMS))["ndcg_10"]
    np.testing.assert_allclose(again["ndcg_10"], expected)


def test_a_ranker_runs_once_for_all_its_arms_and_each_arm_scores_as_by_itself() -> None:
    runs = []

    class Ranker:
        def frozen(self, examples: Examples, rows: np.ndarray) -> np.ndarray:
            runs.append(len(rows))
            return SCORES[rows]

        def score(self, examples: Examples, rows: np.ndarray, added: float | None, frozen: np.ndarray) -> np.ndarray:
            return frozen if added is None else frozen * added

    deltas = {"global": None, "placebo_1": -1.0, "segments": 2.0}
    arms = ranker_arms(Ranker(), make_examples(), deltas, seed=7)  # type: ignore[arg-type]
    assert {arm.name: arm.role for arm in arms} == {"global": "global", "placebo_1": "control", "segments": "segments"}
    evaluate(arms, WEEK, make_examples(), {}, 5, POPULAR, DAYS)  # type: ignore[arg-type]
    assert runs == [USERS]
    for rows in (np.arange(3), np.arange(3, 6)):
        for arm in arms:
            np.testing.assert_array_equal(arm.score(rows), SCORES[rows] * (deltas[arm.name] or 1.0))
    assert runs == [USERS, 3, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_users_whose_scores_are_no_numbers_are_kept_and_get_nothing(bad: float) -> None:
    scores = SCORES.copy()
    scores[4, 7] = bad
    scores[9] = bad
    rows, whole = rows_of(scores), rows_of(SCORES)
    assert rows.num_rows == whole.num_rows
    broken = pc.and_(pc.is_in(rows["user_id"], pa.array(["u04", "u09"])), pc.equal(rows["arm"], "segments"))
    assert rows["ranked"].combine_chunks().equals(pc.invert(broken).combine_chunks())
    metrics = [name for name in rows.column_names if name.rpartition("_")[2].isdigit()]
    for name in metrics:
        assert set(rows.filter(broken)[name].to_pylist()) == {0.0}
    # Nobody else's values change.
    assert rows.filter(pc.invert(broken)).equals(whole.filter(pc.invert(broken)))


def test_lists_of_users_whose_scores_are_no_numbers_are_judged_like_others() -> None:
    scores = np.full_like(SCORES, np.nan)
    arms = [Arm("segments", "segments", lambda rows: scores[rows])]
    vectors = np.eye(ITEMS, dtype=np.float32)
    found = list_qualities(arms, WEEK, make_examples(), {}, vectors, count=5)  # type: ignore[arg-type]
    assert found[0].coverage == 5 / ITEMS


def test_a_test_week_without_anybody_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="no event with a candidate item"):
        evaluate([], WEEK, make_examples(users=0), {}, 0, POPULAR, DAYS)  # type: ignore[arg-type]
