"""Which clustering: every candidate with the figures that speak for and against it, and the choice among them.

What does not live here: the figures themselves (`indices.py`, `null.py`), the clusterers, and what is done with the chosen one
(`clustering.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray

from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.indices import Distances, border, distances, indices, silhouette
from segflow.segments.models import Labels, Model
from segflow.segments.null import NullReference, null_reference, workers
from segflow.segments.population import Points, Population
from segflow.segments.statistics import contingency, jaccard
from segflow.segments.threads import one_thread
from segflow.tables import VERDICTS

Row = dict[str, Any]
Overlap = NDArray[np.int64]

SEGMENTS, NO_STRUCTURE, UNSTABLE = VERDICTS


@dataclass(frozen=True)
class Candidate:
    """A fitted model and what was found out about it."""

    row: Row
    model: Model
    overlaps: Sequence[
        Overlap
    ]  # one (k + 1, k' + 1) table per resample: shared users; row and column 0 are of no cluster


def sweep(raw: Points, population: Population, config: SegmentConfig, seed: int, users: int) -> list[Candidate]:
    """Fit and judge every parameter of every clusterer in `config.algorithms`.

    `population` is the sample that candidates are compared on, with points (U, d) as clusterers see them; `raw` (U, D)
    are the same users before projection, of which the null model makes its copies; `users` is the size of the whole
    population. Silhouettes are those of at most `silhouette_users` of the sample, the same ones for all candidates.
    """
    drawn = np.random.default_rng(seed).permutation(len(population))[: config.silhouette_users]
    scored = np.sort(drawn)
    apart = distances(population.points[scored])
    asked = [
        (algorithm, parameter)
        for algorithm in dict.fromkeys(config.algorithms)
        for parameter in CLUSTERERS[algorithm].grid(population, config)
    ]
    # The limit is of the process for some libraries and of the thread for others: it is set here and again in each fit.
    with one_thread(), Parallel(n_jobs=workers(population), prefer="threads") as parallel:
        models = parallel(delayed(_fit)(population, *one, config.starts, seed) for one in asked)
        labels = [model.place(population).labels for model in models]
        numbers = [len(np.unique(one[one >= 0])) for one in labels]
        null = null_reference(raw[scored], sorted({k for k in numbers if k > 1}), config, seed)
        # The same resamples for every candidate: what differs between candidates is then not the luck of the draw.
        resampled = parallel(
            delayed(_overlap)(population, own, algorithm, parameter, config.bootstrap_starts, (seed, repeat))
            for (algorithm, parameter), own in zip(asked, labels, strict=True)
            for repeat in range(config.bootstraps)
        )
    found = []
    for at, ((algorithm, parameter), model) in enumerate(zip(asked, models, strict=True)):
        overlaps = resampled[at * config.bootstraps : (at + 1) * config.bootstraps]
        row: Row = {"algorithm": algorithm, "parameter": parameter, "k": numbers[at]}
        row |= _scores(population.points, labels[at], apart, scored)
        row |= _beyond(row, null.get(numbers[at]), config)
        row |= _stabilities(stability(overlaps), labels[at], config) | _sizes(labels[at], users)
        row |= {"eligible": eligible(row, config), "chosen": False}
        found.append(Candidate(row, model, overlaps))
    return found


def _beyond(row: Row, null: NullReference | None, config: SegmentConfig) -> Row:
    """The candidate beside data without clusters: further apart by `null_margin`, and fewer users between clusters."""
    if null is None:
        return {"null_silhouette": None, "null_border": None, "separation": None, "separated": False}
    separation = row["silhouette"] - null.silhouette
    return {
        "null_silhouette": null.silhouette,
        "null_border": null.border,
        "separation": separation,
        "separated": bool(separation >= config.null_margin and row["border"] <= config.null_border * null.border),
    }


def eligible(row: Row, config: SegmentConfig) -> bool:
    """Whether a candidate's clusters are large enough, and most of them stable."""
    large = row["smallest_share"] >= config.min_share and row["smallest_users"] >= config.min_users
    return row["k"] > 1 and large and row["stable_share"] > 0.5


def choose(rows: Sequence[Row], config: SegmentConfig) -> tuple[int | None, str]:
    """Index of the chosen row of the candidate table, if any, and the verdict.

    Of the eligible candidates, the one with the fewest clusters whose separation (silhouette less that of the null
    model) is within `tolerance` of the best. Whether it is beyond the null model is asked of this one only: among many
    candidates, some one is always lucky. Plain rules, such as RFM tiers, do not claim a structure and need none: the
    best of them is taken when no clusterer finds any. Users who differ by degrees alone can still be divided, if
    `without_structure` asks for it: by silhouette then, and under the verdict that it is no structure.
    """
    able = [at for at, row in enumerate(rows) if row["eligible"]]
    best = _smallest_near_best(rows, able, config, "separation")
    if best is not None and rows[best]["separated"]:
        return best, SEGMENTS
    plain = [at for at in able if CLUSTERERS[rows[at]["algorithm"]].needs]
    rules = _smallest_near_best(rows, plain, config, "separation")
    if rules is not None:
        return rules, SEGMENTS
    if best is None and any(row["separated"] for row in rows):
        return None, UNSTABLE
    divided = _smallest_near_best(rows, able, config, "silhouette") if config.without_structure == "divide" else None
    return divided, NO_STRUCTURE


def _smallest_near_best(rows: Sequence[Row], able: Sequence[int], config: SegmentConfig, by: str) -> int | None:
    best = max((rows[at][by] for at in able), default=0.0)
    near = [at for at in able if rows[at][by] >= best - config.tolerance * abs(best)]
    return min(near, key=lambda at: (rows[at]["k"], -rows[at][by], at), default=None)


def stability(overlaps: Sequence[Overlap]) -> NDArray[np.float64]:
    """Mean over resamples of each cluster's largest Jaccard similarity to a resampled one: (k,).

    Hennig, Cluster-wise assessment of cluster stability, Computational Statistics & Data Analysis 52, 2007. It counts
    the users that were drawn, each once.
    """
    return np.mean([jaccard(counts)[1:, 1:].max(axis=1, initial=0.0) for counts in overlaps], axis=0)


def _fit(population: Population, algorithm: str, parameter: float, starts: int, seed: int) -> Model:
    return CLUSTERERS[algorithm].fit(population, parameter, starts, seed)


def _overlap(
    population: Population, labels: Labels, algorithm: str, parameter: float, starts: int, seed: tuple[int, int]
) -> Overlap:
    """Users shared by the clusters and those of a model fitted anew, from scratch, to users drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(population), size=len(population))
    present = np.unique(drawn)
    k = int(labels.max(initial=-1)) + 1
    try:
        model = _fit(population.take(drawn), algorithm, parameter, starts, seed[1])
    except UserError:
        # The population can be clustered this way and this draw of it cannot: none of its clusters has come back.
        return contingency(labels[present] + 1, np.zeros(len(present), int), k + 1, 1)
    again = model.place(population.take(present)).labels
    return contingency(labels[present] + 1, again + 1, k + 1, model.k + 1)


def _scores(points: Points, labels: Labels, apart: Distances, scored: NDArray[np.intp]) -> Row:
    return {
        "silhouette": silhouette(apart, labels[scored]),
        "border": border(points[scored], labels[scored]),
        **indices(points, labels)._asdict(),
    }


def _stabilities(each: NDArray[np.float64], labels: Labels, config: SegmentConfig) -> Row:
    # A number that no user has is no cluster.
    each = each[np.unique(labels[labels >= 0])]
    if not len(each):
        return {"stability_mean": 0.0, "stability_min": 0.0, "stable_share": 0.0}
    return {
        "stability_mean": float(each.mean()),
        "stability_min": float(each.min()),
        "stable_share": float((each >= config.stable).mean()),
    }


def _sizes(labels: Labels, users: int) -> Row:
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    share = float(sizes.min() / len(labels)) if len(sizes) else 0.0
    return {
        "smallest_users": round(share * users),
        "smallest_share": share,
        "assigned_share": float(sizes.sum() / len(labels)),
    }
