"""The shop that the generator makes a log of: its settings, its catalogue and its users, with the segments planted in them.

What users do day by day is in `traffic.py`; files are written in `generator.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from segflow.errors import UserError

Array = npt.NDArray[Any]

# Department -> adjectives, and category -> nouns. Department n is to the taste of segment n modulo the number of segments.
_VOCABULARY: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "baby": (
        "gentle, newborn, organic cotton, washable, hypoallergenic, pastel",
        {
            "baby care": "diapers, wipes, bath lotion, teething ring",
            "nursery": "crib sheet, baby monitor, bottle warmer",
        },
    ),
    "garden": (
        "weatherproof, heirloom, slow release, frost hardy, galvanized, rustic",
        {
            "plants": "tomato seeds, rose bush, tulip bulbs, lawn fertilizer",
            "tools": "pruning shears, rake, watering can",
        },
    ),
    "gaming": (
        "wireless, backlit, tournament, retro, ergonomic, limited edition",
        {
            "consoles": "game controller, charging dock, racing wheel",
            "games": "strategy game, role playing game, arcade game",
        },
    ),
    "wine": (
        "aged, estate, single vineyard, vintage, dry, oak matured",
        {
            "bottles": "bordeaux wine, burgundy wine, prosecco, port wine",
            "bar": "corkscrew, wine decanter, crystal goblet",
        },
    ),
    "workshop": (
        "cordless, heavy duty, forged, compact, carbide, magnetic",
        {
            "power tools": "drill, circular saw, orbital sander",
            "hand tools": "claw hammer, socket wrench, screwdriver set",
        },
    ),
    "fashion": (
        "tailored, silk, slim fit, embroidered, linen, cashmere",
        {
            "clothes": "blazer, evening dress, trousers, blouse, scarf",
            "accessories": "handbag, leather belt, sunglasses",
        },
    ),
    "books": (
        "illustrated, hardcover, prize winning, annotated, bestselling, pocket",
        {
            "fiction": "crime novel, historical novel, short stories",
            "non-fiction": "biography, travel guide, essay volume",
        },
    ),
    "sports": (
        "lightweight, breathable, all terrain, waterproof, training, reflective",
        {
            "outdoors": "hiking boots, trekking tent, rucksack",
            "fitness": "running shoes, yoga mat, dumbbell, cycling jersey",
        },
    ),
    "toys": (
        "wooden, colourful, musical, stackable, plush, toddler",
        {"play": "train set, building blocks, doll house, toy kitchen", "cuddly": "bear, rabbit, rattle, hand puppet"},
    ),
    "patio": (
        "folding, teak, solar, rattan, cushioned, cast iron",
        {
            "furniture": "garden bench, sun lounger, hammock, porch swing",
            "outdoor living": "fire pit, lantern, charcoal grill",
        },
    ),
    "computers": (
        "high speed, curved, overclocked, quiet, modular, mechanical",
        {
            "parts": "graphics card, memory module, cooling fan, solid state drive",
            "devices": "laptop, monitor, keyboard",
        },
    ),
    "delicatessen": (
        "smoked, truffled, artisan, matured, marinated, imported",
        {
            "cheese and meat": "cheddar, blue cheese, prosciutto, salmon",
            "pantry": "olives, fig jam, balsamic vinegar, crackers",
        },
    ),
    "paint and repair": (
        "quick drying, stainless, primer coated, self tapping, sealed, industrial",
        {
            "paint": "wall paint, paint roller, wood varnish",
            "hardware": "wood screws, hinge, step ladder, tape measure",
        },
    ),
    "beauty": (
        "hydrating, matte, fragrance free, radiant, nourishing, rose scented",
        {
            "make-up": "lipstick, mascara, foundation, nail polish",
            "skin care": "night cream, face serum, perfume, hand balm",
        },
    ),
    "film and music": (
        "remastered, live, collector's, acoustic, surround sound, studio",
        {
            "recordings": "vinyl record, concert film, film soundtrack",
            "instruments": "guitar strings, headphones, music stand",
        },
    ),
    "camping and cycling": (
        "insulated, packable, shockproof, rechargeable, titanium, ventilated",
        {
            "camping": "sleeping bag, camp stove, head lamp, water bottle",
            "cycling": "bicycle helmet, bike pump, saddle bag",
        },
    ),
}
_BRANDS = (
    "Aldera",
    "Brightwell",
    "Corvo",
    "Dunmore",
    "Estrel",
    "Fjord & Co",
    "Granite Bay",
    "Halden",
    "Ivory Lane",
    "Juno",
)

DEPARTMENTS = tuple(_VOCABULARY)

# One row a segment: sessions a week, hour (UTC), weekend factor, looks a session, chance to cart, chance to buy then,
# price level.
HABITS = np.array(
    [
        [3.0, 10.0, 0.7, 3.0, 0.45, 0.80, 1.0],  # little and often, straight to the point
        [1.4, 17.0, 2.2, 6.0, 0.30, 0.60, 3.0],  # rare long visits, on weekends
        [4.0, 23.0, 1.3, 4.0, 0.12, 0.40, 6.0],  # browses late into the night, seldom buys
        [2.2, 19.5, 1.0, 2.5, 0.60, 0.95, 2.0],  # evening shopper with a list
        [3.8, 6.5, 0.5, 2.0, 0.30, 0.60, 0.6],  # before work
        [1.8, 13.0, 1.0, 7.0, 0.50, 0.25, 4.0],  # fills carts at noon and leaves them
        [1.0, 21.0, 1.8, 9.0, 0.20, 0.75, 1.4],  # reads long, then decides
        [2.6, 15.0, 1.6, 3.5, 0.35, 0.50, 2.6],
    ]
)
RATE, HOUR, WEEKEND, LOOKS, CART, BUY, PRICE = range(HABITS.shape[1])
ROWS_PER_SESSION = HABITS[:, LOOKS] * (1 + HABITS[:, CART] * (1 + HABITS[:, BUY]))
"""Expected events of a session of each segment."""

_LARGEST_DAY = 5_000_000


@dataclass(frozen=True)
class Shop:
    """What is asked for. The same shop gives the same log.

    `events` counts all rows, dirt included; the log has as many within 2 %. `duplicates`, `late`, `bad` and `bots` are
    shares of the rows. `drift` is the share of users that move to another segment at some day, `new_users` of users that
    arrive in the course of the log, `new_items` of items that are introduced in its course.
    """

    events: int = 1_000_000
    users: int = 20_000
    items: int = 2_000
    days: int = 60
    segments: int = 4
    seed: int = 0
    start: date = date(2024, 1, 1)
    duplicates: float = 0.01
    late: float = 0.005
    bad: float = 0.002
    bots: float = 0.001
    drift: float = 0.05
    new_users: float = 0.1
    new_items: float = 0.1

    def check(self) -> None:
        """Raises UserError for the first setting that makes no sense."""
        bounds = {
            "events": (1_000, 100_000_000),
            "users": (self.segments, 10_000_000),
            "items": (len(DEPARTMENTS), 1_000_000),
            "days": (2, 3650),
            "segments": (2, len(HABITS)),
            "seed": (0, 2**31 - 1),
            **dict.fromkeys(("duplicates", "late", "bad", "bots"), (0, 0.2)),
            **dict.fromkeys(("drift", "new_users", "new_items"), (0, 0.5)),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            # Written so that a NaN is refused too.
            if not low <= value <= high:
                raise UserError(f"generate: {name} is {value}; choose {low:,} to {high:,}")
        if self.events > self.days * _LARGEST_DAY:
            raise UserError(
                f"generate: {self.events:,} events in {self.days} days; one day holds at most {_LARGEST_DAY:,}: add days"
            )
        if self.events > 100 * self.users * self.days:
            least = -(-self.events // (100 * self.days))
            raise UserError(
                f"generate: {self.events:,} events of {self.users:,} users in {self.days} days are more than 100 a user "
                f"and day, which no people make; choose at least {least:,} users"
            )


@dataclass(frozen=True)
class Items:
    """The catalogue, department by department and most popular first; arrays over these positions.

    `number` is what the item id is made of, `introduced` the day (0: from the beginning), `price` in money.
    """

    number: Array
    department: Array
    price: Array
    introduced: Array
    starts: Array
    sizes: Array

    def on_shelf(self, day: int) -> Array:
        """(items,) the position itself where it is introduced, otherwise that of the next more popular item which is."""
        places = np.arange(len(self.number))
        # The most popular item of a department is never new, so no search leaves its department.
        return np.maximum.accumulate(np.where(self.introduced <= day, places, 0))

    def titles(self) -> tuple[list[str], list[str], list[str]]:
        """Title, category and brand of every position."""
        titles, categories, brands = [], [], []
        for department, size in zip(DEPARTMENTS, self.sizes.tolist(), strict=True):
            adjectives, nouns_of = _VOCABULARY[department]
            words = adjectives.split(", ")
            nouns = [(noun, category) for category, listed in nouns_of.items() for noun in listed.split(", ")]
            for rank in range(size):
                noun, category = nouns[rank % len(nouns)]
                edition, word = divmod(rank // len(nouns), len(words))
                titles.append(f"{words[word]} {noun}" + (f" no. {edition + 1}" if edition else ""))
                categories.append(category)
                brands.append(_BRANDS[(rank // len(nouns) + rank) % len(_BRANDS)])
        return titles, categories, brands


@dataclass(frozen=True)
class Users:
    """Arrays over users. `activity` is relative, `shift` in hours; `drift_day` is `days` for those who stay."""

    segment: Array
    later_segment: Array
    drift_day: Array
    first_day: Array
    activity: Array
    shift: Array

    def segment_on(self, day: int) -> Array:
        return np.where(day >= self.drift_day, self.later_segment, self.segment)


def make_items(shop: Shop, rng: np.random.Generator) -> Items:
    """The catalogue: prices follow the level of the segment whose taste the department is."""
    sizes = np.full(len(DEPARTMENTS), shop.items // len(DEPARTMENTS))
    sizes[: shop.items % len(DEPARTMENTS)] += 1
    starts = np.cumsum(sizes) - sizes
    department = np.arange(len(DEPARTMENTS)).repeat(sizes)
    new = rng.random(shop.items) < shop.new_items
    new[starts] = False
    level = HABITS[department % shop.segments, PRICE]
    return Items(
        number=rng.permutation(shop.items).astype(np.int32),
        department=department,
        price=np.round(level * 8.0 * rng.lognormal(0.0, 0.4, shop.items) + 0.5, 2),
        introduced=np.where(new, rng.integers(1, shop.days, shop.items), 0),
        starts=starts,
        sizes=sizes,
    )


def make_users(shop: Shop, rng: np.random.Generator) -> Users:
    """Users with skewed activity; segments of equal size before drift."""
    segment = rng.permutation(np.arange(shop.users) % shop.segments).astype(np.int8)
    # The most active are capped, so that none is taken for a bot.
    activity = np.minimum(rng.lognormal(0.0, 1.0, shop.users), 20.0)
    first_day = np.where(rng.random(shop.users) < shop.new_users, rng.integers(1, shop.days, shop.users), 0)
    drifts = rng.random(shop.users) < shop.drift
    moved = (segment + rng.integers(1, shop.segments, shop.users)) % shop.segments
    drift_day = rng.integers(shop.days // 4, max(3 * shop.days // 4, shop.days // 4 + 1), shop.users)
    # Who has not been there cannot move.
    drifts &= drift_day > first_day
    return Users(
        segment=segment,
        later_segment=np.where(drifts, moved, segment).astype(np.int8),
        drift_day=np.where(drifts, drift_day, shop.days).astype(np.int16),
        first_day=first_day.astype(np.int16),
        activity=activity,
        shift=rng.normal(0.0, 0.7, shop.users).astype(np.float32),
    )
