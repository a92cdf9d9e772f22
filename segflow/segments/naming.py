"""Short names for new segments, from what sets them apart most. The same facts give the same name.

What does not live here: when a segment is named (the ledger keeps names), the facts themselves, and names by a language
model (`language_names.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]

Namer = Callable[[str, Mapping[str, Sequence[Row]]], str | None]
"""Proposes a name for a segment, given the contrasts of all; None when it has none that fits."""

# Below this a standardized difference is less than "small" (Cohen, Statistical Power Analysis, 1988).
_SMALLEST_DIFFERENCE = 0.2
_SMALLEST_LIFT = 1.1


class _Word(NamedTuple):
    family: str  # of several words for one thing only the strongest is used
    high: str | None
    low: str | None


_WORDS = {
    "log_sessions_per_week_long": _Word("frequency", "frequent", "occasional"),
    "log_sessions_per_week_recent": _Word("frequency", "frequent", "occasional"),
    "log_gap_days_mean": _Word("frequency", "occasional", "frequent"),
    "log_value_total": _Word("value", "high-value", "low-value"),
    "log_value_per_session": _Word("basket", "big-basket", "small-basket"),
    "log_events_per_session": _Word("basket", "long-session", "short-session"),
    "log_recency_days": _Word("recency", "lapsing", None),
    "log_tenure_days": _Word("tenure", "long-standing", "new"),
    "log_distinct_items": _Word("variety", "broad-range", "narrow-range"),
    "log_distinct_categories": _Word("variety", "broad-range", "narrow-range"),
    "category_entropy_bits": _Word("variety", "broad-range", "narrow-range"),
    "share_repeated_items": _Word("habit", "habitual", "exploring"),
    "share_events_with_value": _Word("conversion", "buying", "browsing"),
    "price_level": _Word("price", "premium", "budget"),
    "share_night": _Word("hour", "night", None),
    "share_morning": _Word("hour", "morning", None),
    "share_afternoon": _Word("hour", "afternoon", None),
    "share_evening": _Word("hour", "evening", None),
    "share_weekend": _Word("weekday", "weekend", "weekday"),
}


def strongest_features(contrasts: Sequence[Row]) -> list[Row]:
    """Feature contrasts that a word exists for, at most one per family, the largest difference first."""
    found: dict[str, Row] = {}
    rows = [row for row in contrasts if row["kind"] == "feature" and _word(row)]
    for row in sorted(rows, key=lambda row: (-abs(row["difference"]), row["feature"])):
        if abs(row["difference"]) >= _SMALLEST_DIFFERENCE and row["low"] * row["high"] > 0:
            found.setdefault(_WORDS[row["feature"]].family, row)
    return list(found.values())


def strongest_categories(contrasts: Sequence[Row]) -> list[Row]:
    """Categories that the segment surely favours, by their part in the divergence from the rest: share * log lift."""
    rows = [row for row in contrasts if row["kind"] == "category" and row["lift"] and row["low"]]
    rows = [row for row in rows if row["lift"] >= _SMALLEST_LIFT and row["low"] > 1]
    return sorted(rows, key=lambda row: (-row["share_segment"] * np.log(row["lift"]), row["category"]))


def name(contrasts: Sequence[Row], taken: Collection[str]) -> str:
    """A name such as "Frequent high-value, produce & meat" that is not in `taken` (compared without case).

    `contrasts` are the rows of one segment from `contrasts.py`: up to two engagement words from the strongest
    feature contrasts, then up to two categories. If that name is taken, weaker facts replace stronger ones, the
    strongest combination first; a number is the last resort.
    """
    used = {one.casefold() for one in taken}
    words = [word for row in strongest_features(contrasts) if (word := _word(row))]
    # "meat & packaged meat" would say one thing twice: one category for each first word.
    by_word: dict[str, str] = {}
    for row in strongest_categories(contrasts):
        by_word.setdefault(re.split(r"\W", readable(row["category"]))[0], readable(row["category"]))
    categories = list(by_word.values())
    candidates = list(_candidates(words, categories)) or ["Typical"]
    for candidate in candidates:
        if candidate.casefold() not in used:
            return candidate
    numbered = (f"{candidates[0]} {number}" for number in itertools.count(2))
    return next(candidate for candidate in numbered if candidate.casefold() not in used)


def names_for(
    newborns: Collection[str],
    contrasts: Mapping[str, Sequence[Row]],
    taken: Collection[str],
    namer: Namer | None = None,
) -> dict[str, str]:
    """A name for each segment of `newborns`, none twice and none in `taken` (compared without case).

    `contrasts` holds the rows of every segment of the snapshot; one without rows is as typical as can be. What `namer`
    proposes is taken where it is free, else the template's name.
    """
    names: dict[str, str] = {}
    for segment_id in sorted(newborns):
        used = [*taken, *names.values()]
        proposed = namer(segment_id, contrasts) if namer else None
        if proposed is None or proposed.casefold() in {one.casefold() for one in used}:
            proposed = name(contrasts.get(segment_id, []), used)
        names[segment_id] = proposed
    return names


def _candidates(words: Sequence[str], categories: Sequence[str]) -> Iterator[str]:
    for subjects in _pairs(categories[:4]):
        for pair in _pairs(words[:4]):
            text = ", ".join(part for part in (" ".join(pair), " & ".join(subjects)) if part)
            if text:
                yield text[0].upper() + text[1:]


def _pairs(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Pairs in order of strength; a single word, or none, when there are no more."""
    return list(itertools.combinations(words, min(2, len(words))))


def _word(row: Row) -> str | None:
    word = _WORDS.get(row["feature"])
    return (word.high if row["difference"] > 0 else word.low) if word else None


def readable(category: str) -> str:
    """A category as it stands in a sentence: lower case, single spaces."""
    return " ".join(category.replace("_", " ").lower().split())
