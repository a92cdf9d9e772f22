"""The users of one snapshot under its clustering, and the rows that say which segment each belongs to.

What does not live here: how clusters get their segment ids (`ledger.py`), and what is recorded of them (`history.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from segflow.arrow import matrix
from segflow.errors import UserError
from segflow.representation.users import UserFeatures
from segflow.segments.clustering import Assignment, Clustering
from segflow.segments.ledger import Group
from segflow.segments.population import Population

UNASSIGNED = "unassigned"


@dataclass(frozen=True)
class Snapshot:
    """The users with enough history, in order of id, and where the clustering puts them (-1: nowhere)."""

    users: list[str]
    engagement: UserFeatures
    assignment: Assignment

    @classmethod
    def of(
        cls, embeddings: pa.Table, views: pa.Table, clustering: Clustering, population: Population | None = None
    ) -> Snapshot:
        """From rows of `user_embeddings` and `user_views` of one week, both in order of the user.

        population: the users with enough history as the clusterer looks at them; by default vectors and engagement.

        Raises ValueError when the tables do not hold the same users.
        """
        features = engagement_of(embeddings, views)
        if population is None:
            population = Population(matrix(embeddings.filter(embeddings["enough_history"])["fused"]), features)
        return cls(features.user_ids, features, clustering.assign(population))

    @property
    def unplaced(self) -> list[str]:
        """Users with enough history that belong to no cluster."""
        return np.asarray(self.users, object)[self.assignment.labels < 0].tolist()

    def groups(self) -> dict[int, Group]:
        """Cluster -> members in order, and the mean of their engagement; clusters without members are left out.

        The fused space is fitted anew each week; engagement features mean the same in every week.
        """
        users, labels = np.asarray(self.users, object), self.assignment.labels
        features = self.engagement.matrix.astype(np.float64)
        return {
            int(cluster): Group(users[labels == cluster].tolist(), features[labels == cluster].mean(axis=0))
            for cluster in np.unique(labels[labels >= 0])
        }


def engagement_of(embeddings: pa.Table, views: pa.Table) -> UserFeatures:
    """Engagement of the users with enough history, from rows of `user_embeddings` and `user_views` in order of the user.

    Raises ValueError when the tables do not hold the same users.
    """
    if not embeddings["user_id"].equals(views["user_id"]):
        raise ValueError("user_embeddings and user_views hold different users; materialize user_embeddings again")
    rows = views.filter(embeddings["enough_history"])
    return UserFeatures(rows["user_id"].to_pylist(), matrix(rows["engagement"]), rows["engagement_names"][0].as_py())


def ids_of(snapshot: Snapshot, ledger: pa.Table, week: date) -> dict[int, str]:
    """Cluster -> segment id, from the week's rows of `segment_ledger`.

    Raises UserError when the ledger speaks of other clusters than the snapshot has, or of other numbers of members.
    """
    living = [
        row for row in ledger.select(["cluster", "segment_id", "users"]).to_pylist() if row["cluster"] is not None
    ]
    clusters, users = np.unique(snapshot.assignment.labels[snapshot.assignment.labels >= 0], return_counts=True)
    if {row["cluster"]: row["users"] for row in living} != dict(zip(clusters.tolist(), users.tolist(), strict=True)):
        raise UserError(
            f"segment_ledger: its rows of week {week} belong to another clustering than `segmentation` holds for that "
            "week, such as one of another run; materialize segment_ledger of that week again"
        )
    return {row["cluster"]: row["segment_id"] for row in living}


def members(snapshot: Snapshot, ids: Mapping[int, str]) -> pd.DataFrame:
    """user_id, segment_id and distance of the users that belong to a cluster; `ids` is cluster -> segment id."""
    placed = snapshot.assignment.labels >= 0
    return pd.DataFrame(
        {
            "user_id": np.asarray(snapshot.users, object)[placed],
            "segment_id": [ids[int(label)] for label in snapshot.assignment.labels[placed]],
            "distance": snapshot.assignment.distance[placed],
        }
    )


def user_segment_rows(week: date, all_users: Sequence[str], snapshot: Snapshot, ids: Mapping[int, str]) -> pa.Table:
    """Rows of `user_segments`: everybody in `all_users`; those without enough history or a cluster are unassigned."""
    found = _rows(week, snapshot.users, snapshot.assignment, ids)
    row_of = {user: row for row, user in enumerate(snapshot.users)}
    nobody = pa.table(
        {
            "week": pa.array([week], pa.date32()),
            "user_id": pa.array([""]),
            "segment_id": pa.array([UNASSIGNED]),
            "probability": pa.array([0.0]),
            "distance": pa.array([None], pa.float64()),
            "outlier": pa.array([False]),
        }
    )
    places = [row_of.get(user, len(snapshot.users)) for user in all_users]
    rows = pa.concat_tables([found, nobody]).take(pa.array(places, pa.int64()))
    return rows.set_column(1, "user_id", pa.array(all_users, pa.string()))


def newcomer_rows(
    week: date, users: Sequence[str], assignment: Assignment, ids: Mapping[int, str], as_of: datetime
) -> pa.Table:
    """Rows of `newcomer_segments`: `users` that the clustering of `week` places by what they did up to `as_of`."""
    rows = _rows(week, users, assignment, ids)
    return rows.append_column("as_of", pa.array([as_of] * rows.num_rows, pa.timestamp("us", tz="UTC")))


def _rows(week: date, users: Sequence[str], assignment: Assignment, ids: Mapping[int, str]) -> pa.Table:
    placed = assignment.labels >= 0
    probability = assignment.probability.max(axis=1, initial=0.0).astype(np.float64)
    return pa.table(
        {
            "week": pa.array([week] * len(users), pa.date32()),
            "user_id": pa.array(users, pa.string()),
            "segment_id": pa.array([ids.get(int(label), UNASSIGNED) for label in assignment.labels], pa.string()),
            "probability": np.where(placed, probability, 0.0),
            "distance": pa.array(assignment.distance, pa.float64(), mask=~placed),
            "outlier": pa.array(assignment.outlier & placed, pa.bool_()),
        }
    )
