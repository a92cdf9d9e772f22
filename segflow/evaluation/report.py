"""The report: one self-contained HTML page, readable without any knowledge of the code.

What lives here: the rendering. What does not: the shapes of what it shows (content.py), any computation of results (summary.py
and the earlier stages), its charts (drawings.py), its tables for download (appendix.py). The page loads nothing from
elsewhere, runs no script but those of its charts, and escapes every value, since names and titles come from data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segflow.evaluation.advice import next_step
from segflow.evaluation.appendix import data_link, sheets
from segflow.evaluation.content import TASK_TITLES, ReportInput, heading, statement, what_order_is_worth
from segflow.evaluation.controls import control_sentences
from segflow.evaluation.drawings import (
    arms_chart,
    first_caption,
    first_chart,
    metric_title,
    segments_chart,
    size_chart,
    sparklines,
    trade_off_chart,
)
from segflow.evaluation.groups import size_sentence
from segflow.evaluation.interactive import page_scripts
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.summary import PRIMARY_TASK, Comparison, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed, signed_percent
from segflow.pages import environment
from segflow.representation.probe_rows import ProbeRow


@dataclass(frozen=True)
class ProbeTable:
    """The probe with a row per candidate, best first, and a column per task; `sentence` says what follows."""

    tasks: Sequence[tuple[str, str]]
    rows: Sequence[tuple[ProbeRow, Mapping[str, ProbeRow]]]
    sentence: str


def render(report: ReportInput) -> str:
    """The page as HTML text. The same input gives the same text."""
    names = report.segment_names()
    pages = environment("segflow.evaluation")
    pages.filters.update(signed=signed, signed_percent=signed_percent, plain=plain_name, metric_title=metric_title)
    charts = {task: arms_chart(report.summary, task) for task in report.summary.users_by_task}
    return pages.get_template("report.html.jinja").render(
        report=report,
        summary=report.summary,
        verdict=report.summary.verdict,
        heading=heading(report.summary, names),
        statement=statement(report.summary),
        settings=report.summary.settings,
        names=names,
        task_titles={task: TASK_TITLES.get(task, task) for task in report.summary.users_by_task},
        primary_task=PRIMARY_TASK,
        placebo_range=_control_range(report.summary),
        next_step=next_step(report.summary, names),
        scripts=page_scripts(*charts.values()),
        first_chart=first_chart(report.summary),
        first_caption=first_caption(report.summary),
        best_baseline=_best_baseline(report.summary),
        arm_charts=charts,
        segments_chart=segments_chart(report.summary, names),
        size_chart=size_chart(report.summary, names),
        size_sentence=size_sentence(report.summary.gain_by_size) if report.summary.gain_by_size else "",
        control_sentences=control_sentences(report.summary.controls, PRIMARY_TASK, report.summary.settings),
        order=what_order_is_worth(report.summary),
        decisions={one.segment_id: one for one in report.summary.verdict.decisions},
        latest=[row for row in report.ledger if row.week == max(one.week for one in report.ledger)],
        sparklines=sparklines(report.ledger),
        probe=_probe_table(report.probe),
        sheets=sheets(report),
        summary_link=data_link("application/json", report.summary.to_json()),
        lists=[row for row in report.lists if not row.diversity_weight],
        trade_off=_trade_off(report.lists),
        trade_off_chart=trade_off_chart(_trade_off(report.lists)),
        largest_null=max(
            (row.null_silhouette for row in report.sweep if row.null_silhouette is not None), default=None
        ),
    )


def _trade_off(lists: Sequence[ListQuality]) -> list[ListQuality]:
    """The arm that was re-ranked for diversity, by weight; empty where none was."""
    varied = {row.arm for row in lists if row.diversity_weight}
    return sorted((row for row in lists if row.arm in varied), key=lambda row: row.diversity_weight)


def _best_baseline(summary: EvaluationSummary) -> Comparison | None:
    """The comparison with the simple baseline that comes closest."""
    rows = [row for row in summary.comparisons if row.task == PRIMARY_TASK and row.role == "baseline"]
    return min(rows, key=lambda row: row.difference.mean, default=None)


def _control_range(summary: EvaluationSummary) -> tuple[float, float, int]:
    """Lowest and highest mean among the arms without real segments that had the same training, and their number."""
    means = [row.primary.mean for row in summary.arms if row.task == PRIMARY_TASK and row.role == "control"]
    return (min(means), max(means), len(means)) if means else (0.0, 0.0, 0)


_PROBE_TASKS = {
    "mean": "All three",
    "churn": "Who stays away",
    "category": "Which categories",
    "spend": "How much is spent",
}


def _probe_table(rows: Sequence[ProbeRow]) -> ProbeTable | None:
    if not rows:
        return None
    scores: dict[str, dict[str, ProbeRow]] = {}
    for row in rows:
        scores.setdefault(row.candidate, {})[row.task] = row
    overall = sorted((row for row in rows if row.task == "mean"), key=lambda row: (-row.score, row.candidate))
    tasks = [(task, title) for task, title in _PROBE_TASKS.items() if any(row.task == task for row in rows)]
    return ProbeTable(tasks, [(row, scores[row.candidate]) for row in overall], _probe_sentence(overall))


def _probe_sentence(overall: Sequence[ProbeRow]) -> str:
    """Whether the learned views are worth more than features that anybody can count."""
    one = next((row for row in overall if row.chosen), None)
    if one is None or one.difference is None or one.difference_low is None or one.difference_high is None:
        return "No set of views was chosen."
    interval = f"{signed(one.difference)} [{signed(one.difference_low)}, {signed(one.difference_high)}]"
    chosen = f"The smallest set within one standard error of the best is {one.candidate}"
    if one.difference_low > 0:
        return f"{chosen}: it foretells more than plainly aggregated features, by {interval}."
    if one.difference_high < 0:
        return f"{chosen}: plainly aggregated features foretell more, the difference is {interval}."
    return f"{chosen}: against plainly aggregated features nothing is decided, {interval}."
