"""A week's users under its clustering, and the ledger rows that tie it to the snapshot before.

The matching itself is in `ledger.py`, names are in `naming.py`; here they meet the tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from segflow.arrow import matrix
from segflow.config import SegmentConfig
from segflow.representation.users import UserFeatures
from segflow.segments.clustering import Assignment, Clustering
from segflow.segments.ledger import Group, Ledger, match, number_of
from segflow.segments.naming import name_newborns
from segflow.segments.profiles import profile_segments

UNASSIGNED = "unassigned"


@dataclass(frozen=True)
class Snapshot:
    """The users with enough history, in order of id, and where the clustering puts them."""

    users: list[str]
    engagement: UserFeatures
    assignment: Assignment

    @classmethod
    def of(cls, embeddings: pa.Table, views: pa.Table, clustering: Clustering) -> Snapshot:
        """From rows of `user_embeddings` and `user_views` of one week, both in order of the user.

        Raises ValueError when the two do not hold the same users.
        """
        if not embeddings["user_id"].equals(views["user_id"]):
            raise ValueError("user_embeddings and user_views hold different users; materialize user_embeddings again")
        enough = embeddings["enough_history"]
        described = views.filter(enough)
        users = described["user_id"].to_pylist()
        features = UserFeatures(users, matrix(described["engagement"]), described["engagement_names"][0].as_py())
        return cls(users, features, clustering.assign(matrix(embeddings.filter(enough)["fused"])))

    def groups(self, scale: npt.NDArray[np.floating]) -> dict[int, Group]:
        """Cluster number -> members and the centre of their engagement, in units of `scale`.

        The fused space is fitted anew each week; engagement features mean the same in every week.
        """
        users, labels = np.asarray(self.users), self.assignment.labels
        standardized = self.engagement.matrix / scale
        return {
            int(cluster): Group(users[labels == cluster].tolist(), standardized[labels == cluster].mean(axis=0))
            for cluster in np.unique(labels)
        }


def ledger_rows(
    week: date,
    current: Snapshot,
    previous: Snapshot | None,
    history: pa.Table,
    events: pa.Table,
    config: SegmentConfig,
    seed: int,
) -> pa.Table:
    """Rows of `segment_ledger` for `week`.

    previous: the latest snapshot before; history: the ledger of all earlier weeks, of which the latest is `previous`'s;
    events: user_id, item_id, event_type, ts, value, category before the week, from which newborn segments are named.
    """
    scale = np.maximum(current.engagement.matrix.std(axis=0), 1e-6)
    known = history.to_pandas()
    last_id = max((number_of(one) for one in known["segment_id"]), default=0)
    matched = match(_previous_groups(previous, known, scale), current.groups(scale), last_id, config)
    names = dict(zip(known["segment_id"], known["name"], strict=True))
    names |= _newborn_names(matched, names, current, events, config, seed)
    return pa.table(
        {
            "week": pa.array([week] * len(matched.rows), pa.date32()),
            "segment_id": [row.segment_id for row in matched.rows],
            "name": [names[row.segment_id] for row in matched.rows],
            "event": [row.event for row in matched.rows],
            "cluster": pa.array([row.cluster for row in matched.rows], pa.int32()),
            "users": [row.users for row in matched.rows],
            "previous_users": [row.previous_users for row in matched.rows],
            "overlap": pa.array([row.overlap for row in matched.rows], pa.float64()),
            "parents": pa.array([row.parents for row in matched.rows], pa.list_(pa.string())),
            "migration": [json.dumps(row.migration) for row in matched.rows],
        }
    )


def _previous_groups(
    previous: Snapshot | None, known: pd.DataFrame, scale: npt.NDArray[np.floating]
) -> dict[str, Group]:
    if previous is None:
        return {}
    latest = known[known["week"] == known["week"].max()].dropna(subset=["cluster"])
    groups = previous.groups(scale)
    return {row.segment_id: groups[int(row.cluster)] for row in latest.itertuples() if int(row.cluster) in groups}


def _newborn_names(
    matched: Ledger, names: Mapping[str, str], current: Snapshot, events: pa.Table, config: SegmentConfig, seed: int
) -> dict[str, str]:
    newborn = [row.segment_id for row in matched.rows if row.cluster is not None and row.segment_id not in names]
    if not newborn:
        return {}
    frame = members(current, matched.ids)
    found = profile_segments(events, frame, current.engagement, None, config, seed)
    contrasts = {one.segment_id: one.details["contrasts"] for one in found.profiles if one.segment_id in newborn}
    return name_newborns(contrasts, set(names.values()))


def members(snapshot: Snapshot, ids: Mapping[int, str]) -> pd.DataFrame:
    """user_id, segment_id and distance of the assigned users; `ids` is cluster number -> segment id."""
    return pd.DataFrame(
        {
            "user_id": snapshot.users,
            "segment_id": [ids[int(label)] for label in snapshot.assignment.labels],
            "distance": snapshot.assignment.distance,
        }
    )


def user_segment_rows(week: date, all_users: Sequence[str], snapshot: Snapshot, ids: Mapping[int, str]) -> pa.Table:
    """Rows of `user_segments`: everybody, those without enough history as unassigned."""
    frame = members(snapshot, ids)
    frame["probability"] = snapshot.assignment.probability.max(axis=1)
    frame["outlier"] = snapshot.assignment.outlier
    full = pd.DataFrame({"user_id": list(all_users)}).merge(frame, on="user_id", how="left", validate="1:1")
    return pa.table(
        {
            "week": pa.array([week] * len(full), pa.date32()),
            "user_id": full["user_id"].tolist(),
            "segment_id": full["segment_id"].fillna(UNASSIGNED).tolist(),
            "probability": full["probability"].fillna(0.0).to_numpy(np.float64),
            "distance": pa.array(full["distance"].to_numpy(np.float64), pa.float64(), from_pandas=True),
            "outlier": full["outlier"].fillna(False).to_numpy(bool),
        }
    )
