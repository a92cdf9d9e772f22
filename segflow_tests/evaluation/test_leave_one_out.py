"""Leave-one-out: the first item of the test week is the target, and its place is that of a full ranking."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from segflow import tables
from segflow.evaluation.leave_one_out import LeaveOneOut, averaged, first_items, target_ranks
from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.protocol import Arm, evaluate
from segflow.rankers.snapshot import RankingWeek
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, WEEK, make_world

WEEK_OF = date(2024, 1, 1)


@pytest.fixture(scope="module")
def week() -> RankingWeek:
    world = make_world()
    return RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, CONFIG)


def test_the_target_is_the_users_first_candidate_of_the_test_week(week: RankingWeek) -> None:
    examples, log = week.after(), week.sequences
    found = first_items(week, examples)
    start = SNAPSHOT + WEEK
    candidates = week.history.candidates.tolist()
    for row, user in enumerate(examples.users):
        own = range(log.offsets[user], log.offsets[user + 1])
        wanted = [log.items[at] for at in own if start <= log.times[at] < start + WEEK and log.items[at] in candidates]
        assert week.history.candidates[found[row]] == wanted[0]
    assert len(set(found)) > 5
    everything = examples.wanted.dense(np.arange(len(examples)), examples.candidates)
    assert everything[np.arange(len(examples)), found].all()


def test_the_place_is_that_of_the_full_ranking_and_the_metrics_those_of_one_relevant_item() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, (200, 30)).astype(np.float32)
    targets = rng.integers(0, 30, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    np.testing.assert_array_equal(target_ranks(scores, targets), 1 + (order == targets[:, None]).argmax(1))
    found = LeaveOneOut(targets)
    for rows in np.array_split(np.arange(200), 3):
        found("global", 5, rows, scores[rows])
    table = found.table(WEEK_OF)
    assert table.schema == tables.LEAVE_ONE_OUT.arrow
    (row,) = table.to_pylist()
    expected = ranking_metrics(scores, np.arange(30) == targets[:, None], cutoffs=(10,))
    assert (row["week"], row["arm"], row["seed"], row["users"]) == (WEEK_OF, "global", 5, 200)
    for name in ("hit_10", "ndcg_10", "mrr_10"):
        assert row[name] == pytest.approx(expected[name].mean())


def test_who_has_scores_that_are_no_numbers_gets_nothing() -> None:
    scores = np.tile(np.arange(30, dtype=np.float32), (4, 1))
    targets = np.full(4, 29)
    scores[1, 3], scores[2, 29] = np.nan, np.inf
    found = LeaveOneOut(targets)
    found("segments", 0, np.arange(4), scores)
    assert found.table(WEEK_OF).to_pylist()[0]["hit_10"] == 0.5


def test_it_is_shown_the_scores_of_the_test(week: RankingWeek) -> None:
    examples = week.after()
    found = LeaveOneOut(first_items(week, examples))
    perfect = np.zeros((len(examples), examples.candidates), np.float32)
    perfect[np.arange(len(examples)), first_items(week, examples)] = 1
    arms = [
        Arm("global", "global", lambda rows: perfect[rows]),
        Arm("spoiled", "diagnostic", lambda rows: perfect[rows]),
    ]
    nobody = np.zeros(len(week.sequences.user_ids), np.int64)
    evaluate(arms, week, examples, {}, 0, np.zeros(examples.candidates, bool), nobody, found)
    (row,) = found.table(WEEK_OF).to_pylist()
    assert (row["hit_10"], row["ndcg_10"], row["mrr_10"]) == (1.0, 1.0, 1.0)


def test_weeks_count_by_their_users_and_seeds_alike() -> None:
    def row(week: int, arm: str, seed: int, users: int, value: float) -> dict[str, object]:
        figures = dict.fromkeys(("hit_10", "ndcg_10", "mrr_10"), value)
        return {"week": date(2024, 1, week), "arm": arm, "seed": seed, "users": users, **figures}

    rows = [row(1, "global", 0, 100, 0.2), row(1, "global", 1, 100, 0.4), row(8, "global", 0, 300, 0.5)]
    rows += [row(8, "global", 1, 300, 0.7), row(1, "popularity", 0, 100, 0.9)]
    first, second = averaged(rows)
    assert (first.arm, first.users, first.ndcg_10) == ("popularity", 100, pytest.approx(0.9))
    assert (second.arm, second.users, second.hit_10) == ("global", 400, pytest.approx(0.525))
