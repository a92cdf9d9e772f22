"""Which source files hold rows of the users: they are the user's own and are left as they are."""

from __future__ import annotations

import duckdb

from segflow.config import Config
from segflow.errors import UserError
from segflow.events.catalogue import user_edges_query, users_query
from segflow.events.mapping import mapped_events
from segflow.events.source import reading
from segflow.storage.erasing import USERS

_ERASED = f"(SELECT user_id FROM {USERS})"


def holding(connection: duckdb.DuckDBPyConnection, config: Config) -> dict[str, int]:
    """Source file, or the source's address for attributes and ties -> rows of the users, suppressed or not. Reads the whole log.

    Raises UserError when a source cannot be read.
    """
    source = config.source.model_copy(update={"suppressed": None})
    found: dict[str, int] = {}
    with reading(source.events.path):
        rows = mapped_events(connection, source, None, ())
        counted = connection.execute(
            f"SELECT source_file, count(*) FROM ({rows}) WHERE user_id IN {_ERASED} GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    found.update(dict(counted))
    for part, query, where in (
        (source.users, users_query(connection, source), f"user_id IN {_ERASED}"),
        (source.edges, user_edges_query(connection, source), f"user_id IN {_ERASED} OR other_id IN {_ERASED}"),
    ):
        if part is not None:
            with reading(part.path):
                counted = connection.execute(f"SELECT count(*) FROM ({query}) WHERE {where}").fetchall()
            found.update({part.path: counted[0][0]} if counted[0][0] else {})
    return found


def looked_into(connection: duckdb.DuckDBPyConnection, config: Config) -> tuple[dict[str, int], str]:
    """As `holding`, and why the sources could not be read; empty if they could."""
    try:
        return holding(connection, config), ""
    except UserError as error:
        return {}, str(error)
