"""The verdicts of all snapshots, week after week: as rows, as lines of text, and as a page.

What lives here: what is picked from each week's summary, and its rendering. What does not: any new estimate; each week's
interval is that of its own report, and weeks share many of their users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from segflow.evaluation.charts import Interval, Line, interval_plot
from segflow.evaluation.content import heading
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed
from segflow.pages import environment


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
    arms = [row for row in summary.arms if row.task == PRIMARY_TASK]
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
        found = _spelled(row.difference) if row.difference else "no segments"
        yield row.week.ljust(12) + best.ljust(48) + found.ljust(34) + row.verdict


def render_trend(rows: Sequence[TrendRow], title: str) -> str:
    """The page as HTML text, self-contained as the report is."""
    pages = environment("segflow.evaluation")
    pages.filters.update(signed=signed, plain=plain_name)
    return pages.get_template("trend.html.jinja").render(title=title, rows=rows, chart=_chart(rows))


def _chart(rows: Sequence[TrendRow]) -> Markup:
    """Empty when no week had segments."""
    drawn = [
        Interval(row.week, one.mean, one.low, one.high, "segments", _spelled(one))
        for row in rows
        if (one := row.difference) is not None
    ]
    if not drawn:
        return Markup("")
    return interval_plot(
        drawn,
        [Line(0.0, "no difference", "zero")],
        "Rankers per segment minus the best control, NDCG@10, by week: "
        + "; ".join(f"{row.label} {row.text}" for row in drawn),
    )


def _spelled(estimate: Estimate) -> str:
    return f"{signed(estimate.mean)}  [{signed(estimate.low)}, {signed(estimate.high)}]"
