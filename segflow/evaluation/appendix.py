"""The appendix of the report: every table behind it, to read and to download.

What lives here: which tables there are, their columns, and each as CSV inside a link. What does not: how the page looks
(report.html.jinja). A download is a `data:` link, so the page stays one file and needs no script.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segflow.evaluation.content import ReportInput, SegmentCard
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, Comparison, EvaluationSummary
from segflow.evaluation.verdict import segments_arm

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Sheet:
    """One table; rows in the order of the columns. `name` is that of its file, without ending."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    @property
    def csv(self) -> str:
        """The table as CSV (RFC 4180), numbers in full; a missing value is an empty field."""
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(self.columns)
        writer.writerows([_harmless(cell) for cell in row] for row in self.rows)
        return file.getvalue()

    @property
    def link(self) -> str:
        """The CSV as a link that holds it."""
        return data_link("text/csv;charset=utf-8", self.csv)


def data_link(media_type: str, content: str) -> str:
    """A `data:` URI (RFC 2397) of a text."""
    return f"data:{media_type};base64,{base64.b64encode(content.encode()).decode()}"


def sheets(report: ReportInput) -> list[Sheet]:
    """Every table of the report; those without rows are left out."""
    summary, names = report.summary, report.segment_names()
    found = [
        _sheet("arms", "Means of every arm, by task", _arms(summary)),
        _sheet("differences", "Differences between arms, paired over users", _differences(summary)),
        _sheet("segments", "Rankers per segment against the best control", _segments(summary, names)),
        _sheet("controls", "Whether the controls control", _controls(summary)),
        _sheet("groups", "Who gains, by activity and by attribute", _groups(summary)),
        _sheet("tuning", "How each arm was tuned, on the snapshot week", map(asdict, report.tuning)),
        _sheet("lists", "Recommended lists beyond accuracy", map(asdict, report.lists)),
        _sheet("profiles", "Who the segments are", map(_profile, report.segments)),
        _sheet("ledger", "What became of the segments, week by week", map(asdict, report.ledger)),
        _sheet("candidates", "Candidate numbers of segments", map(asdict, report.sweep)),
        _sheet("probe", "What each view of the users foretells", map(asdict, report.probe)),
        _sheet("attributes", "Segments and static attributes", map(asdict, report.attributes)),
        _sheet("rows", "Where every raw row went", _accounting(report)),
        _sheet("settings", "Settings of the test", [summary.settings.model_dump()]),
        _sheet("inputs", "What was read", [{"table": one, "digest": it} for one, it in report.versions.items()]),
    ]
    return [sheet for sheet in found if sheet.rows]


def _sheet(name: str, title: str, rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """Rows with the same keys as a table; a list of texts becomes one text."""
    listed = list(rows)
    columns = tuple(listed[0]) if listed else ()
    return Sheet(name, title, columns, [tuple(_cell(row[column]) for column in columns) for row in listed])


def _cell(value: Any) -> Cell:
    if isinstance(value, (list, tuple)):
        return "; ".join(": ".join(one) if isinstance(one, tuple) else one for one in value)
    found: Cell = value
    return found


def _harmless(cell: Cell) -> Cell:
    """A text that a spreadsheet would take for a formula, marked as text: names come from data."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _arms(summary: EvaluationSummary) -> list[dict[str, Any]]:
    return [
        {
            "task": row.task,
            "arm": row.arm,
            "role": row.role,
            "users": row.primary.users,
            "ndcg_10": row.primary.mean,
            "ndcg_10_low": row.primary.low,
            "ndcg_10_high": row.primary.high,
            "ndcg_10_standard_error": row.primary.standard_error,
            "seeds": row.seeds,
            "seed_spread": row.seed_spread,
            "unranked_users": row.unranked_users,
            **{name: value for name, value in row.metrics.items() if name != "ndcg_10"},
        }
        for row in summary.arms
    ]


def _differences(summary: EvaluationSummary) -> list[dict[str, Any]]:
    roles = {row.arm: row.role for row in summary.arms}
    ranker = next((arm for arm, role in roles.items() if role == "global"), "")

    def rows(arm: str, comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
        return [
            {
                "task": row.task,
                "arm": arm,
                "against": row.against,
                "role": row.role,
                "is_best_control": row.is_best_control,
                **asdict(row.difference),
                "seed_spread": row.seed_spread,
                "seed_share": row.seed_share,
            }
            for row in comparisons
        ]

    return rows(segments_arm(roles), summary.comparisons) + rows(
        ranker, [*summary.global_comparisons, *summary.diagnostics]
    )


def _controls(summary: EvaluationSummary) -> list[dict[str, Any]]:
    return [
        {"task": row.task, "what": what, "placebos": row.placebos, **asdict(found)}
        for row in summary.controls
        for what, found in (
            ("placebos minus global extra", row.placebos_over_extra),
            ("global extra minus global", row.extra_over_global),
            ("placebos minus global", row.placebos_over_global),
        )
        if found is not None
    ]


def _groups(summary: EvaluationSummary) -> list[dict[str, Any]]:
    return [
        {
            "dimension": one.name,
            "kind": one.kind,
            "group": row.group,
            "users": row.users,
            "global_mean": row.global_mean,
            "segments_mean": row.segments_mean,
            **_spread(row.difference),
            "adjusted_p_value": row.adjusted_p_value,
            "global_gap": one.global_gap,
            "segments_gap": one.segments_gap,
        }
        for one in summary.dimensions
        for row in one.groups
    ]


def _spread(difference: Estimate | None) -> dict[str, Any]:
    """The figures of a difference but its users, which stand beside it."""
    names = (name for name in Estimate.__dataclass_fields__ if name != "users")
    return {f"difference_{name}": getattr(difference, name, None) for name in names}


def _segments(summary: EvaluationSummary, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Only the primary task has decisions, and only segments with enough users have differences."""
    decisions = {one.segment_id: one for one in summary.verdict.decisions}
    rows = []
    for row in summary.segments:
        decision = decisions.get(row.segment_id) if row.task == PRIMARY_TASK else None
        rows.append(
            {
                "task": row.task,
                "segment_id": row.segment_id,
                "name": names.get(row.segment_id, ""),
                "users": row.users,
                "segments_mean": row.segments_mean,
                "control_mean": row.control_mean,
                **_spread(row.difference),
                "adjusted_p_value": decision and decision.adjusted_p_value,
                "decision": decision and decision.decision,
                "stability": row.stability,
            }
        )
    return rows


def _profile(card: SegmentCard) -> dict[str, Any]:
    return {name: getattr(card, name) for name in SegmentCard.__dataclass_fields__}


def _accounting(report: ReportInput) -> list[dict[str, Any]]:
    rows = report.accounting
    counts = {"raw": rows.raw, "events": rows.events, "duplicates": rows.duplicates}
    counts |= {f"quarantined: {reason}": count for reason, count in rows.quarantined.items()}
    return [{"rows": what, "count": count} for what, count in counts.items()]
