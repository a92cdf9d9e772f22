"""What segments gain by each method, over the best control that any division of the users would be.

In pieces, since all of it takes hours: each `--piece`, of all segmentations or of the one of `--segments`, writes its figures
into the folder, and without a piece the table is printed. Pieces are `tuning0` to `tuning4` and `test0` to `test4`, the weeks
of the ranking protocol on Complete Journey, and `planted0` to `planted3`, logs whose segments differ by a growing strength.
Settings are chosen by the tuning weeks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from segflow.config import BehaviorConfig, RankerConfig, TextConfig
from segflow.rankers.features import ItemHistory
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.encoder import Encoder
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.planted_tastes import planted_tastes
from segflow_tests.benchmarks.ranking_protocol import Protocol, compared, complete_journey
from segflow_tests.benchmarks.segment_methods import METHODS, SEED, Arm, Case, Kept, Method, arms_of

STRENGTHS = (0.0, 0.3, 0.6, 0.9)
_PLANTED = RankerConfig(training_weeks=6, steps=300, minimum_item_events=5, minimum_item_users=3)
_SMALL = BehaviorConfig(width=32, layers=1, heads=2, context=32, epochs=1)
_COMPONENTS, _TEMPERATURE = 16, 1.0

Figures = dict[str, npt.NDArray[np.float64]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on one piece, or print the table of those that are done."""
    parser = argparse.ArgumentParser(prog="segment-search", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the figures of the pieces are")
    parser.add_argument("--piece", help="the piece to work on")
    parser.add_argument("--segments", help="the one segmentation to work on, as the table names it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.piece is None:
        print("\n".join(table(options.folder)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    part, number = options.piece[:-1], int(options.piece[-1])
    case, segmentations = planted(STRENGTHS[number]) if part == "planted" else of_week(part, number, options.folder)
    if options.segments:
        segmentations = {options.segments: segmentations[options.segments]}
    for name, segments in segmentations.items():
        figures = tried(case, {name: segments}, METHODS)
        np.savez(options.folder / f"{options.piece}-{name.replace(', ', '_')}.npz", **figures)
    return 0


def planted(strength: float, users: int = 2000) -> tuple[Case, dict[str, Arm]]:
    """The planted log, with its true segments."""
    log = planted_tastes(strength, users=users)
    before = log.sequences.before(log.snapshot_us)
    rng = np.random.default_rng(SEED)
    backbone = fit_behavior_model(
        before, rng.normal(size=(len(before.item_ids), 8)).astype(np.float32), _SMALL, seed=SEED
    )
    week = RankingWeek.of(log.sequences, backbone, log.snapshot_us, _PLANTED)
    return case_of(week), {"true segments": Arm(np.eye(4, dtype=np.float32)[log.segment])}


def of_week(part: str, number: int, folder: Path) -> tuple[Case, dict[str, Arm]]:
    """A week of the ranking protocol, with segments by text and by behaviour as they were at its snapshot."""
    log = complete_journey()
    protocol = Protocol(log)
    windows = protocol.tuning if part == "tuning" else protocol.test
    texts = Encoder.load(TextConfig()).encode(list(log.texts))
    path = folder / f"behavior_{part}.safetensors"
    if not path.exists():
        before = log.sequences.before(windows[0].start_us - MICROSECONDS_PER_WEEK)
        path.write_bytes(fit_behavior_model(before, texts, BehaviorConfig(), seed=SEED).to_bytes())
    backbone = BehaviorModel.from_bytes(path.read_bytes())
    start = windows[number].start_us - MICROSECONDS_PER_WEEK
    week = RankingWeek(log.sequences, backbone, protocol.history, start, RankerConfig())
    return case_of(week), segmentations_of(protocol.history, backbone, week, texts[protocol.candidates])


def case_of(week: RankingWeek) -> Case:
    """The week with its global ranker, fitted as a weekly run would."""
    training, validation, test = week.training, week.validation(), week.after()
    ranker = fit_global_ranker(training, validation, week.item_vectors, week.candidate_ids, week.config, SEED)
    return Case(Kept(ranker, (training, validation, test)), training, validation, test, week.config)


def segmentations_of(
    history: ItemHistory, backbone: BehaviorModel, week: RankingWeek, texts: npt.NDArray[np.float32]
) -> dict[str, Arm]:
    """Segments by what users' items are about (k 4 and 8), and by the behaviour model's state (k 4)."""
    users = np.arange(history.users)
    features = history.at(week.start_us, week.config.half_life_days)
    had = features.pairs.dense(users, len(texts), np.log1p(features.frequency))
    # What everybody has tells nobody apart.
    had = had * np.log(1 / np.maximum((had > 0).mean(0), 1e-3))
    states = backbone.states(week.sequences, np.full(len(users), week.start_us), users, "last")
    return text_and_behavior(had @ texts, states)


def text_and_behavior(texts: npt.NDArray[np.float32], states: npt.NDArray[np.float32]) -> dict[str, Arm]:
    """Soft k-means of both views: (U, d) each."""
    unit = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9)
    return {"text, k 4": clusters(unit, 4), "text, k 8": clusters(unit, 8), "behaviour, k 4": clusters(states, 4)}


def clusters(vectors: npt.NDArray[np.float32], k: int) -> Arm:
    """Probabilities of k-means clusters along the principal components: of equal spherical Gaussians around the centres."""
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    points = PCA(_COMPONENTS, random_state=SEED).fit_transform(scaled)
    model = KMeans(k, n_init=5, random_state=SEED).fit(points)
    squared = model.transform(points) ** 2
    variance = squared.min(1).mean() / points.shape[1]
    chance = np.exp(-(squared - squared.min(1, keepdims=True)) / (2 * variance))
    return Arm((chance / chance.sum(1, keepdims=True)).astype(np.float32))


def tried(case: Case, segmentations: Mapping[str, Arm], methods: Mapping[str, Method]) -> Figures:
    """`users`, `global`, and for each segmentation, method and arm (test users, 2) NDCG@10."""
    figures: Figures = {"users": case.test.users, "global": case.ndcg(None)}
    for name, segments in segmentations.items():
        arms = arms_of(segments)
        for method, make in methods.items():
            for arm, added in zip(arms, make(case, list(arms.values())), strict=True):
                figures[f"{name}|{method}|{arm}"] = case.ndcg(added)
    return figures


def table(folder: Path) -> Iterator[str]:
    """Markdown rows: the gains over the global ranker and over the best control, in % of the global ranker's NDCG@10."""
    yield "| log | segments | method | items | over the global ranker | best control | over it |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    parts: dict[tuple[str, str], list[Figures]] = {}
    for path in sorted(folder.glob("*.npz")):
        piece, _, segments = path.stem.partition("-")
        name = piece if piece.startswith("planted") else piece[:-1]
        with np.load(path) as found:
            parts.setdefault((name, segments), []).append(dict(found))
    for (name, _), pieces in parts.items():
        for keys in sorted({key.rsplit("|", 1)[0] for key in pieces[0] if "|" in key}):
            for column, task in enumerate(("all", "new")):
                yield f"| {name} | {' | '.join(keys.split('|'))} | {task} | {gains(pieces, keys, column)} |"


def gains(pieces: Sequence[Figures], keys: str, column: int) -> str:
    """Three cells: the gain over the global ranker, the best control, the gain over it with its interval."""
    arms = [key for key in pieces[0] if key.startswith(f"{keys}|")]
    values = {arm.rsplit("|", 1)[1]: per_user(pieces, arm, column) for arm in arms}
    values["global"] = per_user(pieces, "global", column)
    means = {arm: np.nanmean(found) for arm, found in values.items()}
    best = max((arm for arm in means if arm != "segments"), key=lambda arm: means[arm])
    cells = []
    for base in ("global", best):
        one = compared({"segments": values["segments"], base: values[base]}, base=base)["segments"]
        low, mean, high = (100 * figure / means["global"] for figure in (one.low, one.mean, one.high))
        cells.append(f"{mean:+.2f} % [{low:+.2f}, {high:+.2f}]")
    return f"{cells[0]} | {best} | {cells[1]}"


def per_user(pieces: Sequence[Figures], key: str, column: int) -> npt.NDArray[np.float64]:
    """(U,) mean over the pieces that ask the user; NaN for users that none asks."""
    size = 1 + max(int(piece["users"].max()) for piece in pieces)
    total, count = np.zeros(size), np.zeros(size)
    for piece in pieces:
        values = piece[key][:, column]
        known = ~np.isnan(values)
        np.add.at(total, piece["users"][known], values[known])
        np.add.at(count, piece["users"][known], 1)
    return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)


if __name__ == "__main__":
    sys.exit(main())
