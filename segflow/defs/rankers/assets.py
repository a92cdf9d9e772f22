"""Rankers: one for everyone, what segments add to it, and the controls that tell whether segments mattered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from segflow import tables
from segflow.defs.automation import CHANGES, FOLLOWS
from segflow.defs.materializes import materializes
from segflow.defs.partitions import (
    CONFIG,
    HISTORY_AND_WEEK,
    OWN_SEGMENT,
    SAME_WEEK,
    SNAPSHOT,
    WEEK_SEGMENT,
    WEEKLY,
    for_week_segment,
)
from segflow.defs.reading import LIST_WINDOWS
from segflow.defs.step import Step, storage_key
from segflow.errors import UserError
from segflow.rankers.rules import digest_of_file
from segflow.reading.rankers import (
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
from segflow.tables import Table

if TYPE_CHECKING:
    from segflow.rankers.arms import FittedGroup

GROUP = "rankers"


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
    automation=CHANGES,
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
        _checkpoint(step)(step.config.seed),
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
        }.items()
    }
    | {tables.USER_SEGMENTS: OWN_SEGMENT},
    partitions=WEEK_SEGMENT,
    one_run_for_a_range=True,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "seed"],
    kinds=["pytorch"],
    automation=FOLLOWS,
)
def segment_rankers(step: Step) -> None:
    """Deltas on the frozen global ranker, gated on the snapshot week. One trained alone equals one trained with all."""
    wanted = {str(storage_key(key)[1]) for key in step.keys}
    living = {week: {segment for segment, _ in members_of(step).values()} for week in step.each_week()}
    everywhere = set().union(*living.values())
    if not wanted & everywhere:
        weeks, missing, there = (", ".join(sorted(map(str, some))) for some in (living, wanted, everywhere))
        raise UserError(f"segment_rankers: week {weeks} has no segment {missing}; it has: {there}")
    for _ in step.each_week():
        _fit_segments(step)


def _fit_segments(step: Step) -> None:
    """Of one week. What a range over segment ids or weeks holds but does not live in it: those partitions stay empty."""
    from segflow.rankers.arms import SEGMENTS, Division
    from segflow.shards.rankers import fit_groups

    wanted = {str(storage_key(key)[1]) for key in step.keys}
    own = {user: member for user, member in members_of(step).items() if member[0] in wanted}
    rows = []
    if own:
        division = Division(SEGMENTS, own, step.config.rankers.segment_method)
        fitted = fit_groups(step, step.engine, [division], step.config.seed)
        figures = {one.group_id: {"users": len(one.shares), "gate": one.gate} for one in fitted}
        step.run.table([{"week": str(step.week), "segment_id": name, **one} for name, one in figures.items()], "gates")
        rows = [step.model_row(one.model, figures[one.group_id], segment_id=one.group_id) for one in fitted]
    step.write(tables.SEGMENT_RANKERS, _in_order(tables.SEGMENT_RANKERS, rows))


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
    automation=FOLLOWS,
)
def control_rankers(step: Step) -> None:
    """A gain that random groups of the same sizes share is a gain of more training, not of segments."""
    from segflow.rankers.arms import control_divisions
    from segflow.shards.rankers import fit_groups

    controls = control_divisions(members_of(step), step.config.rankers, step.config.seed)
    rows = [_group_row(step, one) for one in fit_groups(step, step.engine, controls, step.config.seed)]
    step.write(tables.CONTROL_RANKERS, _in_order(tables.CONTROL_RANKERS, rows))


@materializes(
    tables.REPEATED_RANKERS,
    group=GROUP,
    reads={
        tables.EVENTS: HISTORY_AND_WEEK,
        tables.ITEM_EMBEDDINGS: SNAPSHOT,
        tables.BEHAVIOR_MODEL: SAME_WEEK,
        tables.USER_SEGMENTS: SAME_WEEK,
    },
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "seed"],
    kinds=["pytorch"],
    automation=FOLLOWS,
)
def repeated_rankers(step: Step) -> None:
    """The global ranker, the segments and the controls, `rankers.repeats` times; placebo groups are dealt anew each time."""
    from segflow.rankers.arms import GLOBAL, FittedGroup, repeat_seed
    from segflow.shards.rankers import fit_repeats

    rows, seconds = [], {"global": 0.0, "groups": 0.0}
    seeds = [repeat_seed(step.config.seed, number) for number in range(1, step.config.rankers.repeats + 1)]
    for one in fit_repeats(step, step.engine, seeds, [*map(_checkpoint(step), seeds)]):
        step.log(f"repeated_rankers: all rankers of the test are trained by seed {one.seed}")
        everyone = FittedGroup(GLOBAL, "everybody", {}, one.ranker, 1.0)
        rows += [_group_row(step, group, seed=one.seed) for group in (everyone, *one.groups)]
        seconds = {"global": seconds["global"] + one.global_seconds, "groups": seconds["groups"] + one.group_seconds}
    # By the clock on the wall: no figure of a table, since those are the same each time.
    step.note(**{f"training_seconds_{part}": total for part, total in seconds.items()})
    step.write(tables.REPEATED_RANKERS, _in_order(tables.REPEATED_RANKERS, rows))


def _checkpoint(step: Step) -> Callable[[int], Path]:
    """Seed -> where an interrupted training goes on. Another version of the code would not go on where this one stopped."""
    folder = Path(step.config.rankers.checkpoints)
    name = f"global_ranker-{step.week}-{step.code_version}"
    return lambda seed: folder / f"{name}-{seed}.safetensors"


def _group_row(step: Step, group: FittedGroup, **keys: int) -> pa.Table:
    """A group of an arm with its members, as a row of the tables that hold those."""
    figures = {"users": len(group.shares), "gate": group.gate}
    row = step.model_row(group.model, figures, **keys, arm=group.arm, group_id=group.group_id)
    row = row.append_column("users", pa.array([list(group.shares)], pa.list_(pa.string())))
    return row.append_column("shares", pa.array([list(group.shares.values())], pa.list_(pa.float32())))


def _in_order(table: Table, rows: Sequence[pa.Table]) -> pa.Table:
    """The rows with the columns of the table; none are an empty table."""
    everything = pa.concat_tables(rows) if rows else table.arrow.empty_table()
    return everything.select(table.column_names)


@materializes(
    tables.RECOMMENDATIONS,
    group=GROUP,
    reads={**LIST_WINDOWS, tables.SEGMENT_LEDGER: SAME_WEEK},
    observes=lambda: digest_of_file(CONFIG.recommendations.exclude.file),
    partitions=WEEKLY,
    code=["rankers", "representation/sequences.py"],
    settings=["rankers", "recommendations", "seed"],
    kinds=["pytorch"],
    automation=FOLLOWS,
)
def recommendations(step: Step) -> None:
    """For the week after the snapshot week, from everything known by then; users without a segment get the global ranker.

    Users without events, known by attributes or ties alone, get a fallback.
    """
    from segflow.rankers.cold_lists import cold_rows
    from segflow.rankers.new_items import NewItems
    from segflow.rankers.recommend import Ranked, Shown, recommendation_rows
    from segflow.rankers.rules import rules_of
    from segflow.shards.lists import pools_on

    week, known, settings = ranking_week(step), catalogue(step), step.config.recommendations
    _, vectors = item_vectors(step)
    new = NewItems.of(week, vectors, settings.new_items)
    rules = rules_of(settings, known, (*week.candidate_ids, *new.item_ids))
    ranked = Ranked(global_ranker_of(step), segment_groups(step, week.sequences.user_ids), segments_of(step))
    shown = Shown(known, vectors[[*week.history.candidates, *new.numbers]], segment_names(step), new)
    made = partial(pools_on, step.engine, step)
    found = recommendation_rows(week, ranked, shown, settings, rules, made)
    step.note(users=found.users, excluded_ids_that_are_no_items=rules.unknown)
    step.note(**{f"reasons_explain_{of}": share for of, share in found.explained.items()})
    rows = found.rows
    cold = cold_rows(week, strangers(step), shown, settings, rules)
    if cold is not None:
        step.note(users_without_events=cold.users, fallbacks=[asdict(trial) for trial in cold.trials])
        rows = pa.concat_tables([rows, cold.rows])
    step.write(tables.RECOMMENDATIONS, rows.add_column(0, "week", pa.array([step.week] * rows.num_rows, pa.date32())))
