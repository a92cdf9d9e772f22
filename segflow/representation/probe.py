"""The probe: what frozen user vectors tell of the week after them, against features made by hand and an autoencoder.

Lives here: the outcomes, the candidates, scores with intervals, and the choice of views. Does not live here: the heads
(`heads`), the baselines' vectors (`baselines`, `autoencoder`), the shape of a row (`probe_rows`), and whatever trains a view.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.config import ProbeConfig, UserEmbeddingConfig, View
from segflow.errors import UserError
from segflow.representation.autoencoder import autoencode
from segflow.representation.baselines import aggregated_features
from segflow.representation.heads import foretell
from segflow.representation.probe_rows import ProbeRow, candidate_of
from segflow.representation.sequences import EventSequences
from segflow.representation.views import UserViews, fuse_views

FloatArray = npt.NDArray[np.float64]

AGGREGATED, AUTOENCODER = "aggregated", "autoencoder"
METRICS = {"churn": "auc", "category": "macro_auc", "spend": "spearman", "mean": "skill"}
"""Task -> metric. `skill` is the mean over the tasks, an AUC counted as 2 * AUC - 1: 0 is chance, 1 is certainty."""

_CONFIDENCE = 0.95
_Z = 1.959964


@dataclass(frozen=True)
class Outcomes:
    """What the n probed users did in the week; `rows` (n,) are their row numbers in the views, all else is (n,).

    The probed users have enough history and were active lately; `spend` is ln(1 + the sum of the week's event values).
    """

    rows: npt.NDArray[np.int64]
    churn: npt.NDArray[np.bool_]
    categories: dict[str, npt.NDArray[np.bool_]]
    spend: FloatArray


def probe_week(
    views: UserViews,
    events: pa.Table,
    sequences: EventSequences,
    week_start: datetime,
    users: UserEmbeddingConfig,
    config: ProbeConfig,
    seed: int,
) -> list[ProbeRow]:
    """Probe the `views` of a week (UTC) on what their users did in it, beside both baselines.

    events: user_id, item_id, event_type, ts, value and category before the end of the week; sequences: the same events.
    The baselines, like the views, are made of events before the week only. Raises UserError as `probe` does.
    """
    start = pa.scalar(week_start, pa.timestamp("us", tz="UTC"))
    history, week = (events.filter(keep(events["ts"], start)) for keep in (pc.less, pc.greater_equal))
    baselines = {
        AGGREGATED: aggregated_features(history, views.user_ids, week_start).matrix,
        AUTOENCODER: autoencode(sequences.before(start.value), views.user_ids, config, seed),
    }
    return probe(views, outcomes_of(history, week, views, week_start, config, seed), baselines, users, config, seed)


def outcomes_of(
    history: pa.Table, week: pa.Table, views: UserViews, week_start: datetime, config: ProbeConfig, seed: int
) -> Outcomes:
    """What users did in the week, of those with enough history and an event in the `active_weeks` before it.

    history, week: user_id, ts, value and category of the events before `week_start` and of the week after it. The
    categories are the most widespread of the week that `minimum_users` have and as many have not. Of more users than
    `config.users`, a random part is probed.
    """
    lately = pa.scalar(week_start - timedelta(weeks=config.active_weeks), pa.timestamp("us", tz="UTC"))
    active = history["user_id"].filter(pc.greater_equal(history["ts"], lately)).unique()
    users = pa.array(views.user_ids, pa.string())
    probed = np.flatnonzero(views.enough_history & pc.is_in(users, active).to_numpy(zero_copy_only=False))
    if len(probed) > config.users:
        probed = np.sort(np.random.default_rng(seed).choice(probed, config.users, replace=False))
    names = users.take(pa.array(probed))
    row = pc.index_in(week["user_id"], names)
    known, row = week.filter(row.is_valid()), row.drop_null().to_numpy()
    value = np.bincount(row, pc.fill_null(known["value"], 0.0).to_numpy(), minlength=len(probed))
    return Outcomes(
        probed,
        np.bincount(row, minlength=len(probed)) == 0,
        _categories(known["category"], row, len(probed), config),
        np.log1p(np.maximum(value, 0.0)),
    )


def probe(
    views: UserViews,
    outcomes: Outcomes,
    baselines: Mapping[str, npt.NDArray[np.float32]],
    users: UserEmbeddingConfig,
    config: ProbeConfig,
    seed: int,
) -> list[ProbeRow]:
    """Score each view, every fusion of them, and the baselines ((U, d) each; `aggregated` must be among them).

    A task is left out when too few users differ in its outcome. Churn and categories are scored by the area under the
    ROC curve; spend by Spearman's rank correlation, because a few large baskets would decide an R2 and because it lies on
    the scale of 2 * AUC - 1, so that their mean has a meaning. Intervals: percentile bootstrap over users, the same
    resamples for all candidates; the heads are not fitted again, so it is the users that vary, not the training. Views are
    fused as they will be, so that the choice is among vectors that can be had.

    Raises UserError when no task is left.
    """
    rng = np.random.default_rng(seed)
    tasks = _tasks(outcomes, config)
    if not tasks:
        raise UserError(
            f"representation_probe: of {len(outcomes.rows)} users, fewer than {config.minimum_users} differ in any outcome; "
            "choose another week or lower probe.minimum_users"
        )
    count = len(outcomes.rows)
    folds = rng.permutation(np.arange(count) % config.folds)
    resamples = rng.multinomial(count, np.full(count, 1 / count), config.bootstrap_samples)
    counts = np.vstack([np.ones(count), resamples]).astype(np.float32)
    scored: dict[tuple[str, str], tuple[int, dict[str, FloatArray]]] = {}
    for name, kind, vectors in _candidates(views, baselines, users):
        probed = vectors[outcomes.rows]
        samples = {task: _scores(probed, task, targets, folds, counts) for task, targets in tasks.items()}
        skills = [one if task == "spend" else 2 * one - 1 for task, one in samples.items()]
        scored[name, kind] = vectors.shape[1], {**samples, "mean": np.mean(skills, axis=0)}
    return _rows(scored, count)


def choose(rows: Sequence[ProbeRow]) -> list[View]:
    """The fewest views whose mean skill lies within one standard error of the best (Breiman et al., 1984).

    Among as many views, the better ones. Static attributes are never chosen: segments are validated by them.
    """
    eligible = [
        row for row in rows if row.task == "mean" and row.kind in ("view", "fusion") and "attributes" not in row.views
    ]
    best = max(eligible, key=lambda row: row.score)
    within = best.score - (best.high - best.low) / (2 * _Z)
    return min((row for row in eligible if row.score >= within), key=lambda row: (len(row.views), -row.score)).views


def _categories(
    column: pa.ChunkedArray, row: npt.NDArray[np.int64], users: int, config: ProbeConfig
) -> dict[str, npt.NDArray[np.bool_]]:
    coded = column.combine_chunks().dictionary_encode()
    named = coded.is_valid().to_numpy(zero_copy_only=False)
    labels = coded.dictionary.to_pylist()
    had = np.zeros((len(labels), users), bool)
    had[coded.indices.drop_null().to_numpy(), row[named]] = True
    holders = had.sum(axis=1)
    order = sorted(range(len(labels)), key=lambda one: (-holders[one], labels[one]))
    enough = [one for one in order if config.minimum_users <= holders[one] <= users - config.minimum_users]
    return {labels[one]: had[one] for one in enough[: config.categories]}


def _tasks(outcomes: Outcomes, config: ProbeConfig) -> dict[str, FloatArray]:
    """Task -> (n, T) targets."""
    tasks: dict[str, FloatArray] = {}
    if config.minimum_users <= outcomes.churn.sum() <= len(outcomes.churn) - config.minimum_users:
        tasks["churn"] = outcomes.churn[:, None].astype(np.float64)
    if outcomes.categories:
        tasks["category"] = np.stack(list(outcomes.categories.values()), axis=1).astype(np.float64)
    if len(outcomes.spend) >= 2 * config.minimum_users and (outcomes.spend > 0).sum() >= config.minimum_users:
        tasks["spend"] = outcomes.spend[:, None]
    return tasks


def _candidates(
    views: UserViews, baselines: Mapping[str, npt.NDArray[np.float32]], users: UserEmbeddingConfig
) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    """Name, kind and (U, d) vectors of what is compared. Heads standardize, so the weights of views do not matter here."""
    plain = users.model_copy(update={"view_weights": {}})
    blocks = {name: fuse_views(views, [cast(View, name)], plain).matrix for name in views.views}
    learned = [name for name in blocks if name != "attributes"]
    sets = [one for size in range(1, len(learned) + 1) for one in itertools.combinations(learned, size)]
    if "attributes" in blocks:
        sets += [("attributes",), tuple(blocks)]
    for chosen in sets:
        kind = "view" if len(chosen) == 1 else "fusion"
        yield candidate_of(chosen), kind, np.hstack([blocks[name] for name in chosen])
    for name, vectors in baselines.items():
        yield name, "baseline", vectors


def _scores(
    vectors: npt.NDArray[np.float32],
    task: str,
    targets: FloatArray,
    folds: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float32],
) -> FloatArray:
    """(1 + B,) the task's score on the users as they are, then on each resample."""
    told = foretell(vectors, targets, folds, logistic=task != "spend")
    if task == "spend":
        return _spearman(told[:, 0], targets[:, 0], counts)
    areas = [_auc(told[:, column], targets[:, column], counts) for column in range(targets.shape[1])]
    return cast(FloatArray, np.mean(areas, axis=0))


def _auc(scores: FloatArray, truth: FloatArray, counts: npt.NDArray[np.float32]) -> FloatArray:
    """(R,) areas under the ROC curve when user u counts `counts[r, u]` times; ties count half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sorted_counts = counts[:, order]
    positives = np.add.reduceat(sorted_counts * truth[order].astype(np.float32), starts, axis=1).astype(np.float64)
    negatives = np.add.reduceat(sorted_counts, starts, axis=1) - positives
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return cast(FloatArray, (positives * below).sum(axis=1) / np.maximum(pairs, 1.0))


def _spearman(scores: FloatArray, truth: FloatArray, counts: npt.NDArray[np.float32]) -> FloatArray:
    """(R,) Spearman correlations when user u counts `counts[r, u]` times; ties share their mean rank."""
    x, y = _ranks(scores, counts), _ranks(truth, counts)
    size = counts.sum(axis=1, keepdims=True)
    x -= (counts * x).sum(axis=1, keepdims=True) / size
    y -= (counts * y).sum(axis=1, keepdims=True) / size
    variances = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    return cast(FloatArray, (counts * x * y).sum(axis=1) / np.sqrt(np.maximum(variances, 1e-12)))


def _ranks(values: FloatArray, counts: npt.NDArray[np.float32]) -> FloatArray:
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    held = np.add.reduceat(counts[:, order], starts, axis=1).astype(np.float64)
    ranks = np.empty(counts.shape)
    ranks[:, order] = np.repeat(np.cumsum(held, axis=1) - held / 2, np.diff(starts, append=len(values)), axis=1)
    return ranks


def _rows(scored: Mapping[tuple[str, str], tuple[int, dict[str, FloatArray]]], users: int) -> list[ProbeRow]:
    """A row for each candidate and task; the first sample is the score itself."""
    _, aggregated = scored[AGGREGATED, "baseline"]
    tail = 100 * (1 - _CONFIDENCE) / 2
    rows = []
    for (name, kind), (columns, samples) in scored.items():
        for task, sample in samples.items():
            low, high = np.percentile(sample[1:], [tail, 100 - tail])
            gap = sample - aggregated[task]
            gap_low, gap_high = np.percentile(gap[1:], [tail, 100 - tail])
            itself = name == AGGREGATED
            row = ProbeRow(
                candidate=name,
                kind=kind,
                task=task,
                metric=METRICS[task],
                users=users,
                score=float(sample[0]),
                low=float(low),
                high=float(high),
                difference=None if itself else float(gap[0]),
                difference_low=None if itself else float(gap_low),
                difference_high=None if itself else float(gap_high),
                chosen=False,
                columns=columns,
            )
            rows.append(row)
    chosen = candidate_of(choose(rows))
    return [replace(row, chosen=row.candidate == chosen) for row in rows]
