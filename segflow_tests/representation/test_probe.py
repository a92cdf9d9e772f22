"""The probe: scores as they are defined, intervals that hold, no user foretold by a head that saw it, and the choice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from segflow.config import ProbeConfig, UserEmbeddingConfig
from segflow.errors import UserError
from segflow.representation.autoencoder import autoencode
from segflow.representation.baselines import aggregated_features
from segflow.representation.heads import _logistic, foretell
from segflow.representation.probe import Outcomes, _auc, _spearman, choose, outcomes_of, probe
from segflow.representation.probe_rows import ProbeRow
from segflow.representation.sequences import EventSequences
from segflow.representation.views import UserViews

MONDAY = datetime(2024, 3, 4, tzinfo=UTC)
USERS = 400
CONFIG = ProbeConfig(bootstrap_samples=200)
PLAIN = UserEmbeddingConfig()


def views_of(views: dict[str, np.ndarray], enough: np.ndarray | None = None) -> UserViews:
    users = len(next(iter(views.values())))
    names = {name: [f"{name}_{column}" for column in range(view.shape[1])] for name, view in views.items()}
    flags = np.ones(users, bool) if enough is None else enough
    counts = np.full(users, 9)
    return UserViews([f"u{one:04d}" for one in range(users)], views, names, counts, counts, flags, ~flags)


@pytest.fixture(scope="module")
def planted() -> tuple[UserViews, Outcomes, dict[str, np.ndarray]]:
    """Text tells the category, behaviour tells churn and spend, engagement tells nothing; aggregates tell little."""
    rng = np.random.default_rng(0)
    taste, mood = rng.normal(size=(2, USERS))
    noise = rng.normal(size=(6, USERS))
    churn = mood + 0.5 * noise[0] > 0.8
    bought = {"tea": (taste + 0.5 * noise[1] > 0) & ~churn, "cake": (taste + 0.5 * noise[2] < 0) & ~churn}
    spend = np.where(churn, 0, np.exp(0.5 * noise[3] - mood))
    views = {
        "text": np.stack([taste + 0.2 * noise[4], rng.normal(size=USERS)], 1).astype(np.float32),
        "behavior": np.stack([mood + 0.2 * noise[5], rng.normal(size=USERS)], 1).astype(np.float32),
        "engagement": rng.normal(size=(USERS, 3)).astype(np.float32),
    }
    blurred = np.stack([taste, mood], 1) + 3 * rng.normal(size=(USERS, 2))
    outcomes = Outcomes(np.arange(USERS), churn, bought, np.log1p(spend))
    return views_of(views), outcomes, {"aggregated": blurred.astype(np.float32)}


@pytest.fixture(scope="module")
def rows(planted: tuple[UserViews, Outcomes, dict[str, np.ndarray]]) -> list[ProbeRow]:
    return probe(*planted, PLAIN, CONFIG, 0)


def row_of(rows: list[ProbeRow], candidate: str, task: str) -> ProbeRow:
    return next(row for row in rows if (row.candidate, row.task) == (candidate, task))


def test_every_candidate_has_every_task(rows: list[ProbeRow]):
    candidates = {row.candidate for row in rows}
    assert len(candidates) == 2**3 - 1 + 1
    assert len(rows) == len(candidates) * 4
    assert {row.kind for row in rows} == {"view", "fusion", "baseline"}
    for row in rows:
        assert row.low <= row.score <= row.high
        assert row.users == USERS
    skill = [2 * row_of(rows, "text", task).score - 1 for task in ("churn", "category")]
    mean = np.mean([*skill, row_of(rows, "text", "spend").score])
    assert row_of(rows, "text", "mean").score == pytest.approx(mean)


def test_views_that_tell_more_than_aggregates_are_above_them_and_chosen(rows: list[ProbeRow]):
    best = row_of(rows, "text + behavior", "mean")
    assert best.chosen
    assert best.difference == pytest.approx(best.score - row_of(rows, "aggregated", "mean").score)
    assert best.difference_low > 0
    assert row_of(rows, "behavior", "churn").score > 0.85
    assert {row.candidate for row in rows if row.chosen} == {"text + behavior"}
    assert row_of(rows, "aggregated", "churn").difference is None


def test_noise_tells_nothing(rows: list[ProbeRow]):
    for task, chance in (("churn", 0.5), ("category", 0.5), ("spend", 0.0)):
        assert row_of(rows, "engagement", task).score == pytest.approx(chance, abs=0.12)
    assert row_of(rows, "engagement", "mean").difference_high < 0


def test_the_same_seed_gives_the_same_rows(planted, rows: list[ProbeRow]):
    assert probe(*planted, PLAIN, CONFIG, 0) == rows


def test_weights_of_views_do_not_matter(planted, rows: list[ProbeRow]):
    weighted = probe(*planted, UserEmbeddingConfig(view_weights={"text": 0, "behavior": 7}), CONFIG, 0)
    assert weighted == rows


def test_attributes_are_scored_but_never_chosen(planted):
    views, outcomes, baselines = planted
    told = np.stack([outcomes.churn, outcomes.spend, *outcomes.categories.values()], 1).astype(np.float32)
    more = views_of({**views.views, "attributes": told})
    rows = probe(more, outcomes, baselines, PLAIN, CONFIG, 0)
    assert row_of(rows, "attributes", "mean").score > row_of(rows, "text + behavior", "mean").score
    assert "text + behavior + engagement + attributes" in {row.candidate for row in rows}
    assert not any("attributes" in row.candidate for row in rows if row.chosen)


def test_the_smallest_set_within_one_standard_error():
    def row(candidate: str, score: float) -> ProbeRow:
        kind = "fusion" if "+" in candidate else "view"
        return ProbeRow(candidate, kind, "mean", "skill", 100, score, score - 0.02, score + 0.02, 0, 0, 0, False, 3)

    three = row("text + behavior + engagement", 0.50)
    within = three.score - 0.04 / (2 * 1.959964)
    assert choose([three, row("text", within - 1e-6), row("text + behavior", within)]) == ["text", "behavior"]
    assert choose([three, row("text", within), row("behavior", within + 1e-3)]) == ["behavior"]
    baseline = replace(row("aggregated", 0.9), kind="baseline")
    assert choose([three, baseline]) == ["text", "behavior", "engagement"]


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_resampled_users(ties: bool):
    rng = np.random.default_rng(1)
    scores, value = rng.normal(size=(2, 60))
    if ties:
        scores, value = scores.round(), np.maximum(value, 0)
    truth = (value > 0.3).astype(float)
    draws = rng.integers(60, size=(5, 60))
    counts = np.stack([np.bincount(draw, minlength=60) for draw in draws]).astype(np.float32)
    areas = [roc_auc_score(truth[draw], scores[draw]) for draw in draws]
    np.testing.assert_allclose(_auc(scores, truth, counts), areas, rtol=1e-6)
    correlations = [spearmanr(scores[draw], value[draw]).statistic for draw in draws]
    np.testing.assert_allclose(_spearman(scores, value, counts), correlations, rtol=1e-5)


def test_nobody_is_foretold_by_a_head_that_saw_the_user():
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=(300, 60)), (rng.random((300, 1)) < 0.5).astype(float)
    folds = rng.permutation(np.arange(300) % 5)
    told = foretell(x, noise, folds, logistic=True)[:, 0]
    assert abs(roc_auc_score(noise[:, 0], told) - 0.5) < 0.1
    changed = noise.copy()
    changed[folds == 0] = 1 - changed[folds == 0]
    again = foretell(x, changed, folds, logistic=True)[:, 0]
    np.testing.assert_array_equal(again[folds == 0], told[folds == 0])
    assert (again[folds == 1] != told[folds == 1]).any()


def test_a_logistic_head_is_one_of_the_penalized_fits():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(500, 4))
    y = (x[:, 0] - x[:, 1] + rng.logistic(size=500) > 0.5).astype(float)
    beta = _logistic(np.hstack([x, np.ones((500, 1))]), y)
    fits = [LogisticRegression(C=1 / (500 * one), tol=1e-8).fit(x, y) for one in (1, 0.1, 0.03, 0.01, 0.003, 0.001)]
    assert min(np.abs(beta[:-1] - fit.coef_[0]).max() for fit in fits) < 1e-3


def events(rows: list[tuple[str, float, float | None, str | None]]) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.string()),
            "item_id": pa.array(["milk"] * len(rows), pa.string()),
            "event_type": pa.array(["buy"] * len(rows), pa.string()),
            "ts": pa.array([MONDAY + timedelta(days=row[1]) for row in rows], pa.timestamp("us", tz="UTC")),
            "value": pa.array([row[2] for row in rows], pa.float64()),
            "category": pa.array([row[3] for row in rows], pa.string()),
        }
    )


def test_outcomes_are_of_the_week_and_of_users_who_were_active():
    enough = np.array([True, True, True, False])
    views = views_of({"engagement": np.zeros((4, 1), np.float32)}, enough)
    history = events(
        [("u0000", -27.9, 1.0, "a"), ("u0001", -1, 1.0, "a"), ("u0002", -28.1, 1.0, "a"), ("u0003", -1, 1, "a")]
    )
    week = events([("u0001", 0, 3.0, "a"), ("u0001", 6.9, None, None), ("u0003", 1, 5.0, "b"), ("new", 2, 9.0, "b")])
    outcomes = outcomes_of(history, week, views, MONDAY, ProbeConfig(minimum_users=1), 0)
    assert outcomes.rows.tolist() == [0, 1]
    assert outcomes.churn.tolist() == [True, False]
    assert outcomes.spend.tolist() == [0, pytest.approx(np.log(4))]
    assert {name: had.tolist() for name, had in outcomes.categories.items()} == {"a": [False, True]}


def test_a_task_without_enough_users_is_left_out_and_none_at_all_is_an_error(planted):
    views, outcomes, baselines = planted
    all_stay = replace(outcomes, churn=np.zeros(USERS, bool), categories={})
    assert {row.task for row in probe(views, all_stay, baselines, PLAIN, CONFIG, 0)} == {"spend", "mean"}
    with pytest.raises(UserError, match=r"fewer than 20 differ.*lower probe\.minimum_users"):
        probe(views, replace(all_stay, spend=np.zeros(USERS)), baselines, PLAIN, CONFIG, 0)


def test_aggregates_by_hand():
    history = events(
        [("ann", -10, 4.0, "food"), ("ann", -40, 2.0, "food"), ("ann", -1, 8.0, "toys"), ("bob", -3, None, None)]
    )
    found = aggregated_features(
        pa.concat_tables([history, events([("ann", 1, 9.0, "food")])]), ["ann", "bob", "new"], MONDAY
    )
    ann, bob, new = (dict(zip(found.names, row.tolist(), strict=True)) for row in found.matrix)
    assert np.expm1(ann["log_recency_days"]) == pytest.approx(1)
    assert np.expm1(ann["log_events"]) == pytest.approx(3)
    assert np.expm1(ann["log_events_28"]) == pytest.approx(2)
    assert np.expm1(ann["log_value"]) == pytest.approx(14)
    assert np.expm1(ann["log_gap_days_max"]) == pytest.approx(30)
    assert ann["share category=food"] == pytest.approx(2 / 3)
    assert np.expm1(ann["log_events category=food"]) == pytest.approx(2)
    assert np.expm1(ann["log_events_28 category=food"]) == pytest.approx(1)
    assert np.expm1(ann["log_recency_days category=food"]) == pytest.approx(10)
    assert np.expm1(bob["log_recency_days category=food"]) == pytest.approx(10)
    assert bob["share type=buy"] == 1
    assert new["log_events"] == 0
    assert np.isfinite(found.matrix).all()


def test_the_autoencoder_tells_users_apart_by_what_they_do_and_reads_their_latest_events_only():
    rng = np.random.default_rng(0)
    kinds = np.arange(80) % 2
    rows = [(f"u{user:04d}", kind, step) for user, kind in enumerate(kinds) for step in range(12)]
    log = pa.table(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [f"i{rng.integers(5) + 5 * kind}" for _, kind, _ in rows],
            "event_type": ["view"] * len(rows),
            "ts": pa.array([MONDAY + timedelta(hours=step) for _, _, step in rows], pa.timestamp("us", tz="UTC")),
            "value": [1.0] * len(rows),
        }
    )
    sequences = EventSequences.from_arrow(log, [f"i{one}" for one in range(10)], ("view",))
    config = ProbeConfig(autoencoder_width=8, autoencoder_events=6, autoencoder_epochs=20)
    users = ["nobody", *sequences.user_ids.tolist()]
    codes = autoencode(sequences, users, config, seed=0)
    assert codes.shape == (81, 8)
    assert (codes[0] == 0).all()
    told = foretell(codes[1:], kinds[:, None].astype(float), np.arange(80) % 5, logistic=True)
    assert roc_auc_score(kinds, told[:, 0]) > 0.9
    np.testing.assert_array_equal(autoencode(sequences, users, config, seed=0), codes)
