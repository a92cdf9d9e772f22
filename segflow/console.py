"""What the command line makes of the tables: the end of a run in fewer than forty lines, all weeks, two of them, the export."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segflow import tables
from segflow.config import Config
from segflow.errors import UserError
from segflow.settings import default_path
from segflow.storage import Storage, connect

if TYPE_CHECKING:
    from segflow.evaluation.compare import Snapshot

_WIDTH = 118
# Settings that say where things lie and what may be used, not what comes out.
_PLACES = {"storage", "compute", "tracking", "report"}
_ARMS = 16
_SEGMENTS = 10


def summary(config: Config) -> str:
    """What the latest report says. Raises UserError when there is none yet."""
    storage = Storage(config.storage.root, config.storage.options)
    week = _reported(config)[-1]
    with connect(config.compute) as connection:
        report = storage.read(connection, tables.EVALUATION_REPORT, where={"week": week}).to_pylist()[0]
        profiles = storage.read(connection, tables.SEGMENT_PROFILES, where={"week": week}).to_pylist()
        ledger = storage.read(connection, tables.SEGMENT_LEDGER, where={"week": week}).to_pylist()
        pooled = storage.read(connection, tables.POOLED_VERDICT, where={"week": week}).to_pylist()
    figures = json.loads(report["summary"])
    what = {row["segment_id"]: row["event"] for row in ledger}
    lines = [f"Segments of week {week}"]
    lines += [_segment(row, what[row["segment_id"]]) for row in profiles[:_SEGMENTS]]
    lines += ["", *_arms(figures), "", f"Verdict: {report['sentence']}"]
    lines += [f"Over {row['weeks']} weeks: {row['sentence']}" for row in pooled if row["weeks"] > 1]
    lines += ["", f"Report    {Path(config.report.folder) / f'{week}.html'}", *_commands(config)]
    return "\n".join(lines)


def verdicts(config: Config, weeks: Sequence[date]) -> list[dict[str, Any]]:
    """The verdict of each of `weeks` that has a report, with that over several weeks and the pages, for programs."""
    storage = Storage(config.storage.root, config.storage.options)
    with connect(config.compute) as connection:
        columns = ["week", "outcome", "sentence"]
        reports = storage.read(connection, tables.EVALUATION_REPORT, columns=columns).to_pylist()
        over = storage.read(connection, tables.POOLED_VERDICT, columns=[*columns, "weeks"]).to_pylist()
    pooled = {row["week"]: {name: row[name] for name in ("weeks", "outcome", "sentence")} for row in over}
    folder = Path(config.report.folder)
    pages = {"report": "{}.html", "segments": "{}-segments.html", "trend": "{}-trend.html"}
    return [
        {
            "week": str(row["week"]),
            "outcome": row["outcome"],
            "sentence": row["sentence"],
            "pooled": pooled.get(row["week"]),
            "pages": {
                name: str(page) for name, form in pages.items() if (page := folder / form.format(row["week"])).is_file()
            },
        }
        for row in reports
        if row["week"] in weeks
    ]


def all_verdicts(config: Config) -> dict[str, Any]:
    """The verdicts of all weeks, for programs. Raises UserError when there is no report yet."""
    return {"weeks": verdicts(config, _reported(config)), "page": str(Path(config.report.folder) / "trend.html")}


def latest(config: Config) -> dict[str, Any]:
    """The latest verdict and its segments, for programs. Raises UserError when there is no report yet."""
    week = _reported(config)[-1]
    storage = Storage(config.storage.root, config.storage.options)
    columns = ["segment_id", "name", "users", "summary"]
    with connect(config.compute) as connection:
        found = storage.read(connection, tables.SEGMENT_PROFILES, where={"week": week}, columns=columns).to_pylist()
    return {**verdicts(config, [week])[0], "segments": found}


def _reported(config: Config) -> list[date]:
    """The weeks that have a report, at least one. Raises UserError."""
    storage = Storage(config.storage.root, config.storage.options)
    weeks = [key[0] for key in storage.partitions(tables.EVALUATION_REPORT) if isinstance(key[0], date)]
    if not weeks:
        raise UserError(f"{config.storage.root}: there is no report yet; run `segflow run` first")
    return weeks


def write_trend(config: Config) -> str:
    """Write the page of all weeks' verdicts beside the reports, and return it as lines of text, with the latest pooled verdict.

    Raises UserError when there is no report yet, or one of another version.
    """
    from segflow.evaluation.record import read_summary
    from segflow.evaluation.trend import render_trend, trend, trend_lines
    from segflow.pages import write_page

    storage = Storage(config.storage.root, config.storage.options)
    _reported(config)
    with connect(config.compute) as connection:
        stored = storage.read(connection, tables.EVALUATION_REPORT, columns=["week", "summary"]).to_pylist()
        named = storage.read(connection, tables.SEGMENT_LEDGER, columns=["week", "segment_id", "name"]).to_pylist()
        pooled = storage.read(connection, tables.POOLED_VERDICT, columns=["week", "weeks", "sentence"]).to_pylist()
    names = {row["segment_id"]: row["name"] for row in sorted(named, key=lambda row: row["week"])}
    summaries = {str(row["week"]): read_summary(row["summary"], f"the report of {row['week']}") for row in stored}
    rows = trend(summaries, names)
    file = write_page(config.report.folder, "trend.html", render_trend(rows, "Does segmenting pay? Week by week"))
    latest = [f"{row['weeks']} weeks to {row['week']} together: {row['sentence']}" for row in pooled[-1:]]
    return "\n".join([*trend_lines(rows), "", *latest, f"Page      {file}"])


def compare_snapshots(first: tuple[Config, date], second: tuple[Config, date], as_json: bool) -> str:
    """What moved from one snapshot to another, as text or JSON; each is a week under its settings.

    The intervals are made by the settings of the second. Raises UserError when a snapshot has no report.
    """
    from segflow.evaluation.compare import compare, lines

    before, after = (_snapshot(*one) for one in (first, second))
    found = compare(before, after, second[0].evaluation, second[0].seed)
    return found.to_json() if as_json else "\n".join(lines(found))


def _snapshot(config: Config, week: date) -> Snapshot:
    from segflow.evaluation.compare import Snapshot
    from segflow.evaluation.record import read_summary

    storage = Storage(config.storage.root, config.storage.options)
    weeks = [one for (one,) in storage.partitions(tables.EVALUATION_REPORT)]
    if week not in weeks:
        there = f"there are {', '.join(map(str, weeks))}" if weeks else "run `segflow run` first"
        raise UserError(f"{config.storage.root}: week {week} has no report; {there}")
    where = {"week": week}
    with connect(config.compute) as connection:
        (report,) = storage.read(connection, tables.EVALUATION_REPORT, where=where, columns=["summary"]).to_pylist()
        results = storage.read(connection, tables.RANKING_RESULTS, where=where).to_pandas()
        ledger = storage.read(
            connection, tables.SEGMENT_LEDGER, where=where, columns=["segment_id", "name"]
        ).to_pylist()
    names = {row["segment_id"]: row["name"] for row in ledger}
    summary = read_summary(report["summary"], f"the report of {week}")
    settings = dict(_settings(config.model_dump(mode="json", exclude=_PLACES)))
    return Snapshot(config.storage.root, str(week), results, summary, names, settings)


def _settings(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each setting by its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Exported:
    """What an export wrote: how many of the snapshot's users are in the file."""

    file: Path
    week: date
    rows: int
    users: int
    hashed: bool

    def __str__(self) -> str:
        ids = "user ids hashed with a secret key" if self.hashed else "raw user ids"
        return f"{self.file}: {self.rows:,} of {self.users:,} users of the snapshot of {self.week}, {ids}"

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {**asdict(self), "file": str(self.file), "week": str(self.week)}


def export(config: Config, out: Path, week: date | None, everybody: bool, force: bool) -> Exported:
    """Write the memberships of one snapshot (default: the latest) to `out`.

    Raises UserError when the snapshot is missing, the file cannot be written, or the key for hashing is not set.
    """
    from segflow.segments.export import memberships, require_place, secret_key, write_whole

    require_place(out, force)
    settings = config.segments
    key = secret_key(os.environ, settings.profiles.salt) if settings.export.user_ids == "hashed" else None
    storage = Storage(config.storage.root, config.storage.options)
    with connect(config.compute) as connection:
        weeks = [one for (one,) in storage.partitions(tables.USER_SEGMENTS) if isinstance(one, date)]
        if not weeks:
            raise UserError(f"{config.storage.root}: there are no segments yet; run `segflow run` first")
        chosen = week or weeks[-1]
        if chosen not in weeks:
            raise UserError(f"--week {week}: there is no such snapshot; there are {', '.join(map(str, weeks))}")
        users = storage.read(connection, tables.USER_SEGMENTS, where={"week": chosen})
        ledger = storage.read(connection, tables.SEGMENT_LEDGER, where={"week": chosen}, columns=["segment_id", "name"])
    rows = memberships(chosen, users, ledger.to_pylist(), settings.min_users, everybody, key)
    write_whole(rows, out)
    return Exported(out, chosen, rows.num_rows, users.num_rows, key is not None)


def _segment(row: dict[str, Any], event: str) -> str:
    line = f"  {row['segment_id']} {row['name']} ({event}): {row['users']:,} users, {row['summary']}"
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _arms(figures: dict[str, Any]) -> list[str]:
    from segflow.evaluation.verdict import plain_name, signed

    level = figures["settings"]["confidence"]
    users = figures["users_by_task"]
    heads = {
        "all": f"all items, {users.get('all', 0):,} users",
        "new": f"new to the user, {users.get('new', 0):,} users",
    }
    by_arm: dict[str, dict[str, str]] = {}
    for row in (one for one in figures["arms"] if one["role"] != "diagnostic"):
        low, high = row["primary"]["low"], row["primary"]["high"]
        by_arm.setdefault(row["arm"], {})[row["task"]] = f"{row['primary']['mean']:.4f} [{low:.4f}, {high:.4f}]"
    lines = [f"NDCG@10 with {level:.0%} interval".ljust(32) + heads["all"].ljust(30) + heads["new"]]
    for arm, tasks in list(by_arm.items())[:_ARMS]:
        lines.append(f"  {plain_name(arm)}".ljust(32) + tasks.get("all", "").ljust(30) + tasks.get("new", ""))
    baselines = [row for row in figures["global_comparisons"] if row["task"] == "all"]
    for row in sorted(baselines, key=lambda row: row["difference"]["mean"])[:1]:
        mean, low, high = (signed(row["difference"][name]) for name in ("mean", "low", "high"))
        lines.append(
            f"Global minus {plain_name(row['against'])}, the best simple baseline, same users: {mean} [{low}, {high}]"
        )
    return lines


def _commands(config: Config) -> list[str]:
    settings = default_path().absolute()
    home = shlex.quote(str(settings.parent))
    store = shlex.quote(config.tracking.uri or f"sqlite:///{config.tracking.root}/mlflow.db")
    if (settings.parent / "Makefile").is_file():
        return [
            "Dagster   make ui        (lineage, partitions, runs)",
            "MLflow    make mlflow    (runs and learning curves)",
        ]
    return [
        f"Dagster   DAGSTER_HOME={home} SEGFLOW_CONFIG={shlex.quote(str(settings))} dagster dev -m segflow.definitions",
        f"MLflow    mlflow ui --backend-store-uri {store}",
    ]
