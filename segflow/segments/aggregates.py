"""The counts that profiles are made of: one small table for each statement under sql/segments/.

What does not live here: what the counts mean (`contrasts.py`, `terms.py`, `journeys.py`, `baskets.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from segflow import sql
from segflow.config import ProfileConfig

_NO_SESSIONS = pa.table(
    {
        "user_id": pa.array([], pa.string()),
        "session_id": pa.array([], pa.string()),
        "start": pa.array([], pa.timestamp("us", tz="UTC")),
        "end": pa.array([], pa.timestamp("us", tz="UTC")),
        "items": pa.array([], pa.list_(pa.string())),
    }
)
_NO_ITEMS = pa.table({name: pa.array([], pa.string()) for name in ("item_id", "title", "category", "text")})
# Of one user; a longer life says no more about how states follow each other.
_HIDDEN_STEPS = 60


class Aggregates:
    """Counts over one log and its segmented users; open it with `Aggregates.over`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, config: ProfileConfig, seed: int) -> None:
        self._connection, self._config, self._seed = connection, config, seed

    @classmethod
    @contextmanager
    def over(
        cls,
        events: pa.Table,
        members: pd.DataFrame,
        sessions: pa.Table | None,
        items: pa.Table | None,
        config: ProfileConfig,
        seed: int,
    ) -> Iterator[Aggregates]:
        """events: user_id, item_id, event_type, ts, value, category; members: user_id, segment_id; sessions: user_id,
        session_id, start, end, items; items: item_id, title, category (the widest), text."""
        # One thread: sums of floats depend on their order, and the same log must give the same bytes.
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("events", events)
            people = pa.table({name: pa.array(members[name], pa.string()) for name in ("user_id", "segment_id")})
            connection.register("members", people)
            connection.register("sessions", _NO_SESSIONS if sessions is None else sessions)
            connection.register("items", _NO_ITEMS if items is None else items)
            yield cls(connection, config, seed)

    def count(self, name: str) -> pd.DataFrame:
        """The rows of `sql/segments/<name>.sql`, in its order."""
        return self._connection.sql(self._statement(name)).df()

    def keep(self, *names: str) -> None:
        """Make temporary tables of statements, for others that read them."""
        for name in names:
            self._connection.sql(f"CREATE TEMP TABLE {sql.identifier(name)} AS {self._statement(name)}")

    def baskets(self) -> pd.DataFrame:
        """segment_id, user_id, session_id and things of sampled sessions, which must be kept before."""
        items = self._connection.sql("SELECT item_id, category FROM items").to_arrow_table()
        by_item = self._config.basket_level == "item" or items["category"].null_count == items.num_rows
        things = pa.table({"item_id": items["item_id"], "thing": items["item_id" if by_item else "category"]})
        self._connection.register("things", things.filter(pc.is_valid(things["thing"])))
        return self.count("baskets")

    def _statement(self, name: str) -> str:
        config = self._config
        return sql.render(
            f"segments/{name}.sql",
            sessions=config.sessions, things=config.basket_things, users=config.hidden_users, steps=_HIDDEN_STEPS,
            seed=self._seed,
        )  # fmt: skip
