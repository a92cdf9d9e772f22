"""What is taken together: association rules over the sessions of a segment.

What does not live here: which sessions and things are looked at (`sql/segments/baskets.sql`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segflow.segments.statistics import surely_above

Row = dict[str, Any]
Flags = NDArray[np.bool_]

# Rules with more than two conditions are hardly read, and their number grows with every condition.
_LONGEST = 3
# How much likelier a rule must make its consequent than any rule with less: the least improvement of Bayardo et al. 1999.
_IMPROVEMENT = 1.1
_LOOKED_AT = 200


def basket_rules(baskets: pd.DataFrame, least_support: float, top: int, min_cell: int) -> list[Row]:
    """Rules "with these comes that" of each segment: at most `top` rows per segment, best first.

    `baskets` has segment_id, user_id, session_id and things (a list). `support` is the share of the segment's sessions
    with all of the rule, `confidence` the share of those with the antecedents that have the consequent, `lift` the
    confidence over the consequent's share, `confidence_rest` the same confidence among the other segments' sessions
    (None where too few users stand behind it). Found by FP-growth (Han et al. 2000) of mlxtend. A rule must make its
    consequent 1.1 times as likely as every rule with less does, and surely likelier than it is anyway (95 %, by the number
    of users), and `min_cell` users must follow it. Of the 200 that
    tell most (support * log lift), those come first that tell the segment from the rest, by support * log (confidence /
    confidence_rest); of rules over the same things, one is kept.
    """
    rows: list[Row] = []
    things = sorted({thing for basket in baskets["things"] for thing in basket})
    flags = _flags(baskets["things"], things)
    users = pd.factorize(baskets["user_id"])[0]
    labels = baskets["segment_id"].to_numpy()
    for segment in sorted(set(labels)):
        inside = labels == segment
        own, rest = _Group(flags[inside], users[inside]), _Group(flags[~inside], users[~inside])
        rows.extend({"segment_id": segment, **row} for row in _told(own, rest, things, least_support, min_cell)[:top])
    return rows


class _Group:
    """Sessions (n, things) as flags, and whose they are."""

    def __init__(self, flags: Flags, users: NDArray[np.intp]) -> None:
        self.flags, self._users = flags, users

    def behind(self, columns: Sequence[int]) -> int:
        """How many users have a session with all of these things."""
        return len(np.unique(self._users[self.flags[:, columns].all(axis=1)]))

    def confidence(self, given: Sequence[int], then: int) -> float:
        return float(self.flags[self.flags[:, given].all(axis=1), then].mean())


def _told(own: _Group, rest: _Group, things: Sequence[str], least_support: float, min_cell: int) -> list[Row]:
    found: dict[frozenset[int], Row] = {}
    for rule in _rules(own.flags, least_support)[:_LOOKED_AT]:
        given, then = rule["given"], rule["then"]
        together, users = frozenset([*given, then]), own.behind([*given, then])
        # Sessions of one user are not independent; users are.
        sure = surely_above(rule["confidence"], own.behind(given)) > rule["confidence"] / rule["lift"]
        if together in found or users < min_cell or not sure:
            continue
        known = rest.behind([*given, then]) >= min_cell
        found[together] = {
            "antecedents": [things[one] for one in given],
            "consequent": things[then],
            "support": float(rule["support"]),
            "confidence": float(rule["confidence"]),
            "lift": float(rule["lift"]),
            "confidence_rest": rest.confidence(given, then) if known else None,
            "users": users,
        }
    return sorted(found.values(), key=lambda row: -_apart(row))


def _apart(row: Row) -> float:
    """How far a rule tells the segment from the rest; unknown of the rest counts as no difference."""
    return float(row["support"] * np.log(row["confidence"] / (row["confidence_rest"] or row["confidence"])))


def _rules(flags: Flags, least_support: float) -> list[Row]:
    """Rules with one consequent that say more than simpler ones, by support * log lift; things are column numbers."""
    # On import mlxtend turns every deprecation warning of the process on.
    with warnings.catch_warnings():
        from mlxtend.frequent_patterns import association_rules, fpgrowth

    frequent = fpgrowth(pd.DataFrame(flags), min_support=least_support, max_len=_LONGEST)
    if frequent.empty or frequent["itemsets"].map(len).max() < 2:
        return []
    figures = ["support", "confidence", "lift"]
    found = association_rules(frequent, metric="lift", min_threshold=0, return_metrics=figures)
    rules = [
        {"given": sorted(rule["antecedents"]), "then": next(iter(rule["consequents"])), **{f: rule[f] for f in figures}}
        for rule in found.to_dict("records")
        if len(rule["consequents"]) == 1
    ]
    single = {(rule["given"][0], rule["then"]): rule["confidence"] for rule in rules if len(rule["given"]) == 1}
    kept = [
        rule
        for rule in rules
        if rule["lift"] >= _IMPROVEMENT
        and (
            len(rule["given"]) == 1
            or rule["confidence"] >= _IMPROVEMENT * max(single[one, rule["then"]] for one in rule["given"])
        )
    ]
    # Both directions of a pair tell the same; rounding lets the one that is followed more often come first.
    return sorted(
        kept,
        key=lambda rule: (
            -round(rule["support"] * np.log(rule["lift"]), 12), -rule["confidence"], rule["given"], rule["then"],
        ),
    )  # fmt: skip


def _flags(baskets: pd.Series, things: Sequence[str]) -> Flags:
    place = {thing: number for number, thing in enumerate(things)}
    flags = np.zeros((len(baskets), len(things)), bool)
    for row, basket in enumerate(baskets):
        flags[row, [place[thing] for thing in basket]] = True
    return flags
