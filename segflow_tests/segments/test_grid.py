"""Planted segments are found where the vectors show them, and none where nobody planted any."""

from __future__ import annotations

import numpy as np
import pytest

from segflow.config import SegmentConfig, UserEmbeddingConfig
from segflow_tests.benchmarks.segments_grid import (
    ENOUGH,
    Cell,
    cells,
    measure,
    measure_nothing,
    of_grid,
    of_nothing,
    run_grid,
    run_nothing,
)
from segflow_tests.segments.planted_logs import (
    ABSENT,
    NONE,
    Birth,
    Death,
    Merge,
    Plant,
    Split,
    plant,
    snapshot,
    told,
)

VIEWS = UserEmbeddingConfig(views=["text", "engagement"])
# Fewer numbers of segments and fewer resamples than by default; the slow tests take the defaults.
QUICK = SegmentConfig(k_max=9, bootstraps=5, null_repeats=2)
SCRIPT = (Split(1, 0, 5, 0.4), Merge(2, 1, 2), Birth(2, 6, 30), Death(3, 3))


def sizes(segment: np.ndarray) -> dict[int, int]:
    return dict(zip(*(one.tolist() for one in np.unique(segment, return_counts=True)), strict=True))


def test_a_plant_is_what_was_asked_for():
    asked = Plant(segments=4, users=300, weeks=4, balance=4.0, noise=0.1, script=SCRIPT, seed=3)
    log = plant(asked)
    weeks = [sizes(row) for row in log.segment]
    assert (weeks[0][NONE], weeks[0][ABSENT], sum(weeks[0].values())) == (30, 30, 330)
    assert weeks[0][0] == pytest.approx(4 * weeks[0][3], rel=0.05)
    assert weeks[1][5] == round(0.4 * weeks[0][0])
    assert weeks[1][0] + weeks[1][5] == weeks[0][0]
    assert (weeks[2][2], 1 in weeks[2], weeks[2][6]) == (weeks[1][1] + weeks[1][2], False, 30)
    assert (3 in weeks[3], weeks[3][ABSENT]) == (False, weeks[2][3])
    assert plant(asked).events.equals(log.events)
    assert not plant(Plant(segments=4, users=300, seed=4)).events.equals(log.events)


def test_users_move_leave_and_arrive():
    asked = Plant(users=2_000, weeks=3, drift=0.1, churn=0.05, seed=1)
    before, after = plant(asked).segment[:2]
    moved = (before >= 0) & (after >= 0) & (before != after)
    assert moved.mean() == pytest.approx(0.1, rel=0.25)
    assert ((before >= 0) & (after == ABSENT)).sum() == ((before == ABSENT) & (after >= 0)).sum()
    assert ((before >= 0) & (after == ABSENT)).sum() == pytest.approx(100, rel=0.25)


def test_what_overlaps_is_harder_to_tell():
    clear, blurred, none = (
        snapshot(plant(Plant(users=400, overlap=overlap)), 4, 4, VIEWS) for overlap in (0.1, 0.7, 1.0)
    )
    assert clear.users == sorted(clear.users)
    assert len(clear.points) == len(clear.truth) == len(clear.engagement.matrix) > 390
    figures = [told(one.points, one.truth) for one in (clear, blurred, none)]
    assert figures[0].accuracy > 0.99
    assert figures[0].ari > figures[1].ari > figures[2].ari
    assert abs(figures[2].ari) < 0.05


@pytest.mark.parametrize("cell", [Cell(4, 1.0, 0.3, 0.1, 0.0), Cell(7, 4.0, 0.1, 0.0, 0.0)])
def test_planted_segments_are_found(cell: Cell):
    found = measure(cell, 0, QUICK, users=500)
    assert found.separable
    assert found.ari >= ENOUGH
    assert found.right
    assert found.stability >= 0.75


def test_nothing_is_found_where_nothing_is():
    found = measure_nothing(0, QUICK)
    assert (found.k, found.verdict) == (0, "no segment structure")


@pytest.mark.slow
def test_the_whole_grid():
    found = run_grid(cells(), 1, SegmentConfig(), jobs=2)
    print(of_grid(found))
    separable = [one for one in found if one.separable]
    assert {one.cell.segments for one in separable} == {3, 4, 6, 8, 12}
    assert np.mean([one.ari for one in separable]) >= ENOUGH


@pytest.mark.slow
def test_a_hundred_logs_without_segments():
    found = run_nothing(range(100), SegmentConfig(), jobs=2)
    print(of_nothing(found))
    assert sum(one.k == 0 for one in found) >= 95
