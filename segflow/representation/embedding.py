"""One row per user: the three views, their fusion, and whether there is enough history to segment by.

The views themselves are made in `text.py`, `behavior.py` and `users.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.arrow import matrix, vector_column
from segflow.config import UserEmbeddingConfig
from segflow.errors import UserError
from segflow.representation.behavior import BehaviorModel
from segflow.representation.sequences import EventSequences
from segflow.representation.users import engagement_features, fuse, text_profiles

_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class UserEmbeddings:
    """Rows of `user_embeddings`, with the names of the engagement features and of the fused columns."""

    table: pa.Table
    engagement_names: list[str]
    fused_names: list[str]


def embed_users(
    events: pa.Table,
    sessions: pa.Table,
    session_vectors: pa.Table,
    sequences: EventSequences,
    model: BehaviorModel,
    week_start: datetime,
    config: UserEmbeddingConfig,
) -> UserEmbeddings:
    """Embed every user with an event before `week_start`.

    events: user_id, item_id, event_type, ts, value, category; sessions: user_id, start, end, events, value;
    session_vectors: user_id, start, value, vector; sequences: the same events. The fusion is fitted on the users with enough
    history and applied to all. Raises UserError when there are fewer than two such users.
    """
    engagement = engagement_features(events, sessions, week_start, config)
    users = engagement.user_ids
    text = _text_view(session_vectors, users, week_start, config.half_life_days)
    behavior = _behavior_view(sequences, model, users, week_start)
    event_counts = _counts(events["user_id"], users)
    session_counts = _counts(sessions["user_id"], users)
    enough = (event_counts >= config.min_events) & (session_counts >= config.min_sessions)
    if enough.sum() < 2:
        raise UserError(
            f"user_embeddings: {int(enough.sum())} users have {config.min_events} events and {config.min_sessions} sessions "
            f"before {week_start.date()}; choose a later week or lower users.min_events and users.min_sessions"
        )
    views = {"text": text, "behavior": behavior, "engagement": engagement.matrix}
    fused = fuse({name: view[enough] for name, view in views.items()}, config)
    week = pa.array([week_start.date()] * len(users), pa.date32())
    table = pa.table(
        {
            "week": week,
            "user_id": users,
            "events": event_counts,
            "sessions": session_counts,
            "enough_history": enough,
            **{name: vector_column(view) for name, view in views.items()},
            "engagement_names": pa.array([engagement.names] * len(users), pa.list_(pa.string())),
            "fused": vector_column(fused.fusion.apply(views)),
        }
    )
    return UserEmbeddings(table, engagement.names, fused.columns)


def _text_view(
    session_vectors: pa.Table, users: list[str], week_start: datetime, half_life_days: float
) -> npt.NDArray[np.float32]:
    """(U, d) decayed pools of session vectors; every session counts the same apart from its age."""
    owner = pc.index_in(session_vectors["user_id"], pa.array(users, pa.string())).to_numpy(zero_copy_only=False)
    starts = session_vectors["start"].cast(pa.int64()).to_numpy() / 1e6
    days_ago = (week_start.timestamp() - starts) / _SECONDS_PER_DAY
    vectors = matrix(session_vectors["vector"])
    return text_profiles(vectors, owner, days_ago, np.ones(len(owner)), half_life_days, len(users))


def _behavior_view(
    sequences: EventSequences, model: BehaviorModel, users: list[str], week_start: datetime
) -> npt.NDArray[np.float32]:
    """(U, width) states after the last event before the week."""
    index = np.searchsorted(sequences.user_ids, np.asarray(users, dtype=np.str_))
    cuts = np.full(len(users), int(week_start.timestamp()) * 1_000_000, np.int64)
    return model.states(sequences, cuts, index)[:, :-1]


def _counts(column: pa.ChunkedArray, users: list[str]) -> npt.NDArray[np.int64]:
    index = pc.index_in(column, pa.array(users, pa.string())).to_numpy(zero_copy_only=False)
    return np.bincount(index, minlength=len(users)).astype(np.int64)
