"""The report in short as Markdown, for the Dagster UI and as an artifact of the MLflow run.

What does not live here: the page (report.py) and the chart that is shown (drawings.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from segflow.evaluation.advice import next_step
from segflow.evaluation.content import TASK_TITLES, ReportInput, heading, statement, what_order_is_worth
from segflow.evaluation.controls import control_sentences
from segflow.evaluation.drawings import first_caption
from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import plain_name
from segflow.pages import escaped


def markdown(report: ReportInput, image: str | None) -> str:
    """Verdict, chart, what to do next, whether the controls control, and the means of all arms.

    image: address of the chart, a file or a `data:` link; None where there is none. All text from data is escaped.
    """
    summary, names = report.summary, report.segment_names()
    parts = [
        f"## {escaped(heading(summary, names))}",
        escaped(statement(summary)),
        f"**What to do next:** {escaped(next_step(summary, names))}",
    ]
    if image:
        caption = escaped(first_caption(summary))
        parts += [f"![The chart that shows it]({image})", caption]
    checks = control_sentences(summary.controls, PRIMARY_TASK, summary.settings) if summary.verdict.segmented else []
    if told := " ".join(one for one in (*checks, what_order_is_worth(summary)) if one):
        parts.append(escaped(told))
    week = f"Segments of the week of {report.week}, tested on the week of {report.test_week}."
    return "\n\n".join([*parts, "\n".join(_arms(summary)), week]) + "\n"


def _arms(summary: EvaluationSummary) -> Iterator[str]:
    """A row for each arm, the best over all items first, and a column for each task."""
    tasks = list(summary.users_by_task)
    titles = [f"{TASK_TITLES.get(task, task)}, {summary.users_by_task[task]:,} users" for task in tasks]
    yield "| NDCG@10 | " + " | ".join(titles) + " |"
    yield "| --- |" + " ---: |" * len(tasks)
    found = {(row.task, row.arm): row.primary for row in summary.arms}
    arms = {row.arm for row in summary.arms if row.role != "diagnostic"}
    for arm in sorted(arms, key=lambda one: (-found[tasks[0], one].mean, one)):
        cells = [found[task, arm] for task in tasks]
        texts = [escaped(f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]") for one in cells]
        yield f"| {escaped(plain_name(arm))} | " + " | ".join(texts) + " |"
