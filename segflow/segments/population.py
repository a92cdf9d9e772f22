"""The users of one snapshot as clusterers see them: vectors, and whatever else a plain baseline looks at.

What does not live here: clusterers (`clusterers.py`) and fitted models (`models.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from segflow import sql
from segflow.arrow import matrix
from segflow.errors import UserError
from segflow.representation.users import UserFeatures

Points = NDArray[np.floating]

# Topics are found by the items that most users took: rare ones cost time and tell little about groups.
_MOST_ITEMS = 5_000


@dataclass(frozen=True)
class Population:
    """What a clusterer may look at; row u of everything is the same user, users in order of their id.

    Raises UserError when a vector holds NaN or an infinite number.
    """

    points: Points  # (U, D) float32: the fused vectors of users with enough history
    engagement: UserFeatures | None = None
    items: sparse.csr_matrix | None = None  # (U, V) how often each user took each item
    item_names: Sequence[str] = ()  # (V,)
    attribute: NDArray[np.object_] | None = None  # (U,) value of one static attribute; None is unknown
    category: NDArray[np.object_] | None = None  # (U,) the category a user takes most; None is unknown

    def __post_init__(self) -> None:
        # Least and largest entry tell at a fraction of the cost of looking at each: NaN survives both.
        if len(self.points) and not (np.isfinite(self.points.min()) and np.isfinite(self.points.max())):
            broken = int((~np.isfinite(self.points)).any(axis=1).sum())
            raise UserError(
                f"user_embeddings: the vectors of {broken} of {len(self.points)} users hold NaN or infinite numbers; "
                "materialize user_embeddings of this week again"
            )

    @classmethod
    def of(
        cls,
        needs: Collection[str],
        embeddings: pa.Table,
        views: pa.Table | None = None,
        events: pa.Table | None = None,
        attributes: pa.Table | None = None,
        attribute: str | None = None,
    ) -> Population:
        """From the tables of one week; only the fields in `needs` are made, beside the points.

        embeddings: user_id, enough_history, fused, in order of the user. views (for engagement): user_id, engagement,
        engagement_names, of the same users. events (for items and category): user_id, item_id, category, of the
        history window. attributes (for `attribute`, the name of one): user_id, attribute, value.

        Raises ValueError when a table is missing that a need is met from, or views lack a user.
        """
        kept = embeddings.filter(embeddings["enough_history"])
        users = kept["user_id"].combine_chunks()
        engagement = _engagement(_given(views, "views"), users) if "engagement" in needs else None
        items, item_names = _items(_given(events, "events"), users) if "items" in needs else (None, [])
        category = _categories(_given(events, "events"), users) if "category" in needs else None
        values = _values(_given(attributes, "attributes"), users, attribute) if "attribute" in needs else None
        return cls(matrix(kept["fused"]), engagement, items, item_names, values, category)

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: NDArray[np.intp]) -> Population:
        """The users at `rows`, in that order; a row may be named more than once."""
        engagement = self.engagement
        if engagement is not None:
            users = [engagement.user_ids[row] for row in rows]
            engagement = UserFeatures(users, engagement.matrix[rows], engagement.names)
        return Population(
            self.points[rows],
            engagement,
            None if self.items is None else self.items[rows],
            self.item_names,
            None if self.attribute is None else self.attribute[rows],
            None if self.category is None else self.category[rows],
        )


def _given(table: pa.Table | None, name: str) -> pa.Table:
    if table is None:
        raise ValueError(f"population: {name} are needed for these clusterers")
    return table


def _engagement(views: pa.Table, users: pa.StringArray) -> UserFeatures:
    row = pc.index_in(users, views["user_id"].combine_chunks())
    if row.null_count:
        raise ValueError(f"population: user_views lacks {row.null_count} of {len(users)} users")
    described = views.take(row)
    names = described["engagement_names"][0].as_py() if len(users) else []
    return UserFeatures(users.to_pylist(), matrix(described["engagement"]), names)


def _items(events: pa.Table, users: pa.StringArray) -> tuple[sparse.csr_matrix, list[str]]:
    cells = _query(sql.render("segments/item_counts.sql", most_items=_MOST_ITEMS), events, users)
    column, names = pd.factorize(cells["item_id"].to_pandas(), sort=True)
    at = (cells["row"].to_numpy(), column)
    shape = (len(users), len(names))
    return sparse.csr_matrix((cells["events"].to_numpy().astype(np.float64), at), shape=shape), list(names)


def _categories(events: pa.Table, users: pa.StringArray) -> NDArray[np.object_]:
    return _placed(_query(sql.load("segments/dominant_category.sql"), events, users), "category", len(users))


def _values(attributes: pa.Table, users: pa.StringArray, attribute: str | None) -> NDArray[np.object_]:
    """Value of the attribute per user. Raises UserError when nobody has it."""
    held = attributes.filter(pc.equal(attributes["attribute"], pa.scalar(attribute, pa.string())))
    row = pc.index_in(held["user_id"], users)
    known = held.append_column("row", row).filter(row.is_valid())
    if not known.num_rows:
        names = ", ".join(sorted(pc.unique(attributes["attribute"]).to_pylist())) or "none"
        raise UserError(
            f"segments.attribute: no user with enough history has the attribute '{attribute}'; there are: {names}"
        )
    return _placed(known, "value", len(users))


def _placed(rows: pa.Table, column: str, users: int) -> NDArray[np.object_]:
    """(users,) the texts of `column` at the places that `row` names, None elsewhere."""
    found = np.full(users, None, dtype=object)
    found[rows["row"].to_numpy()] = rows[column].to_numpy()
    return found


def _query(statement: str, events: pa.Table, users: pa.StringArray) -> pa.Table:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("events", events)
        connection.register("members", pa.table({"user_id": users, "row": np.arange(len(users))}))
        return connection.sql(statement).to_arrow_table()
