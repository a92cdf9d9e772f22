"""The search for a gain of segments: planted differences are what they say, and a gain is one over the best control."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from segflow_tests.benchmarks.planted_tastes import planted_tastes
from segflow_tests.benchmarks.segment_methods import METHODS, PLACEBOS, Arm, Case, arms_of
from segflow_tests.benchmarks.segment_search import clusters, planted, table, tried

USERS = 160
# These go the way of others that are tested.
SAME = ("mixing weights", "last layer", "segment as a feature")


@pytest.fixture(scope="module")
def case() -> tuple[Case, dict[str, Arm]]:
    return planted(0.8, users=USERS)


def test_segments_differ_by_the_strength() -> None:
    distances = []
    for strength in (0.0, 0.4, 0.8):
        log = planted_tastes(strength)
        sequences = log.sequences
        counts = np.zeros((4, len(sequences.item_ids)))
        np.add.at(counts, (log.segment[sequences.user_of_event], sequences.items), 1)
        counts /= counts.sum(axis=1, keepdims=True)
        distances.append(np.abs(counts[0] - counts[1]).sum() / 2)
    assert distances[0] < 0.15
    assert distances[0] + 0.05 < distances[1] < distances[2] - 0.1


def test_placebos_are_the_same_rows_of_other_users() -> None:
    segments = clusters(np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32), 3)
    np.testing.assert_allclose(segments.probability.sum(1), 1, atol=1e-5)
    arms = arms_of(segments)
    assert len(arms) == 2 + PLACEBOS
    for number in range(1, PLACEBOS + 1):
        dealt = arms[f"placebo {number}"].probability
        assert sorted(map(tuple, dealt)) == sorted(map(tuple, segments.probability))
        assert (dealt != segments.probability).any()


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SAME])
def test_a_method_learns_nothing_from_the_test(case: tuple[Case, dict[str, Arm]], method: str) -> None:
    """What is added to a user does not depend on who else is tested, nor on what the test users will want."""
    one, segmentations = case
    (segments,) = segmentations.values()
    (added,) = METHODS[method](one, [segments])
    assert added.shape == (len(one.test), one.test.candidates)
    assert np.isfinite(added).all()
    wanted, one.test.wanted.items[:] = one.test.wanted.items.copy(), 0
    (again,) = METHODS[method](one, [segments])
    one.test.wanted.items[:] = wanted
    np.testing.assert_array_equal(added, again)


def test_the_table_compares_with_the_best_control(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.random((300, 2))
    base[:50, 1] = np.nan
    noise = rng.normal(0, 0.01, (300, 2))
    figures = {"users": np.arange(300), "global": base, "text|biases|segments": base + 0.1 + noise}
    figures |= {"text|biases|everybody": base + 0.02, "text|biases|placebo 1": base + 0.08 - noise}
    np.savez(tmp_path / "test0.npz", **figures)
    _, _, everything, new = table(tmp_path)
    for row in (everything, new):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == ["test", "text", "biases"]
        assert cells[5] == "placebo 1"
        over, best = (float(cells[column].split(" %")[0]) for column in (4, 6))
        assert over / best == pytest.approx(5, rel=0.2)


@pytest.mark.slow
def test_a_planted_gain_is_found_and_grows_with_its_strength(tmp_path: Path) -> None:
    method = "low-rank deltas, mixed by membership"
    for number, strength in enumerate((0.0, 0.6, 0.9)):
        one, segmentations = planted(strength)
        np.savez(tmp_path / f"planted{number}.npz", **tried(one, segmentations, {method: METHODS[method]}))
    # The last cell of the rows of all items: the gain over the best control and its interval.
    cells = [row.strip("| ").split("|")[-1] for row in list(table(tmp_path))[2::2]]
    none, some, much = ([float(figure) for figure in re.findall(r"[-+][\d.]+", cell)] for cell in cells)
    assert none[1] <= 0
    assert some[1] > 0
    assert much[0] > some[0]
