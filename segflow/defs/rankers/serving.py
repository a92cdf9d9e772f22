"""The rankers that answer requests: versions in the registry each week, and the gate that lets one of them serve everybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segflow import tables
from segflow.defs.automation import FOLLOWS
from segflow.defs.materializes import materializes
from segflow.defs.partitions import CONFIG, SAME_WEEK, WEEKLY
from segflow.defs.reading import LIST_WINDOWS
from segflow.defs.step import Step
from segflow.rankers.rules import digest_of_file
from segflow.reading.rankers import catalogue, global_ranker_of, ranking_week, segment_groups, start_of, strangers
from segflow.tracking.serving import bundle_of, promote, register

if TYPE_CHECKING:
    from segflow.rankers.served import ServedRanker

GATE = "gate"


@materializes(
    tables.SERVED_RANKER,
    group="rankers",
    reads=LIST_WINDOWS,
    observes=lambda: digest_of_file(CONFIG.recommendations.exclude.file),
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py", "tracking/served_model.py", "tracking/serving.py"],
    settings=["rankers", "recommendations", "serving", "seed"],
    kinds=["pytorch", "mlflow"],
    automation=FOLLOWS,
)
def served_ranker(step: Step) -> None:
    """Two challengers, whose lists for the week after the snapshot week are those of `recommendations`, and of the global ranker.

    Only the latter in a week without segments.
    """
    from segflow.rankers.cold_lists import judged_steps
    from segflow.rankers.rules import rules_of
    from segflow.rankers.served import ServedRanker

    week = ranking_week(step)
    grouped = segment_groups(step, week.sequences.user_ids)
    segments = step.read(tables.SEGMENT_RANKERS, ["segment_id"])["segment_id"].to_pylist() if grouped else []
    lists = step.config.recommendations
    shrinkage, _ = judged_steps(week, strangers(step))
    ranker = ServedRanker.of(
        week,
        global_ranker_of(step),
        count=lists.count,
        exclude_seen=lists.exclude_seen,
        added=rules_of(lists, catalogue(step), week.candidate_ids).added,
        segments=segments,
        grouped=grouped,
        shrinkage=shrinkage,
    )
    rows = [{"week": step.week, **row} for row in _registered(step, ranker, segments)]
    step.write(tables.SERVED_RANKER, pa.Table.from_pylist(rows, schema=tables.SERVED_RANKER.arrow))


def _registered(step: Step, ranker: ServedRanker, segments: list[str]) -> Iterator[dict[str, Any]]:
    """Register the ranker with the segments' own rankers, and without; rows of the table, without the week."""
    from segflow.rankers.requests import example_request
    from segflow.rankers.served import restrict

    example, variant = example_request(ranker.catalogue, start_of(step.week)), step.config.serving.variant
    with TemporaryDirectory() as folder:
        bundles = {arm: Path(folder) / arm for arm in ("segments", "global")}
        digests = {"segments": ranker.save(bundles["segments"], variant)}
        # It knows the segments all the same: a request that names one must not fail because of who is champion.
        digests["global"] = restrict(bundles["segments"], bundles["global"], ())
        # What is registered last is the challenger.
        for arm in ("global", "segments") if segments else ("global",):
            own = segments if arm == "segments" else []
            number = register(step.tracking, step.run, bundles[arm], digests[arm], str(step.week), own, example)
            size = sum(file.stat().st_size for file in bundles[arm].iterdir())
            step.note(**{f"version_{arm}": int(number), f"bytes_{arm}": size}, model=step.config.tracking.model)
            yield {"arm": arm, "segments": own, "digest": digests[arm], "variant": variant, "bytes": size}


@materializes(
    tables.CHAMPION,
    group="evaluation",
    reads={
        tables.SERVED_RANKER: SAME_WEEK,
        tables.RANKING_RESULTS: SAME_WEEK,
        # It is there only if all its blocking checks and those of what it reads passed.
        tables.EVALUATION_REPORT: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["evaluation", "rankers/served.py", "tracking/serving.py"],
    settings=["evaluation", "seed"],
    tells={GATE: "a ranker of the week may serve, and no segment is harmed by its own"},
    kinds=["mlflow"],
    automation=FOLLOWS,
)
def champion(step: Step) -> None:
    """Rankers per segment become the registry's `champion` where the verdict is for them, else the global ranker does.

    Either only if it is not proven worse than a simple baseline.
    """
    from segflow.evaluation.promotion import promotion
    from segflow.evaluation.record import read_summary

    served = {row["arm"]: row for row in step.read(tables.SERVED_RANKER).to_pylist()}
    (report,) = step.read(tables.EVALUATION_REPORT, ["summary"])["summary"].to_pylist()
    summary = read_summary(report, f"the report of {step.week}")
    segments = served["segments"]["segments"] if "segments" in served else []
    results = step.read(tables.RANKING_RESULTS).to_pandas()
    found = promotion(results, summary, segments, step.config.evaluation, step.config.seed)
    digest = served[found.arm]["digest"]
    if found.segments and set(found.segments) != set(segments):
        digest = _restricted(step, digest, found.segments)
    if found.promoted:
        step.note(registry=promote(step.tracking, digest))
    for baseline, difference in found.differences.items():
        step.note(**{f"above_{baseline}": difference.mean, f"above_{baseline}_low": difference.low})
    step.note(arm=found.arm, sentence=found.sentence)
    step.tell(
        GATE,
        found.promoted and not found.harmed,
        found.sentence,
        arm=found.arm,
        cleared=found.cleared,
        harmed_segments=", ".join(map(str, found.harmed)) or "none",
    )
    row = {"arm": found.arm, "segments": found.segments, "digest": digest, "promoted": found.promoted}
    rows = pa.Table.from_pylist([{"week": step.week, **row, "sentence": found.sentence}], schema=tables.CHAMPION.arrow)
    step.write(tables.CHAMPION, rows)


def _restricted(step: Step, digest: str, segments: Sequence[str]) -> str:
    """Register the week's version with the rankers of `segments` alone, and return its digest."""
    from segflow.rankers.requests import example_request
    from segflow.rankers.served import ServedRanker, restrict

    with TemporaryDirectory() as folder:
        whole, own = bundle_of(step.tracking, digest, Path(folder)), Path(folder) / "own"
        found = restrict(whole, own, segments, digest)
        example = example_request(ServedRanker.load(own).catalogue, start_of(step.week))
        register(step.tracking, step.run, own, found, str(step.week), segments, example)
    return found
