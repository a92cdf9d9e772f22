"""The test: every arm ranks all candidates for the same users, and every user's metrics are kept.

Histories reach up to the test week; weights were fitted before. What an average or a difference means is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow.errors import UserError
from segflow.evaluation.lists import DIVERSITY_WEIGHTS, Judges, ListQuality, list_quality
from segflow.evaluation.metrics import CUTOFFS, METRICS, ranking_metrics
from segflow.evaluation.verdict import Role
from segflow.rankers.deltas import Grouped
from segflow.rankers.examples import Examples
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.reranking import marginal_relevance_order, pool_size, unit_vectors
from segflow.rankers.scorers import COOCCURRENCE, personal_frequency, recent_popularity
from segflow.rankers.snapshot import RankingWeek
from segflow.rankers.top import top_items

Score = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
Seen = Callable[[str, int, npt.NDArray[np.int64], npt.NDArray[np.float32]], None]
_BLOCK = 512


@dataclass(frozen=True)
class Arm:
    """A ranker under test: its role in the verdict, and its scores (rows, C) of the test examples `rows`."""

    name: str
    role: Role
    score: Score


def simple_arms(week: RankingWeek, examples: Examples) -> list[Arm]:
    """The baselines that need no training of this project's own."""
    features = week.features_after()
    return [
        Arm("popularity", "baseline", lambda rows: recent_popularity(features, examples.users[rows])),
        Arm("personal_frequency", "baseline", lambda rows: personal_frequency(features, examples.users[rows])),
        Arm("cooccurrence", "baseline", lambda rows: examples.scores(rows)[:, :, COOCCURRENCE].astype(np.float32)),
    ]


def ranker_arm(name: str, role: Role, ranker: GlobalRanker, examples: Examples, grouped: Grouped | None = None) -> Arm:
    """The global ranker, or what the deltas of groups of users make of it."""
    return Arm(name, role, lambda rows: ranker.score(examples, rows, grouped))


def evaluate(
    arms: list[Arm],
    week: RankingWeek,
    examples: Examples,
    segment_of: Mapping[str, str],
    seed: int,
    seen: Seen | None = None,
) -> pa.Table:
    """Rows of `ranking_results` without the week: one per user, arm and task.

    Task `all` ranks every candidate, `new` only those the user never had. Users without a relevant item in a task are left
    out of it. A user for whom an arm's scores are not all finite gets nothing from it: `ranked` is false, all metrics are 0.
    `seen` is shown all scores: arm, seed, rows, (rows, C) scores.
    Raises UserError when the test week holds nobody to test.
    """
    if len(examples) == 0:
        raise UserError(
            "ranking_results: the week after the snapshot week has no event with a candidate item; "
            "ingest that week's days, or choose an earlier week"
        )
    users = [str(user) for user in week.sequences.user_ids[examples.users]]
    parts = []
    for arm in arms:
        for rows in _blocks(len(examples)):
            scores = arm.score(rows)
            if seen is not None:
                seen(arm.name, seed, rows, scores)
            had = examples.had.dense(rows, examples.candidates)
            wanted = examples.wanted.dense(rows, examples.candidates)
            names = [users[row] for row in rows]
            segments = [segment_of.get(name, "unassigned") for name in names]
            parts.append(_rows(arm.name, seed, "all", names, segments, _metrics(scores, wanted), wanted.sum(1)))
            fresh = wanted & ~had
            parts.append(_rows(arm.name, seed, "new", names, segments, _metrics(scores, fresh, had), fresh.sum(1)))
    return pa.concat_tables(parts)


def list_qualities(
    arms: list[Arm],
    week: RankingWeek,
    examples: Examples,
    category_of: Mapping[str, str],
    vectors: npt.NDArray[np.float32],
    count: int = 10,
) -> list[ListQuality]:
    """Accuracy, coverage, novelty, diversity and calibration of each arm's top `count`.

    The rankers per segment, which are what is recommended, come once more for each weight of diversity. Where an arm's
    scores are not all finite, the list is the first candidates.

    Args:
        vectors: (C, d) text vectors of the candidates.
    """
    names = sorted(set(category_of.values())) or ["none"]
    codes = np.array([names.index(category_of.get(item, names[0])) for item in week.candidate_ids])
    popularity = np.bincount(week.features_after().pairs.items, minlength=examples.candidates).astype(np.float64)
    history = np.zeros((len(examples), len(names)))
    np.add.at(history, (examples.had.user_of_pair, codes[examples.had.items]), 1.0)
    judges = Judges(popularity, codes, history, unit_vectors(vectors))
    qualities: list[ListQuality] = []
    varied: list[ListQuality] = []
    for arm in arms:
        weights = (0.0, *(DIVERSITY_WEIGHTS if arm.role == "segments" else ()))
        lists = [_lists(arm, examples, rows, judges.vectors, weights, count) for rows in _blocks(len(examples))]
        for number, weight in enumerate(weights):
            top = np.concatenate([block[number] for block in lists])
            row = list_quality(arm.name, top, _ndcg(top, examples), judges, weight)
            (varied if weight else qualities).append(row)
    return [*qualities, *varied]


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
    orders = (marginal_relevance_order(scores, of_pool, weight, length) for weight in weights if weight)
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
    segments: list[str],
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
            "segment_id": segments,
            "relevant": pa.array(relevant, pa.int32()),
            "ranked": metrics["ranked"],
            **{f"{metric}_{k}": metrics[f"{metric}_{k}"].astype(np.float64) for metric in METRICS for k in CUTOFFS},
        }
    )
    return table.filter(pa.array(relevant > 0))
