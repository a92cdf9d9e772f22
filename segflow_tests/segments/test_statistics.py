"""The statistics against independent computations: by hand, by simulation, or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, f_oneway
from scipy.stats.contingency import association

from segflow.segments.statistics import (
    benjamini_hochberg,
    contingency,
    cramers_v,
    eta_squared,
    jaccard,
    log_ratio,
    standardized_difference,
    surely_above,
    wasserstein,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40))
def test_jaccard_agrees_with_sets(pairs):
    rows, columns = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    found = jaccard(contingency(rows, columns, 4, 5))
    for r in range(4):
        for c in range(5):
            a, b = set(np.flatnonzero(rows == r)), set(np.flatnonzero(columns == c))
            assert found[r, c] == pytest.approx(len(a & b) / len(a | b) if a | b else 0)


def test_standardized_difference_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = standardized_difference(rng.normal(0.5, 1, (40, 1)), rng.normal(0, 1, (90, 1)))
        covered += bool(found.low[0] <= 0.5 <= found.high[0])
    assert 0.92 <= covered / 400 <= 0.98


def test_standardized_difference_by_hand():
    inside, outside = np.array([[2.0, 1], [4, 1]]), np.array([[0.0, 1], [1, 1], [2, 1]])
    found = standardized_difference(inside, outside)
    # Means 3 and 1, pooled variance (2 + 2) / 3, small-sample factor 1 - 3 / 11.
    assert found.estimate[0] == pytest.approx(2 / np.sqrt(4 / 3) * (8 / 11))
    assert np.isnan(found.estimate[1])
    assert np.isnan(found.p_value[1])


def test_log_ratio_is_symmetric_on_the_log_scale():
    found = log_ratio(np.log([2.0, 1.0, np.nan]), [0.1, 0.2, 0.1])
    assert found.low[0] * found.high[0] == pytest.approx(4)
    assert found.p_value[1] == pytest.approx(1)
    assert np.isnan(found.estimate[2])


def test_a_share_is_surely_above_wilsons_bound():
    for hits, units in ((0, 7), (3, 10), (40, 40), (700, 900)):
        bound = binomtest(hits, units).proportion_ci(method="wilson").low
        assert surely_above(hits / units, units) == pytest.approx(bound, abs=1e-12)


@settings(max_examples=60)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=30))
def test_benjamini_hochberg_against_its_definition(p_values):
    adjusted = benjamini_hochberg(p_values)
    tested = sorted(p for p in p_values if not np.isnan(p))
    for p, q in zip(p_values, adjusted, strict=True):
        if np.isnan(p):
            assert np.isnan(q)
        else:
            bounds = [other * len(tested) / (rank + 1) for rank, other in enumerate(tested) if other >= p]
            assert q == pytest.approx(min(1, *bounds, 1))


def test_cramers_v_agrees_with_scipy_and_its_p_value_is_level():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 3, 300)
    second = np.where(rng.random(300) < 0.3, first, rng.integers(0, 4, 300))
    found = cramers_v(first, second, 99, np.random.default_rng(0))
    table = contingency(first, second, 3, 4)
    assert found.estimate == pytest.approx(association(table, method="cramer"))
    assert found.p_value == 0.01
    nulls = [cramers_v(rng.integers(0, 3, 60), rng.integers(0, 2, 60), 99, rng).p_value for _ in range(200)]
    assert 0.02 <= np.mean(np.array(nulls) <= 0.1) <= 0.18
    assert np.isnan(cramers_v(first, np.zeros(300, int), 99, rng).estimate)


def test_chance_is_that_of_shuffled_users():
    rng = np.random.default_rng(2)
    groups, values = rng.integers(0, 4, 80), rng.integers(0, 5, 80)
    found = cramers_v(groups, values, 2000, np.random.default_rng(0))
    shuffled = [association(contingency(groups, rng.permutation(values), 4, 5), method="cramer") for _ in range(500)]
    assert found.by_chance == pytest.approx(np.mean(shuffled), rel=0.05)


def test_eta_squared_agrees_with_the_f_test():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 3, 120)
    values = np.round(rng.normal(groups * 0.35, 1), 1)
    found = eta_squared(groups, values, 999, np.random.default_rng(0))
    test = f_oneway(*(values[groups == group] for group in range(3)))
    ratio = test.statistic * 2 / 117
    assert found.estimate == pytest.approx(ratio / (1 + ratio))
    assert found.by_chance == pytest.approx(2 / 119, rel=0.15)  # k - 1 of n - 1 degrees of freedom
    assert found.p_value == pytest.approx(test.pvalue, abs=0.02)
    assert np.isnan(eta_squared(groups, np.ones(120), 99, rng).estimate)


def test_wasserstein_sees_shape_where_means_are_equal():
    rng = np.random.default_rng(4)
    wide, narrow = rng.normal(0, 3, (4000, 1)), rng.normal(0, 1, (4000, 1))
    assert abs(standardized_difference(wide, narrow).estimate[0]) < 0.1
    # Between centred Gaussians it is the difference of their deviations times E|z|.
    assert wasserstein(wide, narrow)[0] == pytest.approx(2 * np.sqrt(2 / np.pi) / np.sqrt(5), rel=0.05)
    assert wasserstein(wide * 10, narrow * 10)[0] == pytest.approx(wasserstein(wide, narrow)[0])
    assert np.isnan(wasserstein(np.ones((5, 1)), np.ones((6, 1)))[0])
