"""Tables of the vectors: of items and sessions, the models that make them, views of users, their fusion, the probe."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, day, model_table

ITEM_EMBEDDINGS = Table(
    "item_embeddings",
    "Text vector of each item. Only new or changed texts are encoded.",
    (
        Column("item_id", "VARCHAR", "item"),
        Column("text_hash", "VARCHAR", "SHA-256 of the text the vector was made from"),
        Column("encoder", "VARCHAR", "name and revision of the encoder"),
        Column("vector", "REAL[]", "L2-normalized embedding"),
    ),
    key=("item_id",),
)

SESSION_EMBEDDINGS = Table(
    "session_embeddings",
    "Vector of each session: the normalized mean of its items' text vectors.",
    (
        day("the session's first event"),
        Column("session_id", "VARCHAR", "session"),
        USER,
        Column("start", "TIMESTAMPTZ", "first event of the session"),
        Column("value", "DOUBLE", "sum of event values"),
        Column("vector", "REAL[]", "L2-normalized embedding, all zeros if no item has text"),
    ),
    key=("day", "user_id", "session_id"),
    partitions=("day",),
)


BEHAVIOR_MODEL = model_table("behavior_model", "Event-sequence transformer pre-trained on the log before the week.")
TEXT_ADAPTER = model_table("text_adapter", "What the language model learned from the log before the week (LoRA).")

USER_VIEWS = Table(
    "user_views",
    "Per user and week: each view of the user as a vector. Columns without a list of names are numbered.",
    (
        WEEK,
        USER,
        Column("events", "BIGINT", "events in the history window", minimum=0),
        Column("sessions", "BIGINT", "sessions in the history window", minimum=0),
        Column("enough_history", "BOOLEAN", "whether the user has the history that segmenting asks for"),
        Column("cold", "BOOLEAN", "known, but without any event in the history window"),
        Column("text", "REAL[]", "recency-decayed pool of session vectors", nullable=True),
        Column("journey", "REAL[]", "recency-decayed pool of the encoded texts of the last sessions", nullable=True),
        Column("adapted", "REAL[]", "as text, by the language model adapted to the log", nullable=True),
        Column("behavior", "REAL[]", "state of the behaviour model after the last event", nullable=True),
        Column("engagement", "REAL[]", "engagement features"),
        Column("engagement_names", "VARCHAR[]", "their names, in the same order"),
        Column("attributes", "REAL[]", "static attributes", nullable=True),
        Column("attributes_names", "VARCHAR[]", "their names, in the same order", nullable=True),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

REPRESENTATION_PROBE = Table(
    "representation_probe",
    "How well each view of the users, and each fusion of them, tells what users do in the week that follows.",
    (
        WEEK,
        Column("candidate", "VARCHAR", "view, views joined by `+`, or baseline"),
        Column("kind", "VARCHAR", "what the candidate is", values=("view", "fusion", "baseline")),
        Column("task", "VARCHAR", "what is foretold", values=("churn", "category", "spend", "mean")),
        Column("metric", "VARCHAR", "how the score is measured"),
        Column("columns", "INTEGER", "numbers per user that the candidate has", minimum=1),
        Column("users", "BIGINT", "users scored, each by heads that did not learn from it", minimum=1),
        Column("score", "DOUBLE", "the score"),
        Column("low", "DOUBLE", "lower end of its interval"),
        Column("high", "DOUBLE", "upper end"),
        Column("difference", "DOUBLE", "score minus that of the aggregated features", nullable=True),
        Column("difference_low", "DOUBLE", "lower end of its interval, paired over users", nullable=True),
        Column("difference_high", "DOUBLE", "upper end", nullable=True),
        Column("chosen", "BOOLEAN", "the smallest set of views within one standard error of the best"),
    ),
    key=("week", "candidate", "task"),
    partitions=("week",),
)

USER_EMBEDDINGS = Table(
    "user_embeddings",
    "Per user: the fusion of the views, which is what is clustered.",
    (
        WEEK,
        USER,
        Column("enough_history", "BOOLEAN", "whether the user has the history that segmenting asks for"),
        Column("cold", "BOOLEAN", "known, but without any event in the history window"),
        Column("fused", "REAL[]", "standardized principal components of the views; all zeros for a cold user"),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)
