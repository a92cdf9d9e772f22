"""Every branch of the verdict, and how often it is right where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.statistics import Estimate, estimate
from segflow.evaluation.summary import summarize
from segflow.evaluation.verdict import Role, Verdict, best_control, decide, segments_arm

from .conftest import ndcg_differences

CONFIG = EvaluationConfig(minimum_relative_gain=0.01, minimum_users=50)
CONTROL_MEAN = 0.4  # hence a threshold of 0.004


def difference(
    mean: float, half_width: float, *, p: float = 0.5, mde: float | None = None, users: int = 900
) -> Estimate:
    error = half_width / 1.96
    return Estimate(mean, mean - half_width, mean + half_width, error, p, mde or 2.8 * error, users)


def verdict(overall: Estimate, **segments: Estimate) -> Verdict:
    return decide(overall, segments, control="placebo_2", control_mean=CONTROL_MEAN, config=CONFIG)


def test_a_proven_and_large_enough_gain_means_segment() -> None:
    answer = verdict(difference(0.006, 0.002), s001=difference(0.007, 0.003, p=0.001), s002=difference(0.004, 0.006))
    assert answer.outcome == "segment"
    assert answer.segments == ("s001", "s002")
    assert answer.threshold == pytest.approx(0.004)
    assert answer.best_control == "placebo_2"
    assert answer.interval == pytest.approx((0.004, 0.008))
    for part in ("0.4060", "0.4000", "placebo 2", "+0.0060", "+1.5 %", "+0.0040 to +0.0080", "900 test users"):
        assert part in answer.sentence


def test_segments_proven_to_lose_are_left_out_of_a_gain() -> None:
    answer = verdict(
        difference(0.006, 0.002), s001=difference(0.012, 0.003, p=0.001), s002=difference(-0.009, 0.003, p=0.001)
    )
    assert (answer.outcome, answer.segments) == ("segment only", ("s001",))
    assert [one.decision for one in answer.decisions] == ["gain", "loss"]
    assert "Segment only s001" in answer.sentence


def test_segments_that_gain_only_together_are_kept_where_another_loses() -> None:
    unproven = {f"s00{number}": difference(0.009, 0.0095, p=0.06) for number in range(1, 6)}
    answer = verdict(difference(0.006, 0.004), **unproven, s009=difference(-0.009, 0.003, p=0.001))
    assert (answer.outcome, answer.segments) == ("segment only", tuple(unproven))
    assert "a loss is proven for s009 (−0.0090), corrected for testing 6 segments" in answer.sentence
    one = verdict(difference(0.006, 0.004), s001=unproven["s001"], s009=difference(-0.009, 0.003, p=0.001))
    assert (one.outcome, one.segments) == ("do not segment", ())
    assert "neither alone nor together" in one.sentence


def test_a_gain_of_two_segments_is_not_one_for_all_though_the_mean_of_all_shows_it() -> None:
    others = {f"s01{number}": difference(0.0, 0.005) for number in range(4)}
    gaining = {name: difference(0.02, 0.005, p=0.0002) for name in ("s001", "s002")}
    answer = verdict(difference(0.0067, 0.002), **gaining, **others)
    assert (answer.outcome, answer.segments) == ("segment only", ("s001", "s002"))
    assert "s001 (+0.0200) and s002 (+0.0200) and none worth having for the rest" in answer.sentence


def test_a_gain_that_all_share_is_for_all_though_small_segments_do_not_prove_it() -> None:
    parts = {"s001": difference(0.007, 0.003, p=0.0002), "s002": difference(0.004, 0.009, users=80)}
    assert verdict(difference(0.006, 0.002), **parts).outcome == "segment"


def test_without_a_gain_over_all_only_segments_that_gain_by_themselves_count() -> None:
    parts = {"s001": difference(0.012, 0.003, p=0.0002), "s002": difference(0.007, 0.0075, p=0.07)}
    answer = verdict(difference(0.002, 0.003), **parts, s003=parts["s002"])
    assert (answer.outcome, answer.segments) == ("segment only", ("s001",))


def test_a_gain_no_tested_segment_shares_is_not_trusted() -> None:
    answer = verdict(difference(0.006, 0.002), s001=difference(-0.009, 0.003, p=0.001))
    assert (answer.outcome, answer.segments) == ("do not segment", ())
    assert "proven to lose" in answer.sentence


def test_a_gain_in_one_segment_only() -> None:
    answer = verdict(difference(0.001, 0.003), s001=difference(0.012, 0.003, p=0.001), s002=difference(-0.001, 0.003))
    assert (answer.outcome, answer.segments) == ("segment only", ("s001",))
    assert (
        "a gain is proven for s001 (+0.0120) and none worth having for the rest, corrected for testing 2"
        in answer.sentence
    )


def test_multiplicity_is_corrected() -> None:
    alone = verdict(difference(0.001, 0.002), s001=difference(0.012, 0.011, p=0.03))
    among_many = verdict(
        difference(0.001, 0.002),
        s001=difference(0.012, 0.011, p=0.03),
        **{f"s01{number}": difference(0.0, 0.011, p=0.9) for number in range(5)},
    )
    assert alone.outcome == "segment only"
    assert among_many.outcome == "do not segment"
    assert among_many.decisions[0].adjusted_p_value == pytest.approx(0.18)


def test_a_segment_gain_below_the_threshold_does_not_count() -> None:
    answer = verdict(difference(0.001, 0.002), s001=difference(0.002, 0.001, p=0.001))
    assert answer.outcome == "do not segment"
    assert answer.decisions[0].decision == "gain below threshold"


def test_too_wide_an_interval_is_not_enough_data() -> None:
    answer = verdict(difference(0.002, 0.008))
    assert answer.outcome == "not enough data to say"
    assert f"differences of {answer.minimum_detectable_effect:.4f} or more" in answer.sentence


def test_too_few_users_are_not_enough_data_whatever_the_interval() -> None:
    answer = verdict(difference(0.02, 0.002, users=49))
    assert answer.outcome == "not enough data to say"
    assert "fewer than the 50 users" in answer.sentence


@pytest.mark.parametrize(
    ("overall", "words"),
    [
        (difference(0.002, 0.001), "real but below"),
        (difference(0.001, 0.002), "is ruled out"),
        (difference(-0.005, 0.002), "served worse"),
        # Holds both 0 and the threshold, but the test was fine enough to find the threshold.
        (difference(0.002, 0.0025, mde=0.0036), "would have been found reliably"),
    ],
)
def test_do_not_segment_says_why(overall: Estimate, words: str) -> None:
    answer = verdict(overall)
    assert (answer.outcome, answer.segments) == ("do not segment", ())
    assert words in answer.sentence


def test_a_gain_that_misses_the_threshold_is_not_enough_to_segment() -> None:
    assert verdict(difference(0.0039, 0.001)).outcome == "do not segment"
    assert verdict(difference(0.0041, 0.001)).outcome == "segment"


def test_the_best_control_is_the_highest_of_global_and_controls() -> None:
    roles: dict[str, Role] = {
        "personal_frequency": "baseline",
        "global": "global",
        "placebo_2": "control",
        "placebo_1": "control",
        "segments": "segments",
    }
    means = {"personal_frequency": 0.9, "global": 0.3, "placebo_1": 0.4, "placebo_2": 0.4, "segments": 0.8}
    assert best_control(means, roles) == "placebo_1"
    assert best_control({**means, "global": 0.5}, roles) == "global"
    assert segments_arm(roles) == "segments"


def test_missing_roles_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly one arm"):
        segments_arm({"global": "global"})
    with pytest.raises(ValueError, match="nothing to compare"):
        best_control({"popularity": 0.1, "segments": 0.2}, {"popularity": "baseline", "segments": "segments"})


RANKERS: dict[str, Role] = {
    "global": "global",
    "global_extra": "control",
    **{f"placebo_{number}": "control" for number in range(1, 6)},
    "segments": "segments",
}
TRIALS = 100


SHARES = [0.3, 0.22, 0.18, 0.14, 0.1, 0.06]


def simulated(users: int, gains: list[float]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Segments (users,), and by arm NDCG@10 (users, TRIALS), where the own ranker of each segment adds `gains`.

    NDCG@10 of a user has a mean of 0.38 and a standard deviation of 0.25, and differences of two arms one of 0.05.
    """
    rng = np.random.default_rng(0)
    segments = rng.choice(6, users, p=SHARES)
    noise = ndcg_differences(400_000, gains=0.5)
    noise *= 0.05 / np.sqrt(2) / noise.std()
    skill = rng.beta(1.05, 1.72, (users, TRIALS))
    values = {arm: skill + rng.choice(noise, (users, TRIALS)) for arm in RANKERS}
    values["segments"] += np.array(gains)[segments][:, None]
    return segments, values


def simulated_verdicts(users: int, gains: list[float]) -> list[Verdict]:
    """What `summarize` concludes from each of the simulated tests, all estimated at once."""
    segments, values = simulated(users, gains)
    means = {arm: of_arm.mean(axis=0) for arm, of_arm in values.items()}
    controls = [best_control({arm: mean[trial] for arm, mean in means.items()}, RANKERS) for trial in range(TRIALS)]
    differences = values["segments"] - np.stack([values[arm][:, trial] for trial, arm in enumerate(controls)], axis=1)

    def estimates(rows: np.ndarray) -> list[Estimate]:
        return estimate(differences[rows], confidence=0.95, power=0.8, samples=1000, seed=0)

    overall = estimates(segments >= 0)
    by_segment = [estimates(segments == number) for number in range(6)]
    return [
        decide(
            overall[trial],
            {f"s{number}": found[trial] for number, found in enumerate(by_segment)},
            control=control,
            control_mean=float(means[control][trial]),
            config=CONFIG,
        )
        for trial, control in enumerate(controls)
    ]


@pytest.mark.parametrize("gains", [[0.0] * 6, [0.0114] * 6, [0.0, 0.03, 0.0, 0.03, 0.0, 0.0]])
def test_the_simulated_verdicts_are_those_of_result_rows(gains: list[float]) -> None:
    segments, values = simulated(1200, gains)
    config = CONFIG.model_copy(update={"bootstrap_samples": 1000})
    columns = {
        "week": "2024-01-01",
        "user_id": [f"u{user:04d}" for user in range(1200)],
        "segment_id": [f"s{number}" for number in segments],
        "seed": 0,
        "task": "all",
        "ranked": True,
    }
    expected = simulated_verdicts(1200, gains)
    for trial in (0, 1, 17):
        rows = [pd.DataFrame({**columns, "arm": arm, "ndcg_10": of_arm[:, trial]}) for arm, of_arm in values.items()]
        found = summarize(pd.concat(rows), RANKERS, config, seed=0).verdict
        assert found.sentence == expected[trial].sentence
        assert found.segments == expected[trial].segments


@pytest.mark.parametrize("users", [1200, 2400])
def test_segments_like_placebos_are_seldom_taken_for_better(users: int) -> None:
    verdicts = simulated_verdicts(users, [0.0] * 6)
    assert sum(one.outcome == "segment" for one in verdicts) <= 5
    assert sum(one.outcome == "segment only" for one in verdicts) <= 5


@pytest.mark.parametrize("users", [1200, 2400])
@pytest.mark.parametrize("gain", [0.0114, 0.02])
def test_a_strong_gain_of_everybody_is_found(users: int, gain: float) -> None:
    verdicts = simulated_verdicts(users, [gain] * 6)
    assert sum(one.outcome == "segment" for one in verdicts) >= 90


@pytest.mark.parametrize("users", [1200, 2400])
@pytest.mark.parametrize("gaining", [(1, 3), (0, 5), (3, 4)])
def test_a_gain_of_two_segments_is_found_where_it_is(users: int, gaining: tuple[int, int]) -> None:
    verdicts = simulated_verdicts(users, [0.03 if number in gaining else 0.0 for number in range(6)])
    expected = tuple(f"s{number}" for number in gaining)
    assert sum((one.outcome, one.segments) == ("segment only", expected) for one in verdicts) >= 80
