"""Jobs: which assets are run together, in the order in which a log becomes a report."""

from __future__ import annotations

import dagster as dg

from segflow.defs.partitions import CONFIG

# What the settings leave off is an asset all the same, but no job makes it.
OPTIONAL_MODELS = ["text_adapter"] if "adapted" in CONFIG.users.views else []

ASSETS = {
    "catalogue": ["source_files", "items", "users", "user_edges", "item_embeddings"],
    "days": [
        "raw_events",
        "events",
        "quarantined_events",
        "sessions",
        "user_days",
        "day_reports",
        "session_embeddings",
    ],
    "models_week": ["behavior_model", *OPTIONAL_MODELS, "global_ranker"],
    "segments_week": [
        "user_views",
        "user_embeddings",
        "segmentation",
        "segment_ledger",
        "user_segments",
        "segment_profiles",
        "segment_page",
    ],
    "probe_week": ["representation_probe"],
    # A job may not have the name of an asset: both become op graphs of the same code location.
    "segment_rankers_week": ["segment_rankers"],
    "report_week": [
        "control_rankers",
        "repeated_rankers",
        "recommendations",
        "served_ranker",
        "ranking_results",
        "list_quality",
        "leave_one_out",
        "arm_tuning",
        "evaluation_report",
        "champion",
    ],
    "pooled_week": ["pooled_verdict"],
}
"""Job -> the assets that are its part of a whole run, each after those it reads."""

CATALOGUE = dg.define_asset_job(
    "catalogue",
    selection=ASSETS["catalogue"],
    description="The list of source files, the catalogue, what is known of users, and the vectors of new item texts.",
)
LIST_FILES = dg.define_asset_job(
    "list_files", selection=["source_files"], description="Look into new and changed source files."
)
ARRIVED_DAYS = dg.define_asset_job(
    "arrived_days",
    selection=["raw_events", "events", "quarantined_events", "sessions"],
    description="Days that new or changed files hold rows of, from source rows to sessions.",
)
INGEST_DAYS = dg.define_asset_job(
    "ingest_days",
    selection=[
        *("source_files", "items", "users", "user_edges"),
        *("raw_events", "events", "quarantined_events", "sessions"),
    ],
    # Runs that catch up come one after another: each looks into the source files first.
    tags={"segflow/one_at_a_time": "ingest_days"},
    description="The files, the catalogue, and one or more days from source rows to sessions: what a schedule asks for each day.",
)
REACHED_SESSIONS = dg.define_asset_job(
    "reached_sessions",
    selection=["sessions"],
    description="Sessions of days whose neighbour changed where a session may reach over midnight.",
)
DAYS = dg.define_asset_job(
    "days",
    selection=ASSETS["days"],
    description="One or more days of the log, from source rows to session vectors.",
)
MODELS_WEEK = dg.define_asset_job(
    "models_week",
    selection=ASSETS["models_week"],
    description="What a week learns from everybody: the behaviour model, the global ranker, the adapted language model.",
)
SEGMENTS_WEEK = dg.define_asset_job(
    "segments_week",
    selection=ASSETS["segments_week"],
    description="The segments of a week, tied to those of the week before.",
)
SNAPSHOT_WEEK = dg.define_asset_job(
    "snapshot_week",
    selection=[*ASSETS["models_week"], *ASSETS["segments_week"]],
    description="Models and segments of a week in one run: what a schedule asks for once a week is complete.",
)
NEWCOMERS_WEEK = dg.define_asset_job(
    "newcomers_week",
    selection=["newcomer_segments"],
    description="Users who gained enough history since the snapshot, placed in its segments. Optional; nothing follows.",
)
PROBE_WEEK = dg.define_asset_job(
    "probe_week",
    selection=ASSETS["probe_week"],
    description="What the views of the users tell of the week; needs the events of that week.",
)
SEGMENT_RANKERS = dg.define_asset_job(
    "segment_rankers_week",
    selection=ASSETS["segment_rankers_week"],
    description="The rankers of the segments of a week.",
)
REPORT_WEEK = dg.define_asset_job(
    "report_week",
    selection=[*ASSETS["probe_week"], *ASSETS["report_week"]],
    description="The probe, controls, repeats, recommendations, the served ranker, the test on the following week, the report.",
)
POOLED_WEEK = dg.define_asset_job(
    "pooled_week",
    selection=ASSETS["pooled_week"],
    description="The verdict over the tests of a week and those before it together; needs their reports.",
)

ALL = [
    CATALOGUE,
    LIST_FILES,
    ARRIVED_DAYS,
    INGEST_DAYS,
    REACHED_SESSIONS,
    DAYS,
    MODELS_WEEK,
    SEGMENTS_WEEK,
    SNAPSHOT_WEEK,
    NEWCOMERS_WEEK,
    PROBE_WEEK,
    SEGMENT_RANKERS,
    REPORT_WEEK,
    POOLED_WEEK,
]
