"""A log in which the week ahead is announced by words and by the order of events, as well as by what can be counted.

Users have a style that runs through all categories and shows in the words of what they buy; each week, each style shops in
a category of that week's. A user who is about to leave asks for help after purchases instead of before them. How much
somebody buys is a habit. No segflow code is used here, and no assertion is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

START = datetime(2024, 1, 1, tzinfo=UTC)
"""A Monday."""
EVENT_TYPES = ("cart", "help", "purchase", "view")

_STYLES = (
    ("organic", "vegan", "fair trade", "compostable"),
    ("luxury", "gold plated", "designer", "exclusive"),
    ("dinosaur", "cartoon", "toddler", "playful"),
    ("army", "camouflage", "tactical", "survival"),
    ("gothic", "skull", "vampire", "haunted"),
    ("nautical", "sailor", "anchor", "lighthouse"),
    ("floral", "rose", "botanical", "blossom"),
    ("robot", "cyber", "space", "neon"),
)
_CATEGORIES = (
    "lamp", "mug", "backpack", "shirt", "blanket", "notebook",
    "clock", "umbrella", "pillow", "scarf", "plate", "watch",
)  # fmt: skip
# In its week, a category takes so much of a style's purchases; the rest goes to all categories alike.
_SEASON = 0.7
# A week's chance to leave, how many weeks before it shows, how many visits ask for help, and how many of them misleadingly.
_LEAVING = 0.1
_WARNING_WEEKS = 2
_HELP = 0.9
_NOISE = 0.02


@dataclass(frozen=True)
class ForetoldLog:
    """Events and sessions up to `end`, the last week of which is the one to foretell, and the text of every item."""

    events: pa.Table
    sessions: pa.Table
    item_texts: dict[str, str]
    week: datetime
    end: datetime


def foretold_log(users: int = 1000, weeks: int = 11, seed: int = 0) -> ForetoldLog:
    """About `users * weeks * 8` events; half of the users come in the course of the log."""
    rng = np.random.default_rng(seed)
    texts = [f"{word} {noun}" for words in _STYLES for noun in _CATEGORIES for word in words]
    prices = np.round(20 * rng.lognormal(0, 0.4, len(texts)), 2)
    user, week, leaving = _presence(rng, users, weeks)
    style, habit = rng.integers(len(_STYLES), size=users), 3.0 * rng.lognormal(0, 0.4, users)
    seasons = np.stack([rng.permutation(len(_CATEGORIES))[: len(_STYLES)] for _ in range(weeks)])

    visits = rng.poisson(habit[user])
    user, week, warned = (part.repeat(visits) for part in (user, week, leaving))
    seconds = rng.integers(0, 7 * 86_400 - 1_800, len(user))
    order = np.lexsort((seconds, week, user))
    user, week, warned, seconds = user[order], week[order], warned[order], week[order] * 7 * 86_400 + seconds[order]
    # Visits of a user that follow within the half hour would be one session.
    apart = np.append(True, (np.diff(seconds) > 5_400) | (np.diff(user) != 0))
    user, week, warned, seconds = user[apart], week[apart], warned[apart], seconds[apart]

    category = rng.integers(len(_CATEGORIES), size=(len(user), 2))
    in_season = rng.random(len(user)) < _SEASON
    category[in_season, 0] = seasons[week[in_season], style[user[in_season]]]
    words = rng.integers(len(_STYLES[0]), size=(len(user), 2))
    item = (style[user][:, None] * len(_CATEGORIES) + category) * len(_STYLES[0]) + words
    helped = rng.random(len(user)) < _HELP
    after = np.where(rng.random(len(user)) < _NOISE, ~warned, warned)
    kinds = np.where(after[:, None], [3, 0, 2, 1, 3], [3, 1, 0, 2, 3])
    kept = helped[:, None] | (kinds != 1)
    return _tables(user, seconds, item, kinds, kept, texts, prices, weeks)


def _presence(rng: np.random.Generator, users: int, weeks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weeks in which users are there, as (user, week, whether it is one of the last before leaving)."""
    arrives = np.where(rng.random(users) < 0.5, 0, rng.integers(0, max(weeks - 4, 1), users))
    leaves = arrives + _WARNING_WEEKS + rng.geometric(_LEAVING, users)
    user, week = np.nonzero((np.arange(weeks) >= arrives[:, None]) & (np.arange(weeks) < leaves[:, None]))
    return user, week, week >= leaves[user] - _WARNING_WEEKS


def _tables(
    user: np.ndarray,
    seconds: np.ndarray,
    item: np.ndarray,
    kinds: np.ndarray,
    kept: np.ndarray,
    texts: list[str],
    prices: np.ndarray,
    weeks: int,
) -> ForetoldLog:
    items = np.repeat(item, [4, 1], axis=1)[kept]
    moments = (seconds[:, None] + 90 * np.arange(kinds.shape[1]))[kept]
    start = int(START.timestamp())
    values = np.where(kinds[kept] == 2, prices[items], 0.0)
    owner, size = user.repeat(kept.sum(axis=1)), kept.sum(axis=1)
    ids = np.array([f"i{number:03d}" for number in range(len(texts))])
    events = pa.table(
        {
            "user_id": [f"u{one:05d}" for one in owner],
            "item_id": ids[items].tolist(),
            "event_type": np.array(EVENT_TYPES)[kinds[kept]].tolist(),
            "ts": _moments(start + moments),
            "value": values,
            "category": np.array(_CATEGORIES)[items // len(_STYLES[0]) % len(_CATEGORIES)].tolist(),
        }
    )
    stops = np.cumsum(size)
    offsets = pa.array(np.append(0, stops).astype(np.int32))
    sessions = pa.table(
        {
            "user_id": [f"u{one:05d}" for one in user],
            "start": _moments(start + moments[stops - size]),
            "end": _moments(start + moments[stops - 1]),
            "events": size,
            "value": np.add.reduceat(values, stops - size),
            "items": pa.ListArray.from_arrays(offsets, events["item_id"].combine_chunks()),
        }
    )
    end = START + timedelta(weeks=weeks)
    return ForetoldLog(events, sessions, dict(zip(ids.tolist(), texts, strict=True)), end - timedelta(weeks=1), end)


def _moments(seconds: np.ndarray) -> pa.Array:
    return pa.array(seconds.astype(np.int64) * 1_000_000).cast(pa.timestamp("us", tz="UTC"))
