"""Tables of the test: every metric of every arm, properties of their lists, the report."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, share

_AT = (5, 10, 20)

RANKING_RESULTS = Table(
    "ranking_results",
    "Every metric of every arm for each test user.",
    (
        WEEK,
        USER,
        Column("arm", "VARCHAR", "ranker"),
        Column("seed", "INTEGER", "seed of the arm's training", minimum=0),
        Column(
            "task",
            "VARCHAR",
            "all items, only items new to the user, or only items beyond those of `evaluation.popular_items`",
            values=("all", "new", "beyond_popular"),
        ),
        Column("segment_id", "VARCHAR", "the user's segment"),
        Column(
            "active_days", "INTEGER", "days with any event of the user in the history up to the test week", minimum=0
        ),
        Column("relevant", "INTEGER", "items of the task that the user had in the test week", minimum=1),
        Column(
            "ranked",
            "BOOLEAN",
            "whether the ranker's scores are numbers; else it recommends nothing, and every metric is 0",
        ),
        *(share(f"ndcg_{k}", f"NDCG@{k}") for k in _AT),
        *(share(f"recall_{k}", f"recall@{k}") for k in _AT),
        *(share(f"hit_{k}", f"hit rate@{k}") for k in _AT),
        *(share(f"mrr_{k}", f"reciprocal rank@{k}") for k in _AT),
        *(share(f"map_{k}", f"average precision@{k}, of all relevant items") for k in _AT),
    ),
    key=("week", "user_id", "arm", "seed", "task"),
    partitions=("week",),
)

ARM_TUNING = Table(
    "arm_tuning",
    "How each simple arm of the test was tuned: every setting that was tried, and what it scored on the snapshot week.",
    (
        WEEK,
        Column("arm", "VARCHAR", "simple scorer"),
        Column("settings", "VARCHAR", "what was tried; `none` where there is nothing to choose"),
        Column("users", "BIGINT", "users that it was tried on", minimum=0),
        share("ndcg_10", "NDCG@10 in the snapshot week, all items; none where nobody had any in it", nullable=True),
        Column("chosen", "BOOLEAN", "whether the test uses it"),
    ),
    key=("week", "arm", "settings"),
    partitions=("week",),
)

LIST_QUALITY = Table(
    "list_quality",
    "Properties of each arm's top ten beside its accuracy; of the rankers per segment also when re-ranked for diversity.",
    (
        WEEK,
        Column("arm", "VARCHAR", "ranker"),
        share("diversity_weight", "weight of diversity in re-ranking, as in `recommendations.diversity`; 0 is none"),
        share("ndcg_10", "NDCG@10, all items"),
        share("coverage", "share of candidates recommended to anyone"),
        Column("novelty", "DOUBLE", "mean surprise of a recommended item, in bits", minimum=0.0),
        share("diversity", "share of pairs in a list from different categories"),
        Column("distance", "DOUBLE", "mean of one minus the cosine of two texts in a list", minimum=0.0, maximum=2.0),
        Column("miscalibration", "DOUBLE", "distance of the list's categories from the user's history", minimum=0.0),
        share("gini", "Gini coefficient of how often each candidate is recommended: 0 is alike, 1 is one item alone"),
        share("popularity", "mean share of users who ever had a recommended item"),
        share("profile_popularity", "the same of the items that the users themselves had", nullable=True),
        Column(
            "popularity_lift",
            "DOUBLE",
            "how much more popular the lists of users with a history are than what they had, relatively",
            nullable=True,
            minimum=-1.0,
        ),
    ),
    key=("week", "arm", "diversity_weight"),
    partitions=("week",),
)

EVALUATION_REPORT = Table(
    "evaluation_report",
    "The verdict, an HTML page and its JSON.",
    (
        WEEK,
        Column("outcome", "VARCHAR", "verdict"),
        Column("sentence", "VARCHAR", "the verdict in one sentence"),
        Column("summary", "VARCHAR", "every figure of the test as JSON, by `report.schema.json`"),
        Column("html", "VARCHAR", "the page"),
    ),
    key=("week",),
    partitions=("week",),
)

LEAVE_ONE_OUT = Table(
    "leave_one_out",
    "Each arm where a user's first item of the week is all there is to find, beside figures of the literature; decides nothing.",
    (
        WEEK,
        Column("arm", "VARCHAR", "ranker"),
        Column("seed", "INTEGER", "seed of the arm's training", minimum=0),
        Column("users", "INTEGER", "test users", minimum=1),
        share("hit_10", "hit rate@10"),
        share("ndcg_10", "NDCG@10"),
        share("mrr_10", "reciprocal rank@10"),
    ),
    key=("week", "arm", "seed"),
    partitions=("week",),
)

POOLED_VERDICT = Table(
    "pooled_verdict",
    "The verdict over the tests of several weeks together, and a page with each of them.",
    (
        WEEK,
        Column("first_week", "DATE", "first of the snapshot weeks that were taken together"),
        Column("weeks", "INTEGER", "how many were", minimum=1),
        Column("outcome", "VARCHAR", "verdict"),
        Column("sentence", "VARCHAR", "the verdict in one sentence"),
        Column("summary", "VARCHAR", "every figure of the tests together as JSON, by `report.schema.json`"),
        Column("html", "VARCHAR", "the page"),
    ),
    key=("week",),
    partitions=("week",),
)

CHAMPION = Table(
    "champion",
    "Which of the week's rankers may serve everybody: the gate before the registry's alias of that name.",
    (
        WEEK,
        Column("arm", "VARCHAR", "what serves, or was held back last", values=("global", "segments")),
        Column("segments", "VARCHAR[]", "segments whose own rankers serve"),
        Column("digest", "VARCHAR", "digest of the bundle"),
        Column("promoted", "BOOLEAN", "whether it passed"),
        Column("sentence", "VARCHAR", "why, with the figures"),
    ),
    key=("week",),
    partitions=("week",),
)
