"""Representation: vectors of items, sessions and users."""

from __future__ import annotations

import pyarrow as pa

from segflow import tables
from segflow.arrow import vector_column
from segflow.defs.materializes import materializes
from segflow.defs.partitions import DAILY, HISTORY, SAME_DAY, SAME_WEEK, SNAPSHOT, WEEKLY
from segflow.defs.reading import behavior_model_of, event_sequences, events_with_category, item_vectors, start_of
from segflow.defs.step import Step

GROUP = "representation"
_SLICE = 16_384


@materializes(
    tables.ITEM_EMBEDDINGS,
    group=GROUP,
    reads={tables.ITEMS: SNAPSHOT},
    code=["representation/text.py"],
    settings=["text"],
    kinds=["huggingface", "pytorch"],
)
def item_embeddings(step: Step) -> None:
    """Texts whose hash is already there under the same encoder keep their vector."""
    from segflow.representation.text import Encoder, encode_new

    items = step.read(tables.ITEMS, ["item_id", "text", "text_hash"])
    known = step.storage.read(step.connection, tables.ITEM_EMBEDDINGS)
    encoder = Encoder.load(step.config.text, step.config.compute.threads)
    rows, encoded = encode_new(
        encoder, items, known, lambda done, of: step.log(f"item_embeddings: {done} of {of} texts")
    )
    step.note(encoded_texts=encoded, reused_texts=items.num_rows - encoded)
    step.write(tables.ITEM_EMBEDDINGS, rows)


@materializes(
    tables.SESSION_EMBEDDINGS,
    group=GROUP,
    reads={tables.SESSIONS: SAME_DAY, tables.ITEM_EMBEDDINGS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["representation/text.py"],
    kinds=["duckdb"],
)
def session_embeddings(step: Step) -> None:
    """Costs a sparse product per day, not a pass through the language model."""
    from segflow.representation.text import pool_sessions

    ids, vectors = item_vectors(step)
    step.view(tables.SESSIONS)
    sessions = step.query("SELECT day, session_id, user_id, start, value, items FROM sessions ORDER BY ALL")
    schema = tables.SESSION_EMBEDDINGS.arrow

    def embed(part: pa.Table) -> pa.RecordBatch:
        pooled = pool_sessions(part["items"].combine_chunks(), ids, vectors)
        kept = [part[name].combine_chunks().cast(schema.field(name).type) for name in schema.names[:-1]]
        return pa.record_batch([*kept, vector_column(pooled)], schema=schema)

    # Vectors are many times larger than what they are made of: they exist for one slice at a time.
    slices = (sessions.slice(start, _SLICE) for start in range(0, sessions.num_rows, _SLICE))
    step.write(tables.SESSION_EMBEDDINGS, pa.RecordBatchReader.from_batches(schema, (embed(part) for part in slices)))


@materializes(
    tables.BEHAVIOR_MODEL,
    group=GROUP,
    reads={tables.EVENTS: HISTORY, tables.ITEM_EMBEDDINGS: SNAPSHOT},
    partitions=WEEKLY,
    code=["representation/sequences.py", "representation/behavior.py"],
    settings=["behavior", "seed"],
    kinds=["pytorch"],
)
def behavior_model(step: Step) -> None:
    """A causal transformer; its loss is the mean over: which items next, which type next, will the user return, and when."""
    from segflow.representation.behavior import fit_behavior_model

    ids, vectors = item_vectors(step)
    sequences = event_sequences(step, ids)
    curve = step.curve()
    model = fit_behavior_model(sequences, vectors, step.config.behavior, step.config.seed, curve)
    step.write(tables.BEHAVIOR_MODEL, step.model_row(model.to_bytes(), curve.best("valid_loss")))


@materializes(
    tables.USER_EMBEDDINGS,
    group=GROUP,
    reads={
        tables.EVENTS: HISTORY,
        tables.SESSIONS: HISTORY,
        tables.SESSION_EMBEDDINGS: HISTORY,
        tables.ITEMS: SNAPSHOT,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["representation/embedding.py", "representation/users.py", "representation/engagement.sql"],
    settings=["users"],
    kinds=["scikitlearn"],
)
def user_embeddings(step: Step) -> None:
    """Each view is standardized and reduced by its principal components before they are put side by side."""
    from segflow.representation.embedding import embed_users

    ids, _ = item_vectors(step)
    model = behavior_model_of(step)
    users = embed_users(
        events_with_category(step),
        step.read(tables.SESSIONS, ["user_id", "start", "end", "events", "value"]),
        step.read(tables.SESSION_EMBEDDINGS, ["user_id", "start", "value", "vector"]),
        event_sequences(step, ids, model.event_types),
        model,
        start_of(step.week),
        step.config.users,
    )
    step.note(engagement_features=", ".join(users.engagement_names), fused_columns=", ".join(users.fused_names))
    step.write(tables.USER_EMBEDDINGS, users.table)
