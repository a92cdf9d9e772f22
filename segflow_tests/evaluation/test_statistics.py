"""Intervals cover, p-values are uniform under no effect, detectable effects are detected."""

from __future__ import annotations

import numpy as np
import pytest

from segflow.evaluation import statistics
from segflow.evaluation.statistics import Estimate, bootstrap_means, estimate


def estimates(values: np.ndarray, samples: int = 1000, seed: int = 1) -> list[Estimate]:
    return estimate(values, confidence=0.95, power=0.8, samples=samples, seed=seed)


def simulated(trials: int, users: int, effect: float) -> np.ndarray:
    """Skewed differences with mean `effect` and standard deviation 1, one column per trial."""
    rng = np.random.default_rng(11)
    return rng.gamma(4.0, 0.5, (users, trials)) - 2.0 + effect


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = [one.low <= 0.3 <= one.high for one in estimates(simulated(600, 150, 0.3))]
    # 95 % of 600 trials, plus or minus about three standard errors of that share.
    assert 0.92 <= np.mean(covered) <= 0.975


def test_p_values_reject_a_true_null_at_their_level() -> None:
    rejected = [one.p_value <= 0.05 for one in estimates(simulated(600, 150, 0.0))]
    assert 0.025 <= np.mean(rejected) <= 0.08


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
    assert estimates(values)[0].low != estimates(values, seed=2)[0].low


def test_working_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = simulated(3, 50, 0.1)
    whole = bootstrap_means(values, 300, seed=5)
    monkeypatch.setattr(statistics, "_CHUNK_CELLS", 1000)
    np.testing.assert_allclose(bootstrap_means(values, 300, seed=5), whole, rtol=1e-12)


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.array([[1.0], [np.nan]])])
def test_too_few_users_and_missing_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least 2 users"):
        estimates(values)
