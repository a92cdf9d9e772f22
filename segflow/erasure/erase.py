"""Looking for users, erasing them, looking again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from segflow import tables
from segflow.compute.exchange import remove_left
from segflow.config import Config
from segflow.erasure import audit, files, pages, sources
from segflow.erasure.needles import Needles, is_common
from segflow.errors import UserError
from segflow.events.user_ids import UserIds
from segflow.segments.privacy import Key, hashed, key_from
from segflow.storage import Storage, connect, erasing
from segflow.storage.partitions import Partition
from segflow.watching import Watcher

OUT_OF_REACH = (
    "older versions of objects, if the bucket keeps them",
    "copies, backups, and what `segflow export` and `segflow sessions` wrote elsewhere",
    "models that learned from them, until they are made again, and served versions, which hold histories without ids",
)
_WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Found:
    """What there is of the users, who are named as the source names them.

    rows: table -> partition -> rows; files: others that name them, older versions of tables among them; sources: source file ->
    rows; unread: why the sources were not searched; unknown: ids that no table holds; common: how many ids no text can be
    searched for; weeks: snapshots whose models learned from them; elsewhere: records that were not searched; suppresses: whether
    their rows are not read again.
    """

    users: tuple[str, ...]
    rows: dict[str, dict[Partition, int]]
    files: list[str]
    searched: int
    sources: dict[str, int]
    unread: str
    unknown: int
    common: int
    weeks: list[date]
    elsewhere: list[str]
    suppresses: bool

    @property
    def totals(self) -> dict[str, int]:
        """Table -> rows."""
        return {name: sum(found.values()) for name, found in self.rows.items()}

    def facts(self) -> dict[str, Any]:
        """For programs; no id among them, except in names of files."""
        return {
            "rows": self.totals,
            "files": self.files,
            "source_files": self.sources,
            "source_files_are_read_without_them": self.suppresses,
            "sources_not_searched": self.unread,
            "unknown_users": self.unknown,
            "users_not_searched_in_texts": self.common,
            "weeks_that_learned_from_them": [str(week) for week in self.weeks],
            "not_searched": self.elsewhere,
            "out_of_reach": list(OUT_OF_REACH),
        }


@dataclass(frozen=True)
class Erased:
    """What was done. mended: files that were changed or removed; left: files that still name somebody; disturbed: a run began.

    suppressed: users who were not on the list of those that are not read.
    """

    found: Found
    searched: int
    mended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    disturbed: bool = False
    suppressed: int = 0

    @property
    def outcome(self) -> str:
        """`erased`, `left` or `disturbed`."""
        return "left" if self.left else "disturbed" if self.disturbed else "erased"

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "outcome": self.outcome,
            **self.found.facts(),
            "files_searched": self.searched,
            "files_mended": self.mended,
            "users_newly_suppressed": self.suppressed,
            "left": self.left,
        }


def look(config: Config, users: Sequence[str], watcher: Watcher) -> Found:
    """Everything that is there of the users; changes nothing.

    users: ids as the source has them. Raises UserError while a run is under way, and when there is nothing of any of them.
    """
    from segflow.defs.records import places, under_way

    if busy := under_way():
        raise UserError(
            f"{', '.join(busy)} is under way and may write; wait for the end, or cancel it, then call again"
        )
    stored = UserIds.of(config.source).stored(users)
    storage, needles = Storage(config.storage.root, config.storage.options), _needles(config, users, stored)
    with _engine(config, stored, needles) as connection:
        known = {user for table in _of_users() for user in erasing.known(storage, connection, table)}
        rows = {}
        for table in tables.ALL.values():
            if found := erasing.held(storage, connection, table):
                rows[table.name] = found
        watcher.say(f"{sum(map(len, rows.values())):,} partitions of {len(rows)} tables hold rows to erase")
        searched, named = _search(config, storage, connection, needles)
        watcher.say(f"{searched:,} files searched, {len(named):,} name somebody")
        held, unread = sources.looked_into(connection, config)
    suppresses = config.source.suppressed is not None
    if not rows and not named and not (held and suppresses):
        told = f"; source files that hold them: {', '.join(held)}" if held else ""
        raise UserError(f"nothing is known of {'this user' if len(users) == 1 else 'these users'}; check the id{told}")
    _, elsewhere = places()
    if config.tracking.uri:
        elsewhere = [*elsewhere, f"MLflow's records, which are on {config.tracking.uri}"]
    return Found(
        users=tuple(users),
        rows=rows,
        files=named,
        searched=searched,
        sources=held,
        unread=unread,
        unknown=len(set(stored) - known),
        common=len(needles.common),
        weeks=_learned(config, storage, rows),
        elsewhere=elsewhere,
        suppresses=suppresses,
    )


def erase(config: Config, found: Found, watcher: Watcher) -> Erased:
    """List the users as suppressed, erase what was found, search again, and append a line to `storage.erasures`.

    Can be called again after it was interrupted: what is left is found again. Raises UserError while a run is under way.
    """
    from segflow.defs.records import latest_run, under_way

    if busy := under_way():
        raise UserError(
            f"{', '.join(busy)} is under way and may write; wait for the end, or cancel it, then call again"
        )
    before = latest_run()
    ids = UserIds.of(config.source)
    # First of all, so that no run that begins meanwhile reads them again.
    suppressed, stored = ids.suppress(found.users), ids.stored(found.users)
    storage, needles = Storage(config.storage.root, config.storage.options), _needles(config, found.users, stored)
    mended: list[Path | str] = list(_leftovers(config))
    with _engine(config, stored, needles) as connection:
        # The rows that tell which pages of days to make anew go last.
        for name in sorted(found.rows, key=lambda one: one == tables.QUARANTINED_EVENTS.name):
            partitions = found.rows[name]
            erasing.remove(storage, connection, tables.ALL[name], partitions, config.compute.rows_at_once)
            watcher.say(f"{name}: {sum(partitions.values()):,} rows")
        days = [key[0] for key in found.rows.get(tables.QUARANTINED_EVENTS.name, {}) if isinstance(key[0], date)]
        mended += pages.make_anew(storage, connection, config, days)
        for table in tables.ALL.values():
            named = any(file.startswith(f"{storage.uri(table)}/") for file in found.files)
            if table.user_columns or named or (days and table is tables.DAY_REPORTS):
                erasing.forget(storage, table)
        watcher.say("older versions of tables are gone")
        known = tuple(f"{storage.uri(table)}/" for table in tables.ALL.values())
        others = [Path(name) for name in found.files if not name.startswith(known)]
        mended += [file for file in others if file.exists() and files.mend(file, needles)]
        searched, left = _search(config, storage, connection, needles)
    disturbed = latest_run() != before
    done = Erased(found, searched, sorted({str(one) for one in mended}), left, disturbed, suppressed)
    audit.record(Path(config.storage.erasures), found.users, _for_the_record(done, needles))
    return done


def _for_the_record(done: Erased, needles: Needles) -> dict[str, Any]:
    """What the line says: numbers, and names of files, which may hold an id themselves."""
    return {
        "outcome": done.outcome,
        "rows": done.found.totals,
        "files_that_held_them": len(done.found.files),
        "files_mended": len(done.mended),
        "files_searched": done.searched,
        "left": [needles.redacted(name) for name in done.left],
        "users_newly_suppressed": done.suppressed,
        "source_files_that_hold_them": [needles.redacted(name) for name in done.found.sources],
        "weeks_that_learned_from_them": [str(week) for week in done.found.weeks],
    }


def _of_users() -> list[tables.Table]:
    return [table for table in tables.ALL.values() if table.user_columns]


def _needles(config: Config, users: Sequence[str], stored: Sequence[str]) -> Needles:
    """The ids, and the hashes by which profiles show exemplars, with the key that is set now and without one.

    stored: the ids as tables hold them. Where these are pseudonyms, nothing should hold an id of the source; still it is sought.
    """
    salt = config.segments.profiles.salt
    keys: set[Key] = {key_from(os.environ, salt, config.seed), key_from({}, salt, config.seed)}
    raw = [user for user in users if user not in stored and not is_common(user)]
    return Needles([*stored, *raw], [hashed(user, key) for user in stored for key in keys])


@contextmanager
def _engine(config: Config, users: Sequence[str], needles: Needles) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(config.compute, config.storage.root) as connection:
        erasing.prepare(connection, users, erasing.Texts(needles.found, needles.redacted))
        yield connection


def _folders(config: Config) -> list[Path]:
    """Everything on disk that segflow, MLflow and Dagster write, tables apart."""
    from segflow.defs.records import places

    named = [config.report.folder, config.text.cache, config.behavior.checkpoints, config.rankers.checkpoints]
    if config.tracking.uri is None:
        named.append(config.tracking.root)
    if "://" not in config.storage.root:
        # Tables that this version of segflow does not know.
        named += [str(one) for one in Path(config.storage.root).glob("*/") if one.name not in tables.ALL]
    return sorted({*map(Path, named), *places()[0]})


def _search(
    config: Config, storage: Storage, connection: duckdb.DuckDBPyConnection, needles: Needles
) -> tuple[int, list[str]]:
    """How many files were searched, and which of them hold a user."""
    count = 0
    found: list[str] = []
    for table in tables.ALL.values():
        searched, held = erasing.left(storage, connection, table)
        count, found = count + searched, [*found, *held]
    for folder in _folders(config):
        searched, named = files.naming(folder, needles)
        count, found = count + searched, [*found, *map(str, named)]
    return count, found


def _leftovers(config: Config) -> Iterator[Path | str]:
    """Remove what killed processes left: spilled rows, what passed between machines, trainings cut off. Yields what was there."""
    for folder in sorted(Path(config.compute.spill).glob("step-*")):
        shutil.rmtree(folder, ignore_errors=True)
        yield folder
    yield from remove_left(config.compute.exchange, config.storage.options)
    for checkpoints in sorted({config.behavior.checkpoints, config.rankers.checkpoints}):
        for file in files.files_below(Path(checkpoints)):
            file.unlink()
            yield file


def _learned(config: Config, storage: Storage, rows: dict[str, dict[Partition, int]]) -> list[date]:
    """The snapshots whose models learned from a day on which one of the users did something."""
    days = {key[0] for key in rows.get("events", {}) if isinstance(key[0], date)}
    reach = config.calendar.history_weeks * _WEEK
    models = (tables.BEHAVIOR_MODEL, tables.GLOBAL_RANKER)
    weeks = {key[0] for table in models for key in storage.partitions(table) if isinstance(key[0], date)}
    return sorted(week for week in weeks if any(week - reach <= day < week + _WEEK for day in days))
