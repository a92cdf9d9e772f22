"""The commands that remove: people (erase), and what is no longer kept (retain)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segflow.cli.bars import watching
from segflow.cli.options import example, json_option, put, settle
from segflow.errors import UserError

if TYPE_CHECKING:
    from segflow.erasure import Erased, Found
    from segflow.erasure.retain import Due


@click.command(epilog=example("segflow erase --user 4711 --dry-run"))
@click.option("--user", "users", multiple=True, metavar="ID", help="Whom to erase; may be given again.")
@click.option(
    "--users",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with an id on each line.",
)
@click.option("--dry-run", is_flag=True, help="Say what there is of them, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("what was found, done and left")
@click.pass_context
def erase(
    ctx: click.Context, users: Sequence[str], listed: Path | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove people from everything that was made of them.

    Their rows leave every table and every older version of it, their ids the pages, MLflow's and Dagster's records. Then all is
    searched again; exit code 1 if anything is left. A line without ids is kept in `storage.erasures`. Source files are yours and
    stay as they are: those that still hold them are named, and their rows are passed over from now on, by a list of digests in
    `source.suppressed`. Models that learned from them stay until they are made again; their weeks are named. Ids are those of the
    source, also where tables hold pseudonyms. Refused while a run is under way.
    """
    config = settle(ctx.obj)
    from segflow.erasure import erase as make
    from segflow.erasure import look
    from segflow.settings import load

    wanted = _ids(users, listed)
    if as_json and not (yes or dry_run):
        raise UserError("--json asks nothing; add --yes to erase, or --dry-run to look")
    settings = load(config)
    with watching(as_json) as watcher:
        found = look(settings, wanted, watcher)
    _say(_found(found), as_json)
    if dry_run:
        if as_json:
            put({"dry_run": True, **found.facts()})
        return
    if not yes:
        click.confirm(f"Erase {len(wanted)} of them for good?", abort=True)
    with watching(as_json) as watcher:
        done = make(settings, found, watcher)
    if as_json:
        put(done.facts())
    _say(_done(done), as_json)
    ctx.exit(0 if done.outcome == "erased" else 1)


def _ids(users: Sequence[str], listed: Path | None) -> list[str]:
    """The ids, each once. Raises UserError when there are none, or when the file cannot be read."""
    try:
        lines = [] if listed is None else listed.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{listed}: {error.strerror}; name a file with an id on each line") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{listed}: is not in UTF-8; convert it, with an id on each line") from error
    found = list(dict.fromkeys(one.strip() for one in (*users, *lines) if one.strip()))
    if not found:
        raise UserError("nobody is named; give --user ID, or --users FILE with an id on each line")
    return found


def _say(lines: Sequence[str], as_json: bool) -> None:
    for line in lines:
        click.echo(line, err=as_json)


def _found(found: Found) -> list[str]:
    lines = [f"{name}: {count:,} rows" for name, count in found.totals.items()]
    lines.append(f"files that hold them: {len(found.files):,} of {found.searched:,}")
    if found.unknown:
        lines.append(f"in no table: {found.unknown} of {len(found.users)} ids")
    if found.common:
        lines.append(
            f"{found.common} ids are too common to be told in texts: tables are searched for them, and no page or log"
        )
    passed = ", and its rows of them are passed over" if found.suppresses else ""
    for file, rows in found.sources.items():
        lines.append(f"source file that holds them, and is left as it is{passed}: {file} ({rows:,} rows)")
    if found.unread:
        lines.append(f"source files were not searched: {found.unread}")
    if found.weeks:
        weeks = ", ".join(map(str, found.weeks))
        lines.append(f"models that learned from them, and stay until they are made again: weeks {weeks}")
    lines += [f"not searched: {one}" for one in found.elsewhere]
    return lines


def _done(done: Erased) -> list[str]:
    from segflow.erasure.erase import OUT_OF_REACH

    lines = [f"still there: {file}" for file in done.left]
    if done.disturbed:
        lines.append("a run was started meanwhile and may have written them again: call again when it is over")
    lines += [f"out of reach: {one}" for one in OUT_OF_REACH]
    said = {"erased": "erased: nothing of them", "disturbed": "a run interfered: for now nothing of them"}
    lines.append(
        f"{said[done.outcome]} is in any of {done.searched:,} files"
        if not done.left
        else f"not erased from {len(done.left):,} of {done.searched:,} files"
    )
    if done.found.common:
        lines.append(f"pages and logs were not searched for {done.found.common} of {len(done.found.users)} ids")
    if done.found.sources and not done.found.suppresses:
        lines.append(f"{len(done.found.sources):,} source files still hold them: what is read again brings them back")
    if done.found.suppresses:
        lines.append(
            "rows of them that come again in a source are passed over: digests of their ids are in `source.suppressed`"
        )
    return lines


@click.command(epilog=example("segflow retain --dry-run"))
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("what was found and removed")
@click.pass_obj
def retain(config: Path | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove what the settings under `retention` keep no longer.

    Raw rows and quarantine, old weeks, older versions of tables, MLflow runs, pages, vectors of texts, checkpoints: each only if
    its setting is there. What a kept week reads stays. What was made of removed rows stays too, and is not made again: a line in
    `retention.log` remembers. Refused while a run is under way.
    """
    config = settle(config)
    from segflow.erasure.retain import due
    from segflow.erasure.retain import retain as remove
    from segflow.settings import load

    if as_json and not (yes or dry_run):
        raise UserError("--json asks nothing; add --yes to remove, or --dry-run to look")
    settings = load(config)
    found = due(settings)
    _say(_due(found), as_json)
    if found and not dry_run:
        if not yes:
            click.confirm("Remove all this for good?", abort=True)
        with watching(as_json) as watcher:
            remove(settings, found, watcher)
    if as_json:
        put({"dry_run": dry_run, **found.facts()})


def _due(found: Due) -> list[str]:
    facts = found.facts()
    lines = [f"{name}: {rows:,} rows" for name, rows in facts["rows"].items()]
    lines += [f"{name}: {count:,} files of older versions" for name, count in facts["files_of_older_versions"].items()]
    lines += [f"{kind}: {count:,} files" for kind, count in facts["files"].items()]
    lines += [f"MLflow: {len(found.runs):,} runs"] if found.runs else []
    return lines or ["nothing is due"]


COMMANDS = (erase, retain)
