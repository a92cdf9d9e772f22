"""Top-N recommendations from scores: exact, block by block, ties always resolved the same way.

Lives here: everybody's best items, the lists made of them, and the rows of the recommendations table. Does not live here:
scoring, what the rules add to scores (rules.py), how lists are re-ranked (reranking.py) and why an item is in one (reasons.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.config import RecommendationConfig
from segflow.errors import UserError
from segflow.rankers.deltas import Grouped
from segflow.rankers.facts import Facts
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.new_items import NewItems
from segflow.rankers.reasons import reasons_of
from segflow.rankers.reranking import cap_exposure, marginal_relevance_order, pool_size, unit_vectors
from segflow.rankers.rules import Catalogue, Rules
from segflow.rankers.snapshot import RankingWeek
from segflow.rankers.top import top_items

Score = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
Hidden = Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
Pool = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""(U, M) items that lists are chosen from, each user's in the order wanted, and their scores; -inf where there are fewer."""

USERS_AT_ONCE = 16_384
"""Whose pools are made together: a piece of work for an engine, the same on each of them, since it decides last bits."""

_BLOCK = 1024


def recommend(
    score: Score,
    rows: npt.NDArray[np.int64],
    count: int,
    *,
    added: npt.NDArray[np.float32] | None = None,
    hidden: Hidden | None = None,
    block: int = _BLOCK,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """``top_items`` of all ``rows``, a block at a time.

    Args:
        score: row numbers -> (rows, C) scores.
        added: (C,) added to everybody's scores; -inf hides an item.
        hidden: row numbers -> the pairs to be hidden, as positions in these rows and candidates.
    """
    places, values = [], []
    for start in range(0, len(rows), block):
        chosen = rows[start : start + block]
        scores = score(chosen)
        if added is not None or hidden is not None:
            scores = scores + (np.float32(0) if added is None else added)
        if hidden is not None:
            scores[hidden(chosen)] = -np.inf
        position, value = top_items(scores, count)
        places.append(position)
        values.append(value)
    if not places:
        return np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
    return np.concatenate(places), np.concatenate(values)


@dataclass(frozen=True)
class Lists:
    """Recommended items, user by user, best first: one entry a row. A user may have fewer than asked for, or none."""

    row: npt.NDArray[np.int64]  # position in the rows asked for
    rank: npt.NDArray[np.int32]  # 1 is best
    item: npt.NDArray[np.int64]  # position among the items that were scored
    score: npt.NDArray[np.float32]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Lists:
        """Only the ``chosen`` places, with the ranks they have."""
        return Lists(self.row[chosen], self.rank[chosen], self.item[chosen], self.score[chosen])

    def of_users(self, texts: Sequence[str]) -> pa.Array:
        """What holds of each of the rows asked for, in each of its places."""
        return pa.array(texts, pa.string()).take(pa.array(self.row))


def make_lists(
    score: Score,
    rows: npt.NDArray[np.int64],
    config: RecommendationConfig,
    rules: Rules,
    vectors: npt.NDArray[np.float32],
    had: Hidden,
) -> Lists:
    """The lists of ``rows`` as the settings want them; see ``make_pool``.

    Raises UserError when `recommendations.exposure` leaves too few places for the lists.
    """
    return choose(make_pool(score, rows, config, rules.added, vectors, had), config, rules)


def make_pool(
    score: Score,
    rows: npt.NDArray[np.int64],
    config: RecommendationConfig,
    added: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    had: Hidden,
) -> Pool:
    """What the lists of ``rows`` are chosen from. No user's depends on another's.

    Args:
        added: (C,) what the rules add.
        vectors: (C, d) text vectors of the items that are scored, by which diversity is told.
        had: row numbers -> the pairs the users had.
    """
    varied = config.diversity > 0 or config.exposure is not None
    items, scores = recommend(
        score,
        rows,
        pool_size(config.count, config.exposure or 1.0) if varied else config.count,
        added=added if added.any() else None,
        hidden=had if config.exclude_seen else None,
    )
    if config.diversity > 0:
        order = _varied(items, scores, vectors, config)
        items, scores = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
    return items, scores


def choose(pool: Pool, config: RecommendationConfig, rules: Rules) -> Lists:
    """The lists of all users from their pools: the first of each, unless a cap on exposure has them take turns.

    Raises UserError when `recommendations.exposure` leaves too few places for the lists.
    """
    items, scores = pool
    kept = ~np.isneginf(scores)
    if config.exposure is not None:
        kept = cap_exposure(items, scores, config.count, _most(config, len(items), rules))
    row, place = np.nonzero(kept & (np.cumsum(kept, axis=1) <= config.count))
    rank = np.cumsum(kept, axis=1)[row, place].astype(np.int32)
    return Lists(row, rank, items[row, place], scores[row, place])


def _varied(
    items: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    config: RecommendationConfig,
) -> npt.NDArray[np.int64]:
    unit = unit_vectors(vectors)
    # Where items may be refused, the next best are asked for, so the whole pool is put in order.
    length = items.shape[1] if config.exposure is not None else min(config.count, items.shape[1])
    blocks = [slice(start, start + _BLOCK // 4) for start in range(0, len(items), _BLOCK // 4)]
    parts = [marginal_relevance_order(scores[b], unit[items[b]], config.diversity, length) for b in blocks]
    return np.concatenate([np.zeros((0, length), np.int64), *parts])


def _most(config: RecommendationConfig, lists: int, rules: Rules) -> int:
    """The most lists that one item may be in."""
    assert config.exposure is not None
    most = int(config.exposure * lists)
    left = int((~np.isneginf(rules.added)).sum())
    if most * left < config.count * lists:
        raise UserError(
            f"recommendations.exposure: {left} items in at most {most} lists each do not fill {lists} lists of {config.count}; "
            f"allow at least {config.count / max(left, 1):.2g}, or lower recommendations.count"
        )
    return most


@dataclass(frozen=True)
class Ranked:
    """Everything that scores the users of a week: the ranker, and what each segment adds to it."""

    ranker: GlobalRanker
    grouped: Grouped | None
    segment_of: Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """What people see of items and segments: the catalogue, names of segments, and which items that nobody had.

    ``vectors`` are text vectors (C + N, d) of the candidates and of the ``new`` items.
    """

    catalogue: Catalogue
    vectors: npt.NDArray[np.float32]
    segment_names: Mapping[str, str]
    new: NewItems


@dataclass(frozen=True)
class Recommended:
    """Rows of `recommendations` without the week; users with a list; and how much of the scores the reasons explain (R²)."""

    rows: pa.Table
    users: int
    explained: Mapping[str, float]


@dataclass(frozen=True)
class Pools:
    """What makes the pools of any users of a week, for the lists of the week after it.

    Attributes:
        vectors: (C + N, d) text vectors of the candidates and of the ``new`` items.
        added: (C + N,) what the rules add to their scores.
        at_once: users of a piece.
    """

    week: RankingWeek
    ranker: GlobalRanker
    grouped: Grouped | None
    new: NewItems
    vectors: npt.NDArray[np.float32]
    added: npt.NDArray[np.float32]
    config: RecommendationConfig
    at_once: int = USERS_AT_ONCE

    def score(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(users, C) scores of the candidates."""
        return self.ranker.score(self.week.later(users), np.arange(len(users)), self.grouped)

    def of(self, start: int) -> Pool:
        """Of the piece of users that starts with the number ``start``."""
        examples = self.week.later(np.arange(start, min(start + self.at_once, self.week.history.users)))

        def score(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            return self.ranker.score(examples, rows, self.grouped)

        def had(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            pairs, owner = examples.had.take(rows)
            return owner, examples.had.items[pairs]

        rows = np.arange(len(examples))
        return make_pool(self.new.beside(score, self.added), rows, self.config, self.added, self.vectors, had)

    @property
    def starts(self) -> range:
        """Where pieces of everybody start."""
        return range(0, self.week.history.users, self.at_once)


def recommendation_rows(
    week: RankingWeek,
    ranked: Ranked,
    shown: Shown,
    config: RecommendationConfig,
    rules: Rules,
    made: Callable[[Pools], Iterable[Pool]] = lambda pools: map(pools.of, pools.starts),
) -> Recommended:
    """Everybody's lists for the week after the snapshot week, with a reason for each item.

    made: the pools of all pieces of everybody in order, wherever they are made.
    """
    pools = Pools(week, ranked.ranker, ranked.grouped, shown.new, shown.vectors, rules.added, config)
    items, scores = zip(*made(pools), strict=True)
    lists = choose((np.concatenate(items), np.concatenate(scores)), config, rules)
    candidates = len(week.candidate_ids)
    facts = Facts.of(week, ranked.segment_of, shown.vectors[:candidates])
    known, new = lists.where(lists.item < candidates), lists.where(lists.item >= candidates)
    reasons = reasons_of(facts, pools.score, known.row, known.item, shown.catalogue.titles, shown.segment_names)
    users = [str(user) for user in week.sequences.user_ids]
    rows = list_rows(
        lists,
        week,
        shown,
        users=users,
        arms=np.where(_own_ranker(ranked, len(users)), "segment", "global").tolist(),
        segments=[ranked.segment_of.get(user, "unassigned") for user in users],
        reasons=(reasons.code, reasons.item, reasons.text),
        nearest=shown.new.nearest_had(facts.had, new.row, new.item - candidates),
    )
    return Recommended(rows, len(np.unique(lists.row)), reasons.explained)


def list_rows(
    lists: Lists,
    week: RankingWeek,
    shown: Shown,
    *,
    users: Sequence[str],
    arms: Sequence[str],
    segments: Sequence[str],
    reasons: tuple[pa.Array, pa.Array, pa.Array],
    nearest: npt.NDArray[np.int64],
) -> pa.Table:
    """Rows of `recommendations` without the week.

    Args:
        users, arms, segments: of the rows asked for.
        reasons: code, item and text of each place that a candidate has.
        nearest: of each place that a new item has, the candidate which the user knows it by; -1 for none.
    """
    known = lists.item < len(week.candidate_ids)
    like = [week.candidate_ids[one] if one >= 0 else None for one in nearest]
    words = [f"New, like {shown.catalogue.titles.get(one) or one}" if one else "New" for one in like]
    # Reasons of candidates come first and those of new items behind them: back to the order of the lists.
    order = pa.array(np.argsort(np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])))
    code, item, text = (
        pa.concat_arrays([of_known, pa.array(of_new, pa.string())]).take(order)
        for of_known, of_new in zip(reasons, (["new"] * len(like), like, words), strict=True)
    )
    columns = {
        "user_id": lists.of_users(users),
        "rank": lists.rank,
        "item_id": pa.array([*week.candidate_ids, *shown.new.item_ids], pa.string()).take(pa.array(lists.item)),
        "score": lists.score.astype(np.float64),
        "arm": pc.if_else(pa.array(known), lists.of_users(arms), "new item"),
        "segment_id": lists.of_users(segments),
        "reason": code,
        "reason_item": item,
        "reason_text": text,
    }
    return pa.table(columns)


def _own_ranker(ranked: Ranked, users: int) -> npt.NDArray[np.bool_]:
    """(U,) whose scores are not the global ranker's alone; a gate of zero leaves them to it."""
    if ranked.grouped is None:
        return np.zeros(users, bool)
    group = ranked.grouped.membership.group.numpy()
    return (group >= 0) & (ranked.grouped.deltas.gate.numpy()[group] > 0)
