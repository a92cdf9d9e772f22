"""Tables of the rankers and of what they recommend."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, model_table

_LEARNED = (
    *(f"events.{name}" for name in ("user_id", "item_id", "event_type", "ts", "value")),
    "item_embeddings.item_id",
    "item_embeddings.vector",
    "behavior_model.model",
    "settings",
)
_MEMBERS = ("user_segments.segment_id", "user_segments.probability")
_LISTS = (
    *_LEARNED,
    *_MEMBERS,
    "global_ranker.model",
    "segment_rankers.segment_id",
    "segment_rankers.model",
    "items.item_id",
    "items.category",
    "users.attribute",
    "users.value",
    "user_edges.other_id",
    "user_edges.weight",
)

SERVED_RANKER = Table(
    "served_ranker",
    "Rankers that answer requests from the week after the snapshot week on, as versions in the MLflow registry.",
    (
        WEEK,
        Column("arm", "VARCHAR", "arm of the evaluation that it serves", values=("global", "segments")).made_from(
            "segment_rankers.segment_id"
        ),
        Column("segments", "VARCHAR[]", "segments with a ranker of their own in it").made_from(
            "segment_rankers.segment_id"
        ),
        Column("digest", "VARCHAR", "digest of the bundle, a tag of the registered version").made_from(*_LISTS),
        Column("variant", "VARCHAR", "how matrices are stored", values=("full", "int8")).made_from("settings"),
        Column("bytes", "BIGINT", "size of the bundle's files", minimum=0).made_from(*_LISTS),
    ),
    key=("week", "arm"),
    partitions=("week",),
)

GLOBAL_RANKER = model_table("global_ranker", "The ranker trained on everyone.", made_from=_LEARNED)
SEGMENT_RANKERS = model_table(
    "segment_rankers",
    "What is specific to one segment, on top of the global ranker.",
    Column("segment_id", "VARCHAR", "segment").made_from("partition"),
    made_from=(*_LEARNED, *_MEMBERS, "global_ranker.model"),
    partitions=("week", "segment_id"),
)
_GROUP = (
    Column("group_id", "VARCHAR", "group inside the arm").made_from("code", "user_segments.segment_id"),
    Column("users", "VARCHAR[]", "members of the group", users=True).made_from(
        "user_segments.user_id", "user_segments.segment_id", "settings"
    ),
    Column("shares", "REAL[]", "how surely each of them belongs to it, 0 to 1", along="users").made_from(
        "user_segments.probability"
    ),
)
CONTROL_RANKERS = model_table(
    "control_rankers",
    "The same extra training without rankers of real segments: everybody as one group, random groups of the same sizes, and "
    "one model that is told the segment.",
    Column("arm", "VARCHAR", "control arm").made_from("code"),
    *_GROUP,
    made_from=(*_LEARNED, *_MEMBERS, "global_ranker.model"),
    key=("arm", "group_id"),
)
REPEATED_RANKERS = model_table(
    "repeated_rankers",
    "All rankers of the test trained again with other seeds: to tell luck from gain.",
    Column("seed", "INTEGER", "seed of the training", minimum=0).made_from("settings"),
    Column("arm", "VARCHAR", "arm of the evaluation; `global` has one row and no members").made_from("code"),
    *_GROUP,
    made_from=(*_LEARNED, *_MEMBERS),
    key=("seed", "arm", "group_id"),
)

REASONS = ("often", "due", "again", "together", "like", "segment", "popular", "profile", "contacts", "new")
ARMS = ("global", "segment", "new item", *(f"cold: {step}" for step in ("segment", "content", "social", "popularity")))

RECOMMENDATIONS = Table(
    "recommendations",
    "Top items per user for the week after the snapshot week.",
    (
        WEEK,
        USER.made_from("events.user_id", "users.user_id", "user_edges.user_id", "user_edges.other_id"),
        Column("rank", "INTEGER", "1 is best", minimum=1).made_from(*_LISTS),
        Column("item_id", "VARCHAR", "item").made_from(*_LISTS),
        Column(
            "score", "DOUBLE", "score of the arm with boosts, before re-ranking; comparable inside one user only"
        ).made_from(*_LISTS),
        Column(
            "arm",
            "VARCHAR",
            "what scored: a ranker; `cold`: a fallback, for users without events; `new item`: texts",
            values=ARMS,
        ).made_from(*_LISTS),
        Column("segment_id", "VARCHAR", "the user's segment").made_from("user_segments.segment_id"),
        Column("reason", "VARCHAR", "what holds of user and item and raised the score most", values=REASONS).made_from(
            *_LISTS
        ),
        Column("reason_item", "VARCHAR", "the item that the user had, which the reason names", nullable=True).made_from(
            *_LISTS
        ),
        Column("reason_text", "VARCHAR", "the reason in words").made_from(
            *_LISTS, "items.title", "segment_ledger.name"
        ),
    ),
    key=("week", "user_id", "rank"),
    partitions=("week",),
)
