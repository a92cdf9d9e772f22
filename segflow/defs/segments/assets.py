"""Segments: the clustering, the identity of its segments, who belongs to them, and what they are like."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.defs.automation import CHANGES
from segflow.defs.materializes import materializes
from segflow.defs.partitions import (
    DAY,
    EARLIER_WEEKS,
    HISTORY,
    HISTORY_AND_WEEK,
    SAME_WEEK,
    SEGMENTS,
    SNAPSHOT,
    THIS_AND_EARLIER_WEEKS,
    WEEKLY,
)
from segflow.defs.reading import FUSED_WINDOWS, events_with_category, fused_views, namer_of
from segflow.defs.representation.reading import view_sources, view_windows
from segflow.defs.segments.reading import (
    POPULATION_WINDOWS,
    clustering_of,
    population_of,
    profile_material,
    segment_ids,
    segment_names,
    snapshot_of,
)
from segflow.defs.step import Step
from segflow.reading.rankers import start_of
from segflow.sql import load, render

if TYPE_CHECKING:
    from datetime import datetime

    from segflow.segments.clustering import Clustering

GROUP = "segments"
# A run with this tag, set to "true", may change the segments of a week that later weeks were matched to.
REWRITE_HISTORY = "segflow/rewrite_history"

_PLACING = [
    *(f"segments/{name}.py" for name in ("snapshots", "clustering", "models", "population", "projection", "threads")),
    "segments/item_counts.sql",
    "segments/dominant_category.sql",
]

_SELECTION = [
    *_PLACING,
    *(
        f"segments/{name}.py"
        for name in ("clusterers", "passes", "selection", "publication", "indices", "null", "statistics")
    ),
]

_NAMING = [
    *(
        f"segments/{name}.py"
        for name in (
            "profiles", "contrasts", "statistics", "aggregates", "naming", "story", "faithfulness", "language_names",
        )
    ),
    "segments/user_categories.sql",
]  # fmt: skip
_PROFILES = [
    *_NAMING,
    *(f"segments/{name}.py" for name in ("terms", "journeys", "hidden_states", "baskets", "rules", "privacy")),
    *(
        f"segments/{name}.sql"
        for name in (
            "user_values", "segment_items", "segment_words", "steps", "transitions", "states", "ended_sessions",
            "sampled_sessions", "session_ends", "baskets", "hidden_steps",
        )
    ),
]  # fmt: skip


@materializes(
    tables.SEGMENTATION,
    group=GROUP,
    reads={tables.USER_EMBEDDINGS: SAME_WEEK, tables.USER_VIEWS: SAME_WEEK, **POPULATION_WINDOWS},
    partitions=WEEKLY,
    code=_SELECTION,
    settings=["segments", "seed"],
    kinds=["scikitlearn"],
    automation=CHANGES,
)
def segmentation(step: Step) -> None:
    """The fewest segments that are nearly as far apart as any, stable, and beyond what data without structure show."""
    from segflow.segments.clustering import select
    from segflow.segments.pictures import selection_curve

    embeddings = step.read(tables.USER_EMBEDDINGS, ["user_id", "fused", "enough_history"])
    views = step.read(tables.USER_VIEWS, ["user_id", "engagement", "engagement_names"])
    clustering = select(population_of(step, embeddings, views), step.config.segments, step.config.seed, step.engine)
    model = clustering.to_bytes() if clustering.k else None
    rows = [
        {"week": step.week, **row, "verdict": clustering.verdict, "model": model if row["chosen"] else None}
        for row in clustering.candidates
    ]
    chosen: dict[str, Any] = next((row for row in clustering.candidates if row["chosen"]), {})
    figures = {name: value for name, value in chosen.items() if name not in ("eligible", "separated", "chosen")}
    step.note(verdict=clustering.verdict, segments=clustering.k, **figures)
    step.run.text(json.dumps(clustering.candidates, indent=1), "candidates.json")
    step.picture(selection_curve(clustering.candidates))
    step.write(tables.SEGMENTATION, pa.Table.from_pylist(rows, schema=tables.SEGMENTATION.arrow))


@materializes(
    tables.SEGMENT_LEDGER,
    group=GROUP,
    reads={
        tables.SEGMENTATION: SAME_WEEK,
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_VIEWS: SAME_WEEK,
        tables.SEGMENT_LEDGER: EARLIER_WEEKS,
        tables.EVENTS: HISTORY,
        tables.ITEMS: SNAPSHOT,
        **POPULATION_WINDOWS,
    },
    partitions=WEEKLY,
    code=[*_PLACING, "segments/history.py", "segments/ledger.py", "segments/recorded.sql", *_NAMING],
    settings=["segments", "text", "seed"],
    kinds=["python"],
    automation=CHANGES,
)
def segment_ledger(step: Step) -> None:
    """Clusters are matched to the segments of the latest snapshot before; the numbering of the clusterer has no say."""
    from segflow.segments.history import later_weeks, ledger_rows, spell
    from segflow.segments.migration import migration_flow

    version = step.pin(tables.SEGMENT_LEDGER, "recorded")
    recorded = step.query(render("segments/recorded.sql", week=step.week))
    rewrite = step.context.run.tags.get(REWRITE_HISTORY, "").lower() == "true"
    rows = ledger_rows(
        step.week,
        snapshot_of(step),
        recorded,
        events_with_category(step),
        step.config.segments,
        step.config.seed,
        rewrite,
        lambda: namer_of(step),
    )
    step.write(tables.SEGMENT_LEDGER, rows, version=version)
    living = rows.filter(pc.is_valid(rows["cluster"]))
    step.context.instance.add_dynamic_partitions(str(SEGMENTS.name), living["segment_id"].to_pylist())
    step.note(
        segments=living.num_rows,
        revision=max(rows["revision"].to_pylist(), default=0),
        what_happened=dict(zip(rows["segment_id"].to_pylist(), rows["event"].to_pylist(), strict=True)),
    )
    before = recorded.filter(pc.less(recorded["week"], step.week)).drop_columns(["members", "centre"])
    flow = migration_flow([*before.to_pylist(), *rows.to_pylist()], step.week, step.config.segments.profiles.min_cell)
    if flow:
        step.picture(flow)
    later = later_weeks(recorded, step.week)
    replaced = recorded.filter(pc.equal(recorded["week"], step.week))
    if later and _revisions(rows) != _revisions(replaced):
        step.note(history_rewritten=True, out_of_date=spell(later))
        step.log(f"segment_ledger: history of {step.week} is rewritten; make {spell(later)} again, in order")


def _revisions(ledger: pa.Table) -> dict[str, int]:
    return dict(zip(ledger["segment_id"].to_pylist(), ledger["revision"].to_pylist(), strict=True))


@materializes(
    tables.USER_SEGMENTS,
    group=GROUP,
    reads={
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_VIEWS: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.SEGMENT_LEDGER: SAME_WEEK,
        **POPULATION_WINDOWS,
    },
    partitions=WEEKLY,
    code=_PLACING,
    settings=["segments"],
    kinds=["python"],
    automation=CHANGES,
)
def user_segments(step: Step) -> None:
    """Every user who is known at the snapshot, with or without a segment."""
    from segflow.segments.membership import member_digests
    from segflow.segments.snapshots import UNASSIGNED, user_segment_rows

    everybody = step.read(tables.USER_EMBEDDINGS, ["user_id"])["user_id"].to_pylist()
    snapshot = snapshot_of(step)
    rows = user_segment_rows(step.week, everybody, snapshot, segment_ids(step, snapshot))
    assigned = rows.filter(pc.not_equal(rows["segment_id"], UNASSIGNED))
    step.note(assigned_users=assigned.num_rows, unassigned_users=rows.num_rows - assigned.num_rows)
    # The ranker of a segment follows its own members only.
    step.aspects(tables.USER_SEGMENTS, {str(step.week): member_digests(assigned)})
    step.write(tables.USER_SEGMENTS, rows)


@materializes(
    tables.NEWCOMER_SEGMENTS,
    group=GROUP,
    reads={
        **view_windows(HISTORY_AND_WEEK),
        tables.USER_VIEWS: SAME_WEEK,
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.SEGMENT_LEDGER: SAME_WEEK,
        **FUSED_WINDOWS,
    },
    partitions=WEEKLY,
    code=[*_PLACING, "segments/newcomers.py", "representation/views.py", "representation/users.py"],
    settings=["segments", "users", "text"],
    kinds=["python"],
    awaited=False,
)
def newcomer_segments(step: Step) -> None:
    """Views as at the snapshot, but with the events of the week so far; its models, fusion and clustering as they are."""
    step.view(tables.EVENTS)
    as_of = step.query("SELECT max(ts) AS last FROM events")["last"][0].as_py()
    clustering = clustering_of(step)
    rows = tables.NEWCOMER_SEGMENTS.arrow.empty_table()
    if clustering.k and as_of is not None and as_of >= start_of(step.week):
        rows = _newcomer_rows(step, clustering, as_of)
    step.note(newcomers=rows.num_rows, as_of=str(as_of) if as_of is None else dg.MetadataValue.timestamp(as_of))
    step.write(tables.NEWCOMER_SEGMENTS, rows)


def _newcomer_rows(step: Step, clustering: Clustering, as_of: datetime) -> pa.Table:
    from segflow.arrow import matrix
    from segflow.representation.views import UserViews, make_views
    from segflow.segments.newcomers import newcomer_embeddings, newcomers
    from segflow.segments.snapshots import newcomer_rows

    config, chosen = step.config.users, fused_views(step)
    before = UserViews.from_table(step.read(tables.USER_VIEWS), chosen)
    fused = matrix(step.read(tables.USER_EMBEDDINGS, ["fused"])["fused"])
    # Ages count from the end of the last day: at the end of the week most of the log might still be missing.
    until = start_of(as_of.date() + DAY)
    now = make_views(view_sources(step, until), until, config)
    rows = newcomers(before, now)
    if not len(rows):
        return tables.NEWCOMER_SEGMENTS.arrow.empty_table()
    embeddings = newcomer_embeddings(before, fused, now, rows, chosen, config)
    assignment = clustering.assign(population_of(step, embeddings, now.to_table(step.week)))
    ids = segment_ids(step, snapshot_of(step))
    return newcomer_rows(step.week, embeddings["user_id"].to_pylist(), assignment, ids, as_of)


@materializes(
    tables.SEGMENT_PROFILES,
    group=GROUP,
    reads={
        tables.USER_SEGMENTS: SAME_WEEK,
        tables.SEGMENT_LEDGER: SAME_WEEK,
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_VIEWS: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.EVENTS: HISTORY,
        tables.SESSIONS: HISTORY,
        tables.ITEMS: SNAPSHOT,
        tables.USERS: SNAPSHOT,
        **FUSED_WINDOWS,
    },
    partitions=WEEKLY,
    code=_PROFILES,
    settings=["segments", "text", "users", "seed"],
    kinds=["python"],
    automation=CHANGES,
)
def segment_profiles(step: Step) -> None:
    """Static attributes were not clustered on: how much they differ between segments validates the segments."""
    from segflow.representation.encoder import Encoder
    from segflow.segments.privacy import key_from
    from segflow.segments.profiles import profile_rows, profile_segments

    config = step.config.segments.profiles
    key = key_from(os.environ, config.salt, step.config.seed)
    found = profile_segments(profile_material(step), config, step.config.seed, key)
    rows: list[dict[str, Any]] = []
    if found.profiles:
        encoder = Encoder.load(step.config.text, step.config.compute.threads)
        rows, naming = profile_rows(found, segment_names(step), encoder.encode)
        step.note(
            **{row["segment_id"]: f"{row['name']}: {row['summary']}" for row in rows},
            **{f"{kind}_names_nearest_to_their_profile": score["share"] for kind, score in naming.items()},
            exemplars=f"{key.kind} hashes",
        )
        step.run.table([{name: value for name, value in row.items() if name != "details"} for row in rows], "segments")
    table = pa.Table.from_pylist([{"week": step.week, **row} for row in rows], schema=tables.SEGMENT_PROFILES.arrow)
    step.write(tables.SEGMENT_PROFILES, table)


@materializes(
    tables.SEGMENT_PAGE,
    group=GROUP,
    reads={
        tables.SEGMENT_PROFILES: THIS_AND_EARLIER_WEEKS,
        tables.SEGMENT_LEDGER: THIS_AND_EARLIER_WEEKS,
        tables.SEGMENTATION: SAME_WEEK,
        tables.USER_EMBEDDINGS: SAME_WEEK,
        tables.USER_SEGMENTS: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=[
        *(f"segments/{name}.py" for name in ("page", "pictures", "migration", "drawing", "story", "naming")),
        "segments/segments.html.jinja",
        "segments/page_ledger.sql",
        "pages/__init__.py",
        "pages/page.css.jinja",
        "pages/macros.jinja",
    ],
    settings=["segments", "seed"],
    kinds=["matplotlib"],
    automation=CHANGES,
)
def segment_page(step: Step) -> None:
    """It needs no test week: there as soon as the segments are. Written beside the reports too."""
    from segflow.arrow import matrix
    from segflow.segments.page import write_page

    embeddings = step.read(tables.USER_EMBEDDINGS, ["enough_history", "fused"])
    enough = embeddings["enough_history"]
    step.view(tables.SEGMENT_PROFILES)
    step.view(tables.SEGMENT_LEDGER)
    page = write_page(
        week=step.week,
        profiles=step.query("SELECT * FROM segment_profiles ORDER BY week, segment_id").to_pylist(),
        ledger=step.query(load("segments/page_ledger.sql")).to_pylist(),
        sweep=step.read(tables.SEGMENTATION).drop_columns(["model"]).to_pylist(),
        vectors=matrix(embeddings.filter(enough)["fused"]),
        segments=step.read(tables.USER_SEGMENTS, ["segment_id"]).filter(enough)["segment_id"].to_pylist(),
        min_cell=step.config.segments.profiles.min_cell,
        seed=step.config.seed,
    )
    step.show_page(f"{step.week}-segments.html", page.html, "segments.html")
    for name in ("map", "sizes", "contrasts"):
        if name in page.pictures:
            step.picture(page.pictures[name])
    step.note(sentence=page.sentence)
    row = {"week": step.week, "sentence": page.sentence, "html": page.html, "pictures": page.pictures_json()}
    step.write(tables.SEGMENT_PAGE, pa.Table.from_pylist([row], schema=tables.SEGMENT_PAGE.arrow))
