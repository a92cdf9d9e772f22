"""Tables of the rankers and of what they recommend."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, model_table

SERVED_RANKER = Table(
    "served_ranker",
    "Rankers that answer requests from the week after the snapshot week on, as versions in the MLflow registry.",
    (
        WEEK,
        Column("arm", "VARCHAR", "arm of the evaluation that it serves", values=("global", "segments")),
        Column("segments", "VARCHAR[]", "segments with a ranker of their own in it"),
        Column("digest", "VARCHAR", "digest of the bundle, a tag of the registered version"),
        Column("variant", "VARCHAR", "how matrices are stored", values=("full", "int8")),
        Column("bytes", "BIGINT", "size of the bundle's files", minimum=0),
    ),
    key=("week", "arm"),
    partitions=("week",),
)

GLOBAL_RANKER = model_table("global_ranker", "The ranker trained on everyone.")
SEGMENT_RANKERS = model_table(
    "segment_rankers",
    "What is specific to one segment, on top of the global ranker.",
    Column("segment_id", "VARCHAR", "segment"),
    partitions=("week", "segment_id"),
)
_GROUP = (
    Column("group_id", "VARCHAR", "group inside the arm"),
    Column("users", "VARCHAR[]", "members of the group"),
    Column("shares", "REAL[]", "how surely each of them belongs to it, 0 to 1"),
)
CONTROL_RANKERS = model_table(
    "control_rankers",
    "The same extra training without rankers of real segments: everybody as one group, random groups of the same sizes, and "
    "one model that is told the segment.",
    Column("arm", "VARCHAR", "control arm"),
    *_GROUP,
    key=("arm", "group_id"),
)
REPEATED_RANKERS = model_table(
    "repeated_rankers",
    "All rankers of the test trained again with other seeds: to tell luck from gain.",
    Column("seed", "INTEGER", "seed of the training", minimum=0),
    Column("arm", "VARCHAR", "arm of the evaluation; `global` has one row and no members"),
    *_GROUP,
    key=("seed", "arm", "group_id"),
)

REASONS = ("often", "due", "again", "together", "like", "segment", "popular", "profile", "contacts", "new")
ARMS = ("global", "segment", "new item", *(f"cold: {step}" for step in ("segment", "content", "social", "popularity")))

RECOMMENDATIONS = Table(
    "recommendations",
    "Top items per user for the week after the snapshot week.",
    (
        WEEK,
        USER,
        Column("rank", "INTEGER", "1 is best", minimum=1),
        Column("item_id", "VARCHAR", "item"),
        Column("score", "DOUBLE", "score of the arm with boosts, before re-ranking; comparable inside one user only"),
        Column(
            "arm",
            "VARCHAR",
            "what scored: a ranker; `cold`: a fallback, for users without events; `new item`: texts",
            values=ARMS,
        ),
        Column("segment_id", "VARCHAR", "the user's segment"),
        Column("reason", "VARCHAR", "what holds of user and item and raised the score most", values=REASONS),
        Column("reason_item", "VARCHAR", "the item that the user had, which the reason names", nullable=True),
        Column("reason_text", "VARCHAR", "the reason in words"),
    ),
    key=("week", "user_id", "rank"),
    partitions=("week",),
)
