"""The lists of a week: every reason is true, and nothing after the snapshot is in them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segflow.config import BehaviorConfig, RecommendationConfig
from segflow.rankers.cold_lists import Strangers, cold_rows
from segflow.rankers.deltas import Grouped, Membership
from segflow.rankers.facts import Facts
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.new_items import NewItems
from segflow.rankers.reasons import reasons_of
from segflow.rankers.recommend import Ranked, Recommended, Shown, recommendation_rows
from segflow.rankers.rules import Catalogue, Rules, rules_of
from segflow.rankers.segment_rankers import train_deltas
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.representation.sequences import EventSequences
from segflow.tables.rankers import RECOMMENDATIONS
from segflow_tests.rankers.conftest import CONFIG, ITEMS, SNAPSHOT, USERS, make_log

START = SNAPSHOT  # the snapshot week; lists are for the week after it, the last of the log
CUT = START + WEEK
QUICK = CONFIG.model_copy(update={"steps": 40})
PLANTED = "planted"
UNSEEN = (PLANTED, "unseen", "unsung")
SEGMENTS = {f"u{user:03}": f"s{user % 2}" for user in range(USERS - 6)}
NAMES = {"s0": "Early birds"}


def _log(seed: int | None) -> EventSequences:
    """The log with more items in its catalogue. A seed: what comes after the cut is replaced, one of them being in all of it."""
    log = make_log()
    log = replace(log, item_ids=np.array([*log.item_ids, *UNSEEN]))
    if seed is None:
        return log
    items, later = log.items.copy(), log.times >= CUT
    rng = np.random.default_rng(seed)
    items[later] = np.where(rng.random(later.sum()) < 0.7, ITEMS, rng.integers(0, ITEMS, later.sum()))
    return replace(log, items=items)


@cache
def _texts() -> np.ndarray:
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(8, 8))
    count = ITEMS + len(UNSEEN)
    return (kinds[np.arange(count) % 8] + 0.3 * rng.normal(size=(count, 8))).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A log's week before its last, and what was learned from it."""

    week: RankingWeek
    ranked: Ranked
    catalogue: Catalogue

    @classmethod
    def of(cls, log: EventSequences) -> Fitted:
        small = BehaviorConfig(width=16, layers=1, heads=2, context=16, epochs=1)
        week = RankingWeek.of(log, fit_behavior_model(log.before(START), _texts(), small, seed=0), START, QUICK)
        training, ids = week.training, week.candidate_ids
        ranker = fit_global_ranker(training, week.validation(), week.item_vectors, ids, QUICK, seed=0)
        members = {user: (segment, 1.0) for user, segment in SEGMENTS.items()}
        arm = Membership.of(week.sequences.user_ids, ["s0", "s1"], members)
        # Gates of one: the deltas count in full.
        (deltas,) = train_deltas(ranker, training, [arm], QUICK, seed=0)
        catalogue = Catalogue({item: f"Item {item}" for item in log.item_ids}, {})
        return cls(week, Ranked(ranker, Grouped(deltas, arm), SEGMENTS), catalogue)

    def lists(self, **settings: object) -> Recommended:
        config = RecommendationConfig.model_validate(settings)
        shown, rules = self.shown(config)
        return recommendation_rows(self.week, self.ranked, shown, config, rules)

    def shown(self, config: RecommendationConfig) -> tuple[Shown, Rules]:
        new = NewItems.of(self.week, _texts(), config.new_items)
        vectors = _texts()[[*self.week.history.candidates, *new.numbers]]
        rules = rules_of(config, self.catalogue, (*self.week.candidate_ids, *new.item_ids))
        return Shown(self.catalogue, vectors, NAMES, new), rules

    @property
    def vectors(self) -> np.ndarray:
        return _texts()[self.week.history.candidates]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return Fitted.of(_log(None))


@pytest.fixture(scope="module")
def otherwise() -> Fitted:
    """As if something else came after the cut."""
    return Fitted.of(_log(0))


@pytest.fixture(scope="module")
def lists(fitted: Fitted) -> Recommended:
    return fitted.lists()


def test_nothing_after_the_cut_changes_a_score(fitted: Fitted, otherwise: Fitted) -> None:
    assert otherwise.ranked.ranker.to_bytes() == fitted.ranked.ranker.to_bytes()
    rows = np.arange(USERS)
    scores = [
        one.ranked.ranker.score(one.week.after(only_with_targets=False), rows, one.ranked.grouped)
        for one in (fitted, otherwise)
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("settings", [{}, {"exclude_seen": True, "diversity": 0.4, "exposure": 0.9, "count": 10}])
def test_nothing_after_the_cut_changes_a_list(fitted: Fitted, otherwise: Fitted, settings: dict[str, object]) -> None:
    rows = fitted.lists(**settings).rows
    assert otherwise.lists(**settings).rows == rows
    assert PLANTED not in rows["item_id"].to_pylist()
    # The planted item would be in every list if the future were known.
    assert np.mean(otherwise.week.sequences.between(CUT, CUT + WEEK).items == ITEMS) > 0.5


def test_some_users_are_scored_as_they_are_among_all(fitted: Fitted) -> None:
    users = np.array([3, 4, 17, 58])
    whole, some = fitted.week.after(only_with_targets=False), fitted.week.later(users)
    for name in ("context", "trends"):
        of_all = getattr(whole, name)
        np.testing.assert_array_equal(getattr(some, name), of_all if name == "trends" else of_all[users])
    np.testing.assert_allclose(some.states, whole.states[users], atol=0.02)
    np.testing.assert_array_equal(some.scores(np.arange(4)), whole.scores(users))
    np.testing.assert_array_equal(
        some.had.dense(np.arange(4), some.candidates), whole.had.dense(users, some.candidates)
    )
    np.testing.assert_array_equal(some.values, whole.values[whole.had.take(users)[0]])
    scores = [fitted.ranked.ranker.score(*one, fitted.ranked.grouped) for one in ((some, np.arange(4)), (whole, users))]
    np.testing.assert_allclose(*scores, atol=0.05)
    assert not len(some.wanted.items)


def test_one_row_a_place_and_who_scored(lists: Recommended) -> None:
    fields = list(RECOMMENDATIONS.arrow)[1:]
    assert [(field.name, field.type) for field in lists.rows.schema] == [(field.name, field.type) for field in fields]
    rows = lists.rows.to_pandas()
    assert len(rows) == USERS * 20
    assert lists.users == USERS
    assert (rows.groupby("user_id")["item_id"].nunique() == 20).all()
    assert (rows.groupby("user_id")["score"].diff().dropna() <= 0).any()
    expected = rows["user_id"].map(SEGMENTS).fillna("unassigned")
    assert (rows["segment_id"] == expected).all()
    assert ((rows["arm"] == "segment") == (expected != "unassigned")).all()


class Known:
    """The log before the cut as plain dictionaries."""

    def __init__(self) -> None:
        log = _log(None)
        self.days: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.had: dict[str, set[str]] = defaultdict(set)
        self.recent: dict[str, set[str]] = defaultdict(set)
        users = log.user_ids[np.repeat(np.arange(USERS), np.diff(log.offsets))]
        for user, item, time in zip(users, log.item_ids[log.items], log.times, strict=True):
            if time < CUT:
                self.days[user, item].add(int(time // DAY))
                self.had[item].add(user)
                if time >= CUT - 28 * DAY:
                    self.recent[item].add(user)
        self.item_ids = log.item_ids.tolist()

    def most_had(self, members: set[str]) -> list[int]:
        """How many of the members had each item lately, the most first."""
        return sorted((len(self.recent[item] & members) for item in self.item_ids), reverse=True)


def test_every_reason_is_true(lists: Recommended) -> None:
    known, cut, top = Known(), CUT // DAY, ITEMS // 10
    everybody = {f"u{user:03}" for user in range(USERS)}
    texts = _texts() / np.linalg.norm(_texts(), axis=1, keepdims=True)
    position = {item: number for number, item in enumerate(known.item_ids)}
    rows = lists.rows.to_pylist()
    for row in rows:
        user, item, other, text = row["user_id"], row["item_id"], row["reason_item"], row["reason_text"]
        days = sorted(known.days[user, item])
        match row["reason"]:
            case "often":
                assert len(days) >= 3
                assert text.startswith(f"You often choose it: on {len(days)} days so far, last {cut - days[-1]} day")
            case "due":
                interval = (days[-1] - days[0]) / (len(days) - 1)
                assert interval <= cut - days[-1] <= 2 * interval
                ago = f"{cut - days[-1]} day{'s' if cut - days[-1] > 1 else ''} ago"
                assert text == f"Due again: last {ago}, usually every {interval:.0f} days"
            case "again":
                assert days
                assert f"{cut - days[-1]} day" in text
            case "together":
                assert user in known.had[other]
                both = known.had[other] & known.had[item]
                assert len(both) >= 5
                assert len(both) / len(known.had[other]) > len(known.had[item]) / USERS
                assert text == f"Often chosen with Item {other}"
            case "like":
                assert user in known.had[other]
                assert texts[position[item]] @ texts[position[other]] >= 0.5
                assert text == f"Like Item {other}"
            case "segment" | "popular" as reason:
                segment = row["segment_id"]
                group = {one for one, own in SEGMENTS.items() if own == segment} if reason == "segment" else everybody
                had = len(known.recent[item] & group)
                assert had >= max(5, known.most_had(group)[top - 1])
                assert text == (
                    f"Popular in {NAMES.get(segment, segment)}"
                    if reason == "segment"
                    else "Popular in the last four weeks"
                )
            case _:
                assert text == "Chosen by the ranker for you"
        assert (not days) == (row["reason"] not in ("often", "due", "again"))
        assert (other is not None) == (row["reason"] in ("together", "like"))
    assert {row["reason"] for row in rows} >= {"often", "again", "together", "profile"}


@pytest.mark.parametrize("moves", ["often", "due", "together", "like", "segment"])
def test_the_reason_is_what_moves_the_scores(fitted: Fitted, moves: str) -> None:
    facts = Facts.of(fitted.week, SEGMENTS, fitted.vectors)
    users, items = np.divmod(np.arange(USERS * len(facts.item_ids)), len(facts.item_ids))
    pair = facts.pair_of(users, items)
    new = {
        "together": facts.partners.of(facts.had, users, items)[0],
        "like": facts.nearest.of(facts.had, users, items)[0],
        "segment": facts.log_share[facts.group[users], items],
    }
    had = {"often": np.log(facts.frequency[pair] + 0.02), "due": facts.due[pair]}
    scores = np.where(pair >= 0, had.get(moves, 0.0), new.get(moves, 0.0)).reshape(USERS, -1)
    reasons = reasons_of(facts, lambda rows: scores[rows].astype(np.float32), users, items, {}, NAMES)
    of_kind = (pair >= 0) == (moves in had)
    given = np.array(reasons.code.to_pylist())[of_kind]
    assert set(given) <= {moves, "popular" if moves == "segment" else moves, "again" if moves in had else "profile"}
    assert np.sum(given == moves) > 20
    assert reasons.explained["had" if moves in had else "new"] == pytest.approx(1, abs=1e-4)


def test_reasons_tell_most_of_what_moves_the_scores_of_items_the_user_had(lists: Recommended) -> None:
    assert lists.explained["had"] > 0.3
    # Of new items nothing is learned here: they are drawn at random.
    assert 0 <= lists.explained["new"] <= 1


NEW = {"count": 10, "new_items": 2, "boost": {"items": {"unseen": 3.0}}}


def _near(fitted: Fitted, item: str) -> dict[str, float]:
    """The ten candidates that are nearest to an item, and how near."""
    texts = dict(zip(_log(None).item_ids, _texts() / np.linalg.norm(_texts(), axis=1, keepdims=True), strict=True))
    near = {one: float(texts[one] @ texts[item]) for one in fitted.week.candidate_ids}
    return dict(sorted(near.items(), key=lambda pair: -pair[1])[:10])


def _scores(fitted: Fitted, user: int, boosts: dict[str, float]) -> dict[str, float]:
    """Of candidates by the ranker, of the other items by the mean of what the candidates near them are worth."""
    examples = fitted.week.after(only_with_targets=False)
    found = fitted.ranked.ranker.score(examples, np.array([user]), fitted.ranked.grouped)[0].tolist()
    scores = dict(zip(fitted.week.candidate_ids, found, strict=True))
    for item in UNSEEN:
        weight = {one: max(cosine, 0) ** 4 for one, cosine in _near(fitted, item).items()}
        amount = sum(weight[one] * np.exp(scores[one]) for one in weight) / (sum(weight.values()) + 1)
        scores[item] = np.log(amount) + np.log(boosts.get(item, 1))
    return scores


@pytest.mark.parametrize("settings", [NEW, NEW | {"exclude_seen": True, "exclude": {"items": ["unseen", "i03"]}}])
def test_items_that_nobody_had_take_the_places_that_their_texts_earn(fitted: Fitted, settings: dict[str, Any]) -> None:
    known = Known()
    rows = fitted.lists(**settings).rows.to_pylist()
    assert len(rows) == 10 * USERS
    assert sum(row["item_id"] in UNSEEN for row in rows) > USERS / 4
    for user in range(0, USERS, 5):
        name, own = f"u{user:03}", rows[10 * user : 10 * user + 10]
        scores = _scores(fitted, user, settings["boost"]["items"])
        hidden = set(settings.get("exclude", {}).get("items", []))
        hidden |= {item for item in scores if settings.get("exclude_seen") and name in known.had[item]}
        left = sorted(scores.keys() - hidden, key=lambda item: -scores[item])
        beyond = [item for item in left if item in UNSEEN][2:]
        expected = [item for item in left if item not in beyond][:10]
        assert [(row["user_id"], row["rank"], row["item_id"]) for row in own] == [
            (name, place, item) for place, item in enumerate(expected, 1)
        ]
        for row in own:
            assert (row["arm"] == "new item") == (row["reason"] == "new") == (row["item_id"] in UNSEEN)
            if row["reason"] == "new":
                near = _near(fitted, row["item_id"]).items()
                like = next((one for one, cosine in near if cosine > 0 and name in known.had[one]), None)
                assert row["reason_item"] == like
                assert row["reason_text"] == (f"New, like Item {like}" if like else "New")


def test_with_new_items_too_nothing_after_the_cut_changes_a_list(fitted: Fitted, otherwise: Fitted) -> None:
    settings = NEW | {"diversity": 0.4, "exposure": 0.9}
    rows = fitted.lists(**settings).rows
    assert otherwise.lists(**settings).rows == rows
    new = rows.filter(pa.compute.equal(rows["arm"], "new item")).to_pandas()
    assert new.groupby("user_id").size().max() <= 2
    assert (rows.to_pandas().groupby("user_id").size() == 10).all()


def test_who_has_no_events_gets_no_more_new_items_than_others(fitted: Fitted) -> None:
    config = RecommendationConfig.model_validate(NEW | {"boost": {"items": dict.fromkeys(UNSEEN, 1000.0)}})
    ties = {"user_id": pa.string(), "other_id": pa.string(), "weight": pa.float64()}
    strangers = Strangers({"new": {"age": "30"}}, pa.schema(ties.items()).empty_table(), {}, 0)
    shown, rules = fitted.shown(config)
    found = cold_rows(fitted.week, strangers, shown, config, rules)
    assert found is not None
    rows = found.rows.to_pydict()
    assert set(rows["item_id"][:2]) < set(UNSEEN)
    assert rows["arm"] == ["new item"] * 2 + ["cold: popularity"] * 8
    assert rows["reason_text"] == ["New"] * 2 + ["Popular lately"] * 8
