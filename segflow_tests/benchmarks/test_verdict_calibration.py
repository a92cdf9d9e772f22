"""The verdict after real training is what was planted, and placebos gain nothing over everybody as one group."""

from __future__ import annotations

from collections import Counter

import pytest

from segflow_tests.benchmarks.verdict_calibration import SEEDS, STRENGTHS, Judged, calibration


@pytest.mark.slow
def test_planted_segments_are_found_labels_are_not_and_placebos_are_centred_on_zero() -> None:
    everything: list[Judged] = []
    for one in calibration():
        print(one)
        everything.append(one)
    outcomes = {
        strength: Counter(one.verdict.outcome for one in everything if one.strength == strength)
        for strength in STRENGTHS
    }
    assert not outcomes[0.0].keys() & {"segment", "segment only"}
    assert outcomes[0.6]["segment"] >= len(SEEDS) - 1, "its power is about nine in ten"
    assert outcomes[0.9]["segment"] + outcomes[0.9]["segment only"] == len(SEEDS)
    assert "do not segment" not in outcomes[0.6] + outcomes[0.9]
    # One interval in twenty misses what it is for.
    assert sum(not one.placebos.low <= 0.0 <= one.placebos.high for one in everything) <= 1
