"""Tables of the test: every metric of every arm, properties of their lists, the report."""

from __future__ import annotations

from segflow.tables.schema import USER, WEEK, Column, Table, share

_AT = (5, 10, 20)
_LOG = (
    *(f"events.{name}" for name in ("user_id", "item_id", "event_type", "ts", "value")),
    "item_embeddings.item_id",
    "item_embeddings.vector",
    "behavior_model.model",
    "settings",
)
_TUNED = (*_LOG, "user_segments.segment_id")
_TESTED = (
    *_TUNED,
    "user_segments.probability",
    "global_ranker.model",
    "segment_rankers.segment_id",
    "segment_rankers.model",
    *(f"control_rankers.{name}" for name in ("arm", "group_id", "users", "shares", "model")),
    *(f"repeated_rankers.{name}" for name in ("seed", "arm", "group_id", "users", "shares", "model")),
)
_METRICS = tuple(f"{name}_{k}" for name in ("ndcg", "recall", "hit", "mrr", "map") for k in _AT)
_RESULTS = tuple(
    f"ranking_results.{name}"
    for name in ("user_id", "arm", "seed", "task", "segment_id", "active_days", "relevant", "ranked", *_METRICS)
)
_JUDGED = (*_RESULTS, "settings")
_REPORTED = (
    *_JUDGED,
    *(
        f"list_quality.{name}"
        for name in (
            "arm", "diversity_weight", "ndcg_10", "coverage", "novelty", "diversity", "distance", "miscalibration", "gini",
            "popularity", "profile_popularity", "popularity_lift",
        )
    ),
    *(f"arm_tuning.{name}" for name in ("arm", "settings", "users", "ndcg_10", "chosen")),
    *(f"representation_probe.{name}" for name in ("candidate", "kind", "task", "metric", "score", "low", "high", "chosen")),
    *(f"segmentation.{name}" for name in ("algorithm", "k", "silhouette", "stability_mean", "chosen", "verdict", "model")),
    *(f"segment_ledger.{name}" for name in ("segment_id", "name", "event", "cluster", "users", "parents", "migration")),
    *(
        f"segment_profiles.{name}"
        for name in ("segment_id", "name", "users", "share_of_users", "share_of_value", "summary", "details")
    ),
    "users.attribute",
    "users.value",
    "raw_events.*",
    "events.*",
    "quarantined_events.reason",
)  # fmt: skip
_GATED = (*_RESULTS, "evaluation_report.summary", "served_ranker.arm", "settings")

RANKING_RESULTS = Table(
    "ranking_results",
    "Every metric of every arm for each test user.",
    (
        WEEK,
        USER.made_from("events.user_id"),
        Column("arm", "VARCHAR", "ranker").made_from("code"),
        Column("seed", "INTEGER", "seed of the arm's training", minimum=0).made_from("settings"),
        Column(
            "task",
            "VARCHAR",
            "all items, only items new to the user, or only items beyond those of `evaluation.popular_items`",
            values=("all", "new", "beyond_popular"),
        ).made_from("code"),
        Column("segment_id", "VARCHAR", "the user's segment").made_from("user_segments.segment_id"),
        Column(
            "active_days", "INTEGER", "days with any event of the user in the history up to the test week", minimum=0
        ).made_from("events.ts"),
        Column("relevant", "INTEGER", "items of the task that the user had in the test week", minimum=1).made_from(
            "events.item_id", "events.ts"
        ),
        Column(
            "ranked",
            "BOOLEAN",
            "whether the ranker's scores are numbers; else it recommends nothing, and every metric is 0",
        ).made_from(*_TESTED),
        *(share(f"ndcg_{k}", f"NDCG@{k}").made_from(*_TESTED) for k in _AT),
        *(share(f"recall_{k}", f"recall@{k}").made_from(*_TESTED) for k in _AT),
        *(share(f"hit_{k}", f"hit rate@{k}").made_from(*_TESTED) for k in _AT),
        *(share(f"mrr_{k}", f"reciprocal rank@{k}").made_from(*_TESTED) for k in _AT),
        *(share(f"map_{k}", f"average precision@{k}, of all relevant items").made_from(*_TESTED) for k in _AT),
    ),
    key=("week", "user_id", "arm", "seed", "task"),
    partitions=("week",),
)

ARM_TUNING = Table(
    "arm_tuning",
    "How each simple arm of the test was tuned: every setting that was tried, and what it scored on the snapshot week.",
    (
        WEEK,
        Column("arm", "VARCHAR", "simple scorer").made_from("code"),
        Column("settings", "VARCHAR", "what was tried; `none` where there is nothing to choose").made_from("code"),
        Column("users", "BIGINT", "users that it was tried on", minimum=0).made_from("events.*"),
        share(
            "ndcg_10", "NDCG@10 in the snapshot week, all items; none where nobody had any in it", nullable=True
        ).made_from(*_TUNED),
        Column("chosen", "BOOLEAN", "whether the test uses it").made_from(*_TUNED),
    ),
    key=("week", "arm", "settings"),
    partitions=("week",),
)

LIST_QUALITY = Table(
    "list_quality",
    "Properties of each arm's top ten beside its accuracy; of the rankers per segment also when re-ranked for diversity.",
    (
        WEEK,
        Column("arm", "VARCHAR", "ranker").made_from("code"),
        share(
            "diversity_weight", "weight of diversity in re-ranking, as in `recommendations.diversity`; 0 is none"
        ).made_from("settings"),
        share("ndcg_10", "NDCG@10, all items").made_from(*_TESTED),
        share("coverage", "share of candidates recommended to anyone").made_from(*_TESTED),
        Column("novelty", "DOUBLE", "mean surprise of a recommended item, in bits", minimum=0.0).made_from(*_TESTED),
        share("diversity", "share of pairs in a list from different categories").made_from(*_TESTED, "items.category"),
        Column(
            "distance", "DOUBLE", "mean of one minus the cosine of two texts in a list", minimum=0.0, maximum=2.0
        ).made_from(*_TESTED),
        Column(
            "miscalibration", "DOUBLE", "distance of the list's categories from the user's history", minimum=0.0
        ).made_from(*_TESTED, "items.category"),
        share(
            "gini", "Gini coefficient of how often each candidate is recommended: 0 is alike, 1 is one item alone"
        ).made_from(*_TESTED),
        share("popularity", "mean share of users who ever had a recommended item").made_from(*_TESTED),
        share("profile_popularity", "the same of the items that the users themselves had", nullable=True).made_from(
            *_TESTED
        ),
        Column(
            "popularity_lift",
            "DOUBLE",
            "how much more popular the lists of users with a history are than what they had, relatively",
            nullable=True,
            minimum=-1.0,
        ).made_from(*_TESTED),
    ),
    key=("week", "arm", "diversity_weight"),
    partitions=("week",),
)

EVALUATION_REPORT = Table(
    "evaluation_report",
    "The verdict, an HTML page and its JSON.",
    (
        WEEK,
        Column("outcome", "VARCHAR", "verdict").made_from(*_JUDGED),
        Column("sentence", "VARCHAR", "the verdict in one sentence").made_from(*_JUDGED),
        Column("summary", "VARCHAR", "every figure of the test as JSON, by `report.schema.json`").made_from(*_REPORTED),
        Column("html", "VARCHAR", "the page").made_from(*_REPORTED, "segment_page.pictures"),
    ),
    key=("week",),
    partitions=("week",),
)

LEAVE_ONE_OUT = Table(
    "leave_one_out",
    "Each arm where a user's first item of the week is all there is to find, beside figures of the literature; decides nothing.",
    (
        WEEK,
        Column("arm", "VARCHAR", "ranker").made_from("code"),
        Column("seed", "INTEGER", "seed of the arm's training", minimum=0).made_from("settings"),
        Column("users", "INTEGER", "test users", minimum=1).made_from("events.*"),
        share("hit_10", "hit rate@10").made_from(*_TESTED),
        share("ndcg_10", "NDCG@10").made_from(*_TESTED),
        share("mrr_10", "reciprocal rank@10").made_from(*_TESTED),
    ),
    key=("week", "arm", "seed"),
    partitions=("week",),
)

POOLED_VERDICT = Table(
    "pooled_verdict",
    "The verdict over the tests of several weeks together, and a page with each of them.",
    (
        WEEK,
        Column("first_week", "DATE", "first of the snapshot weeks that were taken together").made_from(
            "ranking_results.week"
        ),
        Column("weeks", "INTEGER", "how many were", minimum=1).made_from("ranking_results.week"),
        Column("outcome", "VARCHAR", "verdict").made_from(*_JUDGED),
        Column("sentence", "VARCHAR", "the verdict in one sentence").made_from(*_JUDGED),
        Column("summary", "VARCHAR", "every figure of the tests together as JSON, by `report.schema.json`").made_from(
            *_JUDGED, "evaluation_report.summary"
        ),
        Column("html", "VARCHAR", "the page").made_from(
            *_JUDGED,
            "evaluation_report.week",
            "evaluation_report.summary",
            "leave_one_out.arm",
            "leave_one_out.seed",
            "leave_one_out.users",
            "leave_one_out.hit_10",
            "leave_one_out.ndcg_10",
            "leave_one_out.mrr_10",
            "segment_ledger.segment_id",
            "segment_ledger.name",
        ),
    ),
    key=("week",),
    partitions=("week",),
)

CHAMPION = Table(
    "champion",
    "Which of the week's rankers may serve everybody: the gate before the registry's alias of that name.",
    (
        WEEK,
        Column("arm", "VARCHAR", "what serves, or was held back last", values=("global", "segments")).made_from(
            *_GATED
        ),
        Column("segments", "VARCHAR[]", "segments whose own rankers serve").made_from(
            *_GATED, "served_ranker.segments"
        ),
        Column("digest", "VARCHAR", "digest of the bundle").made_from(*_GATED, "served_ranker.digest"),
        Column("promoted", "BOOLEAN", "whether it passed").made_from(*_GATED),
        Column("sentence", "VARCHAR", "why, with the figures").made_from(*_GATED),
    ),
    key=("week",),
    partitions=("week",),
)
