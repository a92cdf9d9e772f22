"""Leave-one-out on small logs: what is asked, what is seen, and that the last events teach nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segflow.config import RankerConfig
from segflow_tests.benchmarks import movielens_protocol
from segflow_tests.benchmarks.bench_rankers import movielens_targets, of_seeds
from segflow_tests.benchmarks.movielens_job import BEHAVIOR, SINGLE, TRANSFORMER, Trained, classics, found, trained
from segflow_tests.benchmarks.movielens_protocol import LeaveOneOut, movielens, own_clock
from segflow_tests.benchmarks.ranking_global import OURS
from segflow_tests.benchmarks.ranking_protocol import Log

USERS, ITEMS = 80, 24
WEEK = 7 * 86_400_000_000
VECTORS = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
SMALL = BEHAVIOR.model_copy(update={"width": 16, "heads": 2, "epochs": 6, "batch_moments": 64, "learning_rate": 0.01})
RANKER = RankerConfig(training_weeks=4, steps=60, check_every=20, cooccurrence_regularization=10.0)


def _ratings() -> pd.DataFrame:
    """Everybody goes through the items in one order, from a start of their own, and skips one now and then."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, USERS + 1):
        steps = rng.choice([1, 1, 1, 2], rng.integers(8, 11))
        items = (rng.integers(ITEMS) + np.cumsum(steps)) % ITEMS + 1
        rows += [(user, item, 3 + item % 3, place) for place, item in enumerate(dict.fromkeys(items))]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    return frame.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def log() -> LeaveOneOut:
    items = list(range(1, ITEMS + 1))
    return LeaveOneOut(Log(own_clock(_ratings(), items), tuple(map(str, items))))


@pytest.fixture(scope="module")
def learned(log: LeaveOneOut) -> Trained:
    return trained(log, VECTORS, 2, 1, SMALL, RANKER)


def _of(log: LeaveOneOut, user: int) -> list[int]:
    sequences = log.log.sequences
    return sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()


def test_a_rating_is_a_week_and_those_of_one_second_are_in_the_order_of_the_file() -> None:
    rows = [(7, 30, 5, 100), (10, 10, 1, 9), (7, 20, 4, 100), (7, 10, 3, 50), (7, 40, 2, 100), (10, 20, 2, 8)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    found = own_clock(frame, [10, 20, 30, 40])
    assert found.user_ids.tolist() == ["10", "7"]
    assert found.item_ids[found.items].tolist() == ["20", "10", "10", "30", "20", "40"]
    assert found.values.tolist() == [2, 1, 3, 5, 4, 2]
    assert (found.times // WEEK).tolist() == [2, 3, 0, 1, 2, 3]


def test_the_last_rating_is_asked_for_and_the_one_before_it_chooses(log: LeaveOneOut) -> None:
    everybody, items = np.arange(USERS), len(log.candidates)
    assert items == ITEMS
    for back, part in ((1, log.test), (2, log.tuning), (2, log.earlier().test)):
        assert len(part) == 1
        np.testing.assert_array_equal(part[0].users, everybody)
        wanted, had = (pairs.dense(everybody, items) for pairs in (part[0].wanted, part[0].had))
        for user in everybody:
            mine = _of(log, user)
            assert np.flatnonzero(wanted[user]).tolist() == [mine[-back]]
            assert set(np.flatnonzero(had[user])) == set(mine[:-back])


def test_the_last_item_is_ranked_among_all_that_the_user_had_not(log: LeaveOneOut) -> None:
    scores = np.random.default_rng(2).random((USERS, ITEMS)).astype(np.float32)
    for user, value in enumerate(found(log, scores)):
        *had, last = _of(log, user)
        place = sorted(set(range(ITEMS)) - set(had), key=lambda item: -scores[user, item]).index(last)
        assert value == pytest.approx(1 / np.log2(place + 2) if place < 10 else 0)


def test_what_is_learned_is_worth_something(log: LeaveOneOut, learned: Trained) -> None:
    single = {one.name: one for one in classics(log, VECTORS, {name: SINGLE[name] for name in ("EASE", "item-kNN")})}
    assert single["EASE"].settings in SINGLE["EASE"]
    chance = found(log, np.random.default_rng(2).random((USERS, ITEMS)).astype(np.float32)).mean()
    for name in (TRANSFORMER, OURS):
        assert learned.by_seed[name].shape == (2, USERS)
        assert learned.by_seed[name].mean() > chance + 0.2
        assert learned.ensemble[name].mean() > chance + 0.2
        assert not np.array_equal(*learned.by_seed[name]), "another seed, another training"
    assert single["EASE"].test.mean() > chance
    assert of_seeds(learned).count("ensemble of these 2") == 2


def test_the_last_items_teach_nothing(log: LeaveOneOut, learned: Trained) -> None:
    sequences = log.log.sequences
    items = sequences.items.copy()
    last = sequences.offsets[1:] - 1
    changed = np.arange(USERS) % 2 == 0
    items[last[changed]] = (items[last[changed]] + 11) % ITEMS
    other = LeaveOneOut(Log(replace(sequences, items=items), log.log.texts))
    again = trained(other, VECTORS, 1, 1, SMALL, RANKER)
    for name, by_seed in again.by_seed.items():
        # Whose own last item is what it was is ranked the same, to the bit.
        np.testing.assert_array_equal(by_seed[0, ~changed], learned.by_seed[name][0, ~changed])
        assert not np.array_equal(by_seed[0, changed], learned.by_seed[name][0, changed])


def test_the_log_is_read_out_of_a_package_that_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens_protocol, "_PACKAGE", "carries_movielens")
    with pytest.raises(ModuleNotFoundError, match=r"peers\.txt"):
        movielens()
    folder = tmp_path / "carries_movielens" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "carries_movielens" / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t20\n1\t10\t5\t10\n"
    )
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tHeat\t1995\tAction Crime\n2\tBabe\t\tComedy\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    read = movielens()
    assert read.texts == ("comedy > babe ", "action crime > heat 1995")
    assert read.sequences.item_ids[read.sequences.items].tolist() == ["10", "2"]
    assert "carries_movielens" not in sys.modules


def test_movielens_is_held_up_to_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(943) * 0.2
    for gain, held in ((0.05, [True, True, True, True]), (0.0, [True, False, False, False])):
        ours = base + gain + rng.normal(0, 0.01, 943)
        ours += gain + base.mean() - ours.mean()
        figures = {OURS: ours, "EASE": base, TRANSFORMER: base}
        assert [target.held for target in movielens_targets(figures)] == held
    assert not next(movielens_targets({"EASE": base[1:]})).held
