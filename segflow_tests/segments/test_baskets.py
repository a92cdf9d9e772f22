"""Association rules over planted baskets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.segments.baskets import basket_rules


def baskets(sessions: int = 1200) -> pd.DataFrame:
    """Everybody takes bread with butter; only in s001 does wine come with cheese. Milk depends on nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(sessions):
        segment = number % 2
        things = {"milk"} if rng.random() < 0.5 else set()
        if rng.random() < 0.4:
            things |= {"bread"} | ({"butter"} if rng.random() < 0.7 else set())
        if rng.random() < 0.3:
            things |= {"wine"} | ({"cheese"} if rng.random() < (0.8 if segment == 0 else 0.1) else set())
        elif rng.random() < 0.1:
            things |= {"cheese"}
        rows.append((f"s00{segment + 1}", f"u{number % 60:02d}", f"b{number}", sorted(things)))
    return pd.DataFrame(rows, columns=["segment_id", "user_id", "session_id", "things"])


def test_what_sets_a_segment_apart_comes_first_with_figures_by_hand():
    frame = baskets()
    found = basket_rules(frame, 0.01, 5, 10)
    first = next(row for row in found if row["segment_id"] == "s001")
    assert {*first["antecedents"], first["consequent"]} == {"cheese", "wine"}
    own = frame[frame["segment_id"] == "s001"]["things"].map(set)
    given = own.map(lambda things: set(first["antecedents"]) <= things)
    then = own.map(lambda things: first["consequent"] in things)
    assert first["support"] == pytest.approx((given & then).mean())
    assert first["confidence"] == pytest.approx((given & then).sum() / given.sum())
    assert first["lift"] == pytest.approx(first["confidence"] / then.mean())
    assert first["confidence_rest"] < first["confidence"] - 0.3
    assert first["users"] == 30
    shown = [frozenset([*row["antecedents"], row["consequent"]]) for row in found if row["segment_id"] == "s001"]
    assert frozenset(["bread", "butter"]) in shown
    assert len(shown) == len(set(shown))
    # Milk adds nothing to any rule, so no rule speaks of it.
    assert not any("milk" in one for one in shown)


def test_rules_of_few_users_are_dropped_and_order_does_not_matter():
    frame = baskets()
    # Wine with cheese, but all of it by nine people.
    few = frame[(frame["segment_id"] == "s002") | frame["user_id"].isin([f"u{n:02d}" for n in range(0, 18, 2)])]
    assert [row for row in basket_rules(few, 0.01, 5, 10) if row["segment_id"] == "s001"] == []
    assert [row for row in basket_rules(few, 0.01, 5, 9) if row["segment_id"] == "s001"] != []
    shuffled = frame.sample(frac=1, random_state=1)
    assert basket_rules(shuffled, 0.01, 5, 10) == basket_rules(frame, 0.01, 5, 10)


def test_single_things_and_nothing_make_no_rules():
    single = baskets().assign(things=[["milk"]] * 1200)
    assert basket_rules(single, 0.01, 5, 10) == []
    assert basket_rules(single.iloc[:0], 0.01, 5, 10) == []


def test_chance_is_not_taken_for_a_rule():
    rng = np.random.default_rng(3)
    things = ["a", "b", "c", "d", "e", "f"]
    rows = [
        ("s001", f"u{number % 30:02d}", f"b{number}", [one for one in things if rng.random() < 0.3])
        for number in range(600)
    ]
    frame = pd.DataFrame(rows, columns=["segment_id", "user_id", "session_id", "things"])
    assert basket_rules(frame, 0.01, 5, 10) == []
