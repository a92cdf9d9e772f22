"""A segment in plain words: sentences for people who know no statistics, from the same rows that the tables show.

What does not live here: names (`naming.py`) and the figures themselves (`contrasts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from segflow.segments.naming import readable, strongest_categories, strongest_features

Row = dict[str, Any]

_SURE = 0.05
_FRACTIONS = {2: "half of", 3: "a third of", 4: "a quarter of", 5: "a fifth of", 10: "a tenth of"}


class _Saying(NamedTuple):
    more: str  # what people do of whom the feature is high
    less: str
    number: str  # how its value is spelled
    unit: str


_SAYINGS = {
    "log_sessions_per_week_long": _Saying("come more often", "come less often", "{:.2g}", "visits a week"),
    "log_sessions_per_week_recent": _Saying("came more often lately", "came less often lately", "{:.2g}", "visits a week"),
    "log_gap_days_mean": _Saying("leave more time between visits", "come back sooner", "{:.2g}", "days"),
    "log_gap_days_std": _Saying("come at irregular times", "come regularly", "{:.2g}", "days more or less"),
    "log_value_total": _Saying("spend more", "spend less", "{:,.0f}", "in all"),
    "log_value_per_session": _Saying("spend more on each visit", "spend less on each visit", "{:,.3g}", "a visit"),
    "log_events_per_session": _Saying("do more on each visit", "do less on each visit", "{:.2g}", "steps a visit"),
    "log_minutes_per_session": _Saying("stay longer", "stay for a shorter time", "{:.2g}", "minutes a visit"),
    "log_recency_days": _Saying("have not come for a while", "were here recently", "{:.2g}", "days ago"),
    "log_tenure_days": _Saying("have been here longer", "are newer", "{:,.0f}", "days ago for the first time"),
    "log_distinct_items": _Saying("try many different things", "keep to few different things", "{:,.0f}", "items"),
    "log_distinct_categories": _Saying("look into many categories", "keep to few categories", "{:.0f}", "categories"),
    "category_entropy_bits": _Saying("spread over many categories", "concentrate on few categories", "", ""),
    "share_repeated_items": _Saying(
        "mostly take what they had before", "often try something new", "{:.0%}", "of what they take they had before"
    ),
    "share_events_with_value": _Saying("buy more of what they see", "look more than they buy", "{:.0%}", "of steps are paid"),
    "price_level": _Saying("choose the dearer goods", "choose the cheaper goods", "{:+.0%}", "against the usual price"),
    "share_night": _Saying("come more at night", "come less at night", "{:.0%}", "of visits"),
    "share_morning": _Saying("come more in the morning", "come less in the morning", "{:.0%}", "of visits"),
    "share_afternoon": _Saying("come more in the afternoon", "come less in the afternoon", "{:.0%}", "of visits"),
    "share_evening": _Saying("come more in the evening", "come less in the evening", "{:.0%}", "of visits"),
    "share_friday": _Saying("come more on Fridays", "come less on Fridays", "{:.0%}", "of visits"),
    "share_weekend": _Saying("come more at the weekend", "come more during the week", "{:.0%}", "of visits at the weekend"),
}  # fmt: skip


def story(share_of_users: float, share_of_value: float, contrasts: Sequence[Row]) -> str:
    """Two to four short sentences: how many and what they bring, what they do, what they like, who they are.

    `contrasts` are all rows of one segment from `contrasts.py`, with q_value.
    """
    sentences = [_size(share_of_users, share_of_value), *_habits(contrasts), *_likes(contrasts), *_people(contrasts)]
    if len(sentences) == 1:
        sentences.append("Nothing that was measured sets them clearly apart from the others.")
    return " ".join(sentences)


def facts(contrasts: Sequence[Row]) -> str:
    """What sets a segment apart as one short text without numbers, the strongest first."""
    habits = [_doing(row) for row in strongest_features(contrasts)[:4]]
    likes = [readable(row["category"]) for row in strongest_categories(contrasts)[:4]]
    return "; ".join([*habits, *([f"like {', '.join(likes)}"] if likes else [])]) or "like everybody else"


def more_of(feature: str) -> str:
    """What people do of whom `feature` is high; its name if there are no words for it."""
    saying = _SAYINGS.get(feature)
    return saying.more if saying else feature.replace("_", " ")


def _size(share_of_users: float, share_of_value: float) -> str:
    if share_of_users > 0.995:
        return "Everybody is in this one segment."
    if not share_of_value:
        return f"They are {_fraction(share_of_users)} all users."
    return f"They are {_fraction(share_of_users)} all users and bring {_fraction(share_of_value)} the money."


def _fraction(share: float) -> str:
    for parts, words in _FRACTIONS.items():
        if abs(share - 1 / parts) < 0.01:
            return f"about {words}"
    return f"{share:.0%} of" if share >= 0.01 else "less than 1% of"


def _habits(contrasts: Sequence[Row]) -> list[str]:
    told = []
    for row in strongest_features(contrasts)[:2]:
        saying = _SAYINGS[row["feature"]]
        own, others = (saying.number.format(row[f"median_{side}"]) for side in ("segment", "rest"))
        told.append(f"{_doing(row)} (typically {own} {saying.unit}, others {others})" if own != others else _doing(row))
    return [f"They {' and '.join(told)}."] if told else []


def _doing(row: Row) -> str:
    saying = _SAYINGS[row["feature"]]
    return saying.more if row["difference"] > 0 else saying.less


def _likes(contrasts: Sequence[Row]) -> list[str]:
    rows = strongest_categories(contrasts)[:3]
    if not rows:
        return []
    names = [f"{readable(row['category'])} ({_times(row['lift'])})" for row in rows]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return [f"Compared with others, a larger part goes to {listed}."]


def _times(lift: float) -> str:
    if lift < 1.95:
        return f"{lift - 1:.0%} more"
    return f"{lift:.1f} times the others' part" if lift < 9.95 else f"{lift:,.0f} times the others' part"


def _people(contrasts: Sequence[Row]) -> list[str]:
    rows = [
        row
        for row in contrasts
        if row["kind"] == "attribute" and row["q_value"] is not None and row["q_value"] < _SURE and row["lift"] > 1
    ]
    if not rows:
        return []
    best = max(rows, key=lambda row: (row["share_segment"] - row["share_rest"], row["attribute"], row["value"]))
    what = f"{best['attribute'].replace('_', ' ')} “{best['value']}”"
    return [
        f"Where it is known, {what} is found more often: {best['share_segment']:.0%} against {best['share_rest']:.0%}."
    ]
