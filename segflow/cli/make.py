"""The commands that make something of a log: run, backfill, sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click

from segflow.cli.bars import Lines, watching
from segflow.cli.options import Day, Span, example, json_option, put, settle


@click.command(epilog=example("segflow run --weeks 2"))
@click.option(
    "--weeks", type=click.IntRange(min=1), default=2, show_default=True, help="How many of the last testable weeks."
)
@click.option(
    "--week", type=Day(), multiple=True, help="A snapshot week instead, by its first day; may be given again."
)
@click.option("--force", is_flag=True, help="Materialize again even what is up to date.")
@click.option(
    "--rewrite-history",
    is_flag=True,
    help="Also change segments of weeks that later weeks were matched to; without it such a change is refused.",
)
@json_option("weeks, verdicts, pages and seconds at the end")
@click.pass_obj
def run(
    config: Path | None, weeks: int, week: Sequence[date], force: bool, rewrite_history: bool, as_json: bool
) -> None:
    """Materialize what is not up to date, then print the report."""
    settle(config)
    whole_run(weeks, week, force, rewrite_history, as_json)


def whole_run(weeks: int, week: Sequence[date], force: bool, rewrite_history: bool, as_json: bool) -> None:
    """What `segflow run` does once the settings are named."""
    from segflow.console import summary
    from segflow.runs import run as run_weeks
    from segflow.settings import load

    with watching(as_json) as watcher:
        made = run_weeks(week, weeks, force, rewrite_history, watcher)
    if as_json:
        put(_facts(made, watcher))
    else:
        click.echo()
        click.echo(summary(load()))


@click.command(epilog=example("segflow backfill 2024-01-01..2024-03-31 --dry-run"))
@click.argument("span", type=Span(), metavar="FIRST..LAST")
@click.option(
    "--assets",
    metavar="NAMES",
    help="Only these assets, or those of these jobs, separated by commas, over the days and weeks of the span; what they "
    "read must be there.",
)
@click.option("--chunk", type=click.IntRange(min=1), help="Days of one run.  [default: compute.days_per_run]")
@click.option("--dry-run", is_flag=True, help="Print what would be made as things are, and make nothing.")
@click.option("--force", is_flag=True, help="Materialize again even what is up to date.")
@json_option("what was made, or what would be,")
@click.pass_obj
def backfill(
    config: Path | None,
    span: tuple[date, date],
    assets: str | None,
    chunk: int | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make the days and weeks of a span, in order and in chunks.

    Days from FIRST to LAST, both included, and the snapshot weeks that start between them, with the history and the test week
    that these read. What is up to date is left alone, so that the same command goes on after a failure or Ctrl-C.
    """
    settle(config)
    from segflow.backfills import Backfill
    from segflow.backfills import backfill as make

    names = tuple(name.strip() for name in (assets or "").split(",") if name.strip())
    with watching(as_json) as watcher:
        planned, weeks = make(Backfill(*span, names, force, chunk), watcher, dry_run)
    if as_json:
        plan = [{"asset": one.asset, "asked": one.asked, "partitions": one.stale} for one in planned]
        put({"dry_run": dry_run, "plan": plan, **_facts(weeks, watcher)})


@click.command(epilog=example("segflow sessions out/"))
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_obj
def sessions(config: Path | None, out: Path) -> None:
    """Write sessions of the whole log as Parquet, without a project around them.

    OUT is the folder to write; it must be new or empty.
    """
    settle(config)
    from segflow.events.whole_log import share_one_heap, write_sessions
    from segflow.settings import load

    share_one_heap()
    with watching() as watcher:
        made = write_sessions(load(), out, watcher=watcher)
    click.echo(f"{made}")
    click.echo(f"{out}: one file of sessions, and one of quarantined rows, for each span of days")


def _facts(weeks: Sequence[date], watcher: Lines) -> dict[str, object]:
    from segflow.console import verdicts
    from segflow.settings import load

    found = verdicts(load(), weeks) if weeks else []
    return {"weeks": [str(week) for week in weeks], "verdicts": found, "seconds": round(watcher.seconds, 1)}


COMMANDS = (run, backfill, sessions)
