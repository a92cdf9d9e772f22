"""The ranker that answers requests: a version in the registry each week, and the gate that lets it serve everybody."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from segflow import tables
from segflow.defs.materializes import materializes
from segflow.defs.partitions import CONFIG, HISTORY_AND_WEEK, SAME_WEEK, SEGMENTS_OF_WEEK, SNAPSHOT, WEEKLY
from segflow.defs.reading import catalogue, global_ranker_of, ranking_week, segment_groups, start_of, strangers
from segflow.defs.step import Step
from segflow.rankers.rules import digest_of_file


@materializes(
    tables.SERVED_RANKER,
    group="rankers",
    reads={
        tables.EVENTS: HISTORY_AND_WEEK,
        tables.ITEMS: SNAPSHOT,
        tables.USERS: SNAPSHOT,
        tables.USER_EDGES: SNAPSHOT,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        tables.GLOBAL_RANKER: SAME_WEEK,
        tables.SEGMENT_RANKERS: SEGMENTS_OF_WEEK,
        tables.USER_SEGMENTS: SAME_WEEK,
    },
    observes=lambda: digest_of_file(CONFIG.recommendations.exclude.file),
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py", "tracking/served_model.py", "tracking/serving.py"],
    settings=["rankers", "recommendations", "serving", "seed"],
    kinds=["pytorch", "mlflow"],
)
def served_ranker(step: Step) -> None:
    """Lists for the week after the snapshot week equal those of `recommendations`; registered as the challenger."""
    from segflow.rankers.cold_lists import judged_steps
    from segflow.rankers.requests import example_request
    from segflow.rankers.rules import rules_of
    from segflow.rankers.served import ServedRanker
    from segflow.tracking.serving import register

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
    variant = step.config.serving.variant
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        digest = ranker.save(bundle, variant)
        size = sum(file.stat().st_size for file in bundle.iterdir())
        example = example_request(ranker.catalogue, start_of(step.week))
        number = register(step.tracking, step.run, bundle, digest, str(step.week), example)
    step.note(model=step.config.tracking.model, version=number, bytes=size)
    row = {"digest": digest, "variant": variant, "arm": "segments" if grouped else "global", "bytes": size}
    rows = pa.Table.from_pylist([{"week": step.week, **row}], schema=tables.SERVED_RANKER.arrow)
    step.write(tables.SERVED_RANKER, rows)


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
    code=["evaluation", "tracking/serving.py"],
    settings=["evaluation", "seed"],
    kinds=["mlflow"],
)
def champion(step: Step) -> None:
    """A ranker that was tested, and is not proven worse than a simple baseline, becomes the registry's `champion`."""
    from segflow.evaluation.promotion import promotion
    from segflow.tracking.serving import promote

    served = step.read(tables.SERVED_RANKER).to_pylist()[0]
    step.read(tables.EVALUATION_REPORT, ["week"])
    results = step.read(tables.RANKING_RESULTS).to_pandas()
    found = promotion(results, served["arm"], step.config.evaluation, step.config.seed)
    if found.promoted:
        step.note(registry=promote(step.tracking, served["digest"]))
    step.note(sentence=found.sentence)
    for baseline, difference in found.differences.items():
        step.note(**{f"above_{baseline}": difference.mean, f"above_{baseline}_low": difference.low})
    row = {"week": step.week, "digest": served["digest"], "promoted": found.promoted, "sentence": found.sentence}
    step.write(tables.CHAMPION, pa.Table.from_pylist([row], schema=tables.CHAMPION.arrow))
