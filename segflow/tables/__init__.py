"""The schema of every table, in one place.

From these declarations come the storage schema, the column schema that Dagster shows, the checks that run before each commit,
and the table reference in the docs. No I/O lives here.
"""

from __future__ import annotations

# This package is the one door to what stands in its modules.
from segflow.tables.evaluation import (
    ARM_TUNING,
    CHAMPION,
    EVALUATION_REPORT,
    LEAVE_ONE_OUT,
    LIST_QUALITY,
    POOLED_VERDICT,
    RANKING_RESULTS,
)
from segflow.tables.events import (
    DAY_REPORTS,
    EVENTS,
    ITEMS,
    QUARANTINED_EVENTS,
    RAW_EVENTS,
    REASONS,
    SESSIONS,
    SOURCE_FILES,
    USER_DAYS,
    USER_EDGES,
    USERS,
)
from segflow.tables.rankers import (
    CONTROL_RANKERS,
    GLOBAL_RANKER,
    RECOMMENDATIONS,
    REPEATED_RANKERS,
    SEGMENT_RANKERS,
    SERVED_RANKER,
)
from segflow.tables.representation import (
    BEHAVIOR_MODEL,
    ITEM_EMBEDDINGS,
    REPRESENTATION_PROBE,
    SESSION_EMBEDDINGS,
    TEXT_ADAPTER,
    USER_EMBEDDINGS,
    USER_VIEWS,
)
from segflow.tables.schema import Column, Table
from segflow.tables.segments import (
    LEDGER_EVENTS,
    NEWCOMER_SEGMENTS,
    SEGMENT_LEDGER,
    SEGMENT_PAGE,
    SEGMENT_PROFILES,
    SEGMENTATION,
    USER_SEGMENTS,
    VERDICTS,
)

ALL: dict[str, Table] = {
    table.name: table
    for table in (
        SOURCE_FILES,
        RAW_EVENTS,
        EVENTS,
        QUARANTINED_EVENTS,
        SESSIONS,
        USER_DAYS,
        DAY_REPORTS,
        ITEMS,
        USERS,
        USER_EDGES,
        ITEM_EMBEDDINGS,
        SESSION_EMBEDDINGS,
        BEHAVIOR_MODEL,
        TEXT_ADAPTER,
        USER_VIEWS,
        REPRESENTATION_PROBE,
        USER_EMBEDDINGS,
        SEGMENTATION,
        SEGMENT_LEDGER,
        USER_SEGMENTS,
        NEWCOMER_SEGMENTS,
        SEGMENT_PROFILES,
        SEGMENT_PAGE,
        GLOBAL_RANKER,
        SEGMENT_RANKERS,
        CONTROL_RANKERS,
        REPEATED_RANKERS,
        RECOMMENDATIONS,
        SERVED_RANKER,
        RANKING_RESULTS,
        LIST_QUALITY,
        LEAVE_ONE_OUT,
        ARM_TUNING,
        EVALUATION_REPORT,
        CHAMPION,
        POOLED_VERDICT,
    )
}
"""Every table by its name, in the order of the stages."""
