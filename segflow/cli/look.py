"""The commands that look at what was made: report, compare, export."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from segflow.cli.options import Day, Snapshot, example, json_option, put, settle


@click.command(epilog=example("segflow report --trend"))
@click.option("--trend", is_flag=True, help="All weeks, as a table and as the page trend.html.")
@json_option("verdicts, segments and pages")
@click.pass_obj
def report(config: Path | None, trend: bool, as_json: bool) -> None:
    """Print the latest report, or the verdicts of all weeks."""
    settle(config)
    from segflow import console
    from segflow.settings import load

    settings = load()
    text = console.write_trend(settings) if trend else "" if as_json else console.summary(settings)
    if as_json:
        put(console.all_verdicts(settings) if trend else console.latest(settings))
    else:
        click.echo(text)


@click.command(epilog=example("segflow compare 2024-03-04 2024-03-11"))
@click.argument("before", type=Snapshot(), metavar="BEFORE")
@click.argument("after", type=Snapshot(), metavar="AFTER")
@json_option("the differences")
@click.pass_obj
def compare(
    config: Path | None, before: tuple[Path | None, date], after: tuple[Path | None, date], as_json: bool
) -> None:
    """Tell what moved between two snapshots, with intervals.

    Compares the tests of two weeks, or of two projects: every arm, the gain of the segments, the settings. Users tested in
    both are paired. BEFORE and AFTER are each a week, or SETTINGS_FILE@WEEK of another project.
    """
    settle(config)
    from segflow.console import compare_snapshots
    from segflow.settings import load

    first, second = ((load(file), week) for file, week in (before, after))
    click.echo(compare_snapshots(first, second, as_json))


@click.command(epilog=example("segflow export segments.parquet"))
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--week", type=Day(), help="The snapshot.  [default: the latest]")
@click.option("--all", "everybody", is_flag=True, help="Also users who are in no segment.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option("file, week and counts")
@click.pass_obj
def export(config: Path | None, out: Path, week: date | None, everybody: bool, force: bool, as_json: bool) -> None:
    """Write who is in which segment, as CSV or Parquet.

    Writes user_id, segment_id, name, probability and snapshot of one week to OUT, a file ending in .csv or .parquet. Never of
    more than one week: the segments that a user went through over many weeks tell users apart like fingerprints. User ids are
    raw, or hashed with a secret key, by `segments.export.user_ids` in the settings.
    """
    settle(config)
    from segflow.console import export as write
    from segflow.settings import load

    written = write(load(), out, week, everybody, force)
    if as_json:
        put(written.facts())
    else:
        click.echo(str(written))


COMMANDS = (report, compare, export)
