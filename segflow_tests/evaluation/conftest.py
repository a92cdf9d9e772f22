"""Simulated results of an evaluation, and a filled report around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.content import (
    Accounting,
    AttributeRow,
    LedgerRow,
    ReportInput,
    SegmentCard,
    SweepRow,
    TuningRow,
)
from segflow.evaluation.groups import Background
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.summary import summarize
from segflow.evaluation.verdict import Role
from segflow.representation.probe_rows import ProbeRow
from segflow.segments.drawing import Picture

ROLES: dict[str, Role] = {
    "popularity": "baseline",
    "popularity_7_days": "baseline",
    "personal_frequency": "baseline",
    "global": "global",
    "global_extra": "control",
    "placebo_1": "control",
    "placebo_2": "control",
    "placebo_3": "control",
    "segments": "segments",
    "global_shuffled": "diagnostic",
}
LEVELS = {
    "popularity": 0.150,
    "popularity_7_days": 0.171,
    "personal_frequency": 0.368,
    "global": 0.372,
    "global_extra": 0.374,
    "placebo_1": 0.3735,
    "placebo_2": 0.3738,
    "placebo_3": 0.3729,
    "segments": 0.374,
    "global_shuffled": 0.369,
}
NAMES = {
    "s001": "Frequent high-value, fresh and meat",
    "s002": "Occasional, snacks and drinks",
    "s003": "Weekend stock-up, baby and household",
    "s005": "Lapsing small baskets",
}

MakeResults = Callable[..., pd.DataFrame]


def ndcg_differences(users: int, gains: float, seed: int = 17) -> np.ndarray:
    """Differences (users,) of NDCG@10 between two arms, of mean 0, shaped like those of rankers of one family.

    Four of five are zero; the others have a median of about 0.01 and seldom more than 0.1. A share `gains` of these is
    upwards; the fewer, the larger. Standard deviation 0.026, kurtosis 70 and skewness 0 at one half; 0.019, 100 and 5
    at 0.35. Differences of rankers of real logs had 71 to 89 % zeros, kurtosis 20 to 70 and skewness -5 to 5.
    """
    rng = np.random.default_rng(seed)
    size = np.minimum(rng.lognormal(np.log(0.012), 1.43, users), 0.3)
    signed = np.where(rng.random(users) < gains, size, -size) * (rng.random(users) < 0.2)
    signed[signed < 0] *= signed[signed > 0].sum() / -signed[signed < 0].sum()
    return signed


@pytest.fixture(scope="session")
def make_results() -> MakeResults:
    """Results of `users` users; `gains` adds to the segments arm in a segment; noise is per user, arm and seed."""

    def make(
        users: int = 1900, gains: dict[str, float] | None = None, noise: float = 0.03, seeds: int = 3
    ) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        ids = np.array([f"u{number:05d}" for number in range(users)])
        segments = rng.choice(sorted(NAMES), size=users, p=[0.38, 0.31, 0.19, 0.12])
        gain = pd.Series(segments).map(gains or {}).fillna(0.0).to_numpy()
        skill = rng.normal(0.0, 0.16, users)
        days = np.arange(users) % 97
        frames = []
        for task, scale in (("all", 1.0), ("new", 0.17)):
            for arm, role in ROLES.items():
                own = rng.normal(0.0, noise, users)
                for seed in range(1 if role in ("baseline", "diagnostic") else seeds):
                    level = LEVELS[arm] + skill + own + rng.normal(0.0, noise / 3, users)
                    level = (level + (gain if role == "segments" else 0.0)) * scale
                    frames.append(
                        pd.DataFrame(
                            {
                                "week": pd.Timestamp("2017-11-20").date(),
                                "user_id": ids,
                                "arm": arm,
                                "seed": seed,
                                "task": task,
                                "segment_id": segments,
                                "active_days": days,
                                "ranked": True,
                                "ndcg_10": level,
                                "recall_10": level * 0.7,
                                "hit_10": np.clip(level * 2.2, 0, 1),
                                "mrr_10": level * 1.1,
                            }
                        )
                    )
        return pd.concat(frames, ignore_index=True)

    return make


@pytest.fixture(scope="session")
def config() -> EvaluationConfig:
    return EvaluationConfig(bootstrap_samples=1000)


@pytest.fixture(scope="session")
def report_input(make_results: MakeResults, config: EvaluationConfig) -> ReportInput:
    """A report as a grocer could see it: a gain in one segment only, four weeks of history, a split."""
    return ReportInput(
        title="Complete Journey groceries",
        week="2017-11-20",
        test_week="2017-11-27",
        summary=summarize(make_results(gains={"s003": 0.02}), ROLES, config, 0, list(NAMES), background()),
        segments=_cards(),
        accounting=Accounting(
            raw=1_469_307,
            events=1_411_876,
            duplicates=812,
            quarantined={"not_positive": 11_640, "excluded_category": 44_871, "unknown_item": 108},
        ),
        ledger=_ledger(),
        pictures={
            "map": Picture(
                "map", "Map of the segments", "Dots <are> users.", "<svg role='img' aria-label='Dots'></svg>"
            )
        },
        sweep=[
            SweepRow("k-means", k, separation, mean, low, share, low >= 0.75, k == 4, null_silhouette=0.041)
            for k, separation, mean, low, share in (
                (2, 0.171, 0.973, 0.961, 0.412),
                (3, 0.184, 0.941, 0.902, 0.221),
                (4, 0.198, 0.917, 0.843, 0.119),
                (5, 0.201, 0.812, 0.604, 0.071),
                (6, 0.189, 0.741, 0.522, 0.048),
            )
        ],
        probe=_probe(),
        attributes=[
            AttributeRow("household_size", 0.214, 0.0005, 801),
            AttributeRow("kids_count", 0.187, 0.0005, 801),
            AttributeRow("income", 0.121, 0.0085, 801),
            AttributeRow("home_ownership", 0.052, 0.41, 568),
        ],
        lists=[
            ListQuality("personal_frequency", 0.0, 0.368, 0.981, 7.41, 0.823, 0.651, 0.071, 0.71, 0.21, 0.19, 0.105),
            ListQuality("global", 0.0, 0.372, 0.842, 6.93, 0.801, 0.646, 0.083, 0.78, 0.24, 0.19, 0.263),
            ListQuality("segments", 0.0, 0.374, 0.871, 7.02, 0.806, 0.647, 0.079, 0.77, 0.23, 0.19, 0.211),
            ListQuality("segments", 0.3, 0.373, 0.873, 7.05, 0.823, 0.669, 0.081, 0.76, 0.23, None, None),
            ListQuality("segments", 0.7, 0.339, 0.884, 7.21, 0.871, 0.732, 0.102, 0.74, 0.22, 0.19, 0.158),
        ],
        tuning=[
            TuningRow("popularity_7_days", "none", 1407, 0.2477, True),
            TuningRow("personal_frequency", "half-life 120 days", 1407, 0.3713, True),
            TuningRow("personal_frequency", "half-life 30 days", 1407, 0.3536, False),
            TuningRow("ease", "ridge 1000", 0, None, True),
        ],
        versions={"segflow": "0.1.0", "events": "version 41", "user_segments": "version 9", "code": "3fd2a1c"},
        config_excerpt="evaluation:\n  minimum_relative_gain: 0.01\n  confidence: 0.95\nsegments:\n  k: [2, 10]\n",
    )


def background(users: int = 1900) -> Background:
    """Income is known of half of the users, in four groups of which one is tiny and one small."""
    income = ["low", "middle", "high", "very high"]
    known = [
        (f"u{user:05d}", income[3] if user < 6 else income[2] if user < 60 else income[user % 4 // 2])
        for user in range(0, users, 2)
    ]
    rows = [(user, "income", value) for user, value in known] + [(user, "code", user) for user, _ in known]
    return Background(
        attributes=pd.DataFrame(rows, columns=["user_id", "attribute", "value"]),
        stability={"s001": 0.91, "s002": 0.88, "s003": 0.84},
        minimum_cell=10,
    )


def _probe() -> list[ProbeRow]:
    levels = {"behavior": ("view", 0.312), "behavior + text": ("fusion", 0.335), "aggregated": ("baseline", 0.318)}
    rows = []
    for candidate, (kind, level) in levels.items():
        for task, metric in {"mean": "mean", "churn": "AUC", "category": "mean AUC", "spend": "R²"}.items():
            difference = None if kind == "baseline" else level - 0.318
            low, high = (None, None) if difference is None else (difference - 0.009, difference + 0.009)
            row = ProbeRow(
                candidate=candidate,
                kind=kind,
                task=task,
                metric=metric,
                users=1843,
                score=level,
                low=level - 0.02,
                high=level + 0.02,
                difference=difference,
                difference_low=low,
                difference_high=high,
                chosen=candidate == "behavior + text",
                columns=32,
            )
            rows.append(row)
    return rows


def _cards() -> list[SegmentCard]:
    shares = {"s001": (0.38, 0.57), "s002": (0.31, 0.14), "s003": (0.19, 0.25), "s005": (0.12, 0.04)}
    return [
        SegmentCard(
            segment_id=segment_id,
            name=name,
            users=round(2400 * shares[segment_id][0]),
            share_of_users=shares[segment_id][0],
            share_of_value=shares[segment_id][1],
            distinguishing=[
                ("Sessions per week", "2.4 against 0.9 in the rest (difference 1.3 sd, 1.2 to 1.4)"),
                ("Spend on produce", "1.6 times the rest (1.5 to 1.7)"),
            ],
            top_items=["Bananas", "Greek yogurt", "Boneless chicken breast"],
            journeys=["produce → dairy → meat (1.8 times the rest)", "bakery → deli (1.4 times the rest)"],
            rules=["sessions per week above 1.7 and distinct categories above 22"],
            attributes=[("Household size 3 and more", "41 % against 27 % (p 0.001)")],
        )
        for segment_id, name in NAMES.items()
    ]


def _ledger() -> list[LedgerRow]:
    history: dict[str, list[int | None]] = {
        "s001": [905, 899, 921, 912],
        "s002": [731, 742, 738, 744],
        "s003": [744, 733, 741, 456],
        "s005": [None, None, None, 288],
    }
    rows = []
    for position, week in enumerate(("2017-10-30", "2017-11-06", "2017-11-13", "2017-11-20")):
        for segment_id, sizes in history.items():
            size = sizes[position]
            if size is None:
                continue
            previous = sizes[position - 1] if position else None
            event = "survive" if previous else ("split" if segment_id == "s005" else "emerge")
            parents = ("s003",) if event == "split" else ()
            rows.append(LedgerRow(week, segment_id, NAMES[segment_id], event, size, previous, parents))
    return rows
