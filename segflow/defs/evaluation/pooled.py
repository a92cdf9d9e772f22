"""The verdict over several weeks: each partition takes its week and those before it together."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa

from segflow import tables
from segflow.defs.automation import FOLLOWS
from segflow.defs.evaluation.assets import CHART_FILES, GROUP
from segflow.defs.materializes import materializes
from segflow.defs.partitions import POOLED_WEEKS, THIS_AND_EARLIER_WEEKS, WEEKLY
from segflow.defs.step import Step
from segflow.errors import UserError

if TYPE_CHECKING:
    from segflow.evaluation.summary import EvaluationSummary


@materializes(
    tables.POOLED_VERDICT,
    group=GROUP,
    reads={
        tables.RANKING_RESULTS: POOLED_WEEKS,
        tables.EVALUATION_REPORT: POOLED_WEEKS,
        tables.LEAVE_ONE_OUT: POOLED_WEEKS,
        tables.SEGMENT_LEDGER: THIS_AND_EARLIER_WEEKS,
    },
    partitions=WEEKLY,
    code=["evaluation", "evaluation/trend.html.jinja", *CHART_FILES, "pages", "pages/page.css.jinja"],
    settings=["evaluation", "seed"],
    kinds=["python"],
    automation=FOLLOWS,
)
def pooled_verdict(step: Step) -> None:
    """A gain that a week is too short to prove may show over several; the rules and the threshold are those of a week."""
    from segflow.evaluation.trend import write_pooled

    # None of the weeks may have had segments: then there are no names, and still a verdict.
    step.view(tables.SEGMENT_LEDGER)
    names = step.query("SELECT segment_id, name FROM segment_ledger ORDER BY week")
    found = write_pooled(
        results=step.read(tables.RANKING_RESULTS).to_pandas(),
        summaries=_summaries(step),
        one_out=step.read(tables.LEAVE_ONE_OUT).to_pylist(),
        names=dict(zip(names["segment_id"].to_pylist(), names["name"].to_pylist(), strict=True)),
        config=step.config,
    )
    step.show_page(f"{step.week}-trend.html", found.html, "trend.html")
    step.summary(found.markdown, found.chart)
    verdict = found.pooled.summary.verdict
    step.run.metrics({"segments_minus_best_control": verdict.difference})
    step.note(verdict=verdict.outcome, sentence=verdict.sentence, weeks=len(found.pooled.weeks))
    row = {
        "week": step.week,
        "first_week": date.fromisoformat(found.pooled.weeks[0]),
        "weeks": len(found.pooled.weeks),
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "summary": found.pooled.summary.to_json(),
        "html": found.html,
    }
    step.write(tables.POOLED_VERDICT, pa.Table.from_pylist([row], schema=tables.POOLED_VERDICT.arrow))


def _summaries(step: Step) -> dict[str, EvaluationSummary]:
    """Week -> the summary of its report. An earlier week whose report is of another version of segflow is left out, and noted."""
    from segflow.evaluation.record import read_summary

    found, others = {}, []
    for row in step.read(tables.EVALUATION_REPORT, ["week", "summary"]).to_pylist():
        try:
            found[str(row["week"])] = read_summary(row["summary"], f"the report of {row['week']}")
        except UserError:
            if row["week"] == step.week:
                raise
            others.append(str(row["week"]))
    if others:
        step.note(reports_of_another_version=", ".join(others))
    return found
