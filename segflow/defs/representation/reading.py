"""What the views of users are read from: their histories some users at a time, and the vectors of their sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.arrow import vector_column
from segflow.defs.partitions import CONFIG, SAME_WEEK, SNAPSHOT, Window
from segflow.defs.step import Step
from segflow.errors import UserError
from segflow.reading import opened
from segflow.reading.rankers import behavior_model_of, item_vectors
from segflow.sql import load

if TYPE_CHECKING:
    from segflow.representation.adaptation import Adapter
    from segflow.representation.histories import Histories
    from segflow.representation.views import ViewSources
    from segflow.tables import Table

ENCODER = "encoder"
"""The part of a day of session_embeddings that says whose vectors they are."""
_ROWS = 65_536


def view_windows(history: Window) -> dict[Table, Window]:
    """What `view_sources` reads, with the log in `history`."""
    return {
        tables.EVENTS: history,
        tables.SESSIONS: history,
        tables.SESSION_EMBEDDINGS: history,
        tables.ITEMS: SNAPSHOT,
        tables.USERS: SNAPSHOT,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        **({tables.TEXT_ADAPTER: SAME_WEEK} if "adapted" in CONFIG.users.views else {}),
    }


def view_sources(step: Step, until: datetime) -> ViewSources:
    """What the views of users at `until` are made of, of the step's window."""
    from segflow.representation.users import category_prices
    from segflow.representation.views import ViewSources

    with opened(step.spec([tables.EVENTS, tables.ITEMS])) as other:
        other.view(tables.EVENTS, "log")
        other.view(tables.ITEMS)
        categories = "SELECT ts, value, items.category[1] AS category FROM log LEFT JOIN items USING (item_id)"
        other.connection.execute(f"CREATE TEMP VIEW events AS {categories}")
        prices = category_prices(other.connection, until, step.config.users)
    attributes = step.read(tables.USERS)
    return ViewSources(
        _histories(step),
        session_vectors(step),
        behavior_model_of(step),
        attributes,
        attributes["user_id"].unique().to_pylist(),
        prices,
    )


def _histories(step: Step) -> Iterator[Histories]:
    """Users in order of id, so many at a time that their events are about `compute.rows_at_once`.

    Both tables are sorted by user within the memory that `compute` gives, and read once, side by side.
    """
    from segflow.representation.histories import Histories, UpTo, whole_users
    from segflow.representation.sequences import EventSequences

    ids, _ = item_vectors(step)
    types = behavior_model_of(step).event_types
    known = pa.array(types, pa.string())
    step.view(tables.EVENTS)
    step.view(tables.ITEMS)
    with opened(step.spec([tables.SESSIONS])) as other:
        other.view(tables.SESSIONS)
        statement = load("representation/sessions_by_user.sql")
        sessions = UpTo(other.connection.sql(statement).to_arrow_reader(_ROWS))
        rows = step.connection.sql(load("representation/events_with_category.sql")).to_arrow_reader(_ROWS)
        for events in whole_users(rows, step.config.compute.rows_at_once):
            # Events of a type that the model never saw are left out of its sequences.
            seen = events.filter(pc.is_in(events["event_type"], known))
            of_users = sessions.user(events["user_id"][-1].as_py()) if len(events) else sessions.schema.empty_table()
            yield Histories(events, of_users, EventSequences.from_arrow(seen, ids, types))


def session_vectors(step: Step) -> dict[str, Iterable[pa.Table]]:
    """For each configured view that pools sessions, their user_id, start and vector in the step's history.

    The stored vectors are read as they are asked for: all of them are many times larger than what they were made of.
    """
    from segflow.representation.encoder import Encoder
    from segflow.representation.text import journey_vectors
    from segflow.representation.text_cache import TextCache
    from segflow.representation.views import latest_sessions, session_pools

    config = step.config.text
    found: dict[str, Iterable[pa.Table]] = {}
    if "text" in step.config.users.views:
        _require_one_encoder(step)
        found["text"] = step.days_of(tables.SESSION_EMBEDDINGS, ["user_id", "start", "vector"])
    if "journey" in step.config.users.views:
        latest = latest_sessions(step.read(tables.SESSIONS, ["user_id", "start", "text"]), config.journey_sessions)
        encoder = Encoder.load(config, step.config.compute.threads)
        vectors = journey_vectors(encoder, TextCache(config.cache), latest["text"], step.engine)
        found["journey"] = [latest.select(["user_id", "start"]).append_column("vector", vector_column(vectors))]
    if "adapted" in step.config.users.views:
        items = step.read(tables.ITEMS, ["item_id", "text"])
        encoder = text_adapter_of(step).apply(Encoder.load(config, step.config.compute.threads))
        vectors = TextCache(config.cache).vectors(encoder, items["text"].to_pylist(), engine=step.engine)
        sessions = step.read(tables.SESSIONS, ["user_id", "start", "items"])
        found["adapted"] = [session_pools(sessions, items["item_id"].to_pylist(), vectors)]
    return found


def text_adapter_of(step: Step) -> Adapter:
    """What the language model learned from the log before the step's week."""
    from segflow.representation.adaptation import Adapter

    return Adapter.from_bytes(step.read(tables.TEXT_ADAPTER, ["model"])["model"][0].as_py())


def encoder_of_items(step: Step) -> str:
    """Name and revision of the encoder that made the item vectors. bfloat16 and float32 give vectors of the same direction."""
    names = step.read(tables.ITEM_EMBEDDINGS, ["encoder"])["encoder"].unique().to_pylist()
    return "".join(str(name).removesuffix("-float32").removesuffix("-bfloat16") for name in names)


def _require_one_encoder(step: Step) -> None:
    """Raise UserError when some days of session vectors are of the encoder of now and others are not: their mean is of nothing.

    Of days that were made before it was recorded, and of days without a session, nothing is known and nothing asked.
    """
    low, high = step.bounds(tables.SESSION_EMBEDDINGS)["day"]
    version = step.version(tables.SESSION_EMBEDDINGS)
    held = {str(key[0]) for key in step.storage.partitions(tables.SESSION_EMBEDDINGS, version)}
    made = step.provenance.aspect(tables.SESSION_EMBEDDINGS.name, ENCODER, (low, high))
    encoders = {day: encoder for day, encoder in made.items() if day in held}
    if len(set(encoders.values())) > 1:
        now = encoder_of_items(step)
        other = sorted(day for day, encoder in encoders.items() if encoder != now)
        raise UserError(
            f"session_embeddings: {len(other)} of {len(encoders)} days are of the encoder {encoders[other[0]]}, the others of "
            f"{now}; run `segflow backfill {other[0]}..{other[-1]} --assets session_embeddings`, then this again"
        )
