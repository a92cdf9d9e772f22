"""Personas: for each segment its size and value, what sets it apart, its journeys, rules and exemplars.

What does not live here: the statistics (`contrasts.py`), the rules (`rules.py`) and names (`naming.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from segflow import sql
from segflow.config import SegmentConfig
from segflow.representation.users import UserFeatures
from segflow.segments.contrasts import (
    adjust,
    attribute_associations,
    attribute_contrasts,
    category_affinity,
    distinctive_items,
    feature_contrasts,
    transition_lifts,
)
from segflow.segments.naming import strongest_categories, strongest_features
from segflow.segments.rules import surrogate_rules

Row = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """The persona of one segment. `details` can be written as JSON as it is."""

    segment_id: str
    users: int
    share_of_users: float
    value: float
    share_of_value: float  # 0 when the log carries no values
    summary: str
    details: dict[str, Any]


@dataclass(frozen=True)
class ProfileReport:
    """All personas of a snapshot, and what concerns the segmentation as a whole."""

    profiles: list[Profile]  # by segment id
    associations: list[Row]  # Cramer's V of segment and each static attribute
    surrogate: Row  # the tree's fidelity, its baseline and all its rules


def profile_segments(
    events: pa.Table,
    members: pd.DataFrame,
    features: UserFeatures,
    attributes: pd.DataFrame | None,
    config: SegmentConfig,
    seed: int,
    features_clustered_on: bool = True,
) -> ProfileReport:
    """Describe every segment against all other users.

    `events` (user_id, item_id, event_type, ts, value, category) must end at the snapshot; `members` has user_id,
    segment_id and distance, one row per segmented user; `features` cover at least these users; `attributes` has
    user_id, attribute and value and only validates. One Benjamini-Hochberg correction covers every test of every
    segment before anything is left out. Exemplars are SHA-256 hashes of user ids.

    Raises ValueError when a user is listed twice, or has no features.
    """
    members = members.sort_values("user_id", ignore_index=True)
    features = _aligned(features, members)
    segments = members["segment_id"].tolist()
    tables = _aggregates(events, members)
    rows = feature_contrasts(features, segments, features_clustered_on)
    rows += category_affinity(tables["user_categories"], members)
    associations: list[Row] = []
    if attributes is not None:
        rows += attribute_contrasts(attributes, members)
        associations = attribute_associations(attributes, members, config.permutations, seed)
    contrasts = adjust(rows)
    surrogate = surrogate_rules(features, segments, seed)
    parts = {
        "items": distinctive_items(tables["segment_items"], config.top),
        "journeys": transition_lifts(tables["transitions"], config.top),
        "rules": surrogate["rules"],
    }
    values = members.merge(tables["user_values"], on="user_id", validate="1:1")
    total = float(values["value"].sum())
    profiles = []
    for segment, frame in values.groupby("segment_id", sort=True):
        own = [row for row in contrasts if row["segment_id"] == segment]
        value, share = float(frame["value"].sum()), len(frame) / len(members)
        share_of_value = value / total if total > 0 else 0.0
        closest = frame.sort_values(["distance", "user_id"])["user_id"].head(config.top)
        details = {name: [r for r in found if r["segment_id"] == segment] for name, found in parts.items()}
        details["contrasts"] = _kept(own, config.top)
        details["exemplars"] = [hashlib.sha256(str(user).encode()).hexdigest() for user in closest]
        summary = _summary(share, share_of_value, own)
        profiles.append(Profile(str(segment), len(frame), share, value, share_of_value, summary, details))
    return ProfileReport(profiles, associations, surrogate)


def _aligned(features: UserFeatures, members: pd.DataFrame) -> UserFeatures:
    """The features of the members, in their order."""
    if members["user_id"].duplicated().any():
        raise ValueError("profile_segments: a user belongs to two segments")
    places = pd.Index(features.user_ids).get_indexer(pd.Index(members["user_id"]))
    if (places < 0).any():
        raise ValueError(f"profile_segments: {int((places < 0).sum())} members have no features")
    return UserFeatures(members["user_id"].tolist(), features.matrix[places], features.names)


def _aggregates(events: pa.Table, members: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The counts that profiles need, one small table per statement under sql/segments/."""
    # One thread: sums of floats depend on their order, and the same log must give the same bytes.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("events", events)
        connection.register("members", pa.Table.from_pandas(members[["user_id", "segment_id"]], preserve_index=False))
        names = ("user_categories", "user_values", "segment_items", "transitions")
        return {name: connection.sql(sql.load(f"segments/{name}.sql")).df() for name in names}


def _kept(contrasts: list[Row], top: int) -> list[Row]:
    """Attributes and features whole; of the categories those that diverge most from the rest, either way."""
    categories = [row for row in contrasts if row["kind"] == "category" and row["lift"]]
    categories.sort(key=lambda row: (-abs(row["share_segment"] * np.log(row["lift"])), row["category"]))
    attributes, features = ([r for r in contrasts if r["kind"] == kind] for kind in ("attribute", "feature"))
    # What was not clustered on comes first.
    return attributes + categories[:top] + features


def _summary(share_of_users: float, share_of_value: float, contrasts: list[Row]) -> str:
    facts = [f"{share_of_users:.0%} of users" + (f", {share_of_value:.0%} of value" if share_of_value else "")]
    for row in strongest_features(contrasts)[:2]:
        shown = row["shown_as"].replace("_", " ")
        facts.append(f"{shown} {row['median_segment']:.3g} (others {row['median_rest']:.3g})")
    favourites = [f"{row['category']} (x{row['lift']:.2g})" for row in strongest_categories(contrasts)[:2]]
    if favourites:
        facts.append("favours " + " and ".join(favourites))
    return "; ".join(facts)
