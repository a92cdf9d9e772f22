"""Rankers: one for everyone, what segments add to it, and the controls that tell whether segments mattered."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from segflow import tables
from segflow.defs.materializes import materializes
from segflow.defs.partitions import (
    CONFIG,
    HISTORY_AND_WEEK,
    SAME_WEEK,
    SNAPSHOT,
    WEEK_SEGMENT,
    WEEKLY,
    for_week_segment,
)
from segflow.defs.reading import (
    LIST_WINDOWS,
    catalogue,
    global_ranker_of,
    item_vectors,
    members_of,
    ranking_week,
    segment_groups,
    segment_names,
    segments_of,
    strangers,
)
from segflow.defs.step import Step, storage_key
from segflow.errors import UserError
from segflow.rankers.rules import digest_of_file

GROUP = "rankers"
EVERYBODY = "global_extra"


@materializes(
    tables.GLOBAL_RANKER,
    group=GROUP,
    reads={
        tables.EVENTS: HISTORY_AND_WEEK,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "seed"],
    kinds=["pytorch"],
)
def global_ranker(step: Step) -> None:
    """Learns on the weeks before the snapshot, stops early on the snapshot week, and never sees the test week."""
    from segflow.rankers.global_ranker import fit_global_ranker

    week, config = ranking_week(step), step.config.rankers
    if week.training.left_out:
        step.log(
            f"global_ranker: {week.training.left_out:,} training examples are left out, and {len(week.training):,} of all "
            f"weeks used; rankers.example_memory is {config.example_memory} MB"
        )
    curve = step.curve()
    ranker = fit_global_ranker(
        week.training,
        week.validation(),
        week.item_vectors,
        week.candidate_ids,
        config,
        step.config.seed,
        curve,
        # Another version of the code would not go on where this one stopped.
        Path(config.checkpoints) / f"global_ranker-{step.week}-{step.code_version}.safetensors",
    )
    step.note(candidates=len(week.candidate_ids), training_examples=len(week.training))
    step.write(tables.GLOBAL_RANKER, step.model_row(ranker.to_bytes(), curve.best("valid_loss")))


@materializes(
    tables.SEGMENT_RANKERS,
    group=GROUP,
    reads={
        table: for_week_segment(window)
        for table, window in {
            tables.EVENTS: HISTORY_AND_WEEK,
            tables.ITEM_EMBEDDINGS: SNAPSHOT,
            tables.BEHAVIOR_MODEL: SAME_WEEK,
            tables.GLOBAL_RANKER: SAME_WEEK,
            tables.USER_SEGMENTS: SAME_WEEK,
        }.items()
    },
    partitions=WEEK_SEGMENT,
    one_run_for_a_range=True,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "seed"],
    kinds=["pytorch"],
)
def segment_rankers(step: Step) -> None:
    """Deltas on the frozen global ranker, gated on the snapshot week. One trained alone equals one trained with all."""
    from segflow.rankers.deltas import Membership
    from segflow.rankers.segment_rankers import fit_segment_rankers

    week, ranker, members = ranking_week(step), global_ranker_of(step), members_of(step)
    wanted = sorted(str(storage_key(key)[1]) for key in step.keys)
    living = sorted({segment for segment, _ in members.values()})
    missing = sorted(set(wanted) - set(living))
    if len(missing) == len(wanted):
        raise UserError(
            f"segment_rankers: week {step.week} has no segment {', '.join(missing)}; it has: {', '.join(living)}"
        )
    # A range over segment ids may hold some that live in other weeks only: their partitions of this week stay empty.
    wanted = [segment for segment in wanted if segment in living]
    arm = Membership.of(week.sequences.user_ids, wanted, members)
    config, seed = step.config.rankers, step.config.seed
    (deltas,) = fit_segment_rankers(ranker, week.training, week.validation(), [arm], config, seed)
    rows = [
        step.model_row(
            deltas.only(code).to_bytes(),
            {"users": int((arm.group == code).sum()), "gate": float(deltas.gate[code])},
            segment_id=segment,
        )
        for code, segment in enumerate(wanted)
    ]
    step.write(tables.SEGMENT_RANKERS, pa.concat_tables(rows))


@materializes(
    tables.CONTROL_RANKERS,
    group=GROUP,
    reads={
        tables.EVENTS: HISTORY_AND_WEEK,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        tables.GLOBAL_RANKER: SAME_WEEK,
        tables.USER_SEGMENTS: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "seed"],
    kinds=["pytorch"],
)
def control_rankers(step: Step) -> None:
    """A gain that random groups of the same sizes share is a gain of more training, not of segments."""
    from segflow.rankers.deltas import Membership
    from segflow.rankers.segment_rankers import fit_segment_rankers
    from segflow.rankers.snapshot import placebo_groups

    week, ranker, members = ranking_week(step), global_ranker_of(step), members_of(step)
    config, seed = step.config.rankers, step.config.seed
    arms = {EVERYBODY: dict.fromkeys(members, ("everybody", 1.0))}
    arms |= {f"placebo_{number}": placebo_groups(members, seed + number) for number in range(1, config.placebos + 1)}
    # A week without segments needs no controls.
    arms = arms if members else {}
    names = {arm: sorted({group for group, _ in dealt.values()}) for arm, dealt in arms.items()}
    groups = [Membership.of(week.sequences.user_ids, names[arm], dealt) for arm, dealt in arms.items()]
    fitted = fit_segment_rankers(ranker, week.training, week.validation(), groups, config, seed)
    rows = []
    for (arm, dealt), deltas in zip(arms.items(), fitted, strict=True):
        for code, name in enumerate(names[arm]):
            own = {user: share for user, (group, share) in sorted(dealt.items()) if group == name}
            figures = {"users": len(own), "gate": float(deltas.gate[code])}
            row = step.model_row(deltas.only(code).to_bytes(), figures, arm=arm, group_id=name)
            row = row.append_column("users", pa.array([list(own)], pa.list_(pa.string())))
            rows.append(row.append_column("shares", pa.array([list(own.values())], pa.list_(pa.float32()))))
    everything = pa.concat_tables(rows) if rows else tables.CONTROL_RANKERS.arrow.empty_table()
    step.write(tables.CONTROL_RANKERS, everything.select(tables.CONTROL_RANKERS.column_names))


@materializes(
    tables.RECOMMENDATIONS,
    group=GROUP,
    reads={**LIST_WINDOWS, tables.SEGMENT_LEDGER: SAME_WEEK},
    observes=lambda: digest_of_file(CONFIG.recommendations.exclude.file),
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "recommendations", "seed"],
    kinds=["pytorch"],
)
def recommendations(step: Step) -> None:
    """For the week after the snapshot week, from everything known by then; users without a segment get the global ranker.

    Users without events, known by attributes or ties alone, get a fallback.
    """
    from segflow.rankers.cold_lists import cold_rows
    from segflow.rankers.new_items import NewItems
    from segflow.rankers.recommend import Ranked, Shown, recommendation_rows
    from segflow.rankers.rules import rules_of

    week, known, settings = ranking_week(step), catalogue(step), step.config.recommendations
    _, vectors = item_vectors(step)
    new = NewItems.of(week, vectors, settings.new_items)
    rules = rules_of(settings, known, (*week.candidate_ids, *new.item_ids))
    ranked = Ranked(global_ranker_of(step), segment_groups(step, week.sequences.user_ids), segments_of(step))
    shown = Shown(known, vectors[[*week.history.candidates, *new.numbers]], segment_names(step), new)
    found = recommendation_rows(week, ranked, shown, settings, rules)
    step.note(users=found.users, excluded_ids_that_are_no_items=rules.unknown)
    step.note(**{f"reasons_explain_{of}": share for of, share in found.explained.items()})
    rows = found.rows
    cold = cold_rows(week, strangers(step), shown, settings, rules)
    if cold is not None:
        step.note(users_without_events=cold.users, fallbacks=json.dumps([asdict(trial) for trial in cold.trials]))
        rows = pa.concat_tables([rows, cold.rows])
    step.write(tables.RECOMMENDATIONS, rows.add_column(0, "week", pa.array([step.week] * rows.num_rows, pa.date32())))
