"""Rows of the tables that the page of a week's segments is made from: three segments, a split, a newcomer, eight weeks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np

Row = dict[str, Any]

WEEKS = [date(2026, 1, 5) + timedelta(days=7 * number) for number in range(3)]
WEEK = WEEKS[-1]
NAMES = {
    "s001": "Frequent <b>high-value</b>, produce & meat",
    "s003": "Costs $5 to $9 \u202ereversed\x07, 日本 food",
    "s004": "New, books",
}
FORMER = "Weekend, toys"


def ledger() -> list[Row]:
    """s001 goes on throughout; s002 splits into s003 and s004 in the last week."""
    rows = [_living(WEEKS[0], one, name, "emerge", 100, 0, {"new": 100}) for one, name in _before().items()]
    for one, name in _before().items():
        rows.append(_living(WEEKS[1], one, name, "survive", 100, 100, {one: 95, "new": 5}))
    return [
        *rows,
        _living(WEEK, "s001", NAMES["s001"], "survive", 110, 100, {"s001": 80, "s002": 4, "new": 26}),
        _living(WEEK, "s003", NAMES["s003"], "split", 60, 0, {"s002": 55, "new": 5}) | {"parents": ["s002"]},
        _living(WEEK, "s004", NAMES["s004"], "split", 30, 0, {"s002": 30}) | {"parents": ["s002"]},
        _living(WEEK, "s002", FORMER, "split", 0, 100, {}) | {"cluster": None},
    ]


def _before() -> dict[str, str]:
    return {"s001": NAMES["s001"], "s002": FORMER}


def _living(
    week: date, one: str, name: str, event: str, users: int, previous: int, migration: Mapping[str, int]
) -> Row:
    return {
        "week": week, "segment_id": one, "name": name, "former_name": None, "event": event, "cluster": 0, "users": users,
        "previous_users": previous, "overlap": 0.9, "parents": [one] if previous else [], "migration": json.dumps(migration),
    }  # fmt: skip


def profiles(epsilon: float | None = None) -> list[Row]:
    """A profile for each living segment of each week."""
    living = [row for row in ledger() if row["cluster"] is not None]
    totals = {week: sum(row["users"] for row in living if row["week"] == week) for week in WEEKS}
    return [
        {
            "week": row["week"], "segment_id": row["segment_id"], "name": row["name"], "users": row["users"],
            "share_of_users": row["users"] / totals[row["week"]], "value": 10.0 * row["users"],
            "share_of_value": row["users"] / totals[row["week"]], "summary": "", "details": json.dumps(_details(epsilon)),
        }
        for row in living
    ]  # fmt: skip


def _details(epsilon: float | None) -> Row:
    bounds = {"low": 0.5, "high": 3.0}
    known = {"p_value": 0.001, "q_value": 0.002, "clustered_on": False}
    seen = {"p_value": None, "q_value": None, "clustered_on": True}
    return {
        "story": "They are about half of all users. They come more often.",
        "contrasts": [
            {"kind": "attribute", "attribute": "age_group", "value": "25-34", "share_segment": 0.4, "share_rest": 0.2,
             "lift": 2.0, **bounds, **known},
            {"kind": "category", "category": "FRESH_PRODUCE", "share_segment": 0.3, "share_rest": 0.15, "lift": 2.0,
             **bounds, **seen},
            {"kind": "category", "category": "NEVER", "share_segment": 0.0, "share_rest": 0.1, "lift": None, "low": None,
             "high": None, **seen},
            {"kind": "feature", "feature": "log_sessions_per_week_long", "shown_as": "sessions_per_week_long",
             "median_segment": 2.4, "median_rest": 0.7, "difference": 1.3, **bounds, **seen},
            {"kind": "feature", "feature": "unheard_of", "shown_as": "unheard_of", "median_segment": 2.4,
             "median_rest": 0.7, "difference": -0.9, "low": -1.2, "high": -0.6, **seen},
        ],
        "items": [{"item_id": "i1", "title": "Oat milk"}, {"item_id": "i2", "title": None}],
        "words": [{"word": "organic"}],
        "journeys": [{"from": "PRODUCE", "to": "DAIRY", "probability": 0.4, "lift": 2.2, "users": 40}],
        "graph": {"states": [{"state": "PRODUCE", "share": 0.5, "entry": 0.6, "exit": None}], "steps": []},
        "hidden": [],
        "baskets": [
            {"antecedents": ["BREAD"], "consequent": "BUTTER", "confidence": 0.6, "confidence_rest": None, "lift": 2.0}
        ],
        "rules": [{"rule": "sessions_per_week_long > 0.77", "precision": 0.86, "coverage": None}],
        "exemplars": ["ab"],
        "associations": [
            {"attribute": "age_group", "users": None, "cramers_v": 0.3, "cramers_v_by_chance": 0.05, "p_value": 0.0004}
        ],
        "surrogate": {"fidelity": 0.8, "baseline": 0.5, "held_out_users": None, "rules": []},
        "distances": {"segments": sorted(NAMES), "matrix": [[0.0, 1.5, 2.0], [1.5, 0.0, 1.0], [2.0, 1.0, 0.0]]},
        "privacy": {"min_cell": 10, "exemplars": "keyed", "epsilon": epsilon, "mechanism": epsilon and "discrete Laplace",
                    "counts": None},
        "naming": {"given": {"share": 1.0, "by_chance": 0.3}, "template": {"share": 1.0, "by_chance": 0.3}},
    }  # fmt: skip


def sweep(verdict: str = "segments") -> list[Row]:
    """Candidates from two to five segments; three are chosen if the verdict is that there are segments."""
    return [
        {
            "algorithm": "kmeans", "parameter": float(k), "k": k, "silhouette": 0.4 - 0.05 * abs(k - 3),
            "null_silhouette": 0.1, "separation": 0.3 - 0.05 * abs(k - 3), "border": 0.2, "null_border": 0.5,
            "stability_mean": 0.9 - 0.1 * abs(k - 3), "stability_min": 0.8 - 0.1 * abs(k - 3),
            "chosen": verdict == "segments" and k == 3, "verdict": verdict,
        }
        for k in range(2, 6)
    ]  # fmt: skip


def users(seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Vectors of 200 users around three centres and 20 of no segment, with their segments."""
    generator = np.random.default_rng(seed)
    centres = {"s001": (6.0, 0.0, 0.0), "s003": (0.0, 6.0, 0.0), "s004": (0.0, 5.5, 1.0), "unassigned": (0.0, 0.0, 0.0)}
    sizes = {"s001": 110, "s003": 60, "s004": 30, "unassigned": 20}
    vectors = np.concatenate([generator.normal(centres[one], 1.0, (size, 3)) for one, size in sizes.items()])
    return vectors.astype(np.float32), [one for one, size in sizes.items() for _ in range(size)]
