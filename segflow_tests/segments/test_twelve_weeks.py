"""Twelve weekly snapshots of a drifting log: segments keep their identity, and what becomes of them is told when it happens."""

from __future__ import annotations

import pytest

from segflow.config import SegmentConfig
from segflow_tests.segments.followed import (
    SNAPSHOTS,
    Seen,
    follow,
    kept,
    names_that_changed,
    reports,
    reused_ids,
    story,
    unplanned,
)
from segflow_tests.segments.planted_logs import Log, Plant

# Fewer numbers of segments, resamples and copies without structure than by default; the slow test takes the defaults.
QUICK = SegmentConfig(k_min=4, k_max=7, bootstraps=10, null_repeats=1)
USERS = 600
STORIES = 8


@pytest.fixture(scope="module")
def one() -> tuple[Log, Plant, list[Seen]]:
    asked = story(1, users=USERS)
    log, seen = follow(asked, QUICK)
    return log, asked, seen


def test_segments_keep_their_identity(one: tuple[Log, Plant, list[Seen]]):
    log, asked, seen = one
    assert len(seen) == SNAPSHOTS
    same, cases = kept(log, asked, seen)
    assert cases > 5 * (SNAPSHOTS - 1)
    assert same >= 0.95 * cases
    assert min(snapshot.ari for snapshot in seen) > 0.85


def test_a_split_a_merge_a_birth_and_a_death_are_told_in_the_right_week(one: tuple[Log, Plant, list[Seen]]):
    log, asked, seen = one
    found = reports(log, asked, seen)
    assert len(found) == 4
    assert [report for report in found if not report.in_time] == []
    assert unplanned(log, asked, seen) == []


def test_names_are_frozen_and_ids_never_used_again(one: tuple[Log, Plant, list[Seen]]):
    _, _, seen = one
    assert names_that_changed(seen) == []
    assert reused_ids(seen) == []


@pytest.mark.slow
def test_many_stories():
    same = cases = right = changes = 0
    for seed in range(STORIES):
        asked = story(seed)
        log, seen = follow(asked, SegmentConfig())
        some, all_of_them = kept(log, asked, seen)
        same, cases = same + some, cases + all_of_them
        told = reports(log, asked, seen)
        right, changes = right + sum(one.in_time for one in told), changes + len(told)
        strange = unplanned(log, asked, seen)
        print(f"story {seed}: {some} of {all_of_them} kept; {told}; not planted: {strange}")
        assert names_that_changed(seen) == []
        assert reused_ids(seen) == []
    assert same >= 0.95 * cases
    assert right == changes
