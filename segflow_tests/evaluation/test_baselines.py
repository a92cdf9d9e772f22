"""Simple arms: what was tried is what the scorers say, the snapshot week chooses, and the test week plays no part."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segflow.evaluation.baselines import GRIDS, Known, tuned_baselines, tuning
from segflow.evaluation.content import TuningRow
from segflow.evaluation.metrics import ranking_metrics
from segflow.rankers import scorers
from segflow.rankers.features import ItemHistory
from segflow.rankers.scorers import TifuSettings
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.representation.sequences import EventSequences
from segflow_tests.rankers.conftest import CONFIG, ITEMS, SNAPSHOT, USERS, make_log

EVERYBODY = np.arange(USERS)
SEGMENTS = {str(user): f"s{user % 2}" for user in range(USERS - 5)}


def a_week(log: EventSequences) -> Any:
    return SimpleNamespace(
        sequences=replace(log, user_ids=np.array([str(user) for user in range(USERS)])),
        history=ItemHistory(log, np.arange(ITEMS)),
        start_us=SNAPSHOT,
        config=CONFIG,
    )


def baselines(log: EventSequences, segments: dict[str, str] = SEGMENTS) -> tuple[dict[str, Any], list[TuningRow]]:
    week = a_week(log)
    features = week.history.at(SNAPSHOT + WEEK, CONFIG.half_life_days)
    arms, rows = tuned_baselines(week, SimpleNamespace(users=EVERYBODY), features, segments)  # type: ignore[arg-type]
    return {arm.name: arm for arm in arms}, rows


@pytest.fixture(scope="module")
def log() -> EventSequences:
    return make_log()


def test_every_arm_with_settings_gets_as_many_tries(log: EventSequences) -> None:
    tries = {arm: len(grid) for arm, grid in GRIDS.items()}
    assert {tries.pop(arm) for arm in ("popularity_7_days", "popularity_all_time")} == {1}
    assert set(tries) == {"popularity_per_segment", "personal_frequency", "tifu_knn", "ease"}
    assert len(set(tries.values())) == 1
    arms, rows = baselines(log)
    assert list(arms) == list(GRIDS)
    assert {arm.role for arm in arms.values()} == {"baseline"}
    for arm, grid in GRIDS.items():
        own = [row for row in rows if row.arm == arm]
        assert [row.settings for row in own] == list(grid)
        (chosen,) = [row for row in own if row.chosen]
        assert chosen.ndcg_10 == max(row.ndcg_10 or 0.0 for row in own)


def test_what_was_tried_scores_what_the_scorers_score_in_the_snapshot_week(log: EventSequences) -> None:
    history = ItemHistory(log, np.arange(ITEMS))
    features = history.at(SNAPSHOT, 60.0)
    wanted = history.had(SNAPSHOT, SNAPSHOT + WEEK)
    asked = np.flatnonzero(np.diff(wanted.offsets))
    settings = TifuSettings(between=0.6)
    weights = scorers.fit_cooccurrence(features, 300, ITEMS)
    groups = np.array([int(SEGMENTS[str(user)][1]) if str(user) in SEGMENTS else -1 for user in range(USERS)])
    expected = {
        ("popularity_7_days", "none"): scorers.recent_popularity(features, asked),
        ("popularity_all_time", "none"): scorers.all_time_popularity(features, asked),
        ("popularity_per_segment", "smoothing 10 users"): scorers.group_popularity(features, groups, asked, 10),
        ("personal_frequency", "half-life 60 days"): scorers.personal_frequency(features, asked),
        ("tifu_knn", "group decay 0.6, own weight 0.7"): scorers.tifu_knn(
            scorers.tifu_vectors(history, SNAPSHOT, settings), asked, settings
        ),
        ("ease", "ridge 300"): scorers.cooccurrence(features, weights, asked),
    }
    found = {(row.arm, row.settings): row for row in baselines(log)[1]}
    for key, scores in expected.items():
        ndcg = ranking_metrics(scores, wanted.dense(asked, ITEMS))["ndcg_10"].mean()
        assert found[key].ndcg_10 == pytest.approx(ndcg), key
        assert found[key].users == len(asked)


def test_the_test_week_decides_nothing(log: EventSequences) -> None:
    chosen = baselines(log)[1]
    rng = np.random.default_rng(2)
    later = log.times >= SNAPSHOT + WEEK
    other = replace(log, items=np.where(later, rng.integers(ITEMS, size=len(log.items)), log.items).astype(np.int32))
    arms, again = baselines(other)
    assert again == chosen
    # Nor do weights and histories know of it.
    for name, arm in baselines(log)[0].items():
        np.testing.assert_array_equal(arm.score(EVERYBODY), arms[name].score(EVERYBODY))
    # They know of the snapshot week.
    past = log.before(SNAPSHOT)
    features = ItemHistory(past, np.arange(ITEMS)).at(SNAPSHOT + WEEK, CONFIG.half_life_days)
    recent = scorers.recent_popularity(features, EVERYBODY)
    assert not np.array_equal(arms["popularity_7_days"].score(EVERYBODY), recent)


def test_without_a_snapshot_week_the_first_settings_stand(log: EventSequences) -> None:
    silent = (log.times >= SNAPSHOT) & (log.times < SNAPSHOT + WEEK)
    rest = log._keep(~silent)
    arms, rows = baselines(rest)
    assert [(row.arm, row.settings) for row in rows if row.chosen] == [
        (arm, next(iter(grid))) for arm, grid in GRIDS.items()
    ]
    assert {(row.users, row.ndcg_10) for row in rows} == {(0, None)}
    assert all(np.isfinite(arm.score(EVERYBODY)).all() for arm in arms.values())


def test_without_segments_everybody_gets_what_everybody_has(log: EventSequences) -> None:
    arms, _ = baselines(log, {})
    ours, theirs = (arms[name].score(EVERYBODY) for name in ("popularity_per_segment", "popularity_all_time"))
    np.testing.assert_allclose(ours * USERS, theirs, rtol=1e-5)
    segmented = baselines(log)[0]["popularity_per_segment"].score(EVERYBODY)
    assert not np.allclose(segmented[0], segmented[1])
    np.testing.assert_allclose(segmented[-1] * USERS, theirs[-1], rtol=1e-5)


def test_few_reference_users_and_items_still_rank_everybody(log: EventSequences) -> None:
    history = ItemHistory(log, np.arange(ITEMS))
    known = Known(history, SNAPSHOT, history.at(SNAPSHOT, 60.0), np.full(USERS, -1), ease_items=10, reference_users=7)
    assert len(known.reference) == 7
    rows = tuning(known, history.had(SNAPSHOT, SNAPSHOT + WEEK))
    assert all(row.ndcg_10 is not None and 0 < row.ndcg_10 < 1 for row in rows)
    scores = GRIDS["ease"]["ridge 300"](known)(EVERYBODY)
    assert np.count_nonzero(scores.any(axis=0)) == 10
