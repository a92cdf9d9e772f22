"""Tables of the segments: the clustering, the ledger, members, profiles, the page."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, share

VERDICTS = ("segments", "no segment structure", "no stable segments")

SEGMENTATION = Table(
    "segmentation",
    "The candidates that were tried, what speaks for and against each, and the fitted clustering that was chosen, if any.",
    (
        WEEK,
        Column("algorithm", "VARCHAR", "clusterer"),
        Column("parameter", "DOUBLE", "what the clusterer was given: the number of clusters, a density, or 0"),
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
        Column("segment_id", "VARCHAR", "segment"),
        Column("name", "VARCHAR", "name given at birth, or after the last split or merge that it survived"),
        Column("former_name", "VARCHAR", "name until this week, if it was named anew", nullable=True),
        Column("event", "VARCHAR", "what happened", values=LEDGER_EVENTS),
        Column("cluster", "INTEGER", "number in this week's clustering; none if it ended", nullable=True),
        Column("users", "BIGINT", "members this week", minimum=0),
        Column("previous_users", "BIGINT", "members in the snapshot before", minimum=0),
        share("overlap", "Jaccard overlap with the segment it continues, over users of both snapshots", nullable=True),
        Column("parents", "VARCHAR[]", "segments of the snapshot before that it came from"),
        Column("migration", "VARCHAR", "members by their segment in the snapshot before, as JSON; `new` had none"),
        Column("centre", "MAP(VARCHAR, DOUBLE)", "mean of each engagement feature over the members"),
        Column("members", "VARCHAR[]", "users, in order: the next snapshot is matched to them"),
        Column("revision", "INTEGER", "how often other rows replaced those of this week", minimum=0),
    ),
    key=("week", "segment_id"),
    partitions=("week",),
)

_PROBABILITY = share("probability", "membership probability; 0 if unassigned")
_DISTANCE = Column("distance", "DOUBLE", "distance to the segment's centre", nullable=True, minimum=0.0)
_OUTLIER = Column("outlier", "BOOLEAN", "farther than 99 % of the users the clustering was fitted on")

USER_SEGMENTS = Table(
    "user_segments",
    "User to segment. A user without enough history, or far from all segments, is `unassigned`: the global ranker serves it.",
    (
        WEEK,
        USER,
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
        WEEK,
        USER,
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
        WEEK,
        Column("segment_id", "VARCHAR", "segment"),
        Column("name", "VARCHAR", "name"),
        Column("users", "BIGINT", "members; noised where `segments.profiles.epsilon` is set", minimum=1),
        share("share_of_users", "share of assigned users, of the same numbers"),
        Column("value", "DOUBLE", "value of the members' events in the history window"),
        share("share_of_value", "share of all assigned users' value"),
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
        WEEK,
        Column("sentence", "VARCHAR", "how sure the segments are, in plain words"),
        Column("html", "VARCHAR", "the page"),
        Column("pictures", "VARCHAR", "name of each picture to its title, caption and SVG, as JSON"),
    ),
    key=("week",),
    partitions=("week",),
)
