"""A seeded log of a shop with planted user segments: what the tests know the truth of.

Segments differ in taste (departments), rhythm (sessions a week, hour of the day), price level and journey (view, cart,
purchase). Popularity is skewed, a seventh of the looks are off-taste, users differ inside a segment, and a
tenth of them arrive in the course of the log. No segflow code is used here, and no assertion is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

START = date(2024, 1, 1)
"""A Monday."""

DEPARTMENTS: Mapping[str, tuple[str, ...]] = {
    "baby": (
        "newborn diapers", "baby wipes", "infant formula", "teething ring", "stroller rain cover",
        "cotton bodysuit", "night light", "bottle warmer", "soft rattle", "crib sheet",
    ),
    "garden": (
        "tomato seeds", "pruning shears", "potting soil", "watering can", "rose fertilizer",
        "garden hose", "terracotta planter", "lawn rake", "bird feeder", "compost bin",
    ),
    "gaming": (
        "gaming keyboard", "wireless controller", "graphics card", "headset with microphone", "strategy game",
        "racing wheel", "mouse pad", "console charging dock", "racing game", "capture card",
    ),
    "wine and cheese": (
        "red bordeaux wine", "aged cheddar", "sparkling prosecco", "blue cheese", "white burgundy wine",
        "goat cheese", "port wine", "cheese knife set", "corkscrew", "wine decanter",
    ),
    "toys": (
        "wooden train set", "building blocks", "plush bear", "jigsaw for toddlers", "finger paint",
        "toy kitchen", "doll house", "stacking cups", "bath duck", "musical xylophone",
    ),
    "tools": (
        "cordless drill", "claw hammer", "tape measure", "screwdriver set", "circular saw",
        "wood screws", "sandpaper", "paint roller", "step ladder", "socket wrench",
    ),
    "computers": (
        "gaming laptop", "solid state drive", "memory module", "curved monitor", "usb hub",
        "power supply unit", "cooling fan", "webcam", "network router", "hdmi cable",
    ),
    "delicatessen": (
        "black olives", "smoked salmon", "truffle oil", "prosciutto", "fig jam",
        "dark chocolate truffles", "sourdough crackers", "pickled artichokes", "balsamic vinegar", "duck pate",
    ),
    "children's clothes": (
        "toddler raincoat", "kids sneakers", "school backpack", "striped pajamas", "knitted mittens",
        "sun hat for kids", "denim dungarees", "party dress for girls", "swim shorts for boys", "warm tights",
    ),
    "outdoor furniture": (
        "garden bench", "patio umbrella", "hammock", "picnic table", "sun lounger",
        "fire pit", "outdoor cushion", "charcoal grill", "porch swing", "solar lantern",
    ),
    "films and music": (
        "science fiction film", "vinyl record", "bluetooth speaker", "studio headphones", "concert film",
        "superhero comic", "guitar strings", "poster of a band", "film soundtrack", "fantasy series box set",
    ),
    "kitchen": (
        "cast iron skillet", "chef's knife", "espresso machine", "dutch oven", "pasta maker",
        "crystal wine glasses", "linen napkins", "copper saucepan", "pepper mill", "serving platter",
    ),
}  # fmt: skip
"""Department -> its items. Department number n is to the taste of segment n modulo the number of segments."""

_TYPES = np.array(["view", "cart", "purchase"])
_OFF_TASTE = 0.15
_WEEKEND = np.array([0.8, 0.8, 0.8, 0.8, 1.0, 1.4, 1.4]) / 7.0

# One row a segment: sessions a week, hour (UTC), looks a session, chance to cart, chance to buy then, price level.
_HABITS = np.array(
    [
        [3.0, 10.0, 3.0, 0.45, 0.80, 1.0],  # little and often, straight to the point
        [1.4, 17.0, 6.0, 0.30, 0.60, 3.0],  # rare long visits
        [4.0, 22.5, 4.0, 0.15, 0.40, 6.0],  # browses late into the night, seldom buys
        [2.2, 19.0, 3.0, 0.60, 0.95, 2.0],  # evening shopper with a list
        [3.8, 7.0, 2.5, 0.30, 0.60, 0.6],
        [1.8, 13.0, 6.0, 0.35, 0.30, 4.0],
    ]
)


@dataclass(frozen=True)
class PlantedLog:
    """Where the log lies and what is true of it.

    `truth` maps user to planted segment; `rows` counts the clean rows. `dirt` counts the rows added to
    them, by the reason for which they are no events.
    """

    events: Path
    items: Path
    truth: dict[str, int]
    start: date
    end: date
    rows: int
    dirt: dict[str, int] = field(default_factory=dict)


def planted_log(
    folder: Path, users: int = 240, weeks: int = 16, segments: int = 4, seed: int = 0, *, dirt: bool = False
) -> PlantedLog:
    """Write events.csv (user, item, type, time, price) and items.csv (product, name, department, price) to `folder`.

    Times are UTC without a zone, in order, one second fine, in [start, end); no two clean rows equal. The default is
    about 50,000 rows; `end` is `weeks` weeks after `start`.
    """
    if not 2 <= segments <= len(_HABITS):
        raise ValueError(f"segments must be 2 to {len(_HABITS)}")
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(users) % segments)
    items = _items(rng, segments)
    events = _events(rng, truth, items, weeks, segments)
    rows = len(events)
    names = [f"u{number:04d}" for number in range(users)]
    events["user"] = np.array(names)[events["user"]]
    events["item"] = items["product"].to_numpy()[events["item"]]
    events["time"] = pd.to_datetime(events["time"], unit="s", origin=pd.Timestamp(START)).dt.strftime(
        "%Y-%m-%d %H:%M:%S"
    )
    events["price"] = events["price"].map("{:.2f}".format)
    events = events[["user", "item", "type", "time", "price"]]
    added: dict[str, int] = {}
    if dirt:
        events, added = _with_dirt(rng, events)
    folder.mkdir(parents=True, exist_ok=True)
    events.to_csv(folder / "events.csv", index=False)
    items[["product", "name", "department", "price"]].to_csv(folder / "items.csv", index=False)
    end = START + timedelta(weeks=weeks)
    planted = {name: int(segment) for name, segment in zip(names, truth, strict=True)}
    return PlantedLog(folder / "events.csv", folder / "items.csv", planted, START, end, rows, added)


def _items(rng: np.random.Generator, segments: int) -> pd.DataFrame:
    """The catalogue, with the segment each item is to the taste of and its popularity (Zipf inside the department)."""
    rows = [
        (name, department, number % segments, 1.0 / (rank + 1.0))
        for number, (department, names) in enumerate(DEPARTMENTS.items())
        for rank, name in enumerate(names)
    ]
    items = pd.DataFrame(rows, columns=["name", "department", "segment", "popularity"])
    items["product"] = [f"p{number:03d}" for number in range(len(items))]
    level = _HABITS[items["segment"], 5]
    items["price"] = np.round(level * 8.0 * rng.lognormal(0.0, 0.3, len(items)), 2)
    return items


def _tastes(rng: np.random.Generator, truth: np.ndarray, items: pd.DataFrame) -> np.ndarray:
    """(users, items) probabilities: mostly the own departments, with favourites that differ from user to user."""
    own = items["segment"].to_numpy()[None, :] == truth[:, None]
    liking = items["popularity"].to_numpy()[None, :] * rng.lognormal(0.0, 0.8, (len(truth), len(items)))
    inside = np.where(own, liking, 0.0)
    tastes = (1.0 - _OFF_TASTE) * inside / inside.sum(axis=1, keepdims=True)
    outside = liking - inside
    return tastes + _OFF_TASTE * outside / outside.sum(axis=1, keepdims=True)


def _draw(rng: np.random.Generator, probabilities: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One draw from `probabilities[row]` for each of `rows`, by inverting the stacked cumulative sums."""
    cumulative = probabilities.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    stacked = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
    found = np.searchsorted(stacked, rows + rng.random(len(rows)), side="right")
    width = probabilities.shape[1]
    return np.minimum(found - rows * width, width - 1)


def _events(
    rng: np.random.Generator, truth: np.ndarray, items: pd.DataFrame, weeks: int, segments: int
) -> pd.DataFrame:
    """Users, items, types, seconds since the start, prices: sessions first, then looks, then what a look leads to."""
    users = len(truth)
    habits = _HABITS[truth]
    arrival = np.where(rng.random(users) < 0.1, rng.integers(0, max(weeks - 2, 1), users), 0)
    rates = habits[:, 0] * rng.lognormal(0.0, 0.15, users)
    active = np.arange(weeks)[None, :] >= arrival[:, None]
    sessions = rng.poisson(rates[:, None] * active)
    owner, week = (index.repeat(sessions.ravel()) for index in np.indices(sessions.shape).reshape(2, -1))
    day = rng.choice(7, len(owner), p=_WEEKEND / _WEEKEND.sum())
    hours = rng.normal(habits[owner, 1] + rng.normal(0.0, 0.5, users)[owner], 1.2)
    begin = ((week * 7 + day) * 24 + hours) * 3600

    looks = 1 + rng.poisson(habits[owner, 2] - 1)
    session = np.arange(len(owner)).repeat(looks)
    user = owner[session]
    item = _draw(rng, _tastes(rng, truth, items), user)
    carted = rng.random(len(user)) < habits[user, 3]
    bought = carted & (rng.random(len(user)) < habits[user, 4])
    price = items["price"].to_numpy()[item] * rng.choice([1.0, 1.0, 1.0, 0.9, 0.8], len(user))

    # Each look is one to three rows; time only moves forward inside a session, by less than its gap.
    steps = 1 + carted + bought
    look = np.arange(len(user)).repeat(steps)
    position = np.arange(len(look)) - (np.cumsum(steps) - steps)[look]
    elapsed = np.minimum(1.0 + rng.exponential(50.0, len(look)), 1200.0).round()
    total = np.cumsum(elapsed)
    first_row = np.searchsorted(session[look], session[look])
    time = np.floor(begin[session[look]]) + total - total[first_row]
    events = pd.DataFrame(
        {
            "user": user[look],
            "item": item[look],
            "type": _TYPES[position],
            "time": time.astype(np.int64),
            "price": price[look],
        }
    )
    events = events[(events["time"] >= 0) & (events["time"] < weeks * 7 * 86_400)]
    events = events.drop_duplicates(["user", "item", "type", "time"])
    return events.sort_values(["time", "user", "type"], kind="stable").reset_index(drop=True)


def _with_dirt(rng: np.random.Generator, events: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows and, behind them, spoilt copies: how many of each, by the reason that quarantines them."""
    shares = {
        "duplicate": 0.01,
        "missing_user": 0.004,
        "unreadable_field": 0.006,
        "non_positive_value": 0.005,
        "outside_calendar": 0.003,
    }
    counts = {reason: int(np.ceil(share * len(events))) for reason, share in shares.items()}
    spoilt = events.iloc[rng.choice(len(events), sum(counts.values()), replace=False)].copy()
    edges = np.cumsum([0, *counts.values()])
    part = {reason: spoilt.index[low:high] for reason, low, high in zip(counts, edges, edges[1:], strict=False)}
    spoilt.loc[part["missing_user"], "user"] = ""
    half = counts["unreadable_field"] // 2
    spoilt.loc[part["unreadable_field"][:half], "time"] = "yesterday"
    spoilt.loc[part["unreadable_field"][half:], "price"] = "n/a"
    spoilt.loc[part["non_positive_value"], "price"] = "0.00"
    spoilt.loc[part["non_positive_value"][::2], "price"] = "-3.50"
    spoilt.loc[part["outside_calendar"], "time"] = "2199-01-01 00:00:00"
    return pd.concat([events, spoilt], ignore_index=True), counts
