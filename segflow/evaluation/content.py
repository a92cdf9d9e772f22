"""What a report tells: the shapes that `page.py` fills from rows of tables.

What does not live here: the figures of the test (summary.py), and how anything looks (report.py, appendix.py, markdown.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segflow.evaluation.controls import SHUFFLED, order_sentence
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary
from segflow.representation.probe_rows import ProbeRow
from segflow.segments.drawing import Picture

TASK_TITLES = {
    "all": "All items",
    "new": "Items new to the user",
    "beyond_popular": "Items beyond the most popular",
}


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
class AttributeRow:
    """Association of the segments with one static attribute that was not clustered on."""

    attribute: str
    cramers_v: float
    p_value: float
    users: int | None


@dataclass(frozen=True)
class TuningRow:
    """One setting that was tried for a simple arm: NDCG@10 over all items in the snapshot week, None where nobody had any."""

    arm: str
    settings: str
    users: int
    ndcg_10: float | None
    chosen: bool


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
    tuning: Sequence[TuningRow] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    config_excerpt: str = ""
    pictures: Mapping[str, Picture] = field(default_factory=dict)

    def segment_names(self) -> dict[str, str]:
        """Segment id -> name, of this week's segments and of those before them."""
        return {row.segment_id: row.name for row in self.ledger} | {
            card.segment_id: card.name for card in self.segments
        }


def statement(summary: EvaluationSummary) -> str:
    """The verdict's sentence without its outcome, which stands above it as the heading."""
    found = summary.verdict.sentence.partition(": ")[2]
    return found[:1].upper() + found[1:]


def what_order_is_worth(summary: EvaluationSummary) -> str:
    """What the order of histories is worth over all items, in one sentence; empty where it was not tested."""
    found = [row for row in summary.diagnostics if row.task == PRIMARY_TASK and row.against == SHUFFLED]
    return order_sentence(found[0].difference, summary.settings) if found else ""


def heading(summary: EvaluationSummary, names: Mapping[str, str]) -> str:
    """The outcome, with the names of the segments that it is for. names: segment id -> name."""
    outcome = summary.verdict.outcome.capitalize()
    if summary.verdict.outcome != "segment only":
        return outcome
    return f"{outcome} {', '.join(names.get(one, one) for one in summary.verdict.segments)}"
