"""The schema of every table, in one place.

From these declarations come the storage schema, the column schema that Dagster shows, the checks that run before each commit,
and the table reference in the docs. No I/O lives here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

_ARROW = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "REAL": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "BLOB": pa.binary(),
    "VARCHAR[]": pa.list_(pa.string()),
    "REAL[]": pa.list_(pa.float32()),
    "BIGINT[]": pa.list_(pa.int64()),
    "MAP(VARCHAR, DOUBLE)": pa.map_(pa.string(), pa.float64()),
    "MAP(VARCHAR, BIGINT)": pa.map_(pa.string(), pa.int64()),
}


@dataclass(frozen=True)
class Column:
    """One column. `type` is a DuckDB type; `minimum` and `maximum` bound numbers, `values` lists what text may be."""

    name: str
    type: str
    description: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: Sequence[str] = ()

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, _ARROW[self.type], nullable=self.nullable)


@dataclass(frozen=True)
class Table:
    """One table. `partitions` are the columns that a write replaces by; `key` identifies a row inside the whole table."""

    name: str
    description: str
    columns: Sequence[Column]
    key: Sequence[str]
    partitions: Sequence[str] = ()

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([column.arrow for column in self.columns])

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


def _day(what: str) -> Column:
    return Column("day", "DATE", f"UTC day of {what}")


_WEEK = Column("week", "DATE", "first day of the snapshot week: models saw only events before it")
_USER = Column("user_id", "VARCHAR", "user")
_SOURCE = (
    Column("source_file", "VARCHAR", "file the row came from"),
    Column("source_row", "BIGINT", "row number in that file, counted from 0", minimum=0),
)


def _share(name: str, description: str, nullable: bool = False) -> Column:
    return Column(name, "DOUBLE", description, nullable, minimum=0.0, maximum=1.0)


_RAW_FIELDS = (
    Column("event_id", "VARCHAR", "the source's id of the event, if it has one", nullable=True),
    Column("user_id", "VARCHAR", "user", nullable=True),
    Column("item_id", "VARCHAR", "item", nullable=True),
    Column("event_type", "VARCHAR", "kind of event, lower case", nullable=True),
    Column("ts", "TIMESTAMPTZ", "moment of the event", nullable=True),
    Column("value", "DOUBLE", "money value of the line, in the source's currency", nullable=True),
    Column("quantity", "DOUBLE", "number of units", nullable=True),
    Column("session_id", "VARCHAR", "the source's own session or basket", nullable=True),
    Column("text", "VARCHAR", "free text of the event, such as a search phrase", nullable=True),
    Column("unparsed", "VARCHAR", "fields that could not be read, as `field=original text`", nullable=True),
)

SOURCE_FILES = Table(
    "source_files",
    "What lies in which source file: one row a file and day that it holds rows of. Only new and changed files are read.",
    (
        Column("file", "VARCHAR", "file, as in `source_file` of its rows"),
        Column(
            "day",
            "DATE",
            "UTC day of rows in it; undated rows lie with the file's last day",
        ),
        Column("rows", "BIGINT", "rows of that day", minimum=0),
        Column("digest", "VARCHAR", "digest of these rows as they are mapped"),
        Column("size", "BIGINT", "bytes of the file", minimum=0),
        Column("modified", "BIGINT", "when the file was changed last, in nanoseconds since 1970"),
        Column("drift", "VARCHAR", "how its columns differ from those of the other files", nullable=True),
        Column("mapping", "VARCHAR", "digest of the settings and code that the rows were mapped by"),
    ),
    key=("file", "day"),
)

RAW_EVENTS = Table(
    "raw_events",
    "Source rows mapped to the event schema, with their file and row number. Nothing is dropped here.",
    (_day("the event; rows without a usable date are kept on the last day of their file"), *_RAW_FIELDS, *_SOURCE),
    key=("source_file", "source_row"),
    partitions=("day",),
)

REASONS = (
    "unreadable_field",
    "missing_user",
    "missing_time",
    "outside_calendar",
    "absurd_number",
    "missing_type",
    "unknown_item",
    "excluded_item",
    "non_positive_quantity",
    "non_positive_value",
    "unknown_type",
    "bot_rate",
    "bot_pattern",
    "duplicate",
)

EVENTS = Table(
    "events",
    "Valid, deduplicated, human events.",
    (
        _day("the event"),
        Column("event_id", "VARCHAR", "the source's id, or a hash of what identifies the row"),
        _USER,
        Column("item_id", "VARCHAR", "item", nullable=True),
        Column("event_type", "VARCHAR", "kind of event, lower case"),
        Column("ts", "TIMESTAMPTZ", "moment of the event"),
        Column("value", "DOUBLE", "money value of the line", nullable=True),
        Column("quantity", "DOUBLE", "number of units", nullable=True),
        Column("weight", "DOUBLE", "how much an event of this type counts", minimum=0.0),
        Column("session_id", "VARCHAR", "the source's own session or basket", nullable=True),
        Column("text", "VARCHAR", "free text of the event", nullable=True),
        Column("imputed", "VARCHAR", "fields that were missing and filled in by rule", nullable=True),
        *_SOURCE,
    ),
    key=("day", "event_id"),
    partitions=("day",),
)

QUARANTINED_EVENTS = Table(
    "quarantined_events",
    "Every source row that did not become an event, unchanged, with the reason.",
    (
        _day("the event"),
        Column("reason", "VARCHAR", "why the row is no event", values=REASONS),
        *_RAW_FIELDS,
        *_SOURCE,
    ),
    key=("source_file", "source_row"),
    partitions=("day",),
)

SESSIONS = Table(
    "sessions",
    "One row a session, kept on the day it starts; a session may cross midnight.",
    (
        _day("the session's first event"),
        Column("session_id", "VARCHAR", "the source's own session, or user and start"),
        _USER,
        Column("start", "TIMESTAMPTZ", "first event"),
        Column("end", "TIMESTAMPTZ", "last event"),
        Column("duration", "DOUBLE", "seconds from the first to the last event", minimum=0.0),
        Column("events", "INTEGER", "number of events", minimum=1),
        Column("type_counts", "MAP(VARCHAR, BIGINT)", "number of events of each type"),
        Column("distinct_items", "INTEGER", "number of different items", minimum=0),
        Column("value", "DOUBLE", "sum of event values"),
        Column("weight", "DOUBLE", "sum of event weights", minimum=0.0),
        Column("items", "VARCHAR[]", "items in order"),
        Column("event_types", "VARCHAR[]", "event types in order"),
        Column("gaps", "REAL[]", "seconds since the event before, 0 for the first"),
        Column("text", "VARCHAR", "titles of the distinct items in order of first event", nullable=True),
    ),
    key=("day", "user_id", "session_id"),
    partitions=("day",),
)

USER_DAYS = Table(
    "user_days",
    "What a user did on a day, as sums: engagement over any time is had by adding days up.",
    (
        _day("the events"),
        _USER,
        Column("events", "BIGINT", "number of events", minimum=1),
        Column("sessions", "BIGINT", "sessions that started on the day", minimum=0),
        Column("seconds", "DOUBLE", "length of these sessions", minimum=0.0),
        Column("value", "DOUBLE", "sum of event values"),
        Column("quantity", "DOUBLE", "sum of quantities"),
        Column("weight", "DOUBLE", "sum of event weights", minimum=0.0),
        Column("distinct_items", "BIGINT", "number of different items", minimum=0),
        Column("distinct_categories", "BIGINT", "number of different widest categories", minimum=0),
        Column("type_counts", "MAP(VARCHAR, BIGINT)", "number of events of each type"),
        Column("hour_counts", "BIGINT[]", "number of events in each of the 24 hours (UTC)"),
        Column("first", "TIMESTAMPTZ", "first event"),
        Column("last", "TIMESTAMPTZ", "last event"),
    ),
    key=("day", "user_id"),
    partitions=("day",),
)

DAY_REPORTS = Table(
    "day_reports",
    "The report page of each day: what came, what became of it, and why rows are in quarantine.",
    (
        _day("the log"),
        Column("raw_rows", "BIGINT", "source rows", minimum=0),
        Column("event_rows", "BIGINT", "rows that became events", minimum=0),
        Column("reasons", "MAP(VARCHAR, BIGINT)", "rows in quarantine by reason"),
        Column("html", "VARCHAR", "the page"),
    ),
    key=("day",),
    partitions=("day",),
)

ITEMS = Table(
    "items",
    "The catalogue, with the text that the language model reads.",
    (
        Column("item_id", "VARCHAR", "item"),
        Column("title", "VARCHAR", "what people call it"),
        Column("category", "VARCHAR[]", "path from the widest category to the narrowest"),
        Column("brand", "VARCHAR", "brand", nullable=True),
        Column("price", "DOUBLE", "list price", nullable=True),
        Column("text", "VARCHAR", "composed text"),
        Column("text_hash", "VARCHAR", "SHA-256 of the text"),
    ),
    key=("item_id",),
)

USERS = Table(
    "users",
    "Optional static attributes of users, one row per user and attribute. Never clustered on; used to validate.",
    (
        _USER,
        Column("attribute", "VARCHAR", "name of the attribute"),
        Column("value", "VARCHAR", "its value"),
    ),
    key=("user_id", "attribute"),
)

USER_EDGES = Table(
    "user_edges",
    "Optional ties between users, such as friends or followers.",
    (
        _USER,
        Column("other_id", "VARCHAR", "the user that it is tied to"),
        Column("weight", "DOUBLE", "strength of the tie", minimum=0.0),
    ),
    key=("user_id", "other_id"),
)

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
        _day("the session's first event"),
        Column("session_id", "VARCHAR", "session"),
        _USER,
        Column("start", "TIMESTAMPTZ", "first event of the session"),
        Column("value", "DOUBLE", "sum of event values"),
        Column("vector", "REAL[]", "L2-normalized embedding, all zeros if no item has text"),
    ),
    key=("day", "user_id", "session_id"),
    partitions=("day",),
)


def _model_table(name: str, description: str, *extra: Column, partitions: Sequence[str] = ("week",)) -> Table:
    """A table whose rows hold a model as safetensors bytes: atomic, versioned and stored like any other table."""
    columns = (
        _WEEK,
        *extra,
        Column("model", "BLOB", "parameters and settings as safetensors"),
        Column("metrics", "VARCHAR", "training and validation figures as JSON"),
    )
    return Table(name, description, columns, key=("week", *(one.name for one in extra)), partitions=partitions)


BEHAVIOR_MODEL = _model_table("behavior_model", "Event-sequence transformer pre-trained on the log before the week.")
GLOBAL_RANKER = _model_table("global_ranker", "The ranker trained on everyone.")
SEGMENT_RANKERS = _model_table(
    "segment_rankers",
    "What is specific to one segment, on top of the global ranker.",
    Column("segment_id", "VARCHAR", "segment"),
    partitions=("week", "segment_id"),
)
CONTROL_RANKERS = _model_table(
    "control_rankers",
    "The same extra training without real segments: everybody as one group, and random groups of the same sizes.",
    Column("arm", "VARCHAR", "control arm"),
    Column("group_id", "VARCHAR", "group inside the arm"),
    Column("users", "VARCHAR[]", "members of the group"),
)

TEXT_ADAPTER = _model_table("text_adapter", "What the language model learned from the log before the week (LoRA).")

USER_VIEWS = Table(
    "user_views",
    "Per user and week: each view of the user as a vector. Columns without a list of names are numbered.",
    (
        _WEEK,
        _USER,
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
        _WEEK,
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
        _WEEK,
        _USER,
        Column("enough_history", "BOOLEAN", "whether the user has the history that segmenting asks for"),
        Column("cold", "BOOLEAN", "known, but without any event in the history window"),
        Column("fused", "REAL[]", "standardized principal components of the views; all zeros for a cold user"),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

VERDICTS = ("segments", "no segment structure", "no stable segments")

SEGMENTATION = Table(
    "segmentation",
    "The candidates that were tried, what speaks for and against each, and the fitted clustering that was chosen, if any.",
    (
        _WEEK,
        Column("algorithm", "VARCHAR", "clusterer"),
        Column("parameter", "DOUBLE", "what the clusterer was given: the number of clusters, a density, or 0"),
        Column("k", "INTEGER", "number of clusters", minimum=0),
        Column("silhouette", "DOUBLE", "mean silhouette (sampled); users of no cluster count 0", minimum=-1.0, maximum=1.0),
        Column(
            "null_silhouette", "DOUBLE", "silhouette of as many clusters in copies without structure", nullable=True,
            minimum=-1.0, maximum=1.0,
        ),
        Column("separation", "DOUBLE", "silhouette less that in copies without structure", nullable=True),
        _share("border", "share of users between two clusters (sampled)"),
        _share("null_border", "the same in elliptical copies without structure", nullable=True),
        Column("calinski_harabasz", "DOUBLE", "Calinski–Harabasz index", nullable=True, minimum=0.0),
        Column("davies_bouldin", "DOUBLE", "Davies–Bouldin index", nullable=True, minimum=0.0),
        Column(
            "dunn", "DOUBLE", "Dunn's index: least distance of centroids over the largest mean diameter", nullable=True,
            minimum=0.0,
        ),
        _share("stability_mean", "mean bootstrap Jaccard over clusters"),
        _share("stability_min", "bootstrap Jaccard of the least stable cluster"),
        _share("stable_share", "share of clusters that are stable"),
        Column("smallest_users", "BIGINT", "users in the smallest cluster, by its share of the sample", minimum=0),
        _share("smallest_share", "share of users in the smallest cluster"),
        _share("assigned_share", "share of users in any cluster"),
        Column("separated", "BOOLEAN", "clearly further apart than copies without structure, and fewer users between"),
        Column("eligible", "BOOLEAN", "most clusters stable and none too small"),
        Column("chosen", "BOOLEAN", "the candidate that is used"),
        Column("verdict", "VARCHAR", "what the week's table comes to; the same in every row", values=VERDICTS),
        Column("model", "BLOB", "the fitted clustering as safetensors; chosen row only", nullable=True),
    ),
    key=("week", "algorithm", "parameter"),
    partitions=("week",),
)  # fmt: skip

LEDGER_EVENTS = ("emerge", "survive", "split", "merge", "vanish")

SEGMENT_LEDGER = Table(
    "segment_ledger",
    "What became of each segment since the snapshot before. Ids are never reused. Names are given at birth and frozen until a "
    "split or merge. A week without segments has no rows; the latest week may be made anew, an earlier one only if asked for.",
    (
        _WEEK,
        Column("segment_id", "VARCHAR", "segment"),
        Column("name", "VARCHAR", "name given at birth, or after the last split or merge that it survived"),
        Column("former_name", "VARCHAR", "name until this week, if it was named anew", nullable=True),
        Column("event", "VARCHAR", "what happened", values=LEDGER_EVENTS),
        Column("cluster", "INTEGER", "number in this week's clustering; none if it ended", nullable=True),
        Column("users", "BIGINT", "members this week", minimum=0),
        Column("previous_users", "BIGINT", "members in the snapshot before", minimum=0),
        _share("overlap", "Jaccard overlap with the segment it continues, over users of both snapshots", nullable=True),
        Column("parents", "VARCHAR[]", "segments of the snapshot before that it came from"),
        Column("migration", "VARCHAR", "members by their segment in the snapshot before, as JSON; `new` had none"),
        Column("centre", "MAP(VARCHAR, DOUBLE)", "mean of each engagement feature over the members"),
        Column("members", "VARCHAR[]", "users, in order: the next snapshot is matched to them"),
        Column("revision", "INTEGER", "how often other rows replaced those of this week", minimum=0),
    ),
    key=("week", "segment_id"),
    partitions=("week",),
)

_PROBABILITY = _share("probability", "membership probability; 0 if unassigned")
_DISTANCE = Column("distance", "DOUBLE", "distance to the segment's centre", nullable=True, minimum=0.0)
_OUTLIER = Column("outlier", "BOOLEAN", "farther than 99 % of the users the clustering was fitted on")

USER_SEGMENTS = Table(
    "user_segments",
    "User to segment. A user without enough history, or far from all segments, is `unassigned`: the global ranker serves it.",
    (
        _WEEK,
        _USER,
        Column("segment_id", "VARCHAR", "segment, or `unassigned`"),
        _PROBABILITY,
        _DISTANCE,
        _OUTLIER,
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

NEWCOMER_SEGMENTS = Table(
    "newcomer_segments",
    "Users who had not enough history at the snapshot and gained it during the week, placed by the snapshot's models. Nothing "
    "learns from it.",
    (
        _WEEK,
        _USER,
        Column("segment_id", "VARCHAR", "segment of the snapshot, or `unassigned`"),
        _PROBABILITY,
        _DISTANCE,
        _OUTLIER,
        Column("as_of", "TIMESTAMPTZ", "last event that was considered, of anybody"),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

SEGMENT_PROFILES = Table(
    "segment_profiles",
    "A persona for each segment of at least `segments.profiles.min_cell` users.",
    (
        _WEEK,
        Column("segment_id", "VARCHAR", "segment"),
        Column("name", "VARCHAR", "name"),
        Column("users", "BIGINT", "members; noised where `segments.profiles.epsilon` is set", minimum=1),
        _share("share_of_users", "share of assigned users, of the same numbers"),
        Column("value", "DOUBLE", "value of the members' events in the history window"),
        _share("share_of_value", "share of all assigned users' value"),
        Column("summary", "VARCHAR", "what sets the segment apart, in one line"),
        Column("details", "VARCHAR", "story, contrasts, terms, journeys, rules, exemplars and more as JSON"),
    ),
    key=("week", "segment_id"),
    partitions=("week",),
)

SEGMENT_PAGE = Table(
    "segment_page",
    "The segments of the week as a page, and its pictures.",
    (
        _WEEK,
        Column("sentence", "VARCHAR", "how sure the segments are, in plain words"),
        Column("html", "VARCHAR", "the page"),
        Column("pictures", "VARCHAR", "name of each picture to its title, caption and SVG, as JSON"),
    ),
    key=("week",),
    partitions=("week",),
)

RECOMMENDATIONS = Table(
    "recommendations",
    "Top items per user for the week after the snapshot week.",
    (
        _WEEK,
        _USER,
        Column("rank", "INTEGER", "1 is best", minimum=1),
        Column("item_id", "VARCHAR", "item"),
        Column("score", "DOUBLE", "score of the arm; comparable inside one user only"),
        Column("arm", "VARCHAR", "ranker that scored", values=("global", "segment")),
        Column("segment_id", "VARCHAR", "the user's segment"),
    ),
    key=("week", "user_id", "rank"),
    partitions=("week",),
)

_AT = (5, 10, 20)

RANKING_RESULTS = Table(
    "ranking_results",
    "Every metric of every arm for each test user.",
    (
        _WEEK,
        _USER,
        Column("arm", "VARCHAR", "ranker"),
        Column("seed", "INTEGER", "seed of the arm's training", minimum=0),
        Column("task", "VARCHAR", "all items, or only items new to the user", values=("all", "new")),
        Column("segment_id", "VARCHAR", "the user's segment"),
        Column("relevant", "INTEGER", "items bought in the test week", minimum=1),
        *(_share(f"ndcg_{k}", f"NDCG@{k}") for k in _AT),
        *(_share(f"recall_{k}", f"recall@{k}") for k in _AT),
        *(_share(f"hit_{k}", f"hit rate@{k}") for k in _AT),
        *(_share(f"mrr_{k}", f"reciprocal rank@{k}") for k in _AT),
    ),
    key=("week", "user_id", "arm", "seed", "task"),
    partitions=("week",),
)

LIST_QUALITY = Table(
    "list_quality",
    "Properties of each arm's top ten that need no ground truth.",
    (
        _WEEK,
        Column("arm", "VARCHAR", "ranker"),
        _share("coverage", "share of candidates recommended to anyone"),
        Column("novelty", "DOUBLE", "mean surprise of a recommended item, in bits", minimum=0.0),
        _share("diversity", "share of pairs in a list from different categories"),
        Column("miscalibration", "DOUBLE", "distance of the list's categories from the user's history", minimum=0.0),
    ),
    key=("week", "arm"),
    partitions=("week",),
)

EVALUATION_REPORT = Table(
    "evaluation_report",
    "The verdict, an HTML page and its JSON.",
    (
        _WEEK,
        Column("outcome", "VARCHAR", "verdict"),
        Column("sentence", "VARCHAR", "the verdict in one sentence"),
        Column("summary", "VARCHAR", "every figure of the page as JSON"),
        Column("html", "VARCHAR", "the page"),
    ),
    key=("week",),
    partitions=("week",),
)

ALL: dict[str, Table] = {table.name: table for table in list(globals().values()) if isinstance(table, Table)}
