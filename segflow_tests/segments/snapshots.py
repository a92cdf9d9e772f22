"""Snapshots made by hand: who is in which cluster, and what they did."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from segflow.config import SegmentConfig
from segflow.representation.users import UserFeatures
from segflow.segments.clustering import Assignment
from segflow.segments.snapshots import Snapshot

CONFIG = SegmentConfig()
FEATURES = ["log_sessions_per_week_recent", "log_value_total", "share_evening", "share_repeated_items"]
MONDAY = datetime(2024, 3, 4, tzinfo=UTC)


def users(start: int, stop: int) -> list[str]:
    """Users u0000 and so on."""
    return [f"u{number:04d}" for number in range(start, stop)]


def assignment(labels: Sequence[int]) -> Assignment:
    """Users with these labels: sure of their cluster, at distance 1 from its centre, the first of them an outlier."""
    own = np.asarray(labels, np.int64)
    probability = (own[:, None] == np.arange(max(own.max(initial=-1) + 1, 0))).astype(np.float32)
    distance = np.where(own >= 0, 1.0, np.nan)
    return Assignment(own, probability, distance, np.arange(len(own)) == 0)


def snapshot(clusters: Mapping[int, Sequence[str]], levels: Mapping[int, Sequence[float]] | None = None) -> Snapshot:
    """Members of each cluster (-1: nobody's), and the mean of each cluster's features; default: as by its number."""
    found = {user: cluster for cluster, members in clusters.items() for user in members}
    everybody = sorted(found)
    means = levels or {cluster: [cluster == column for column in range(len(FEATURES))] for cluster in clusters}
    noise = {user: np.random.default_rng(zlib.crc32(user.encode())).normal(0, 0.3, len(FEATURES)) for user in everybody}
    matrix = np.array([np.asarray(means[found[user]], float) * 3 + noise[user] for user in everybody], np.float32)
    features = UserFeatures(everybody, matrix.reshape(len(everybody), len(FEATURES)), FEATURES)
    return Snapshot(everybody, features, assignment([found[user] for user in everybody]))


def purchases(clusters: Mapping[int, Sequence[str]]) -> pa.Table:
    """Three purchases of each user, of the category of its cluster, in the week before `MONDAY`."""
    rows = [
        (user, f"category {cluster}", n) for cluster, members in clusters.items() for user in members for n in range(3)
    ]
    return pa.table(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [f"{category} item {n}" for _, category, n in rows],
            "event_type": ["purchase"] * len(rows),
            "ts": pa.array([MONDAY - timedelta(hours=n + 1) for _, _, n in rows], pa.timestamp("us", tz="UTC")),
            "value": pa.array([5.0] * len(rows)),
            "category": [category for _, category, _ in rows],
        }
    )
