"""Lists of users without events: by ties where these earned their place, else what is popular."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from segflow.config import BehaviorConfig, RecommendationConfig
from segflow.rankers.cold_lists import Strangers, cold_rows
from segflow.rankers.cold_start import HALF_LIFE_DAYS
from segflow.rankers.new_items import NewItems
from segflow.rankers.recommend import Shown
from segflow.rankers.rules import Catalogue, rules_of
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.tables.rankers import RECOMMENDATIONS
from segflow_tests.rankers.conftest import CONFIG, ITEMS, SNAPSHOT, make_log

EDGES = pa.schema([("user_id", pa.string()), ("other_id", pa.string()), ("weight", pa.float64())])
NOBODY = EDGES.empty_table()


@pytest.fixture(scope="module")
def week() -> RankingWeek:
    log = make_log()
    small = BehaviorConfig(width=16, layers=1, heads=2, context=16, epochs=1)
    texts = np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32)
    return RankingWeek.of(log, fit_behavior_model(log.before(SNAPSHOT), texts, small, seed=0), SNAPSHOT, CONFIG)


def shown_of(week: RankingWeek) -> Shown:
    texts = np.ones((ITEMS, 4), np.float32)
    return Shown(Catalogue({}, {}), texts[week.history.candidates], {}, NewItems.of(week, texts, 0))


def _rows(week: RankingWeek, strangers: Strangers, **settings: object) -> pa.Table:
    config = RecommendationConfig.model_validate({"count": 5, **settings})
    catalogue = Catalogue({item: item for item in week.candidate_ids}, {})
    found = cold_rows(week, strangers, shown_of(week), config, rules_of(config, catalogue, week.candidate_ids))
    assert found is not None
    columns = [one for one in RECOMMENDATIONS.column_names if one != "week"]
    assert found.rows.column_names == columns
    assert found.rows.cast(pa.schema([RECOMMENDATIONS.arrow.field(name) for name in columns])) is not None
    return found.rows


def test_there_are_none_where_everybody_has_events(week: RankingWeek):
    known = {str(user): {"age": "30"} for user in week.sequences.user_ids}
    rules = rules_of(RecommendationConfig(), Catalogue({}, {}), week.candidate_ids)
    assert cold_rows(week, Strangers(known, NOBODY, {}, 0), shown_of(week), RecommendationConfig(), rules) is None


def test_who_is_known_by_attributes_alone_gets_what_is_popular(week: RankingWeek):
    rows = _rows(week, Strangers({"new": {"age": "30"}, "newer": {"age": "40"}}, NOBODY, {}, 0))
    features = week.history.at(SNAPSHOT + WEEK, HALF_LIFE_DAYS)
    days = np.bincount(features.pairs.items, features.frequency, minlength=len(week.candidate_ids))
    best = [week.candidate_ids[place] for place in np.argsort(-days, kind="stable")[:5]]
    for user in ("new", "newer"):
        own = rows.filter(pa.compute.equal(rows["user_id"], user))
        assert own["item_id"].to_pylist() == best
        assert own["rank"].to_pylist() == [1, 2, 3, 4, 5]
    assert set(rows["arm"].to_pylist()) == {"cold: popularity"}
    assert set(rows["reason"].to_pylist()) == {"popular"}


def test_excluded_items_are_in_no_list(week: RankingWeek):
    strangers = Strangers({"new": {"age": "30"}}, NOBODY, {}, 0)
    first = _rows(week, strangers)["item_id"][0].as_py()
    assert first not in _rows(week, strangers, exclude={"items": [first]})["item_id"].to_pylist()


def test_a_boost_makes_an_item_so_many_times_as_likely(week: RankingWeek):
    strangers = Strangers({"new": {"age": "30"}}, NOBODY, {}, 0)
    plain = _rows(week, strangers)
    first, second = plain["item_id"].to_pylist()[:2]
    ratio = float(np.exp(plain["score"][0].as_py() - plain["score"][1].as_py()))
    assert ratio > 1
    for factor, best in ((1 + 0.9 * (ratio - 1), first), (1 + 1.1 * (ratio - 1), second)):
        assert _rows(week, strangers, boost={"items": {second: factor}})["item_id"][0].as_py() == best


def test_contacts_of_the_same_taste_answer_for_a_stranger(week: RankingWeek):
    # Users of the log are tied to those who had what they had; the stranger to one user.
    wanted = week.history.had(0, SNAPSHOT).dense(np.arange(week.history.users), len(week.candidate_ids))
    alike = wanted.astype(float) @ wanted.T
    np.fill_diagonal(alike, -1)
    ids = [str(user) for user in week.sequences.user_ids]
    ties = [(ids[row], ids[other], 1.0) for row in range(len(ids)) for other in np.argsort(-alike[row])[:5]]
    contact = ids[int(wanted.sum(1).argmax())]
    edges = pa.Table.from_pylist(
        [dict(zip(EDGES.names, tie, strict=True)) for tie in [*ties, ("new", contact, 1.0)]], schema=EDGES
    )
    rows = _rows(week, Strangers({}, edges, {}, 0))
    assert set(rows["user_id"].to_pylist()) == {"new"}
    told = rows.filter(pa.compute.equal(rows["reason"], "contacts"))
    had = {week.candidate_ids[item] for item in np.flatnonzero(wanted[ids.index(contact)])}
    later = week.history.had(0, SNAPSHOT + WEEK).dense(np.array([ids.index(contact)]), len(week.candidate_ids))[0]
    had |= {week.candidate_ids[item] for item in np.flatnonzero(later)}
    assert set(told["item_id"].to_pylist()) <= had
    assert (set(rows["arm"].to_pylist()) == {"cold: social"}) == bool(told.num_rows)


def test_the_same_whatever_the_order_of_ties(week: RankingWeek):
    rng = np.random.default_rng(0)
    ids = [str(user) for user in week.sequences.user_ids]
    ties = [{"user_id": "new", "other_id": other, "weight": 1.0} for other in rng.choice(ids, 6, replace=False)]
    edges = pa.Table.from_pylist(ties, schema=EDGES)
    strangers = Strangers({}, edges, {}, 0)
    assert _rows(week, strangers).equals(_rows(week, replace(strangers, edges=edges.take([5, 4, 3, 2, 1, 0]))))
