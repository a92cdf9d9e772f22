"""The gate: proven worse than a simple baseline, or tested by too few, and the champion stays who it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.promotion import promotion

CONFIG = EvaluationConfig(minimum_users=50, bootstrap_samples=1000)


def results(users: int = 200, seeds: int = 1, **gains: float) -> pd.DataFrame:
    """Rows of `ranking_results`: NDCG@10 of each arm is that of popularity plus the arm's gain, with noise of its own."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.5, users)
    rows = []
    for arm, gain in {"popularity": 0.0, **gains}.items():
        for seed in range(seeds):
            values = base + gain + rng.normal(0, 0.02, users)
            rows += [
                {
                    "user_id": f"u{user}",
                    "arm": arm,
                    "seed": seed,
                    "task": task,
                    "ranked": True,
                    "ndcg_10": value if task == "all" else 0.0,
                }
                for user, value in enumerate(values)
                for task in ("all", "new")
            ]
    return pd.DataFrame(rows)


def test_a_ranker_above_the_baselines_is_promoted() -> None:
    found = promotion(results(personal_frequency=0.01, **{"global": 0.03}), "global", CONFIG, seed=0)
    assert found.promoted
    assert found.sentence.startswith("Promoted: global +0.0")
    assert "against personal frequency, the best simple baseline (200 users)" in found.sentence
    assert set(found.differences) == {"popularity", "personal_frequency"}
    assert found.differences["popularity"].low > 0


def test_one_proven_better_baseline_is_enough_to_hold_it_back() -> None:
    found = promotion(results(personal_frequency=0.05, **{"global": 0.03}), "global", CONFIG, seed=0)
    assert not found.promoted
    assert found.sentence.startswith("Not promoted: global −0.0")
    assert found.sentence.endswith("proven worse.")


def test_a_tie_may_serve() -> None:
    assert promotion(results(personal_frequency=0.03, **{"global": 0.03}), "global", CONFIG, seed=0).promoted


def test_controls_and_other_arms_do_not_count() -> None:
    arms = {"global": 0.03, "segments": 0.01, "global_extra": 0.2, "placebo_1": 0.2}
    assert promotion(results(**arms), "global", CONFIG, seed=0).promoted
    assert promotion(results(**arms), "segments", CONFIG, seed=0).promoted


def test_too_few_users_prove_nothing() -> None:
    found = promotion(results(users=49, **{"global": 0.3}), "global", CONFIG, seed=0)
    assert (found.promoted, found.differences) == (False, {})
    assert found.sentence == "Not promoted: 49 users tested it, fewer than the 50 needed."


def test_seeds_of_a_user_are_averaged_and_rows_may_come_in_any_order() -> None:
    rows = results(seeds=3, **{"global": 0.01})
    found = promotion(rows, "global", CONFIG, seed=0)
    assert found.differences["popularity"].users == 200
    assert promotion(rows.sample(frac=1, random_state=1), "global", CONFIG, seed=0).differences["popularity"].mean == (
        pytest.approx(found.differences["popularity"].mean, abs=1e-12)
    )


def test_a_ranker_that_cannot_rank_everybody_may_not_serve() -> None:
    rows = results(**{"global": 0.3})
    rows.loc[(rows["arm"] == "global") & (rows["user_id"] == "u7"), "ranked"] = False
    found = promotion(rows, "global", CONFIG, seed=0)
    assert (found.promoted, found.differences) == (False, {})
    assert found.sentence == "Not promoted: global gave no numbers as scores for 1 of 200 users."
    rows["ranked"] = rows["arm"] != "popularity"
    assert promotion(rows, "global", CONFIG, seed=0).promoted


def test_an_arm_that_was_not_tested_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="no arm 'segments'"):
        promotion(results(**{"global": 0.1}), "segments", CONFIG, seed=0)
