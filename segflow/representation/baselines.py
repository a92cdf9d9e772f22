"""What user vectors must beat: the features that a competent analyst would make of the log by hand.

The other baseline, a GRU autoencoder, is in `autoencoder.py`; the comparison is in `probe.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segflow import sql
from segflow.representation.users import UserFeatures

_MOST_PARTS = 40
_PART_FEATURES = ("events", "events_28", "value", "recency_days")


def aggregated_features(events: pa.Table, users: list[str], week_start: datetime) -> UserFeatures:
    """(U, F) float32: recency, frequency, value and rhythm of each user, and the same by event type and top category.

    `events` has user_id, item_id, event_type, ts, value and category; rows at or after `week_start` (UTC) are ignored.
    By type and category (the 40 held by most users): count, count and share, value, and days since the last one. Counts,
    durations and amounts enter as ln(1 + x). A user without an event gets the row of somebody who never did anything.
    """
    if week_start.tzinfo is not None:
        week_start = week_start.astimezone(UTC).replace(tzinfo=None)
    # One thread: sums of floats depend on their order, and the same log must give the same bytes.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("events", events)
        whole = connection.sql(sql.render("representation/aggregated.sql", week_start=week_start)).to_arrow_table()
        statement = sql.render("representation/aggregated_parts.sql", week_start=week_start, most_parts=_MOST_PARTS)
        parts = connection.sql(statement).to_arrow_table()
    names = [name for name in whole.column_names if name != "user_id"]
    row = _rows(whole, users)
    matrix = np.zeros((len(users), len(names)))
    for column, name in enumerate(names):
        values = whole[name].to_numpy().astype(np.float64)
        matrix[row, column] = np.log1p(np.maximum(values, 0)) if name.startswith("log_") else values
    by_part, part_names = _by_part(parts, users)
    return UserFeatures(users, np.hstack([matrix, by_part]).astype(np.float32), names + part_names)


def _by_part(parts: pa.Table, users: list[str]) -> tuple[np.ndarray, list[str]]:
    """(U, 5 * parts): the part features in logarithms and each part's share of the user's events of its kind."""
    coded = parts["part"].combine_chunks().dictionary_encode()
    column, labels = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    row = _rows(parts, users)
    blocks, names = [], []
    for feature in _PART_FEATURES:
        values = np.maximum(parts[feature].to_numpy().astype(np.float64), 0)
        # Never is longer ago than anything that happened.
        block = np.full((len(users), len(labels)), values.max() if feature == "recency_days" else 0.0)
        block[row, column] = values
        if feature == "events":
            kinds = np.array([label.split("=", 1)[0] == "type" for label in labels])
            total = np.where(kinds, block[:, kinds].sum(1)[:, None], block[:, ~kinds].sum(1)[:, None])
            blocks.append(block / np.maximum(total, 1))
            names += [f"share {label}" for label in labels]
        blocks.append(np.log1p(block))
        names += [f"log_{feature} {label}" for label in labels]
    return np.hstack(blocks), names


def _rows(table: pa.Table, users: list[str]) -> np.ndarray:
    found: np.ndarray = pc.index_in(table["user_id"], pa.array(users, pa.string())).to_numpy(zero_copy_only=False)
    return found
