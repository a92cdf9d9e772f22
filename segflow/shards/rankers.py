"""Training on an engine: the rankers of groups of users, and whole repeats of the training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segflow import tables
from segflow.compute import Engine
from segflow.compute.threads import Threads
from segflow.config import RankerConfig
from segflow.rankers.arms import SEGMENTS, Division, FittedGroup, Members, control_divisions, fit_divisions, repeat
from segflow.reading import Reader, ReaderSpec, opened
from segflow.reading.rankers import global_ranker_of, members_of, ranking_week

_WEEK = (tables.EVENTS, tables.ITEM_EMBEDDINGS, tables.BEHAVIOR_MODEL, tables.USER_SEGMENTS)
_PIECES = 2
"""For each worker: what all groups of a piece share is computed anew in the next one, but one that is lost costs less."""


@dataclass(frozen=True)
class _Groups:
    """Some groups of some arms: arm -> names."""

    spec: ReaderSpec
    threads: Threads
    seed: int
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Repeat:
    spec: ReaderSpec
    threads: Threads
    seed: int
    checkpoint: Path


@dataclass(frozen=True)
class Repeated:
    """All rankers of the test by one seed: the global one as bytes, and those of groups; see `arms.Repeat`."""

    seed: int
    ranker: bytes
    groups: list[FittedGroup]
    global_seconds: float
    group_seconds: float


def fit_groups(reader: Reader, engine: Engine, divisions: Sequence[Division], seed: int) -> list[FittedGroup]:
    """Every group of every arm, on the global ranker of the week; see `arms.fit_divisions`.

    A group's ranker does not depend on those that it is trained beside, to the last bit. So work is cut by how many can work:
    one worker trains all groups in one pass.

    Args:
        divisions: the segments or some of them, and controls, as `divisions_of` finds them for the members of the week.
    """
    places = [(division.arm, name) for division in divisions for name in division.groups]
    if not places:
        return []
    pieces = min(len(places), 1 if engine.workers == 1 else _PIECES * engine.workers)
    spec, threads = reader.spec([*_WEEK, tables.GLOBAL_RANKER]), Threads.here()
    # Every so many-th, since groups of one arm are more unlike in size than the same group of several arms.
    items = [_Groups(spec, threads, seed, _by_arm(places[piece::pieces])) for piece in range(pieces)]
    found = {(one.arm, one.group_id): one for made in engine.map(_fit_groups, items) for one in made}
    return [
        found[division.arm, name]._replace(shares=division.shares(name))
        for division in divisions
        for name in division.groups
    ]


def fit_repeats(
    reader: Reader, engine: Engine, seeds: Sequence[int], checkpoints: Sequence[Path]
) -> Iterator[Repeated]:
    """The whole training by each of the ``seeds``, in their order; see `arms.repeat`.

    checkpoints: of each seed the file in which an interrupted training of its global ranker finds where it was.
    """
    if not seeds:
        return
    spec, threads = reader.spec(_WEEK), Threads.here()
    items = [_Repeat(spec, threads, *one) for one in zip(seeds, checkpoints, strict=True)]
    members, config = members_of(reader), reader.config.rankers
    for one in engine.imap(_fit_repeat, items):
        divisions = divisions_of({group.arm for group in one.groups}, members, config, one.seed)
        groups = [group._replace(shares=divisions[group.arm].shares(group.group_id)) for group in one.groups]
        yield Repeated(one.seed, one.ranker, groups, one.global_seconds, one.group_seconds)


def divisions_of(arms: Collection[str], members: Members, config: RankerConfig, seed: int) -> dict[str, Division]:
    """Arm -> its division."""
    segments = Division(SEGMENTS, members, config.segment_method)
    # Dealing random groups to many users takes its time.
    controls = control_divisions(members, config, seed) if {*arms} - {SEGMENTS} else []
    known = {one.arm: one for one in (segments, *controls)}
    return {arm: known[arm] for arm in arms}


def _fit_groups(item: _Groups) -> list[FittedGroup]:
    """Without the users of the groups, who are many, and known where the step is."""
    with item.threads.used(), opened(item.spec) as reader:
        known = divisions_of(item.groups.keys(), members_of(reader), reader.config.rankers, item.seed)
        divisions = [known[arm].only(names) for arm, names in item.groups.items()]
        found = fit_divisions(global_ranker_of(reader), ranking_week(reader), divisions, item.seed)
    return [one._replace(shares={}) for one in found]


def _fit_repeat(item: _Repeat) -> Repeated:
    with item.threads.used(), opened(item.spec) as reader:
        one = repeat(ranking_week(reader), members_of(reader), item.seed, lambda seed: item.checkpoint)
    groups = [group._replace(shares={}) for group in one.groups]
    return Repeated(one.seed, one.ranker.to_bytes(), groups, one.global_seconds, one.group_seconds)


def _by_arm(places: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for arm, name in places:
        found.setdefault(arm, []).append(name)
    return found
