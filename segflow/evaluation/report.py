"""The report: one self-contained HTML page, readable without any knowledge of the code.

What lives here: the shapes of what the page shows, and the rendering. What does not: any computation of results
(summary.py and the earlier stages) or drawing (charts.py). The page loads nothing from elsewhere, holds no script,
and escapes every value, since names and titles come from data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from segflow.evaluation.charts import Interval, Line, Point, curve_plot, interval_plot, sparkline
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, Comparison, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed, signed_percent
from segflow.pages import environment
from segflow.representation.probe_rows import ProbeRow
from segflow.segments.drawing import Picture

TASK_TITLES = {"all": "All items", "new": "Items new to the user"}


@dataclass(frozen=True)
class SegmentCard:
    """A persona. Shares are in [0, 1]; `distinguishing` and `attributes` are (label, text) pairs."""

    segment_id: str
    name: str
    users: int
    share_of_users: float
    share_of_value: float
    distinguishing: Sequence[tuple[str, str]] = ()
    top_items: Sequence[str] = ()
    journeys: Sequence[str] = ()
    rules: Sequence[str] = ()
    attributes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class LedgerRow:
    """What happened to one segment in one week (ISO date): survive, split, merge, emerge or vanish; sizes in users."""

    week: str
    segment_id: str
    name: str
    event: str
    size: int
    previous_size: int | None
    parents: Sequence[str] = ()


@dataclass(frozen=True)
class SweepRow:
    """One candidate number of segments; `null_silhouette` is that of data without structure, where computed."""

    algorithm: str
    k: int
    silhouette: float
    stability_mean: float
    stability_min: float
    smallest_share: float
    eligible: bool
    chosen: bool
    null_silhouette: float | None = None


@dataclass(frozen=True)
class ProbeTable:
    """The probe with a row per candidate, best first, and a column per task; `sentence` says what follows."""

    tasks: Sequence[tuple[str, str]]
    rows: Sequence[tuple[ProbeRow, Mapping[str, ProbeRow]]]
    sentence: str


@dataclass(frozen=True)
class AttributeRow:
    """Association of the segments with one static attribute that was not clustered on."""

    attribute: str
    cramers_v: float
    p_value: float
    users: int | None


@dataclass(frozen=True)
class Accounting:
    """Where the raw rows went; `quarantined` counts rows by reason."""

    raw: int
    events: int
    duplicates: int
    quarantined: Mapping[str, int]

    @property
    def unexplained(self) -> int:
        """Rows that are in none of the places; 0 when nothing is lost."""
        return self.raw - self.events - self.duplicates - sum(self.quarantined.values())


@dataclass(frozen=True)
class ReportInput:
    """Everything on the page. Empty sequences leave their section with a line that says so.

    pictures: of the segments, by name, as `segments/page.py` drew them.
    """

    title: str
    week: str
    test_week: str
    summary: EvaluationSummary
    segments: Sequence[SegmentCard]
    accounting: Accounting
    ledger: Sequence[LedgerRow] = ()
    sweep: Sequence[SweepRow] = ()
    probe: Sequence[ProbeRow] = ()
    attributes: Sequence[AttributeRow] = ()
    lists: Sequence[ListQuality] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    config_excerpt: str = ""
    pictures: Mapping[str, Picture] = field(default_factory=dict)


def render(report: ReportInput) -> str:
    """The page as HTML text. The same input gives the same text."""
    names = {row.segment_id: row.name for row in report.ledger}
    names.update({card.segment_id: card.name for card in report.segments})
    pages = environment("segflow.evaluation")
    pages.filters.update(signed=signed, signed_percent=signed_percent, plain=plain_name)
    return pages.get_template("report.html.jinja").render(
        report=report,
        summary=report.summary,
        verdict=report.summary.verdict,
        statement=_statement(report.summary.verdict.sentence),
        settings=report.summary.settings,
        names=names,
        task_titles={task: TASK_TITLES.get(task, task) for task in report.summary.users_by_task},
        primary_task=PRIMARY_TASK,
        placebo_range=_control_range(report.summary),
        differences_chart=_differences_chart(report.summary),
        best_baseline=_best_baseline(report.summary),
        arm_charts={task: _arms_chart(report.summary, task) for task in report.summary.users_by_task},
        segments_chart=_segments_chart(report.summary, names),
        decisions={one.segment_id: one for one in report.summary.verdict.decisions},
        latest=[row for row in report.ledger if row.week == max(one.week for one in report.ledger)],
        sparklines=_sparklines(report.ledger),
        probe=_probe_table(report.probe),
        lists=[row for row in report.lists if not row.diversity_weight],
        trade_off=_trade_off(report.lists),
        trade_off_chart=_trade_off_chart(_trade_off(report.lists)),
        largest_null=max(
            (row.null_silhouette for row in report.sweep if row.null_silhouette is not None), default=None
        ),
    )


def _trade_off(lists: Sequence[ListQuality]) -> list[ListQuality]:
    """The arm that was re-ranked for diversity, by weight; empty where none was."""
    varied = {row.arm for row in lists if row.diversity_weight}
    return sorted((row for row in lists if row.arm in varied), key=lambda row: row.diversity_weight)


def _trade_off_chart(rows: Sequence[ListQuality]) -> Markup:
    if not rows:
        return Markup("")
    points = [
        Point(
            row.distance,
            row.ndcg_10,
            f"{row.diversity_weight:g}",
            f"weight {row.diversity_weight:g}: NDCG@10 {row.ndcg_10:.4f}, distance {row.distance:.3f}",
        )
        for row in rows
    ]
    axes = ("how unlike the items of a list are (mean text distance) →", "NDCG@10 ↑")
    return curve_plot(points, axes, "NDCG@10 against the diversity of lists, by weight of diversity")


def _statement(sentence: str) -> str:
    """The verdict's sentence without its outcome, which stands above it as the heading."""
    statement = sentence.partition(": ")[2]
    return statement[:1].upper() + statement[1:]


def _difference(label: str, estimate: Estimate, kind: str) -> Interval:
    text = f"{signed(estimate.mean)}  [{signed(estimate.low)}, {signed(estimate.high)}]"
    return Interval(label, estimate.mean, estimate.low, estimate.high, kind, text)


def _reference_lines(summary: EvaluationSummary) -> list[Line]:
    return [Line(0.0, "no difference", "zero"), Line(summary.verdict.threshold, "worth having", "needed")]


def _differences_chart(summary: EvaluationSummary) -> Markup:
    """Against the global ranker and every control; simple baselines lie far off and would flatten the scale."""
    rows = [
        _difference(plain_name(row.against) + (" (best)" if row.is_best_control else ""), row.difference, row.role)
        for row in summary.comparisons
        if row.task == PRIMARY_TASK and row.role != "baseline"
    ]
    return interval_plot(
        rows,
        _reference_lines(summary),
        "Difference in NDCG@10 between the rankers per segment and each control, with intervals: "
        + "; ".join(f"{row.label} {row.text}" for row in rows),
    )


def _best_baseline(summary: EvaluationSummary) -> Comparison | None:
    """The comparison with the simple baseline that comes closest."""
    rows = [row for row in summary.comparisons if row.task == PRIMARY_TASK and row.role == "baseline"]
    return min(rows, key=lambda row: row.difference.mean, default=None)


def _arms_chart(summary: EvaluationSummary, task: str) -> Markup:
    rows = [
        Interval(
            plain_name(row.arm),
            row.primary.mean,
            row.primary.low,
            row.primary.high,
            row.role,
            f"{row.primary.mean:.4f}  [{row.primary.low:.4f}, {row.primary.high:.4f}]",
        )
        for row in sorted(summary.arms, key=lambda row: -row.primary.mean)
        if row.task == task
    ]
    title = TASK_TITLES.get(task, task)
    return interval_plot(
        rows, [], f"{title}: mean NDCG@10 of each arm. " + "; ".join(f"{row.label} {row.text}" for row in rows)
    )


def _segments_chart(summary: EvaluationSummary, names: Mapping[str, str]) -> Markup:
    rows = [
        _difference(names.get(row.segment_id, row.segment_id), row.difference, "segments")
        for row in summary.segments
        if row.task == PRIMARY_TASK and row.difference is not None
    ]
    if not rows:
        return Markup("")
    return interval_plot(
        rows,
        _reference_lines(summary),
        "Difference in NDCG@10 to the best control in each segment: "
        + "; ".join(f"{row.label} {row.text}" for row in rows),
    )


def _control_range(summary: EvaluationSummary) -> tuple[float, float, int]:
    """Lowest and highest mean among the arms without real segments that had the same training, and their number."""
    means = [row.primary.mean for row in summary.arms if row.task == PRIMARY_TASK and row.role == "control"]
    return (min(means), max(means), len(means)) if means else (0.0, 0.0, 0)


def _sparklines(ledger: Sequence[LedgerRow]) -> dict[str, Markup]:
    """Size over the weeks of each segment."""
    sizes: dict[str, list[int]] = {}
    for row in sorted(ledger, key=lambda row: row.week):
        sizes.setdefault(row.segment_id, []).append(row.size)
    return {
        segment_id: sparkline(values, "users by week: " + ", ".join(map(str, values)))
        for segment_id, values in sizes.items()
    }


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
