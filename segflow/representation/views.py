"""The views of users side by side: one row a user, a named vector a view, and which users have history enough.

Lives here: putting views together, users without history, and the fusion of chosen views. Does not live here: how one view
is computed (`users`, `text`, `behavior`), and what the views are worth (`probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.arrow import matrix, vector_column
from segflow.config import UserEmbeddingConfig, View
from segflow.errors import UserError
from segflow.representation.behavior import BehaviorModel
from segflow.representation.histories import Histories
from segflow.representation.sequences import EventSequences
from segflow.representation.text import pool_sessions
from segflow.representation.users import (
    Fused,
    TextProfiles,
    UserFeatures,
    attribute_features,
    engagement_features,
    fuse,
)

Number = TypeVar("Number", bound=np.generic)
_SECONDS_PER_DAY = 86_400
_NAMED = ("engagement", "attributes")


@dataclass(frozen=True)
class ViewSources:
    """What views are made of, all of it from before the week.

    `histories` divide the users among them, in the order of their ids, and are taken one at a time: what users did is never
    there as a whole. `session_vectors` holds, for each of the views text, adapted and journey that is to be made, tables of
    user_id, start and vector, taken one at a time too. `model` was trained for the catalogue of the sequences; for the
    behaviour view only. `attributes`: user_id, attribute, value. `known_users` may have no event at all. `prices` are
    `category_prices` of the whole log, needed where there are several histories.
    """

    histories: Iterable[Histories]
    session_vectors: Mapping[str, Iterable[pa.Table]] = field(default_factory=dict)
    model: BehaviorModel | None = None
    attributes: pa.Table | None = None
    known_users: Sequence[str] = ()
    prices: pa.Table | None = None


@dataclass(frozen=True)
class UserViews:
    """U users in order of id: `views[name]` is (U, d) float32 and `names[name]` its d column names; the rest is (U,).

    `cold` users have no event before the week: zeros in the views learned from events, the mean of the users with enough
    history as their engagement, their own static attributes.
    """

    user_ids: list[str]
    views: dict[str, npt.NDArray[np.float32]]
    names: dict[str, list[str]]
    events: npt.NDArray[np.int64]
    sessions: npt.NDArray[np.int64]
    enough_history: npt.NDArray[np.bool_]
    cold: npt.NDArray[np.bool_]

    @property
    def engagement(self) -> UserFeatures:
        """The engagement view with its users and names."""
        return UserFeatures(self.user_ids, self.views["engagement"], self.names["engagement"])

    def to_table(self, week: date) -> pa.Table:
        """One row a user: a list column for each view, and `<view>_names` where columns are more than numbered."""
        users = len(self.user_ids)
        columns: dict[str, object] = {
            "week": pa.array([week] * users, pa.date32()),
            "user_id": pa.array(self.user_ids, pa.string()),
            "events": self.events,
            "sessions": self.sessions,
            "enough_history": self.enough_history,
            "cold": self.cold,
        }
        for name, view in self.views.items():
            columns[name] = vector_column(view)
            if name in _NAMED:
                columns[f"{name}_names"] = pa.array([self.names[name]] * users, pa.list_(pa.string()))
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table, views: Sequence[View]) -> UserViews:
        """From rows that `to_table` wrote; those of `views` are read. Raises UserError when one was not made."""
        rows = table.sort_by("user_id")
        absent = [one for one in views if one not in rows.column_names or rows[one].null_count]
        if absent:
            raise UserError(f"user_views: holds no view {absent[0]!r}; materialize user_views of this week again")
        vectors = {str(name): matrix(rows[name]) for name in views}
        return cls(
            rows["user_id"].to_pylist(),
            vectors,
            {n: rows[f"{n}_names"][0].as_py() if n in _NAMED else _numbered(n, v) for n, v in vectors.items()},
            rows["events"].to_numpy(),
            rows["sessions"].to_numpy(),
            rows["enough_history"].to_numpy(zero_copy_only=False),
            rows["cold"].to_numpy(zero_copy_only=False),
        )


def make_views(sources: ViewSources, week_start: datetime, config: UserEmbeddingConfig) -> UserViews:
    """The views that `config.views` lists, of every user known before `week_start` (UTC).

    Raises UserError when fewer than two users have the history that `config` asks for, and when attributes are to be a
    view but there are none.
    """
    warm = _summaries(sources, week_start, config)
    users = sorted({*warm.user_ids, *sources.known_users})
    row_of_warm = np.searchsorted(np.asarray(users, np.str_), np.asarray(warm.user_ids, np.str_))
    cold = np.ones(len(users), bool)
    cold[row_of_warm] = False

    def spread(rows: npt.NDArray[Number]) -> npt.NDArray[Number]:
        everybody = np.zeros((len(users), *rows.shape[1:]), rows.dtype)
        everybody[row_of_warm] = rows
        return everybody

    events, sessions = spread(warm.events), spread(warm.sessions)
    enough = (events >= config.min_events) & (sessions >= config.min_sessions) & ~cold
    if enough.sum() < 2:
        raise UserError(
            f"user_views: {int(enough.sum())} users have {config.min_events} events and {config.min_sessions} sessions "
            f"before {week_start.date()}; choose a later week or lower users.min_events and users.min_sessions"
        )

    def engagement() -> UserFeatures:
        features = spread(warm.engagement)
        features[cold] = features[enough].mean(axis=0, dtype=np.float64)
        return UserFeatures(users, features, warm.names)

    def behavior() -> UserFeatures:
        states = spread(warm.states)
        return UserFeatures(users, states, _numbered("behavior", states))

    makers: dict[str, Callable[[], UserFeatures]] = {
        "engagement": engagement,
        "behavior": behavior,
        "attributes": lambda: _attributes(sources, users),
    }
    made = {
        str(name): makers[name]() if name in makers else _pooled(name, sources, users, week_start, config)
        for name in config.views
    }
    matrices = {name: one.matrix for name, one in made.items()}
    return UserViews(users, matrices, {n: one.names for n, one in made.items()}, events, sessions, enough, cold)


def fuse_views(views: UserViews, chosen: Sequence[View], config: UserEmbeddingConfig) -> Fused:
    """The chosen views fused into (U, D): fitted on the users with enough history, applied to all.

    Cold users get zeros, the mean of those it was fitted on. Raises UserError as `fuse` does.
    """
    picked = {str(name): views.views[name] for name in chosen}
    fitted = fuse({name: view[views.enough_history] for name, view in picked.items()}, config)
    vectors = fitted.fusion.apply(picked)
    vectors[views.cold] = 0.0
    return Fused(vectors, fitted.columns, fitted.fusion)


def session_pools(sessions: pa.Table, item_ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> pa.Table:
    """user_id, start and vector of `sessions` (user_id, start, items): the mean of their items' `vectors` (I, d)."""
    pooled = pool_sessions(sessions["items"].combine_chunks(), item_ids, vectors)
    return pa.table({"user_id": sessions["user_id"], "start": sessions["start"], "vector": vector_column(pooled)})


def latest_sessions(sessions: pa.Table, count: int) -> pa.Table:
    """The `count` latest of each user's sessions that have a text; `sessions` has user_id, start, text and others."""
    told = sessions.filter(pc.is_valid(sessions["text"])).sort_by([("user_id", "ascending"), ("start", "descending")])
    users = told["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return told.filter(pa.array(np.arange(len(users)) - np.searchsorted(users, users) < count))


def _pooled(
    name: View, sources: ViewSources, users: list[str], week_start: datetime, config: UserEmbeddingConfig
) -> UserFeatures:
    """Decayed pools of session vectors; every session counts the same apart from its age."""
    if name not in sources.session_vectors:
        raise ValueError(f"make_views: the view {name!r} is to be made, but it has no session vectors")
    place, profiles = np.asarray(users, np.str_), TextProfiles(len(users), config.half_life_days)
    for rows in sources.session_vectors[name]:
        coded = rows["user_id"].combine_chunks().dictionary_encode()
        owner = np.searchsorted(place, np.asarray(coded.dictionary.to_pylist(), np.str_))[coded.indices.to_numpy()]
        days_ago = (week_start.timestamp() - rows["start"].cast(pa.int64()).to_numpy() / 1e6) / _SECONDS_PER_DAY
        profiles.add(matrix(rows["vector"]), owner, days_ago, np.ones(len(owner)))
    pools = profiles.finish()
    return UserFeatures(users, pools, _numbered(name, pools))


class _Summaries(NamedTuple):
    """Users with an event in order of id: features (U, F) by `names`, states (U, width), and counts (U,)."""

    user_ids: list[str]
    engagement: npt.NDArray[np.float32]
    names: list[str]
    states: npt.NDArray[np.float32]
    events: npt.NDArray[np.int64]
    sessions: npt.NDArray[np.int64]


def _summaries(sources: ViewSources, week_start: datetime, config: UserEmbeddingConfig) -> _Summaries:
    """What is kept of the histories, one after the other."""
    parts = []
    for one in sources.histories:
        found = engagement_features(one.events, one.sessions, week_start, config, sources.prices)
        states = np.zeros((len(found.user_ids), 0), np.float32)
        if "behavior" in config.views:
            states = _states(one.sequences, sources.model, found.user_ids, week_start)
        counts = (_counts(rows["user_id"], found.user_ids) for rows in (one.events, one.sessions))
        parts.append(_Summaries(*found[:2], found.names, states, *counts))
    return _Summaries(
        [user for part in parts for user in part.user_ids],
        np.concatenate([part.engagement for part in parts]),
        parts[0].names,
        np.concatenate([part.states for part in parts]),
        np.concatenate([part.events for part in parts]),
        np.concatenate([part.sessions for part in parts]),
    )


def _states(
    sequences: EventSequences | None, model: BehaviorModel | None, users: list[str], week_start: datetime
) -> npt.NDArray[np.float32]:
    """(U, width) states of the model before the week; zeros for a user that its sequences do not hold."""
    if sequences is None or model is None:
        raise ValueError("make_views: the behaviour view is to be made, but there are no sequences or no model")
    found = np.isin(np.asarray(users, np.str_), sequences.user_ids)
    index = np.searchsorted(sequences.user_ids, np.asarray(users, np.str_)[found])
    cuts = np.full(len(index), int(week_start.timestamp()) * 1_000_000, np.int64)
    states = np.zeros((len(users), model.width), np.float32)
    states[found] = model.states(sequences, cuts, index)[:, :-1]
    return states


def _attributes(sources: ViewSources, users: list[str]) -> UserFeatures:
    if sources.attributes is None or not sources.attributes.num_rows:
        raise UserError("users.views: 'attributes' needs static attributes; set source.users or take it off the list")
    return attribute_features(sources.attributes, users)


def _numbered(name: str, view: npt.NDArray[np.float32]) -> list[str]:
    return [f"{name}_{column + 1}" for column in range(view.shape[1])]


def _counts(column: pa.ChunkedArray, users: list[str]) -> npt.NDArray[np.int64]:
    index = pc.index_in(column, pa.array(users, pa.string()))
    return np.bincount(index.drop_null().to_numpy(), minlength=len(users)).astype(np.int64)
