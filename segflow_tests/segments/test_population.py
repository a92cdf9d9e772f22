"""The population: rows of all its parts are the same users, and only what is asked for is made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from segflow.arrow import vector_column
from segflow.errors import UserError
from segflow.segments.population import Population

USERS = ["a", "b", "c", "d"]
EMBEDDINGS = pa.table(
    {
        "user_id": USERS,
        "enough_history": [True, False, True, True],
        "fused": vector_column(np.arange(8.0).reshape(4, 2)),
    }
)
VIEWS = pa.table(
    {
        "user_id": USERS[::-1],
        "engagement": vector_column(np.array([[4.0], [3.0], [2.0], [1.0]])),
        "engagement_names": [["log_value_total"]] * 4,
    }
)
EVENTS = pa.table(
    {
        "user_id": ["a", "a", "a", "b", "b", "c", "c", "c", "zz"],
        "item_id": ["y", "y", "x", "z", "x", "x", "y", None, "z"],
        "category": ["milk", "milk", "bread", "fish", "fish", "milk", "bread", None, "fish"],
    }
)
ATTRIBUTES = pa.table({"user_id": ["c", "b", "a", "a"], "attribute": ["age", "age", "age", "sex"], "value": [*"1234"]})
NEEDS = ["engagement", "items", "attribute", "category"]


def test_rows_are_the_users_with_enough_history():
    made = Population.of(NEEDS, EMBEDDINGS, VIEWS, EVENTS, ATTRIBUTES, "age")
    assert made.points.tolist() == [[0, 1], [4, 5], [6, 7]]
    assert made.engagement is not None
    assert made.engagement.user_ids == ["a", "c", "d"]
    assert made.engagement.matrix.tolist() == [[1], [3], [4]]
    assert made.items is not None
    # z links nobody: of the users here none took it, or one.
    assert list(made.item_names) == ["x", "y"]
    assert made.items.toarray().tolist() == [[1, 2], [1, 1], [0, 0]]
    assert made.attribute is not None
    assert made.attribute.tolist() == ["3", "1", None]
    assert made.category is not None
    assert made.category.tolist() == ["milk", "bread", None]  # c took both as often: the first by name


def test_order_of_source_rows_changes_nothing():
    mixed = [table.take([*range(len(table))][::-1]) for table in (VIEWS, EVENTS, ATTRIBUTES)]
    one, two = (Population.of(NEEDS, EMBEDDINGS, *tables, "age") for tables in ((VIEWS, EVENTS, ATTRIBUTES), mixed))
    assert one.items is not None
    assert two.items is not None
    assert (one.items != two.items).nnz == 0
    assert one.engagement is not None
    assert two.engagement is not None
    np.testing.assert_array_equal(one.engagement.matrix, two.engagement.matrix)
    assert one.attribute is not None
    assert one.category is not None
    np.testing.assert_array_equal(one.attribute, two.attribute)
    np.testing.assert_array_equal(one.category, two.category)


def test_only_what_is_needed_is_made():
    made = Population.of([], EMBEDDINGS)
    assert (made.engagement, made.items, made.attribute, made.category) == (None, None, None, None)
    assert len(made) == 3
    for need in NEEDS:
        with pytest.raises(ValueError, match="needed for these clusterers"):
            Population.of([need], EMBEDDINGS)
    with pytest.raises(ValueError, match="lacks 1 of 3 users"):
        Population.of(["engagement"], EMBEDDINGS, VIEWS.slice(1))


def test_an_attribute_that_nobody_has_is_named():
    with pytest.raises(UserError, match=r"segments.attribute: .* 'income'; there are: age, sex"):
        Population.of(["attribute"], EMBEDDINGS, attributes=ATTRIBUTES, attribute="income")


def test_take_moves_everything_together():
    made = Population.of(NEEDS, EMBEDDINGS, VIEWS, EVENTS, ATTRIBUTES, "age").take(np.array([2, 0, 0]))
    assert len(made) == 3
    assert made.points[0].tolist() == [6, 7]
    assert made.engagement is not None
    assert made.items is not None
    assert made.engagement.user_ids == ["d", "a", "a"]
    assert made.items.toarray().tolist() == [[0, 0], [1, 2], [1, 2]]
    assert made.category is not None
    assert made.category.tolist() == [None, "milk", "milk"]
