"""The engine seam: results in order, the first exception unchanged."""

from __future__ import annotations

import pytest

from segflow.compute import map_ordered


def test_results_are_in_the_order_of_the_items() -> None:
    assert map_ordered(lambda number: number * number, iter([3, 1, 2])) == [9, 1, 4]
    assert map_ordered(str, []) == []


def test_the_first_exception_ends_the_call_unchanged() -> None:
    seen = []
    wrong = ValueError("two")

    def visit(number: int) -> None:
        seen.append(number)
        if number == 2:
            raise wrong

    with pytest.raises(ValueError, match="two") as raised:
        map_ordered(visit, [1, 2, 3])
    assert raised.value is wrong
    assert seen == [1, 2]
