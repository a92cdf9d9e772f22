"""Tables of the segments: the clustering, the ledger, members, profiles, the page."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, columns_made_from, share

VERDICTS = ("segments", "no segment structure", "no stable segments")

_EVENTS = tuple(f"events.{name}" for name in ("user_id", "item_id", "event_type", "ts", "value"))
_CATEGORIES = ("items.item_id", "items.category")
_ENGAGEMENT = ("user_views.engagement", "user_views.engagement_names")
_ATTRIBUTES = ("users.attribute", "users.value")
# Of the events, the catalogue and the attributes only what the clusterers of the settings look at.
_POPULATION = (
    "user_embeddings.enough_history",
    "user_embeddings.fused",
    *_ENGAGEMENT,
    *_EVENTS,
    *_CATEGORIES,
    *_ATTRIBUTES,
)
_CLUSTERED = (*_POPULATION, "settings")
_PLACED = ("segmentation.model", *_POPULATION)
_MATCHED = (*_PLACED, *(f"segment_ledger.{name}" for name in ("segment_id", "members", "centre")), "settings")
_DESCRIBED = (*_EVENTS, *_CATEGORIES, *_ENGAGEMENT, *_ATTRIBUTES, "settings")
_NEWCOMER = (
    "segmentation.model",
    *(f"user_views.{name}" for name in ("text", "journey", "adapted", "behavior", "engagement", "attributes")),
    "user_embeddings.fused",
    "representation_probe.candidate",
    "representation_probe.chosen",
    *_EVENTS,
    *_CATEGORIES,
    *_ATTRIBUTES,
    *(f"sessions.{name}" for name in ("start", "end", "items", "text")),
    "session_embeddings.start",
    "session_embeddings.vector",
    "item_embeddings.item_id",
    "behavior_model.model",
    "text_adapter.model",
    "language model",
    "settings",
)
_SWEEP = tuple(
    f"segmentation.{name}"
    for name in (
        "algorithm", "k", "silhouette", "null_silhouette", "separation", "border", "null_border", "stability_mean",
        "stability_min", "separated", "eligible", "chosen", "verdict",
    )
)  # fmt: skip
_SHOWN = (
    *_SWEEP,
    "user_embeddings.fused",
    "user_segments.segment_id",
    *(
        f"segment_profiles.{name}"
        for name in ("segment_id", "name", "users", "share_of_users", "share_of_value", "summary", "details")
    ),
    *(
        f"segment_ledger.{name}"
        for name in (
            "segment_id",
            "name",
            "former_name",
            "event",
            "cluster",
            "users",
            "previous_users",
            "parents",
            "migration",
        )
    ),
)

SEGMENTATION = Table(
    "segmentation",
    "The candidates that were tried, what speaks for and against each, and the fitted clustering that was chosen, if any.",
    columns_made_from(
        _CLUSTERED,
        WEEK,
        Column("algorithm", "VARCHAR", "clusterer").made_from("settings"),
        Column(
            "parameter", "DOUBLE", "what the clusterer was given: the number of clusters, a density, or 0",
        ).made_from("settings"),
        Column("k", "INTEGER", "number of clusters", minimum=0),
        Column("silhouette", "DOUBLE", "mean silhouette (sampled); users of no cluster count 0", minimum=-1.0, maximum=1.0),
        Column(
            "null_silhouette", "DOUBLE", "silhouette of as many clusters in copies without structure", nullable=True,
            minimum=-1.0, maximum=1.0,
        ),
        Column("separation", "DOUBLE", "silhouette less that in copies without structure", nullable=True),
        share("border", "share of users between two clusters (sampled)"),
        share("null_border", "the same in elliptical copies without structure", nullable=True),
        Column("calinski_harabasz", "DOUBLE", "Calinski–Harabasz index", nullable=True, minimum=0.0),
        Column("davies_bouldin", "DOUBLE", "Davies–Bouldin index", nullable=True, minimum=0.0),
        Column(
            "dunn", "DOUBLE", "Dunn's index: least distance of centroids over the largest mean diameter", nullable=True,
            minimum=0.0,
        ),
        share("stability_mean", "mean bootstrap Jaccard over clusters"),
        share("stability_min", "bootstrap Jaccard of the least stable cluster"),
        share("stable_share", "share of clusters that are stable"),
        Column("smallest_users", "BIGINT", "users in the smallest cluster, by its share of the sample", minimum=0),
        share("smallest_share", "share of users in the smallest cluster"),
        share("assigned_share", "share of users in any cluster"),
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
        WEEK,
        Column("segment_id", "VARCHAR", "segment").made_from(
            *_PLACED, "segment_ledger.segment_id", "segment_ledger.members", "segment_ledger.centre", "settings"
        ),
        Column("name", "VARCHAR", "name given at birth, or after the last split or merge that it survived").made_from(
            *_MATCHED, "segment_ledger.name", *_DESCRIBED, "language model"
        ),
        Column("former_name", "VARCHAR", "name until this week, if it was named anew", nullable=True).made_from(
            *_MATCHED, "segment_ledger.name", *_DESCRIBED, "language model"
        ),
        Column("event", "VARCHAR", "what happened", values=LEDGER_EVENTS).made_from(*_MATCHED),
        Column("cluster", "INTEGER", "number in this week's clustering; none if it ended", nullable=True).made_from(
            *_PLACED
        ),
        Column("users", "BIGINT", "members this week", minimum=0).made_from(*_PLACED),
        Column("previous_users", "BIGINT", "members in the snapshot before", minimum=0).made_from(
            "segment_ledger.members"
        ),
        share(
            "overlap", "Jaccard overlap with the segment it continues, over users of both snapshots", nullable=True
        ).made_from(*_MATCHED),
        Column("parents", "VARCHAR[]", "segments of the snapshot before that it came from").made_from(*_MATCHED),
        Column(
            "migration", "VARCHAR", "members by their segment in the snapshot before, as JSON; `new` had none"
        ).made_from(*_MATCHED),
        Column("centre", "MAP(VARCHAR, DOUBLE)", "mean of each engagement feature over the members").made_from(
            *_PLACED, "user_views.engagement", "user_views.engagement_names"
        ),
        Column("members", "VARCHAR[]", "users, in order: the next snapshot is matched to them", users=True).made_from(
            *_PLACED, "user_embeddings.user_id"
        ),
        Column("revision", "INTEGER", "how often other rows replaced those of this week", minimum=0).made_from(
            *_MATCHED, "segment_ledger.revision"
        ),
    ),
    key=("week", "segment_id"),
    partitions=("week",),
)

_PROBABILITY = share("probability", "membership probability; 0 if unassigned").made_from(*_PLACED)
_DISTANCE = Column("distance", "DOUBLE", "distance to the segment's centre", nullable=True, minimum=0.0).made_from(
    *_PLACED
)
_OUTLIER = Column("outlier", "BOOLEAN", "farther than 99 % of the users the clustering was fitted on").made_from(
    *_PLACED
)

USER_SEGMENTS = Table(
    "user_segments",
    "User to segment. A user without enough history, or far from all segments, is `unassigned`: the global ranker serves it.",
    (
        WEEK,
        USER.made_from("user_embeddings.user_id"),
        Column("segment_id", "VARCHAR", "segment, or `unassigned`").made_from(
            *_PLACED, "segment_ledger.segment_id", "segment_ledger.cluster"
        ),
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
        WEEK,
        USER.made_from("events.user_id", "users.user_id"),
        Column("segment_id", "VARCHAR", "segment of the snapshot, or `unassigned`").made_from(
            *_NEWCOMER, "segment_ledger.segment_id", "segment_ledger.cluster"
        ),
        *(one.made_from(*_NEWCOMER) for one in (_PROBABILITY, _DISTANCE, _OUTLIER)),
        Column("as_of", "TIMESTAMPTZ", "last event that was considered, of anybody").made_from("events.ts"),
    ),
    key=("week", "user_id"),
    partitions=("week",),
)

SEGMENT_PROFILES = Table(
    "segment_profiles",
    "A persona for each segment of at least `segments.profiles.min_cell` users.",
    (
        WEEK,
        Column("segment_id", "VARCHAR", "segment").made_from("user_segments.segment_id"),
        Column("name", "VARCHAR", "name").made_from("segment_ledger.name"),
        Column("users", "BIGINT", "members; noised where `segments.profiles.epsilon` is set", minimum=1).made_from(
            "user_segments.*", "settings"
        ),
        share("share_of_users", "share of assigned users, of the same numbers").made_from(
            "user_segments.*", "settings"
        ),
        Column("value", "DOUBLE", "value of the members' events in the history window").made_from("events.value"),
        share("share_of_value", "share of all assigned users' value").made_from("events.value"),
        Column("summary", "VARCHAR", "what sets the segment apart, in one line").made_from(
            "user_segments.*", *_DESCRIBED, "user_segments.segment_id"
        ),
        Column("details", "VARCHAR", "story, contrasts, terms, journeys, rules, exemplars and more as JSON").made_from(
            "user_segments.*",
            *_DESCRIBED,
            "user_segments.user_id",
            "user_segments.segment_id",
            "user_segments.distance",
            "sessions.session_id",
            "sessions.start",
            "sessions.end",
            "sessions.items",
            "items.title",
            "items.text",
            "user_embeddings.fused",
            "segmentation.model",
            "segment_ledger.name",
            "representation_probe.candidate",
            "representation_probe.chosen",
            "language model",
            "settings",
        ),
    ),
    key=("week", "segment_id"),
    partitions=("week",),
)

SEGMENT_PAGE = Table(
    "segment_page",
    "The segments of the week as a page, and its pictures.",
    (
        WEEK,
        Column("sentence", "VARCHAR", "how sure the segments are, in plain words").made_from(*_SWEEP),
        Column("html", "VARCHAR", "the page").made_from(*_SHOWN),
        Column("pictures", "VARCHAR", "name of each picture to its title, caption and SVG, as JSON").made_from(*_SHOWN),
    ),
    key=("week",),
    partitions=("week",),
)
