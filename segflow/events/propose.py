"""A first segflow.yaml for a log that nobody has described yet: the layout of a preset where it is one, else guesses.

Lives here: which preset fits, which files are what, and the text of the settings with guesses marked as such. Does not live
here: what lies in a folder (`parts.py`) and what a column is (`guess.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import yaml

from segflow.config import Input, SourceConfig
from segflow.errors import UserError
from segflow.events import guess
from segflow.events.catalogue import items_query
from segflow.events.files import files, reading
from segflow.events.mapping import mapped_events
from segflow.events.parts import sources
from segflow.events.source import register
from segflow.settings import DATASETS, FILE_NAME

_OPEN_LOG = timedelta(weeks=1)
_STRAY_SHARE, _STRAY_DAYS = 0.001, 365


def propose(path: Path, preset: str | None = None) -> str:
    """The text of a commented segflow.yaml for the log at `path`, a file or a folder.

    preset: name of a preset to use; without one, the preset whose files and columns are there is used if there is one, else
    columns are mapped by their names and content. All times of the log are read once, for the calendar.

    Raises UserError when there is nothing at `path`, when it cannot be read, when there is no such preset, or when no column
    can be a user, an item or a time.
    """
    path = path.absolute()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; name the log, or the folder that holds it")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if preset is not None:
            return _with_preset(connection, path, preset, "")
        # A preset without an end is a pattern for logs of any dates: spelling the mapping out says more than its name.
        closed = [name for name in _presets() if "end" in _read(name)["calendar"]]
        for name in sorted(closed, key=lambda name: -len(_places(_read(name), path))):
            if _fits(connection, name, path):
                return _with_preset(connection, path, name, f"# Recognised by its files and columns: {name}.\n")
        return _with_guesses(connection, path)


def write(folder: Path, text: str, force: bool = False) -> Path:
    """Write `text` as the settings file of `folder`; returns its path.

    Raises UserError when there is no such folder, or when it has settings already and `force` is not set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; create it first")
    file = folder / FILE_NAME
    if file.exists() and not force:
        raise UserError(f"{file}: exists already; add --force to overwrite it")
    file.write_text(text, encoding="utf-8")
    return file


# Presets


def _presets() -> list[str]:
    return sorted(file.stem for file in DATASETS.glob("*.yaml"))


def _read(name: str) -> dict[str, Any]:
    if name not in _presets():
        near = difflib.get_close_matches(name, _presets(), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"unknown preset '{name}'{hint}; known: {', '.join(_presets())}")
    values = yaml.safe_load((DATASETS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def _places(raw: Mapping[str, Any], path: Path) -> dict[tuple[str, ...], str]:
    """Where the preset's files are, if `path` is its folder or its file of events: keys of `source` -> path."""
    source = raw["source"]
    sections: dict[tuple[str, ...], Any] = {
        (key,): source[key] for key in ("events", "items", "users", "edges") if key in source
    }
    sections |= {("inputs", name): one for name, one in source.get("inputs", {}).items()}
    named = {
        key: one["path"] for key, one in sections.items() if not one.get("path", "package:").startswith("package:")
    }
    folder = path if path.is_dir() else path.parent
    places = {key: str(folder / pattern) for key, pattern in named.items()}
    if path.is_file() and ("events",) in named and not fnmatchcase(path.name, named["events",]):
        places["events",] = str(path)
    return places


def _placed(raw: Mapping[str, Any], places: Mapping[tuple[str, ...], str]) -> SourceConfig:
    source = raw["source"]
    for keys, place in places.items():
        section = source
        for key in keys:
            section = section[key]
        section["path"] = place
    return SourceConfig.model_validate(source)


def _fits(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> bool:
    raw = _read(name)
    places = _places(raw, path)
    if not places or (path.is_file() and not fnmatchcase(path.name, raw["source"]["events"]["path"])):
        return False
    try:
        for place in places.values():
            files(place)
        source = _placed(raw, places)
        mapped_events(connection, source)
        items_query(connection, source)
    except UserError:
        # Files that are not there or have other columns are no mistake of the user's: it is another layout.
        return False
    return True


def _with_preset(connection: duckdb.DuckDBPyConnection, path: Path, name: str, said: str) -> str:
    raw = _read(name)
    places = _places(raw, path)
    lines = [f"# Written by `segflow init {path}`. `segflow check` says what these settings read.", f"preset: {name}"]
    if places:
        lines += ["source:"]
    for key in ("events", "items", "users", "edges"):
        if (key,) in places:
            lines += [f"  {key}: {{path: {_plain(places[key,])}}}"]
    if inputs := {key[1]: place for key, place in places.items() if key[0] == "inputs"}:
        lines += ["  inputs:", *(f"    {key}: {{path: {_plain(place)}}}" for key, place in inputs.items())]
    if "end" in raw["calendar"]:
        last = raw["calendar"]["end"] - timedelta(days=1)
        lines += [
            f"# The preset's calendar goes from {raw['calendar']['start']} to {last}; set `calendar` if your copy differs."
        ]
    else:
        lines += _calendar(connection, _placed(raw, places))
    return said + "\n".join(lines) + "\n"


# Logs that no preset describes


@dataclass(frozen=True)
class _Part:
    """Files of one layout with the guesses about their columns; `sample` is the table of their first rows."""

    source: Input
    columns: list[guess.Column]
    sample: str
    fields: dict[str, guess.Guess]

    @property
    def certain(self) -> int:
        """How many event fields are there by their names."""
        return sum(one.why is None for one in self.fields.values())

    def tells_apart(self, name: str) -> bool:
        """Whether the column names each row once, as the key of a side table does."""
        return any(one.name == name and one.distinct > 0.9 * one.rows for one in self.columns)


def _with_guesses(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    parts = [_part(connection, number, source) for number, source in enumerate(sources(connection, path))]
    whole = [part for part in parts if {"user_id", "item_id", "ts"} <= set(part.fields)]
    if not whole:
        best = max(parts, key=lambda part: len(part.fields))
        missing = {"user_id": "a user", "item_id": "an item", "ts": "a time"}
        lacks = " or ".join(what for field, what in missing.items() if field not in best.fields)
        names = ", ".join(column.name for column in best.columns)
        raise UserError(
            f"{best.source.path}: no column looks like {lacks} (its columns: {names}); "
            "map them by hand in source.events.columns of a segflow.yaml"
        )
    events = max(whole, key=lambda part: part.certain)
    others = [part for part in parts if part is not events]
    items, catalogue = _items(events, others)
    users = _users(events, [part for part in others if part is not catalogue])
    body = ["source:", *_events(events), *items, *users]
    source = SourceConfig.model_validate(yaml.safe_load("\n".join(body))["source"])
    head = [
        f"# Written by `segflow init {path}` after looking at the first {events.columns[0].rows:,} rows of the events.",
        "# Lines marked `guessed` deserve a look. `segflow check` says what these settings read.",
    ]
    tail = [*_calendar(connection, source), *_weights(events), *_sessions(events)]
    return "\n".join([*head, *body, *tail]) + "\n"


def _part(connection: duckdb.DuckDBPyConnection, number: int, source: Input) -> _Part:
    view, sample = f"part_{number}", f"sample_{number}"
    register(connection, view, source)
    with reading(source.path):
        columns = guess.look(connection, view, sample)
        fields = guess.fields(connection, sample, columns)
    return _Part(source, columns, sample, fields)


# The text


def _events(part: _Part) -> list[str]:
    lines = ["  events:", *_place(part.source)]
    if part.source.csv.columns:
        lines += ["    # The file has no header: the columns are numbered, and all of them are guesses."]
    moment = part.fields["ts"].column
    if moment.unit is not None:
        lines += [f"    unit: {moment.unit}"]
    elif moment.zoned < 1:
        lines += ["    timezone: UTC  # guessed: times carry no zone; name that of the log's clock, as Europe/Paris"]
    lines += ["    columns:"]
    for field in ("event_id", "user_id", "item_id", "event_type", "ts", "value", "quantity", "session_id", "text"):
        if field in part.fields:
            lines += [f"      {field}: {_plain(part.fields[field].column.name)}{_note(part, field)}"]
    if "event_type" not in part.fields:
        lines += ["    event_type: event  # guessed: no column tells kinds apart; name the kind, as purchase or play"]
    used = {one.column.name for one in part.fields.values()}
    if unused := [_one_line(column.name) for column in part.columns if column.name not in used]:
        lines += [f"    # not mapped: {', '.join(unused)}"]
    return lines


def _note(part: _Part, field: str) -> str:
    found = part.fields[field]
    if found.why is not None:
        return f"  # guessed: {found.why}"
    if field == "value" and "price" in found.column.key:
        return "  # guessed: counts as the event's worth, also where nothing was bought"
    if field == "event_type":
        return f"  # {', '.join(_one_line(value) for value in found.column.values[:8])}"
    return ""


def _items(events: _Part, others: Sequence[_Part]) -> tuple[list[str], _Part | None]:
    """The catalogue's lines, and the part that it is."""
    item = events.fields["item_id"].column.name
    for part in others:
        key = guess.same_key(part.columns, item, "item_id")
        mapping = guess.catalogue(part.columns, key) if key and part.tells_apart(key) else {}
        if mapping:
            return ["  items:  # guessed", *_place(part.source), f"    columns: {_flow(mapping)}"], part
    if own := guess.catalogue(events.columns, item):
        return ["  items:  # guessed: read off the events", f"    columns: {_flow(own)}"], None
    return [
        "  # Without a catalogue an item's text is its id. With one, texts and categories tell segments apart:",
        "  # items: {path: items.csv, columns: {item_id: id, title: name, category: [department, category], price: price}}",
    ], None


def _users(events: _Part, others: Sequence[_Part]) -> list[str]:
    user = events.fields["user_id"].column.name
    for part in others:
        key = guess.same_key(part.columns, user, "user_id")
        kept = guess.attributes(part.columns, key) if key and part.tells_apart(key) else []
        if key and kept:
            settled = [f"    user_id: {_plain(key)}", f"    attributes: {_flow(kept)}"]
            return ["  users:  # guessed", *_place(part.source), *settled]
    return [
        "  # Attributes of users are never clustered on; whether they differ tests the segments from outside:",
        "  # users: {path: users.csv, user_id: user_id, attributes: [age, country]}",
    ]


def _place(source: Input) -> list[str]:
    lines = [f"    path: {_plain(source.path)}"]
    if source.format != "auto":
        lines += [f"    format: {source.format}"]
    if told := source.csv.model_dump(exclude_defaults=True):
        lines += [f"    csv: {_flow(told)}"]
    return lines


def _weights(part: _Part) -> list[str]:
    if "event_type" not in part.fields or len(part.fields["event_type"].column.values) < 2:
        return []
    types = {value.lower() for value in part.fields["event_type"].column.values}
    return ["cleaning:", f"  type_weights: {_flow(guess.weights(types))}  # guessed: how much an event of it counts"]


def _sessions(part: _Part) -> list[str]:
    """The gap that ends a session, with what to think of when setting it."""
    why = "custom on the web; for music or reading an hour or more"
    if part.fields["ts"].column.midnight > 0.99:
        why = "of no effect here: only days are given, so that a day is a session"
    return ["sessions:", f"  gap_minutes: 30  # {why}"]


def _calendar(connection: duckdb.DuckDBPyConnection, source: SourceConfig) -> list[str]:
    """The calendar's lines: from the first day of the log, and to its last if that is long ago."""
    with reading(source.events.path):
        days = connection.execute(
            f"SELECT ts::DATE AS day, count(*) FROM ({mapped_events(connection, source)}) WHERE ts IS NOT NULL "
            "AND ts BETWEEN '1900-01-01' AND '2200-01-01' GROUP BY day ORDER BY day"
        ).fetchall()
    if not days:
        raise UserError(f"{source.events.path}: no row has a readable time; correct the log, or map its time by hand")
    first, early = _without_strays(days)
    last, late = _without_strays(days[::-1])
    lines = ["calendar:"]
    if early + late:
        lines += [
            f"  # {early + late} events lie years apart from the rest; they are quarantined as outside the calendar."
        ]
    lines += [f"  start: {first}"]
    if datetime.now(UTC).date() - last > _OPEN_LOG:
        lines += [f"  end: {last + timedelta(days=1)}  # day after the last event; remove this line if the log goes on"]
    else:
        lines += ["  # end: day after the last event, once the log is closed"]
    return lines


def _without_strays(days: Sequence[tuple[date, int]]) -> tuple[date, int]:
    """The first of `days` that is no stray, and how many events come before it.

    Strays, such as those of 1970-01-01, are at most a thousandth of the log and more than a year away from all the rest.
    """
    allowed = _STRAY_SHARE * sum(count for _, count in days)
    first, strays, before = days[0][0], 0, 0
    for (day, count), (following, _) in pairwise(days):
        before += count
        if before > allowed:
            break
        if abs((following - day).days) > _STRAY_DAYS:
            first, strays = following, before
    return first, strays


def _plain(text: str) -> str:
    """`text` as YAML on one line, quoted where it must be."""
    return _flow([text])[1:-1]


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=100_000, allow_unicode=True)
    assert isinstance(dumped, str)
    return dumped.strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:60]
