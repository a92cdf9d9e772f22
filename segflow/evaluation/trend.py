"""The verdicts of all snapshots, week after week, and the one over several of them: as rows, text, Markdown and a page.

What lives here: what is picked from each week's summary and from the pooled one, and its rendering. What does not: any estimate
(summary.py, pooling.py); each week's interval is that of its own report, and weeks share many of their users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from segflow.config import Config
from segflow.evaluation.charts import Line, interval_plot, standalone
from segflow.evaluation.content import heading, statement
from segflow.evaluation.drawings import difference_row, spelled
from segflow.evaluation.interactive import page_scripts
from segflow.evaluation.leave_one_out import ArmLeaveOneOut, averaged
from segflow.evaluation.pooling import Pooled, pool
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed
from segflow.pages import environment, escaped


@dataclass(frozen=True)
class TrendRow:
    """One snapshot. `difference` is the segments arm minus the best control, None in a week without segments."""

    week: str
    verdict: str
    best_arm: str
    best: Estimate
    difference: Estimate | None
    against: str
    threshold: float
    confidence: float


def trend(summaries: Mapping[str, EvaluationSummary], names: Mapping[str, str]) -> list[TrendRow]:
    """A row for each week, the earliest first.

    summaries: week (ISO date) -> its summary; names: segment id -> name.
    """
    return [_row(week, summaries[week], names) for week in sorted(summaries)]


def _row(week: str, summary: EvaluationSummary, names: Mapping[str, str]) -> TrendRow:
    arms = [row for row in summary.arms if row.task == PRIMARY_TASK and row.role != "diagnostic"]
    best = min(arms, key=lambda row: (-row.primary.mean, row.arm))
    control = next(row for row in summary.comparisons if row.task == PRIMARY_TASK and row.is_best_control)
    return TrendRow(
        week=week,
        verdict=heading(summary, names),
        best_arm=best.arm,
        best=best.primary,
        difference=control.difference if summary.verdict.segmented else None,
        against=control.against,
        threshold=summary.verdict.threshold,
        confidence=summary.settings.confidence,
    )


def trend_lines(rows: Sequence[TrendRow]) -> Iterator[str]:
    """The rows as a table of plain text."""
    yield "week".ljust(12) + "best arm, NDCG@10".ljust(48) + "segments minus best control".ljust(34) + "verdict"
    for row in rows:
        best = f"{plain_name(row.best_arm)} {row.best.mean:.4f} [{row.best.low:.4f}, {row.best.high:.4f}]"
        found = spelled(row.difference) if row.difference else "no segments"
        yield row.week.ljust(12) + best.ljust(48) + found.ljust(34) + row.verdict


class PooledSegment(NamedTuple):
    """One segment over the pooled weeks; `difference` as in `SegmentRow`, `decision` None where that is."""

    name: str
    users: int
    difference: Estimate | None
    decision: str | None


def pooled_segments(pooled: Pooled, names: Mapping[str, str]) -> list[PooledSegment]:
    """The segments over all items, by id; those of fewer users than are tested have no decision."""
    decisions = {one.segment_id: one.decision for one in pooled.summary.verdict.decisions}
    return [
        PooledSegment(
            names.get(row.segment_id, row.segment_id), row.users, row.difference, decisions.get(row.segment_id)
        )
        for row in pooled.summary.segments
        if row.task == PRIMARY_TASK
    ]


def render_trend(
    rows: Sequence[TrendRow],
    title: str,
    pooled: Pooled | None = None,
    names: Mapping[str, str] | None = None,
    one_out: Sequence[ArmLeaveOneOut] = (),
) -> str:
    """The page as HTML text, self-contained as the report is.

    pooled: the verdict over several of the weeks, which then stands first; names: segment id -> name.
    """
    names = names or {}
    pages = environment("segflow.evaluation")
    pages.filters.update(signed=signed, plain=plain_name)
    chart = trend_chart(rows, pooled)
    return pages.get_template("trend.html.jinja").render(
        title=title,
        rows=rows,
        chart=chart,
        scripts=page_scripts(chart),
        pooled=pooled,
        heading=heading(pooled.summary, names) if pooled else "",
        statement=statement(pooled.summary) if pooled else "",
        segments=pooled_segments(pooled, names) if pooled else [],
        one_out=one_out,
    )


class PooledPage(NamedTuple):
    """The pooled verdict, its page, and what to log; chart and markdown as in `Report`."""

    pooled: Pooled
    html: str
    chart: str
    markdown: Callable[[str | None], str]


def write_pooled(
    *,
    results: pd.DataFrame,
    summaries: Mapping[str, EvaluationSummary],
    one_out: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    config: Config,
) -> PooledPage:
    """Decide over all weeks of `summaries` (ISO date -> summary) by their `results`, and render the page.

    one_out: rows of `leave_one_out`; those of the weeks that are taken together are shown.
    """
    pooled = pool(results, summaries, config.evaluation, config.seed)
    rows = trend(summaries, names)
    chart = trend_chart(rows, pooled)
    return PooledPage(
        pooled=pooled,
        html=render_trend(
            rows,
            "Does segmenting pay? Week by week",
            pooled,
            names,
            averaged(row for row in one_out if str(row["week"]) in pooled.weeks),
        ),
        chart=standalone(chart) if chart else "",
        markdown=partial(trend_markdown, rows, pooled, names),
    )


def trend_markdown(rows: Sequence[TrendRow], pooled: Pooled, names: Mapping[str, str], image: str | None) -> str:
    """The page in short, for the Dagster UI and MLflow; image: address of the chart. All text from data is escaped."""
    parts = [
        f"## {escaped(heading(pooled.summary, names))}, over {pooled.words}",
        escaped(statement(pooled.summary)),
    ]
    if image:
        parts.append(f"![Rankers per segment minus the best control, by week]({image})")
    table = ["| week | segments minus best control | verdict |", "| --- | --- | --- |"]
    for row in rows:
        found = spelled(row.difference) if row.difference else "no segments"
        table.append(f"| {row.week} | {escaped(found)} | {escaped(row.verdict)} |")
    return "\n\n".join([*parts, "\n".join(table)]) + "\n"


def trend_chart(rows: Sequence[TrendRow], pooled: Pooled | None = None) -> Markup:
    """A line for each week, and one for the pooled weeks if they are several. Empty when no week had segments."""
    drawn = [
        difference_row(
            row.week, row.difference, "segments", (("verdict", row.verdict), ("against", plain_name(row.against)))
        )
        for row in rows
        if row.difference is not None
    ]
    if not drawn:
        return Markup("")
    if pooled and len(pooled.weeks) > 1:
        drawn.append(difference_row(f"{len(pooled.weeks)} weeks together", _overall(pooled), "segments"))
    lines = [Line(0.0, "no difference", "zero")]
    return interval_plot(drawn, lines, "Rankers per segment minus the best control, NDCG@10, by week")


def _overall(pooled: Pooled) -> Estimate:
    rows = pooled.summary.comparisons
    return next(row.difference for row in rows if row.task == PRIMARY_TASK and row.is_best_control)
