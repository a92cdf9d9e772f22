"""The test: every arm ranks all candidates for the same users, and every user's metrics are kept.

Histories reach up to the test week; weights were fitted before. What an average or a difference means is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow.errors import UserError
from segflow.evaluation.controls import roles_of
from segflow.evaluation.lists import DIVERSITY_WEIGHTS, Judges, ListQuality, list_quality
from segflow.evaluation.metrics import CUTOFFS, METRICS, ranking_metrics, top_k
from segflow.evaluation.verdict import Role
from segflow.rankers.deltas import Grouped
from segflow.rankers.examples import Examples
from segflow.rankers.features import Features
from segflow.rankers.global_ranker import Frozen, GlobalRanker
from segflow.rankers.reranking import marginal_relevance_orders, pool_size, unit_vectors
from segflow.rankers.snapshot import RankingWeek
from segflow.rankers.top import top_items

Score = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
Seen = Callable[[str, int, npt.NDArray[np.int64], npt.NDArray[np.float32]], None]
_BLOCK = 512


@dataclass(frozen=True)
class Arm:
    """A ranker under test: its role in the verdict, and its scores (rows, C) of the test examples `rows`.

    seed: of its training, where that is not the one of everything else.
    """

    name: str
    role: Role
    score: Score
    seed: int | None = None


def ranker_arms(
    ranker: GlobalRanker,
    examples: Examples,
    arms: Mapping[str, Grouped | None],
    seed: int | None = None,
) -> list[Arm]:
    """Arms by name: the global ranker itself, or what the deltas of groups of users make of it.

    The ranker runs once for rows that all of these arms are asked for one after the other.
    """
    last: dict[bytes, Frozen] = {}

    def frozen(rows: npt.NDArray[np.int64]) -> Frozen:
        if (key := rows.tobytes()) not in last:
            last.clear()
            last[key] = ranker.frozen(examples, rows)
        return last[key]

    return [
        Arm(name, role, lambda rows, name=name: ranker.score(examples, rows, arms[name], frozen(rows)), seed)  # type: ignore[misc]
        for name, role in roles_of(arms).items()
    ]


def popular_items(features: Features, count: int) -> npt.NDArray[np.bool_]:
    """(C,) whether a candidate is among the `count` that most users had in the last seven days; one that nobody had is not."""
    popular = np.zeros(len(features.popularity), bool)
    popular[top_k(features.popularity[None], count)[0]] = True
    return popular & (features.popularity > 0)


def evaluate(
    arms: list[Arm],
    week: RankingWeek,
    examples: Examples,
    segment_of: Mapping[str, str],
    seed: int,
    popular: npt.NDArray[np.bool_],
    active_days: npt.NDArray[np.int64],
    seen: Seen | None = None,
) -> pa.Table:
    """Rows of `ranking_results` without the week: one per user, arm with its seed, and task.

    Task `all` ranks every candidate, `new` only those the user never had, `beyond_popular` only those that are not
    `popular` (C,). Users without a relevant item in a task are left out of it. A user for whom an arm's scores are not all
    finite gets nothing from it: `ranked` is false, all metrics are 0.

    Args:
        active_days: (U,) of each user of the log, up to the test week.
        seen: is shown all scores of arms that are no diagnosis: arm, seed, rows, (rows, C) scores.

    Raises UserError when the test week holds nobody to test.
    """
    if len(examples) == 0:
        raise UserError(
            "ranking_results: the week after the snapshot week has no event with a candidate item; "
            "ingest that week's days, or choose an earlier week"
        )
    users = [str(user) for user in week.sequences.user_ids[examples.users]]
    parts = []
    # Arm after arm for the same users: what several arms have in common is then found once.
    for rows in _blocks(len(examples)):
        had = examples.had.dense(rows, examples.candidates)
        wanted = examples.wanted.dense(rows, examples.candidates)
        names = [users[row] for row in rows]
        facts = {
            "segment_id": [segment_of.get(name, "unassigned") for name in names],
            "active_days": pa.array(active_days[examples.users[rows]], pa.int32()),
        }
        left_out = {"all": None, "new": had, "beyond_popular": np.broadcast_to(popular, had.shape)}
        for arm in arms:
            own_seed = seed if arm.seed is None else arm.seed
            scores = arm.score(rows)
            if seen is not None and arm.role != "diagnostic":
                seen(arm.name, own_seed, rows, scores)
            for task, hidden in left_out.items():
                relevant = wanted if hidden is None else wanted & ~hidden
                metrics = _metrics(scores, relevant, hidden)
                parts.append(_rows(arm.name, own_seed, task, names, facts, metrics, relevant.sum(1)))
    return pa.concat_tables(parts)


def list_qualities(
    arms: list[Arm],
    week: RankingWeek,
    examples: Examples,
    category_of: Mapping[str, str],
    vectors: npt.NDArray[np.float32],
    count: int = 10,
) -> list[ListQuality]:
    """Accuracy, coverage, novelty, diversity and more of each arm's top `count`; diagnostic arms recommend nothing.

    The rankers per segment, which are what is recommended, come once more for each weight of diversity. Where an arm's
    scores are not all finite, the list is the first candidates.

    Args:
        vectors: (C, d) text vectors of the candidates.
    """
    judges = _judges(week.features_after(), week.candidate_ids, examples, category_of, vectors)
    judged = [arm for arm in arms if arm.role != "diagnostic"]
    weights = {arm.name: (0.0, *(DIVERSITY_WEIGHTS if arm.role == "segments" else ())) for arm in judged}
    lists: dict[tuple[str, float], list[npt.NDArray[np.int64]]] = {}
    for rows in _blocks(len(examples)):
        for arm in judged:
            of_arm = _lists(arm, examples, rows, judges.vectors, weights[arm.name], count)
            for weight, block in zip(weights[arm.name], of_arm, strict=True):
                lists.setdefault((arm.name, weight), []).append(block)
    whole = {key: np.concatenate(blocks) for key, blocks in lists.items()}
    # Lists that were re-ranked come last.
    return [
        list_quality(arm, top, _ndcg(top, examples), judges, weight)
        for (arm, weight), top in sorted(whole.items(), key=lambda one: one[0][1] > 0.0)
    ]


def _judges(
    features: Features,
    candidate_ids: Sequence[str],
    examples: Examples,
    category_of: Mapping[str, str],
    vectors: npt.NDArray[np.float32],
) -> Judges:
    names = sorted(set(category_of.values())) or ["none"]
    codes = np.array([names.index(category_of.get(item, names[0])) for item in candidate_ids])
    popularity = np.bincount(features.pairs.items, minlength=examples.candidates).astype(np.float64)
    owner, items = examples.had.user_of_pair, examples.had.items
    history = np.zeros((len(examples), len(names)))
    np.add.at(history, (owner, codes[items]), 1.0)
    had = np.bincount(owner, minlength=len(examples)).astype(np.float64)
    total = np.bincount(owner, popularity[items], minlength=len(examples))
    return Judges(
        popularity=popularity,
        users=max(1, int(np.count_nonzero(np.diff(features.pairs.offsets)))),
        categories=codes,
        history=history,
        profiles=np.divide(total, had, out=np.full(len(examples), np.nan), where=had > 0),
        vectors=unit_vectors(vectors),
    )


def _lists(
    arm: Arm,
    examples: Examples,
    rows: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    weights: tuple[float, ...],
    count: int,
) -> list[npt.NDArray[np.int64]]:
    """For each weight of diversity the (rows, count) lists of an arm."""
    items, scores = top_items(_finite(arm.score(rows))[0], count if weights == (0.0,) else pool_size(count))
    of_pool, length = vectors[items], min(count, items.shape[1])
    orders = marginal_relevance_orders(scores, of_pool, [weight for weight in weights if weight], length)
    return [items[:, :count], *(np.take_along_axis(items, order, axis=1) for order in orders)]


def _ndcg(top: npt.NDArray[np.int64], examples: Examples) -> npt.NDArray[np.float64]:
    """(U,) NDCG of given lists, as `ranking_metrics` has it."""
    discounts = 1.0 / np.log2(np.arange(2, top.shape[1] + 2))
    ideal = np.cumsum(discounts)[np.minimum(np.diff(examples.wanted.offsets), top.shape[1]) - 1]
    found = [
        np.take_along_axis(examples.wanted.dense(rows, examples.candidates), top[rows], axis=1)
        for rows in _blocks(len(examples))
    ]
    return np.concatenate(found) @ discounts / ideal


def _finite(scores: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The scores with zeros for users who have one that is not finite, and (U,) who has none."""
    ranked: npt.NDArray[np.bool_] = np.asarray(np.isfinite(scores).all(axis=1))
    return np.where(ranked[:, None], scores, np.float32(0.0)), ranked


def _metrics(
    scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.bool_], exclude: npt.NDArray[np.bool_] | None = None
) -> dict[str, npt.NDArray[np.generic]]:
    """`ranked`, and the metrics of those who are; 0 for the others."""
    scores, ranked = _finite(scores)
    found = ranking_metrics(scores, relevant, exclude)
    return {"ranked": ranked, **{name: np.where(ranked, values, 0.0) for name, values in found.items()}}


def _blocks(examples: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, examples, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, examples))


def _rows(
    arm: str,
    seed: int,
    task: str,
    users: list[str],
    facts: Mapping[str, Any],
    metrics: Mapping[str, npt.NDArray[np.generic]],
    relevant: npt.NDArray[np.integer],
) -> pa.Table:
    size = len(users)
    table = pa.table(
        {
            "user_id": users,
            "arm": [arm] * size,
            "seed": pa.array([seed] * size, pa.int32()),
            "task": [task] * size,
            **facts,
            "relevant": pa.array(relevant, pa.int32()),
            "ranked": metrics["ranked"],
            **{f"{metric}_{k}": metrics[f"{metric}_{k}"].astype(np.float64) for metric in METRICS for k in CUTOFFS},
        }
    )
    return table.filter(pa.array(relevant > 0))
