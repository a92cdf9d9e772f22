"""What each segment takes more than others: its items, and the words of their texts.

What does not live here: categories and their intervals (`contrasts.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

Row = dict[str, Any]

MIN_LIFT = 1.2
"""What is hardly more common than elsewhere sets nobody apart, however frequent."""


def distinctive_terms(counts: pd.DataFrame, term: str, top: int, min_cell: int) -> list[Row]:
    """The terms that set each segment apart, by class-based TF-IDF: `top` rows per segment, best first.

    `counts` has segment_id, the column `term`, events and users. c-TF-IDF as in BERTopic (Grootendorst 2022,
    arXiv:2203.05794): a term's share of the segment's events, times log(1 + A / f) with A the mean events per segment
    and f the term's events overall. What is popular everywhere scores high as well, so only terms with `min_cell`
    users and a lift of 1.2 over the other segments are kept; `lift` is None where fewer than `min_cell` others have the term.
    """
    if counts.empty:
        return []
    codes, terms = pd.factorize(counts[term], sort=True)
    rows_of, segments = pd.factorize(counts["segment_id"], sort=True)
    shape = (len(segments), len(terms))
    events, users = np.zeros(shape), np.zeros(shape)
    events[rows_of, codes] = counts["events"]
    users[rows_of, codes] = counts["users"]
    size = events.sum(axis=1, keepdims=True)
    overall = events.sum(axis=0)
    score = events / size * np.log1p(size.mean() / overall)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (events / size) / ((overall - events) / (size.sum() - size))
    rows: list[Row] = []
    for i, segment in enumerate(segments):
        kept = np.flatnonzero((users[i] >= min_cell) & (lift[i] >= MIN_LIFT))
        told = users.sum(axis=0) - users[i] >= min_cell
        best = kept[np.argsort(-score[i, kept], kind="stable")][:top]
        rows.extend(
            {
                "segment_id": segment,
                term: terms[j],
                "c_tf_idf": float(score[i, j]),
                "lift": float(lift[i, j]) if told[j] else None,
                "users": int(users[i, j]),
            }
            for j in best
        )
    return rows
