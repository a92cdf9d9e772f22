"""Tables of the vectors: of items and sessions, the models that make them, views of users, their fusion, the probe."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, day, model_table

_EVENTS = tuple(f"events.{name}" for name in ("user_id", "item_id", "event_type", "ts", "value"))
_VECTORS = ("item_embeddings.item_id", "item_embeddings.vector")
_VIEWS = tuple(f"user_views.{name}" for name in ("text", "journey", "adapted", "behavior", "engagement", "attributes"))
_PROBED = (*_VIEWS, *_EVENTS, "items.item_id", "items.category", "settings")

ITEM_EMBEDDINGS = Table(
    "item_embeddings",
    "Text vector of each item. Only new or changed texts are encoded.",
    (
        Column("item_id", "VARCHAR", "item").made_from("items.item_id"),
        Column("text_hash", "VARCHAR", "SHA-256 of the text the vector was made from").made_from("items.text_hash"),
        Column("encoder", "VARCHAR", "name and revision of the encoder").made_from("language model", "settings"),
        Column("vector", "REAL[]", "L2-normalized embedding").made_from("items.text", "language model", "settings"),
    ),
    key=("item_id",),
)

SESSION_EMBEDDINGS = Table(
    "session_embeddings",
    "Vector of each session: the normalized mean of its items' text vectors.",
    (
        day("the session's first event").made_from("sessions.day"),
        Column("session_id", "VARCHAR", "session").made_from("sessions.session_id"),
        USER.made_from("sessions.user_id"),
        Column("start", "TIMESTAMPTZ", "first event of the session").made_from("sessions.start"),
        Column("value", "DOUBLE", "sum of event values").made_from("sessions.value"),
        Column("vector", "REAL[]", "L2-normalized embedding, all zeros if no item has text").made_from(
            "sessions.items", "item_embeddings.item_id", "item_embeddings.vector"
        ),
    ),
    key=("day", "user_id", "session_id"),
    partitions=("day",),
)


BEHAVIOR_MODEL = model_table(
    "behavior_model",
    "Event-sequence transformer pre-trained on the log before the week.",
    made_from=(*_EVENTS, *_VECTORS, "settings"),
)
TEXT_ADAPTER = model_table(
    "text_adapter",
    "What the language model learned from the log before the week (LoRA).",
    made_from=("sessions.start", "sessions.items", "items.item_id", "items.text", "language model", "settings"),
)

USER_VIEWS = Table(
    "user_views",
    "Per user and week: each view of the user as a vector. Columns without a list of names are numbered.",
    (
        WEEK,
        USER.made_from("events.user_id", "users.user_id"),
        Column("events", "BIGINT", "events in the history window", minimum=0).made_from("events.*"),
        Column("sessions", "BIGINT", "sessions in the history window", minimum=0).made_from("sessions.*"),
        Column("enough_history", "BOOLEAN", "whether the user has the history that segmenting asks for").made_from(
            "events.*", "sessions.*", "settings"
        ),
        Column("cold", "BOOLEAN", "known, but without any event in the history window").made_from(
            "events.user_id", "users.user_id"
        ),
        Column("text", "REAL[]", "recency-decayed pool of session vectors", nullable=True).made_from(
            "session_embeddings.start", "session_embeddings.vector", "settings"
        ),
        Column(
            "journey", "REAL[]", "recency-decayed pool of the encoded texts of the last sessions", nullable=True
        ).made_from("sessions.start", "sessions.text", "language model", "settings"),
        Column("adapted", "REAL[]", "as text, by the language model adapted to the log", nullable=True).made_from(
            "sessions.start",
            "sessions.items",
            "items.item_id",
            "items.text",
            "text_adapter.model",
            "language model",
            "settings",
        ),
        Column("behavior", "REAL[]", "state of the behaviour model after the last event", nullable=True).made_from(
            "events.item_id",
            "events.event_type",
            "events.ts",
            "events.value",
            "item_embeddings.item_id",
            "behavior_model.model",
        ),
        Column("engagement", "REAL[]", "engagement features").made_from(
            "events.item_id",
            "events.ts",
            "events.value",
            "items.item_id",
            "items.category",
            "sessions.start",
            "sessions.end",
            "settings",
        ),
        Column("engagement_names", "VARCHAR[]", "their names, in the same order").made_from("code"),
        Column("attributes", "REAL[]", "static attributes", nullable=True).made_from("users.attribute", "users.value"),
        Column("attributes_names", "VARCHAR[]", "their names, in the same order", nullable=True).made_from(
            "users.attribute", "users.value"
        ),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

REPRESENTATION_PROBE = Table(
    "representation_probe",
    "How well each view of the users, and each fusion of them, tells what users do in the week that follows.",
    (
        WEEK,
        Column("candidate", "VARCHAR", "view, views joined by `+`, or baseline").made_from("code", "settings"),
        Column("kind", "VARCHAR", "what the candidate is", values=("view", "fusion", "baseline")).made_from("code"),
        Column("task", "VARCHAR", "what is foretold", values=("churn", "category", "spend", "mean")).made_from("code"),
        Column("metric", "VARCHAR", "how the score is measured").made_from("code"),
        Column("columns", "INTEGER", "numbers per user that the candidate has", minimum=1).made_from(*_PROBED),
        Column("users", "BIGINT", "users scored, each by heads that did not learn from it", minimum=1).made_from(
            "user_views.*"
        ),
        Column("score", "DOUBLE", "the score").made_from(*_PROBED),
        Column("low", "DOUBLE", "lower end of its interval").made_from(*_PROBED),
        Column("high", "DOUBLE", "upper end").made_from(*_PROBED),
        Column("difference", "DOUBLE", "score minus that of the aggregated features", nullable=True).made_from(
            *_PROBED
        ),
        Column("difference_low", "DOUBLE", "lower end of its interval, paired over users", nullable=True).made_from(
            *_PROBED
        ),
        Column("difference_high", "DOUBLE", "upper end", nullable=True).made_from(*_PROBED),
        Column("chosen", "BOOLEAN", "the smallest set of views within one standard error of the best").made_from(
            *_PROBED
        ),
    ),
    key=("week", "candidate", "task"),
    partitions=("week",),
)

USER_EMBEDDINGS = Table(
    "user_embeddings",
    "Per user: the fusion of the views, which is what is clustered.",
    (
        WEEK,
        USER.made_from("user_views.user_id"),
        Column("enough_history", "BOOLEAN", "whether the user has the history that segmenting asks for").made_from(
            "user_views.enough_history"
        ),
        Column("cold", "BOOLEAN", "known, but without any event in the history window").made_from("user_views.cold"),
        Column(
            "fused", "REAL[]", "standardized principal components of the views; all zeros for a cold user"
        ).made_from(
            *_VIEWS,
            "user_views.enough_history",
            "user_views.cold",
            "representation_probe.candidate",
            "representation_probe.chosen",
            "settings",
        ),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)
