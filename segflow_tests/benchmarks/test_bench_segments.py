"""The benchmark itself: small sizes run, and targets hold or not by what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segflow.config import SegmentConfig
from segflow_tests.benchmarks.bench_segments import assigning, fitting, of_everybody, of_selection, selecting
from segflow_tests.benchmarks.clustering_job import Assigned, Fitted, Selected, fitted, selected

_SELECTED = Selected(1000, 12, 10.0, 30.0, 12, 12, 20, 0.9)
_FITTED = Fitted(1000, 1.0, 4.0, 5.0, 5.0)


def test_a_small_selection_finds_the_plant_as_the_plain_job_does() -> None:
    config = SegmentConfig(k_min=3, k_max=5, starts=2, bootstraps=3, bootstrap_starts=2, null_repeats=1)
    found = selected(400, 64, 4, config)
    assert (found.our_k, found.their_k) == (4, 4)
    assert "400 users" in of_selection(found)


def test_a_small_fit_is_as_good_as_scikit_learns() -> None:
    fit, assignment = fitted(3_000, 16, 4, SegmentConfig(sample_users=1_000))
    assert fit.our_inertia <= fit.their_inertia * 1.001
    assert "3,000 users" in of_everybody(fit, assignment)


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, [True, True]),
        ({"ours": 16.0}, [False, True]),
        ({"our_k": 11}, [True, False]),
        ({"their_k": 9}, [True, True]),
    ],
)
def test_targets_of_the_selection(changed: dict[str, float], held: list[bool]) -> None:
    assert [target.held for target in selecting(replace(_SELECTED, **changed))] == held  # type: ignore[arg-type]


def test_targets_of_fit_and_assignment() -> None:
    assert [target.held for target in fitting(_FITTED)] == [True, True]
    assert [target.held for target in fitting(replace(_FITTED, ours=1.4, our_inertia=5.1))] == [False, False]
    assert [target.held for target in assigning(Assigned(1000, 2.9, 3.1, 1.0))] == [True, False]
    assert [target.held for target in assigning(Assigned(1000, 3.1, 2.9, 1.0))] == [False, True]
