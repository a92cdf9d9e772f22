"""Intervals cover, p-values are uniform under no effect, detectable effects are detected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway

from segflow.evaluation import statistics
from segflow.evaluation.statistics import Estimate, bootstrap_means, estimate, same_mean_p_value, seed_share, together

from .conftest import ndcg_differences

TRIALS = 1000


def estimates(
    values: np.ndarray, samples: int = 1000, seed: int = 1, users: np.ndarray | None = None
) -> list[Estimate]:
    return estimate(values, confidence=0.95, power=0.8, samples=samples, seed=seed, users=users)


def simulated(trials: int, users: int, effect: float) -> np.ndarray:
    """Skewed differences with mean `effect` and standard deviation 1, one column per trial."""
    rng = np.random.default_rng(11)
    return rng.gamma(4.0, 0.5, (users, trials)) - 2.0 + effect


def coverage(found: list[Estimate], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize("gains", [0.35, 0.5])
@pytest.mark.parametrize("users", [60, 300, 2000])
def test_the_interval_covers_the_truth_as_often_as_it_says(users: int, gains: float) -> None:
    """On differences as rankers have them: most are zero, few are large, and gains may be rarer than losses."""
    population = ndcg_differences(200_000, gains=gains)
    sampled = np.random.default_rng(users).choice(population, (users, TRIALS))
    covered = coverage(estimates(sampled), population.mean())
    # As few users as a segment may have leave a dozen differences that are not zero: rather too wide than too narrow.
    assert 0.93 <= covered <= (0.98 if users == 60 else 0.97)


def test_percentiles_alone_would_cover_too_seldom() -> None:
    population = ndcg_differences(200_000, gains=0.35)
    for users, most in ((60, 0.9), (300, 0.93)):
        sampled = np.random.default_rng(users).choice(population, (users, TRIALS))
        low, high = np.quantile(bootstrap_means(sampled, np.ones(users), 1000, seed=1), [0.025, 0.975], axis=0)
        assert np.mean((low <= population.mean()) & (population.mean() <= high)) < most


@pytest.mark.parametrize("users", [60, 300, 2000])
def test_p_values_reject_a_true_null_at_their_level(users: int) -> None:
    population = ndcg_differences(200_000, gains=0.5)
    p_values = np.array(
        [one.p_value for one in estimates(np.random.default_rng(users).choice(population, (users, TRIALS)))]
    )
    assert 0.03 <= np.mean(p_values <= 0.05) <= 0.07
    # What is left after a correction for six segments.
    assert np.mean(p_values <= 0.05 / 6) <= 0.0175


def test_a_p_value_is_the_share_of_all_signs() -> None:
    """Of 16 ways to sign four users, two reach the total of four gains and eight that of three gains and a loss."""
    four, three = estimates(np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]), samples=20_000)
    assert four.p_value == pytest.approx(2 / 16, abs=0.01)
    assert three.p_value == pytest.approx(10 / 16, abs=0.015)


def test_the_weeks_of_a_user_are_no_independent_observations() -> None:
    rng = np.random.default_rng(5)
    users, weeks = 120, 6
    rows = np.repeat(np.arange(users), rng.integers(1, weeks + 1, users))
    lasting = rng.laplace(0.0, 1.0, (users, TRIALS))[rows]
    values = 0.3 + lasting + rng.normal(0.0, 1.0, lasting.shape)
    clustered = estimates(values, users=rows)
    assert 0.93 <= coverage(clustered, 0.3) <= 0.97
    assert {one.users for one in clustered} == {users}
    assert coverage(estimates(values), 0.3) < 0.85
    null = estimates(values - 0.3, users=rows)
    assert 0.03 <= np.mean([one.p_value <= 0.05 for one in null]) <= 0.07


def test_the_mean_over_weeks_is_that_of_the_rows_and_one_row_a_user_needs_no_codes() -> None:
    values = simulated(2, 60, 0.1)
    codes = np.random.default_rng(2).permutation(np.repeat(np.arange(20), 3))
    assert [one.mean for one in estimates(values, users=codes)] == pytest.approx(values.mean(axis=0))
    assert estimates(values, users=np.arange(60)) == estimates(values)
    one = estimates(values)[0]
    assert one.standard_error == pytest.approx(values[:, 0].std(ddof=1) / np.sqrt(60))


def test_the_share_of_seeds_is_what_more_seeds_would_take_away() -> None:
    rng = np.random.default_rng(8)
    users, seeds = 20_000, 3
    of_user = rng.normal(0.0, 0.04, users)
    values = of_user + rng.normal(0.0, 0.06, (seeds, users)) + np.array([[0.1], [0.0], [-0.1]])
    error = estimates(values.mean(axis=0)[:, None])[0].standard_error
    assert seed_share(values, error) == pytest.approx(0.06**2 / 3 / (0.04**2 + 0.06**2 / 3), abs=0.02)
    same = np.tile(of_user, (seeds, 1))
    assert seed_share(same, error) == pytest.approx(0.0, abs=1e-12)
    assert seed_share(np.zeros((2, 5)), 0.0) == 0.0


def test_the_minimum_detectable_effect_is_found_with_the_power_stated() -> None:
    effect = statistics.minimum_detectable_effect(1.0 / np.sqrt(150), confidence=0.95, power=0.8)
    found = [one.low > 0 for one in estimates(simulated(600, 150, effect))]
    assert 0.75 <= np.mean(found) <= 0.86


def test_pairing_removes_what_users_have_in_common() -> None:
    rng = np.random.default_rng(3)
    skill = rng.normal(0.4, 0.2, 500)
    ours, theirs = skill + 0.01 + rng.normal(0, 0.02, 500), skill + rng.normal(0, 0.02, 500)
    paired = estimates((ours - theirs)[:, None])[0]
    alone = estimates(ours[:, None])[0]
    assert 0.0 < paired.low < 0.01 < paired.high
    assert alone.high - alone.low > 4 * (paired.high - paired.low)


def test_no_difference_at_all_is_no_evidence() -> None:
    one = estimates(np.zeros((40, 1)))[0]
    assert (one.mean, one.low, one.high, one.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_same_seed_gives_the_same_estimate_and_another_does_not() -> None:
    values = simulated(2, 80, 0.1)
    assert estimates(values) == estimates(values)
    assert estimates(values) != estimates(values, seed=2)


def test_working_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = simulated(3, 50, 0.1)
    whole = bootstrap_means(values, np.ones(50), 300, seed=5)
    monkeypatch.setattr(statistics, "_CHUNK_CELLS", 1000)
    np.testing.assert_allclose(bootstrap_means(values, np.ones(50), 300, seed=5), whole, rtol=1e-12)


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.array([[1.0], [np.nan]])])
def test_too_few_users_and_missing_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least 2 users"):
        estimates(values)


def test_a_code_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of each"):
        estimates(np.ones((3, 1)), users=np.array([0, 2, 2]))


def test_groups_are_compared_and_joined_as_their_users_would_be() -> None:
    rng = np.random.default_rng(4)
    groups = [rng.normal(0.1 * number, 1.0, size) for number, size in enumerate((30, 80, 200))]
    parts = [estimates(group[:, None])[0] for group in groups]
    assert same_mean_p_value(parts) == pytest.approx(f_oneway(*groups).pvalue)
    assert same_mean_p_value(parts[:1]) == same_mean_p_value([]) == 1.0
    mean, low = together(parts, 0.95)
    joined = estimates(np.concatenate(groups)[:, None])[0]
    assert mean == pytest.approx(joined.mean)
    assert low == pytest.approx(joined.mean - 1.96 * joined.standard_error, abs=0.01)


def test_groups_without_any_spread_are_the_same_or_not() -> None:
    still, risen = (estimates(np.full((10, 1), level))[0] for level in (0.0, 0.5))
    assert same_mean_p_value([still, still]) == 1.0
    assert same_mean_p_value([still, risen]) == 0.0
