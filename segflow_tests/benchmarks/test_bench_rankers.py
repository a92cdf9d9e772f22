"""The rankers' protocol on a small log: what is asked, of whom, and how it is averaged, by plain loops."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from segflow.config import RankerConfig
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import EventSequences
from segflow_tests.benchmarks import ranking_classics
from segflow_tests.benchmarks.bench_rankers import list_targets, of_training, segment_targets, targets
from segflow_tests.benchmarks.ranking_classics import CLASSICS, Known, judge
from segflow_tests.benchmarks.ranking_global import OURS, global_ranker
from segflow_tests.benchmarks.ranking_protocol import Log, Protocol, Window, compared, per_user
from segflow_tests.benchmarks.recommend_job import Speed
from segflow_tests.benchmarks.segment_speed import PLACEBOS, SegmentSpeed
from segflow_tests.sequences import sequences_of

DAYS, USERS, ITEMS = 141, 30, 12  # 140 days are over: tuning starts at day 112, the test at day 126


def _log() -> EventSequences:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        habits = rng.choice(ITEMS, 4, replace=False)
        first = 124 if user == 0 else 0  # the first user comes late: four events before the test
        for day in range(first, DAYS):
            for item in set(habits[rng.random(4) < 0.25]) | (
                {int(rng.integers(ITEMS))} if rng.random() < 0.1 else set()
            ):
                rows.append((user, day * DAY + 3600, int(item)))
        rows.append((user, (DAYS - 1) * DAY, 0))
    return sequences_of(rows, USERS, ITEMS)


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return Protocol(Log(_log(), tuple(f"item {item}" for item in range(ITEMS))))


@pytest.fixture(scope="module")
def known(protocol: Protocol) -> Known:
    return Known(protocol.history, np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32))


def test_windows_are_whole_weeks_of_the_days_that_are_over(protocol: Protocol) -> None:
    assert [window.start_us // DAY for window in protocol.tuning] == [112, 119]
    assert [window.start_us // DAY for window in protocol.test] == [126, 133]
    assert protocol.candidates.tolist() == list(range(ITEMS))


def test_who_is_asked_for_what(protocol: Protocol) -> None:
    log = protocol.log.sequences
    for window in [*protocol.tuning, *protocol.test]:
        start, end = window.start_us, window.start_us + 7 * DAY
        for user in range(USERS):
            mine = slice(log.offsets[user], log.offsets[user + 1])
            times, items = log.times[mine], log.items[mine]
            week = set(items[(times >= start) & (times < end)])
            assert (user in window.users) == (np.sum(times < start) >= 5 and bool(week))
            rows = np.array([user])
            assert set(np.flatnonzero(window.wanted.dense(rows, ITEMS)[0])) == week
            assert set(np.flatnonzero(window.had.dense(rows, ITEMS)[0])) == set(items[times < start])
    assert 0 not in protocol.tuning[0].users


def _ndcg(order: list[int], wanted: set[int]) -> float:
    gains = [1 / np.log2(place + 2) for place in range(10)]
    return sum(gain for gain, item in zip(gains, order, strict=False) if item in wanted) / sum(gains[: len(wanted)])


def test_households_count_the_same_however_often_they_are_asked(protocol: Protocol) -> None:
    rng = np.random.default_rng(2)
    scores = [rng.random((len(window.users), ITEMS)).astype(np.float32) for window in protocol.test]
    expected: list[tuple[list[float], list[float]]] = [([], []) for _ in range(USERS)]
    for window, block in zip(protocol.test, scores, strict=True):
        for user, row in zip(window.users, block, strict=True):
            wanted, had = (
                set(np.flatnonzero(pairs.dense(np.array([user]), ITEMS)[0])) for pairs in (window.wanted, window.had)
            )
            order = np.argsort(-row).tolist()
            expected[user][0].append(_ndcg(order, wanted))
            if wanted - had:
                expected[user][1].append(_ndcg([item for item in order if item not in had], wanted - had))
    found = per_user(protocol.test, scores, USERS)
    for user, (everything, new) in enumerate(expected):
        assert found[user, 0] == pytest.approx(np.mean(everything) if everything else np.nan, nan_ok=True)
        assert found[user, 1] == pytest.approx(np.mean(new) if new else np.nan, nan_ok=True)
    assert np.isnan(found[:, 1]).any()


def test_classics_are_chosen_on_the_tuning_weeks_alone(
    protocol: Protocol, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def constant(value: str, known: Known, window: Window) -> np.ndarray:
        asked.append((value, window.start_us // DAY))
        wanted = window.wanted.dense(window.users, ITEMS).astype(np.float32)
        # Best in tuning, worst in the test, and the other way round.
        return wanted if (value == "early") == (window.start_us < 126 * DAY) else -wanted

    grid = {"toy": {value: partial(constant, value) for value in ("late", "early")}}
    judged = list(judge(protocol, known, grid))
    assert [(one.task, one.settings, one.tuning) for one in judged] == [("all", "early", 1), ("new", "early", 1)]
    assert np.nanmax(judged[0].test) < 1
    assert ("late", 126) not in asked


def test_every_classic_ranks_better_than_chance(protocol: Protocol, known: Known) -> None:
    rng = np.random.default_rng(3)
    chance = [rng.random((len(window.users), ITEMS)).astype(np.float32) for window in protocol.test]
    figures = {"chance": per_user(protocol.test, chance, USERS)[:, 0]}
    small = {name: dict(list(grid.items())[:1]) for name, grid in CLASSICS.items()}
    figures |= {one.name: one.test for one in judge(protocol, known, small) if one.task == "all"}
    assert set(figures) == {"chance", *CLASSICS}
    means = compared(figures)
    for name in ("personal frequency", "TIFU-KNN"):
        assert means[name].mean > means["chance"].mean + 0.1
    assert compared(figures, base="chance")["TIFU-KNN"].low > 0


def test_the_global_ranker_goes_through_the_same_windows(protocol: Protocol) -> None:
    config = RankerConfig(training_weeks=3, hidden=4, steps=20, check_every=10)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
    found = global_ranker(protocol, protocol.test[:1], vectors, 2, config)
    asked = np.isin(np.arange(USERS), protocol.test[0].users)
    np.testing.assert_array_equal(~np.isnan(found.by_seed[:, :, 0]), np.stack([asked, asked]))
    assert not np.array_equal(*np.nan_to_num(found.by_seed)), "another seed, another training"
    assert of_training(found).count(";") == 1


def test_the_confirmation_has_seen_nothing_of_the_tuning_weeks(protocol: Protocol) -> None:
    earlier = protocol.earlier()
    assert earlier.log.sequences.times.max() < protocol.tuning[0].start_us
    ends = [window.start_us // DAY + 7 for window in earlier.test]
    assert ends
    assert max(ends) <= 112
    assert [window.start_us // DAY for window in earlier.tuning] == [88]


def test_a_target_is_held_only_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    good, no_better = base + 0.2, base + rng.normal(0, 1, 400) * 0.1
    for values, held in ((good, True), (no_better - no_better.mean() + base.mean(), False)):
        figures = {task: {OURS: values, rival: base} for task, rival in (("all", "TIFU-KNN"), ("new", "EASE"))}
        found = {target.asked: target.held for target in targets(figures)}
        assert found["all: above TIFU-KNN, the paired interval above zero"] == held
        assert found["new: above EASE, the paired interval above zero"] == held
        assert found["all: NDCG@10 at least 0.380"]
    assert tuple(figures) == ranking_classics.TASKS


def test_speeds_are_held_up_to_what_was_asked() -> None:
    arms = 2 + PLACEBOS
    for fit, own_pass, held in ((10, 40 / arms, [True, True]), (9.9, 40 / arms, [False, True]), (10, 5, [True, False])):
        found = SegmentSpeed(fit=fit, arms=15, training=10, own_pass=own_pass)
        assert [target.held for target in segment_targets(found)] == held
    found = Speed(floor=1, product=0.5, lists=3, unseen=3.1)
    assert [target.held for target in list_targets(found)] == [True, False]
