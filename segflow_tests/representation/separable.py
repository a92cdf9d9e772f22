"""Three small logs with planted segments that differ in one thing only: the words of items, the rhythm, or the order of events.

Whatever does not tell the segments apart is drawn alike for everybody. No segflow code is used here, and no assertion is
made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pyarrow as pa

SEGMENTS, USERS, WEEKS, SESSIONS_A_WEEK = 3, 120, 12, 2
START = datetime(2024, 1, 1, tzinfo=UTC)
"""A Monday."""
END = START + timedelta(weeks=WEEKS)
TYPES = ("cart", "purchase", "search", "view")

_WORDS = (
    ("tomato", "basil", "garden", "compost", "seedling", "watering can", "lawn", "rose bush"),
    ("gaming", "keyboard", "graphics card", "console", "joystick", "monitor", "headset", "racing wheel"),
    ("newborn", "diapers", "teething ring", "crib sheet", "baby bottle", "stroller", "pacifier", "rattle"),
)
_ITEMS_OF_A_USER = 5
_SHARED_ITEMS = 40
# Each starts with a search; no step from one type to the next is common to all three.
_ORDERS = ((2, 3, 0, 1), (2, 0, 1, 3), (2, 1, 3, 0))
# Hour (UTC) and days of the week of a segment's sessions.
_RHYTHMS = ((8, (0, 1, 2, 3)), (20, (0, 1, 2, 3)), (14, (5, 6)))

Kind = Literal["text", "rhythm", "order"]


@dataclass(frozen=True)
class SeparableLog:
    """Events and sessions as the views take them, the text of every item, and the segment of every user in order of id."""

    events: pa.Table
    sessions: pa.Table
    item_texts: dict[str, str]
    truth: np.ndarray


def separable_log(kind: Kind, seed: int = 0) -> SeparableLog:
    """The log whose segments differ in `kind` only.

    Every user has two sessions a week, each of one event of each type, all of one price and category. Texts: everybody
    has items of their own, so that an item's id tells nothing of what users have in common. Elsewhere items are shared.
    """
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(USERS) % SEGMENTS)
    users, begins, items, types = [], [], [], []
    for user, segment in enumerate(truth):
        for week in range(WEEKS):
            hour, days = _RHYTHMS[segment if kind == "rhythm" else rng.integers(SEGMENTS)]
            for day in rng.choice(days, SESSIONS_A_WEEK, replace=False):
                begin = START + timedelta(weeks=week, days=int(day), hours=float(hour + rng.normal(0, 0.7)))
                own = user * _ITEMS_OF_A_USER + rng.integers(_ITEMS_OF_A_USER, size=len(TYPES))
                users.append(f"u{user:03d}")
                begins.append(begin)
                items.append(own if kind == "text" else rng.integers(_SHARED_ITEMS, size=len(TYPES)))
                types.append(_ORDERS[segment] if kind == "order" else rng.permutation(len(TYPES)))
    order = sorted(range(len(users)), key=lambda one: (users[one], begins[one]))
    return SeparableLog(
        _events([users[one] for one in order], *([part[one] for one in order] for part in (begins, items, types))),
        _sessions([users[one] for one in order], *([part[one] for one in order] for part in (begins, items))),
        _texts(rng, truth, kind),
        truth,
    )


def _events(users: list[str], begins: list[datetime], items: list[np.ndarray], types: list[np.ndarray]) -> pa.Table:
    rows = len(users) * len(TYPES)
    return pa.table(
        {
            "user_id": np.repeat(users, len(TYPES)),
            "item_id": [f"i{item:03d}" for one in items for item in one],
            "event_type": [TYPES[one] for session in types for one in session],
            "ts": pa.array(
                [begin + timedelta(minutes=step) for begin in begins for step in range(len(TYPES))],
                pa.timestamp("us", tz="UTC"),
            ),
            "value": np.full(rows, 5.0),
            "category": np.full(rows, "all"),
        }
    )


def _sessions(users: list[str], begins: list[datetime], items: list[np.ndarray]) -> pa.Table:
    ends = [begin + timedelta(minutes=len(TYPES) - 1) for begin in begins]
    return pa.table(
        {
            "user_id": users,
            "start": pa.array(begins, pa.timestamp("us", tz="UTC")),
            "end": pa.array(ends, pa.timestamp("us", tz="UTC")),
            "events": np.full(len(users), len(TYPES)),
            "value": np.full(len(users), 5.0 * len(TYPES)),
            "items": pa.array([[f"i{item:03d}" for item in one] for one in items], pa.list_(pa.string())),
        }
    )


def _texts(rng: np.random.Generator, truth: np.ndarray, kind: Kind) -> dict[str, str]:
    """Two words of the owner's theme, or of any."""
    count = USERS * _ITEMS_OF_A_USER if kind == "text" else _SHARED_ITEMS
    themes = truth.repeat(_ITEMS_OF_A_USER) if kind == "text" else rng.integers(SEGMENTS, size=count)
    words = [rng.choice(_WORDS[theme], 2, replace=False) for theme in themes]
    return {f"i{number:03d}": " ".join(pair) for number, pair in enumerate(words)}
