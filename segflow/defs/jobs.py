"""Jobs: which assets are run together, in the order in which a log becomes a report."""

from __future__ import annotations

import dagster as dg

CATALOGUE = dg.define_asset_job(
    "catalogue",
    selection=["items", "users", "item_embeddings"],
    description="The catalogue, the static attributes of users, and the vectors of new item texts.",
)
DAYS = dg.define_asset_job(
    "days",
    selection=["raw_events", "events", "quarantined_events", "sessions", "session_embeddings"],
    description="One or more days of the log, from source rows to session vectors.",
)
SNAPSHOT_WEEK = dg.define_asset_job(
    "snapshot_week",
    selection=[
        "behavior_model",
        "user_embeddings",
        "segmentation",
        "segment_ledger",
        "user_segments",
        "segment_profiles",
        "global_ranker",
        "control_rankers",
    ],
    description="One snapshot: representation, segments, the global ranker and the controls.",
)
SEGMENT_RANKERS = dg.define_asset_job(
    "segment_rankers",
    selection=["segment_rankers"],
    description="The rankers of the segments of a week.",
)
REPORT_WEEK = dg.define_asset_job(
    "report_week",
    selection=["recommendations", "ranking_results", "list_quality", "evaluation_report"],
    description="Recommendations, the test on the following week, and the report.",
)

ALL = [CATALOGUE, DAYS, SNAPSHOT_WEEK, SEGMENT_RANKERS, REPORT_WEEK]
