"""Which charts the report shows, and what stands in them.

What does not live here: how a chart is drawn (charts.py) and where it stands (report.html.jinja).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from segflow.evaluation.charts import Interval, Line, Point, curve_plot, interval_plot, shortened, sparkline
from segflow.evaluation.content import TASK_TITLES, LedgerRow
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, ArmRow, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed
from segflow.pages import percent

Facts = tuple[tuple[str, str], ...]


def spelled(estimate: Estimate) -> str:
    """A difference and its interval."""
    return f"{signed(estimate.mean)}  [{signed(estimate.low)}, {signed(estimate.high)}]"


def difference_row(label: str, estimate: Estimate, kind: str, facts: Facts = ()) -> Interval:
    """A difference as a row of a chart; `facts` are told besides how many users it rests on."""
    facts = (
        *facts,
        ("detectable difference", f"{estimate.minimum_detectable_effect:.4f}"),
        ("users", f"{estimate.users:,}"),
    )
    return Interval(label, estimate.mean, estimate.low, estimate.high, kind, spelled(estimate), facts)


def metric_title(metric: str) -> str:
    """The name of a metric as one writes it: NDCG@10 of `ndcg_10`."""
    name, _, cut = metric.partition("_")
    return (name.upper() if name in ("ndcg", "mrr", "map") else name.capitalize()) + (f"@{cut}" if cut else "")


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _reference_lines(summary: EvaluationSummary) -> list[Line]:
    return [Line(0.0, "no difference", "zero"), Line(summary.verdict.threshold, "worth having", "needed")]


def differences_chart(summary: EvaluationSummary) -> Markup:
    """Against the global ranker and every control; simple baselines lie far off and would flatten the scale."""
    rows = [
        difference_row(
            plain_name(row.against) + (" (best)" if row.is_best_control else ""),
            row.difference,
            row.role,
            (("p", _p_value(row.difference.p_value)),),
        )
        for row in summary.comparisons
        if row.task == PRIMARY_TASK and row.role != "baseline"
    ]
    return interval_plot(
        rows,
        _reference_lines(summary),
        "Difference in NDCG@10 between the rankers per segment and each control, with intervals",
    )


def first_chart(summary: EvaluationSummary) -> Markup:
    """The one chart that shows the verdict: without segments it is whether a trained ranker is worth having at all.

    Empty where there is nothing to compare with.
    """
    if summary.verdict.segmented:
        return differences_chart(summary)
    rows = [
        difference_row(plain_name(row.against), row.difference, "global", (("p", _p_value(row.difference.p_value)),))
        for row in summary.global_comparisons
        if row.task == PRIMARY_TASK
    ]
    if not rows:
        return Markup("")
    return interval_plot(
        rows,
        [Line(0.0, "no difference", "zero")],
        "Difference in NDCG@10 between the global ranker and each simple baseline",
    )


def first_caption(summary: EvaluationSummary) -> str:
    """What one sees in the first chart."""
    what = (
        "Rankers per segment minus each arm without real segments, NDCG@10 over the same users. Dots right of zero favour the "
        "segments"
        if summary.verdict.segmented
        else "The global ranker minus each simple baseline, NDCG@10 over the same users. Dots right of zero favour the ranker"
    )
    return f"{what}; the line through a dot is the {percent(summary.settings.confidence, 0)} interval."


def arms_chart(summary: EvaluationSummary, task: str) -> Markup:
    """NDCG@10 of each arm of a task, the best first; diagnostic arms have a section of their own."""
    rows = [
        Interval(
            plain_name(row.arm),
            row.primary.mean,
            row.primary.low,
            row.primary.high,
            row.role,
            f"{row.primary.mean:.4f}  [{row.primary.low:.4f}, {row.primary.high:.4f}]",
            _facts(row),
        )
        for row in sorted(summary.arms, key=lambda row: -row.primary.mean)
        if row.task == task and row.role != "diagnostic"
    ]
    return interval_plot(rows, [], f"Mean NDCG@10 of each arm, {TASK_TITLES.get(task, task).lower()}")


def _facts(row: ArmRow) -> Facts:
    """What else is told of an arm: the other metrics at the same cut; those at other cuts are in the table."""
    told = {name: value for name, value in row.metrics.items() if name.endswith("_10") and name != "ndcg_10"}
    metrics = ((metric_title(name), f"{value:.3f}") for name, value in told.items())
    spread = (("seed spread", f"{row.seed_spread:.4f}"),) if row.seed_spread is not None else ()
    return (*metrics, ("seeds", str(row.seeds)), *spread, ("users", f"{row.primary.users:,}"))


def segments_chart(summary: EvaluationSummary, names: Mapping[str, str]) -> Markup:
    """The difference to the best control in each segment; empty where none could be tested."""
    found = {one.segment_id: one for one in summary.verdict.decisions}
    rows = [
        difference_row(
            names.get(row.segment_id, row.segment_id),
            row.difference,
            "segments",
            (
                ("own ranker", f"{row.segments_mean:.4f}"),
                ("best control", f"{row.control_mean:.4f}"),
                *(
                    (("corrected p", _p_value(one.adjusted_p_value)), ("finding", one.decision))
                    if (one := found.get(row.segment_id))
                    else ()
                ),
            ),
        )
        for row in summary.segments
        if row.task == PRIMARY_TASK and row.difference is not None
    ]
    if not rows:
        return Markup("")
    return interval_plot(
        rows,
        _reference_lines(summary),
        "Difference in NDCG@10 to the best control in each segment",
    )


def size_chart(summary: EvaluationSummary, names: Mapping[str, str]) -> Markup:
    """The same, from the largest segment to the smallest; empty for less than two that could be tested."""
    rows = [
        difference_row(
            f"{shortened(names.get(row.segment_id, row.segment_id), 16)}, {row.difference.users:,} users",
            row.difference,
            "segments",
        )
        for row in sorted(summary.segments, key=lambda row: (-row.users, row.segment_id))
        if row.task == PRIMARY_TASK and row.difference is not None
    ]
    if len(rows) < 2:
        return Markup("")
    return interval_plot(
        rows,
        _reference_lines(summary),
        "Difference in NDCG@10 to the best control by the size of the segment, the largest first",
    )


def trade_off_chart(rows: Sequence[ListQuality]) -> Markup:
    """What diversity costs, by its weight; empty where lists were not re-ranked."""
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


def sparklines(ledger: Sequence[LedgerRow]) -> dict[str, Markup]:
    """Size over the weeks of each segment."""
    sizes: dict[str, list[int]] = {}
    for row in sorted(ledger, key=lambda row: row.week):
        sizes.setdefault(row.segment_id, []).append(row.size)
    return {
        segment_id: sparkline(values, "users by week: " + ", ".join(map(str, values)))
        for segment_id, values in sizes.items()
    }
