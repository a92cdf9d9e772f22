"""Ranking metrics against a slow implementation written from the definitions, and against ir-measures."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segflow.evaluation.metrics import CUTOFFS, METRICS, ranking_metrics, top_k

LIBRARY = {
    "ndcg": ir_measures.nDCG,
    "recall": ir_measures.R,
    "hit": ir_measures.Success,
    "mrr": ir_measures.RR,
    "map": ir_measures.AP,
}


def slow_metrics(scores: list[float], relevant: list[bool], exclude: list[bool], k: int) -> dict[str, float]:
    """One user, by sorting Python lists."""
    allowed = [i for i in range(len(scores)) if not exclude[i]]
    ranking = sorted(allowed, key=lambda i: (-scores[i], i))[:k]
    wanted = {i for i in allowed if relevant[i]}
    if not wanted:
        return dict.fromkeys(METRICS, math.nan)
    gain = sum(1 / math.log2(place + 2) for place, i in enumerate(ranking) if i in wanted)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
    places = [place for place, i in enumerate(ranking) if i in wanted]
    return {
        "ndcg": gain / ideal,
        "recall": len(places) / len(wanted),
        "hit": float(bool(places)),
        "mrr": 1 / (places[0] + 1) if places else 0.0,
        "map": sum((found + 1) / (place + 1) for found, place in enumerate(places)) / len(wanted),
    }


@st.composite
def blocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 30)))
    # Few distinct scores, so that ties are the rule.
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-1.5, 0.0, 0.25, 0.5, 7.0])))
    flags = hnp.arrays(np.bool_, shape)
    return scores, draw(flags), draw(flags)


@given(blocks())
def test_metrics_match_the_definitions(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, relevant, exclude = block
    fast = ranking_metrics(scores, relevant, exclude, cutoffs=(1, 5, 20))
    for user in range(len(scores)):
        for k in (1, 5, 20):
            slow = slow_metrics(scores[user].tolist(), relevant[user].tolist(), exclude[user].tolist(), k)
            for name, value in slow.items():
                np.testing.assert_allclose(fast[f"{name}_{k}"][user], value, rtol=1e-12)


@given(blocks(), st.integers(1, 40))
def test_top_k_is_the_head_of_a_stable_sort(block: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    scores, _, exclude = block
    masked = np.where(exclude, -np.inf, scores)
    expected = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(top_k(masked, k), expected)


@pytest.mark.parametrize("candidates", [3, 12, 60])
def test_metrics_agree_with_a_library(candidates: int) -> None:
    """On rankings without ties, which the library breaks by the names of items."""
    rng = np.random.default_rng(candidates)
    users = 200
    scores = rng.permuted(np.tile(np.arange(candidates, dtype=np.float32), (users, 1)), axis=1)
    relevant = rng.random((users, candidates)) < rng.uniform(0.02, 0.9, (users, 1))
    exclude = rng.random((users, candidates)) < rng.choice([0.0, 0.3], (users, 1))
    ours = ranking_metrics(scores, relevant, exclude)
    tested = np.flatnonzero((relevant & ~exclude).any(axis=1))
    assert len(tested) > users / 4

    runs = {str(u): {str(i): float(scores[u, i]) for i in np.flatnonzero(~exclude[u])} for u in tested}
    wanted = {str(u): {str(i): 1 for i in np.flatnonzero(relevant[u] & ~exclude[u])} for u in tested}
    measures = {LIBRARY[metric] @ k: f"{metric}_{k}" for metric in METRICS for k in CUTOFFS}
    compared = 0
    for found in ir_measures.iter_calc(list(measures), wanted, runs):
        assert ours[measures[found.measure]][int(found.query_id)] == pytest.approx(found.value, rel=0, abs=1e-9)
        compared += 1
    assert compared == len(tested) * len(measures)


def test_a_worked_example() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6]], dtype=np.float32)
    relevant = np.array([[False, True, False, True]])
    values = ranking_metrics(scores, relevant, cutoffs=(2,))
    assert values["ndcg_2"][0] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert values["recall_2"][0] == 0.5
    assert values["mrr_2"][0] == 0.5
    assert values["map_2"][0] == 0.25


def test_users_without_relevant_candidates_are_nan() -> None:
    values = ranking_metrics(np.zeros((2, 3)), np.array([[False] * 3, [True] * 3]))
    assert np.isnan(values["ndcg_10"][0])
    assert values["ndcg_10"][1] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_cannot_be_ranked_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        ranking_metrics(np.array([[0.0, bad]]), np.array([[True, False]]))


def test_mismatched_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="relevant"):
        ranking_metrics(np.zeros((2, 3)), np.zeros((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="exclude"):
        ranking_metrics(np.zeros((2, 3)), np.zeros((2, 3), dtype=bool), np.zeros((1, 3), dtype=bool))
