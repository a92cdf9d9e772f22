"""Evaluation: every arm on the test week, and the report that says whether segmenting paid."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from segflow import tables
from segflow.defs.automation import FOLLOWS
from segflow.defs.materializes import materializes
from segflow.defs.partitions import (
    HISTORY,
    HISTORY_AND_TEST,
    SAME_WEEK,
    SEGMENTS_OF_WEEK,
    SNAPSHOT,
    THIS_AND_EARLIER_WEEKS,
    WEEKLY,
)
from segflow.defs.reading import stability_of
from segflow.defs.step import Step
from segflow.reading.rankers import (
    candidate_vectors,
    control_groups,
    global_ranker_of,
    microseconds,
    ranking_week,
    repeated_arms,
    segment_groups,
    segments_of,
)
from segflow.sql import load

if TYPE_CHECKING:
    pass

GROUP = "evaluation"
# What else makes the charts of a page.
CHART_FILES = [
    "evaluation/chart.css.jinja",
    "evaluation/interactive.css.jinja",
    "evaluation/charts.js",
    "evaluation/intervals.vega.json",
    "evaluation/curve.vega.json",
    "pages/vega.licences.txt",
]


@materializes(
    tables.RANKING_RESULTS,
    tables.LIST_QUALITY,
    tables.LEAVE_ONE_OUT,
    tables.ARM_TUNING,
    group=GROUP,
    reads={
        tables.EVENTS: HISTORY_AND_TEST,
        tables.ITEMS: SNAPSHOT,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        tables.GLOBAL_RANKER: SAME_WEEK,
        tables.SEGMENT_RANKERS: SEGMENTS_OF_WEEK,
        tables.CONTROL_RANKERS: SAME_WEEK,
        tables.REPEATED_RANKERS: SAME_WEEK,
        tables.USER_SEGMENTS: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=[
        "rankers",
        "evaluation/baselines.py",
        "evaluation/diagnostics.py",
        "evaluation/protocol.py",
        "evaluation/metrics.py",
        "evaluation/lists.py",
        "evaluation/leave_one_out.py",
    ],
    settings=["rankers", "seed", "evaluation.popular_items"],
    kinds=["python"],
    automation=FOLLOWS,
)
def ranking_results(step: Step) -> None:
    """The test week is the one after the snapshot week; it was seen by nothing that is tested."""
    from segflow.evaluation.baselines import tuned_baselines
    from segflow.evaluation.diagnostics import active_days, shuffled_arm
    from segflow.evaluation.leave_one_out import LeaveOneOut, first_items
    from segflow.evaluation.protocol import evaluate, list_qualities, popular_items, ranker_arms

    week, ranker, segment_of = ranking_week(step), global_ranker_of(step), segments_of(step)
    examples, features = week.after(), week.features_after()
    controls = control_groups(step, week.sequences.user_ids)
    baselines, tuning = tuned_baselines(week, examples, features, segment_of)
    own = segment_groups(step, week.sequences.user_ids)
    arms = [
        *baselines,
        *ranker_arms(ranker, examples, {"global": None, **controls, "segments": own}),
        shuffled_arm(week, examples, ranker, step.config.seed),
    ]
    again = [
        arm
        for seed, other, of_seed in repeated_arms(step, week.sequences.user_ids)
        for arm in ranker_arms(other, examples, of_seed, seed)
    ]
    popular = popular_items(features, step.config.evaluation.popular_items)
    days = active_days(week.sequences, microseconds(step.week + timedelta(days=7)))
    one_out = LeaveOneOut(first_items(week, examples))
    rows = evaluate([*arms, *again], week, examples, segment_of, step.config.seed, popular, days, one_out)
    categories = {row["item_id"]: (row["category"] or ["none"])[0] for row in step.read(tables.ITEMS).to_pylist()}
    # Of lists only those of the first training, which is what is served.
    qualities = list_qualities(arms, week, examples, categories, candidate_vectors(step, week))
    step.note(test_users=len(examples), candidates=examples.candidates)
    step.note(**{f"tuned/{one.arm}": one.settings for one in tuning if one.chosen})
    step.run.metrics(
        {f"tuned.{one.arm}.ndcg_10": one.ndcg_10 for one in tuning if one.chosen and one.ndcg_10 is not None}
    )
    step.write(tables.RANKING_RESULTS, rows.add_column(0, "week", pa.array([step.week] * rows.num_rows, pa.date32())))
    step.write(tables.LEAVE_ONE_OUT, one_out.table(step.week))
    for table, found in ((tables.LIST_QUALITY, qualities), (tables.ARM_TUNING, tuning)):
        step.write(
            table, pa.Table.from_pylist([{"week": step.week, **asdict(one)} for one in found], schema=table.arrow)
        )


@materializes(
    tables.EVALUATION_REPORT,
    group=GROUP,
    reads={
        tables.RANKING_RESULTS: SAME_WEEK,
        tables.LIST_QUALITY: SAME_WEEK,
        tables.ARM_TUNING: SAME_WEEK,
        tables.USERS: SNAPSHOT,
        tables.REPRESENTATION_PROBE: SAME_WEEK,
        tables.SEGMENTATION: SAME_WEEK,
        tables.SEGMENT_LEDGER: THIS_AND_EARLIER_WEEKS,
        tables.SEGMENT_PROFILES: SAME_WEEK,
        tables.SEGMENT_PAGE: SAME_WEEK,
        tables.EVENTS: HISTORY,
        tables.QUARANTINED_EVENTS: HISTORY,
        tables.RAW_EVENTS: HISTORY,
    },
    partitions=WEEKLY,
    code=[
        "evaluation",
        "evaluation/report.html.jinja",
        *CHART_FILES,
        "evaluation/rows_by_outcome.sql",
        "segments/clustering.py",
        "segments/page_ledger.sql",
        "pages",
        "pages/page.css.jinja",
        "pages/macros.jinja",
    ],
    settings=["evaluation", "seed"],
    kinds=["python"],
    automation=FOLLOWS,
)
def evaluation_report(step: Step) -> None:
    """Compares the segment rankers with the best control, by a threshold that was fixed before."""
    from segflow.evaluation.page import write_report

    results = step.read(tables.RANKING_RESULTS).to_pandas()
    step.view(tables.RAW_EVENTS)
    step.view(tables.EVENTS)
    step.view(tables.QUARANTINED_EVENTS)
    step.view(tables.SEGMENT_PROFILES)
    step.view(tables.SEGMENT_LEDGER)
    report = write_report(
        week=step.week,
        test_week=step.week + timedelta(days=7),
        results=results,
        profiles=step.query("SELECT * FROM segment_profiles ORDER BY segment_id").to_pylist(),
        ledger=step.query(load("segments/page_ledger.sql")).to_pylist(),
        sweep=step.read(tables.SEGMENTATION).to_pylist(),
        probe=step.read(tables.REPRESENTATION_PROBE).to_pylist(),
        lists=step.read(tables.LIST_QUALITY).to_pylist(),
        tuning=step.read(tables.ARM_TUNING).to_pylist(),
        attributes=step.read(tables.USERS).to_pandas(),
        stability=stability_of(step),
        rows=step.query(load("evaluation/rows_by_outcome.sql")).to_pylist(),
        pictures=step.read(tables.SEGMENT_PAGE, ["pictures"])["pictures"][0].as_py(),
        # Not table versions: those also count what other weeks wrote meanwhile, and the same page would never come twice.
        versions=step.contents,
        config=step.config,
    )
    step.show_page(f"{step.week}.html", report.html, "report.html")
    step.run.table(report.segment_gains, "segment_gains")
    step.summary(report.markdown, report.chart)
    step.run.metrics(report.figures)
    step.note(verdict=report.outcome, sentence=report.sentence)
    row = {"week": step.week, "outcome": report.outcome, "sentence": report.sentence}
    step.write(
        tables.EVALUATION_REPORT,
        pa.Table.from_pylist(
            [{**row, "summary": report.json, "html": report.html}], schema=tables.EVALUATION_REPORT.arrow
        ),
    )
