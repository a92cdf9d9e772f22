"""The gate: rankers per segment serve what the verdict names, harm nobody, and nothing serves that a baseline beats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.controls import roles_of
from segflow.evaluation.promotion import Promotion, harmed_segments, promotion
from segflow.evaluation.summary import EvaluationSummary, summarize

CONFIG = EvaluationConfig(minimum_users=50, bootstrap_samples=1000)
SEGMENTS = ("s1", "s2")
BASELINES = {"popularity": 0.0, "personal_frequency": -0.01}

Gain = float | dict[str, float]


def results(users: int = 300, seeds: tuple[int, ...] = (0,), new: float = 1.0, **gains: Gain) -> pd.DataFrame:
    """Rows of `ranking_results`: NDCG@10 of each arm is that of popularity plus the arm's gain, with noise of its own.

    Users are of s1, s2 and of no segment in turn; a gain may differ by segment. new: what the gain is multiplied by there.
    """
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.5, users)
    segment = np.array(["s1", "s2", "unassigned"])[np.arange(users) % 3]
    frames = []
    for arm, gain in {**BASELINES, "global": 0.03, "global_extra": 0.03, "segments": 0.03, **gains}.items():
        own = np.array([gain.get(one, 0.03) if isinstance(gain, dict) else gain for one in segment])
        for seed in seeds if arm not in BASELINES else (0,):
            noise = rng.normal(0, 0.01, users)
            for task, times in (("all", 1.0), ("new", new)):
                values = {"user_id": [f"u{user:03}" for user in range(users)], "segment_id": segment}
                values |= {"week": "2024-01-01", "arm": arm, "seed": seed, "task": task, "ranked": True}
                frames.append(pd.DataFrame({**values, "ndcg_10": base + own * times + noise}))
    return pd.concat(frames, ignore_index=True)


def summed(rows: pd.DataFrame) -> EvaluationSummary:
    """The summary of the week's report."""
    placed = rows.assign(segment_id=rows["segment_id"].where(rows["segment_id"] != "unassigned", None))
    return summarize(placed, roles_of(rows["arm"].unique()), CONFIG, 0)


def promoted(rows: pd.DataFrame, segments: tuple[str, ...] = SEGMENTS, seed: int = 0) -> Promotion:
    return promotion(rows, summed(rows), segments, CONFIG, seed)


def test_a_verdict_for_segments_lets_their_rankers_serve() -> None:
    found = promoted(results(segments=0.06))
    assert (found.promoted, found.arm, found.segments, found.cleared) == (True, "segments", SEGMENTS, True)
    assert found.sentence.startswith(
        "Rankers per segment serve everybody in a segment, as the verdict says: segments +0.0"
    )
    assert "against popularity, the best simple baseline (300 users)" in found.sentence
    assert found.harmed == ()


def test_a_verdict_for_one_segment_gives_the_others_the_global_ranker() -> None:
    rows = results(segments={"s1": 0.09, "s2": 0.03})
    found = promoted(rows)
    assert (found.promoted, found.arm, found.segments) == (True, "segments", ("s1",))
    assert found.sentence.startswith("Rankers per segment serve only s1, as the verdict says")
    chosen = rows[(rows["task"] == "all") & (rows["seed"] == 0)].pivot(index="user_id", columns="arm", values="ndcg_10")
    is_first = rows.drop_duplicates("user_id").set_index("user_id")["segment_id"] == "s1"
    served = chosen["segments"].where(is_first, chosen["global"])
    assert found.differences["popularity"].mean == pytest.approx((served - chosen["popularity"]).mean())


@pytest.mark.parametrize("gain", [0.03, -0.1])
def test_any_other_verdict_leaves_everybody_to_the_global_ranker(gain: float) -> None:
    found = promoted(results(segments=gain))
    assert (found.promoted, found.arm, found.segments, found.cleared) == (True, "global", (), False)
    start = "The global ranker serves everybody, since the verdict is 'do not segment': global +0.0"
    assert found.sentence.startswith(start)


def test_a_gain_that_harms_a_segment_on_new_items_serves_nobody_by_segments() -> None:
    rows = results(segments={"s1": 0.09, "s2": 0.06, "unassigned": 0.03})
    of_second = (rows["arm"] == "segments") & (rows["task"] == "new") & (rows["segment_id"] == "s2")
    rows.loc[of_second, "ndcg_10"] -= 0.06
    assert summed(rows).verdict.outcome == "segment"
    found = promoted(rows)
    assert (found.promoted, found.arm, found.cleared) == (True, "global", True)
    assert [(one.segment_id, one.task) for one in found.harmed] == [("s2", "new")]
    assert "since rankers per segment are proven to harm s2 (−7." in found.sentence
    assert "%, items new to the user): global +0.0" in found.sentence
    # Within the tolerance it is no harm.
    mild = rows.copy()
    mild.loc[of_second, "ndcg_10"] += 0.027
    assert (promoted(mild).arm, promoted(mild).harmed) == ("segments", ())


def test_a_segment_that_gets_no_ranker_of_its_own_is_not_in_the_way() -> None:
    found = promoted(results(segments={"s1": 0.09, "s2": -0.05}))
    assert (found.promoted, found.arm, found.segments) == (True, "segments", ("s1",))
    assert {(one.segment_id, one.task) for one in found.harmed} == {("s2", "all"), ("s2", "new")}


def test_harm_is_proven_and_above_the_tolerance() -> None:
    summary = summed(results(segments={"s1": 0.09, "s2": -0.05}))
    (row,) = (one for one in summary.segments if (one.task, one.segment_id) == ("all", "s2"))
    assert row.difference is not None
    (harm, _) = harmed_segments(summary, CONFIG)
    assert harm.loss == pytest.approx(-row.difference.mean / row.control_mean)
    for tolerance, expected in ((harm.loss * 0.99, 2), (0.3, 0)):
        assert len(harmed_segments(summary, CONFIG.model_copy(update={"harm_tolerance": tolerance}))) == expected
    unproven = [
        replace(one, difference=one.difference and replace(one.difference, p_value=0.2)) for one in summary.segments
    ]
    assert harmed_segments(replace(summary, segments=unproven), CONFIG) == ()


def test_a_week_without_segments_offers_the_global_ranker() -> None:
    rows = results().assign(segment_id="unassigned")
    rows = rows[rows["arm"] != "global_extra"]
    found = promoted(rows, segments=())
    assert (found.promoted, found.arm) == (True, "global")
    assert "since the week has no rankers per segment" in found.sentence


def test_one_proven_better_baseline_is_enough_to_hold_all_back() -> None:
    found = promoted(results(personal_frequency=0.2, segments=0.06))
    assert (found.promoted, found.arm, found.cleared) == (False, "global", True)
    assert found.sentence.startswith("Nothing of this week serves: global −0.1")
    assert "proven worse; rankers per segment are held back (segments −0.1" in found.sentence


def test_the_global_ranker_serves_where_only_the_segments_cannot_rank() -> None:
    rows = results(segments=0.06)
    summary = summed(rows)
    rows.loc[(rows["arm"] == "segments") & (rows["user_id"] == "u000"), "ranked"] = False
    found = promotion(rows, summary, SEGMENTS, CONFIG, 0)
    assert (found.promoted, found.arm) == (True, "global")
    assert "held back (segments gave no numbers as scores for 1 of 300 users)" in found.sentence
    # A user that the segments arm does not serve is ranked by the global ranker.
    rows["ranked"] = ~((rows["arm"] == "segments") & (rows["user_id"] == "u002"))
    assert promotion(rows, summary, SEGMENTS, CONFIG, 0).arm == "segments"


def test_a_tie_with_a_baseline_may_serve() -> None:
    assert promoted(results(personal_frequency=0.03)).promoted


def test_too_few_users_prove_nothing() -> None:
    found = promoted(results(users=49, segments=0.3))
    assert (found.promoted, dict(found.differences)) == (False, {})
    assert found.sentence == "Nothing of this week serves: 49 users tested it, fewer than the 50 needed."


def test_what_serves_is_the_training_that_is_served() -> None:
    rows = results(seeds=(0, 1))
    rows.loc[(rows["arm"] == "global") & (rows["seed"] == 1), "ndcg_10"] -= 0.5
    assert promoted(rows).promoted
    assert not promoted(rows.assign(seed=lambda one: 1 - one["seed"])).promoted
    mixed = rows.sample(frac=1, random_state=1)
    assert promoted(mixed).differences["popularity"].mean == pytest.approx(
        promoted(rows).differences["popularity"].mean, abs=1e-12
    )
