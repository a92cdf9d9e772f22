"""The report page of a day: what came, what became of each row, and why rows are in quarantine.

What lives here: the figures, one aggregate query per fact over a whole range of days, and the page, one self-contained HTML
text per day. What does not: the decisions about rows (clean.py) and writing anything (the caller). The page loads nothing from
elsewhere, holds no script, escapes and cuts every value, and never spells a user id out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from operator import attrgetter
from statistics import median
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from segflow.config import WEEKDAYS, Config
from segflow.events.days import Days
from segflow.tables import DAY_REPORTS

_EXAMPLES = 3
_MOST_FILES = 20
_MOST_TYPES = 12
_WEEKS_BEFORE = 4
_LONGEST = 60
_LONGEST_LINE = 400
_EXAMPLE_FIELDS = {
    "source_file": "File",
    "source_row": "Row",
    "user_id": "User",
    "item_id": "Item",
    "event_type": "Type",
    "ts": "Time (UTC)",
    "value": "Value",
    "quantity": "Quantity",
    "unparsed": "Could not be read",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Reason(NamedTuple):
    """What a reason of quarantine means, and the settings that govern it."""

    meaning: str
    settings: tuple[str, ...]


_COLUMNS = "source.events.columns"
_BOTS = "cleaning.bots"
REASONS: Mapping[str, Reason] = {
    "unreadable_field": Reason(
        "A time or a number could not be read, or the line has too many fields.", (_COLUMNS, "source.events.unit")
    ),
    "missing_user": Reason("No user is given.", (_COLUMNS,)),
    "missing_time": Reason("No time is given.", (_COLUMNS,)),
    "outside_calendar": Reason("The time lies outside the calendar.", ("calendar.start", "calendar.end")),
    "absurd_number": Reason("A value or quantity lies beyond 1e15, where sums would swallow all others.", (_COLUMNS,)),
    "missing_type": Reason(
        "No event type is given, and none stands in for it.", (_COLUMNS, "cleaning.impute.event_type")
    ),
    "unknown_item": Reason("The item is missing from the catalogue.", ("cleaning.require_known_item",)),
    "excluded_item": Reason("The item's category is excluded.", ("cleaning.exclude_categories",)),
    "non_positive_quantity": Reason("The quantity is zero or below.", ("cleaning.require_positive",)),
    "non_positive_value": Reason("The value is zero or below.", ("cleaning.require_positive",)),
    "unknown_type": Reason("The event type has no weight.", ("cleaning.require_known_type", "cleaning.type_weights")),
    "bot_rate": Reason(
        "The user did more that day than a person can.", (f"{_BOTS}.events_per_day", f"{_BOTS}.events_per_minute")
    ),
    "bot_pattern": Reason(
        "The user's id is that of a machine, or nearly all pauses between events are equal.",
        (f"{_BOTS}.user_pattern", f"{_BOTS}.clockwork_events", f"{_BOTS}.clockwork_share"),
    ),
    "duplicate": Reason("An earlier row told of the same event.", (_COLUMNS,)),
}


@dataclass
class DayFacts:
    """Every figure of one day's page.

    `reasons` maps a reason to its rows and users; `examples` to its first rows, ready to show. `hours` are events by hour (UTC).
    `median_seconds` is the median length of the sessions that start; `usual` the median of the source rows on the same weekday
    of the weeks before, and `compared` the number of these days.
    """

    day: date
    raw: int = 0
    events: int = 0
    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)
    hours: list[int] = field(default_factory=lambda: [0] * 24)
    imputed: Counter[str] = field(default_factory=Counter)
    users: int = 0
    items: int = 0
    sessions: int = 0
    median_seconds: float | None = None
    files: list[tuple[str, int, str | None]] = field(default_factory=list)
    usual: float | None = None
    compared: int = 0

    @property
    def duplicates(self) -> int:
        """Rows that told of an event a second time."""
        return self.reasons.get("duplicate", (0, 0))[0]

    @property
    def quarantined(self) -> int:
        """Rows in quarantine for another reason."""
        return sum(rows for rows, _ in self.reasons.values()) - self.duplicates

    @property
    def unexplained(self) -> int:
        """Source rows that are in none of the places, or in several if negative; 0 when nothing is lost."""
        return self.raw - self.events - self.quarantined - self.duplicates

    @property
    def bots(self) -> tuple[int, int]:
        """Rows and users that were taken for machines. A user is so for one reason on a day."""
        found = [self.reasons.get(reason, (0, 0)) for reason in ("bot_rate", "bot_pattern")]
        return sum(rows for rows, _ in found), sum(users for _, users in found)


def pages(connection: duckdb.DuckDBPyConnection, days: Days, config: Config) -> pa.Table:
    """The table `day_reports` of the half-open range `days`: a row for every day, also for one without a source row.

    Reads the views raw_events, events, quarantined_events, sessions and source_files. What is usual for a weekday comes from
    source_files, so a page does not depend on the range that it is made in.
    """
    template = _template()
    rows = []
    for facts in facts_of(connection, days):
        counts = {reason: count for reason, (count, _) in facts.reasons.items()}
        rows.append(
            {
                "day": facts.day,
                "raw_rows": facts.raw,
                "event_rows": facts.events,
                "reasons": sorted(counts.items()),
                "html": _render(template, facts, config),
            }
        )
    return pa.Table.from_pylist(rows, schema=DAY_REPORTS.arrow)


def facts_of(connection: duckdb.DuckDBPyConnection, days: Days) -> list[DayFacts]:
    """The figures of each day of the half-open range `days`, in order. Reads the views that `pages` reads."""
    first, last = days
    by_day = {first + timedelta(days=n): DayFacts(first + timedelta(days=n)) for n in range((last - first).days)}

    def found(query: str) -> Iterator[tuple[DayFacts, list[Any]]]:
        rows = connection.execute(query.replace("the_days", "day >= $1 AND day < $2"), [first, last]).fetchall()
        return ((by_day[day], rest) for day, *rest in rows)

    for facts, (rows,) in found("SELECT day, count(*) FROM raw_events WHERE the_days GROUP BY day"):
        facts.raw = rows
    for facts, (reason, rows, users) in found(
        "SELECT day, reason, count(*), count(DISTINCT user_id) FROM quarantined_events WHERE the_days "
        "GROUP BY day, reason ORDER BY day, count(*) DESC, reason"
    ):
        facts.reasons[reason] = (rows, users)
    for facts, (reason, *values) in found(_EXAMPLES_QUERY):
        facts.examples.setdefault(reason, []).append(_example(dict(zip(_EXAMPLE_FIELDS, values, strict=True))))
    for facts, (kind, hour, imputed, rows) in found(_EVENTS_QUERY):
        facts.events += rows
        facts.types[kind] += rows
        facts.hours[hour] += rows
        facts.imputed.update(dict.fromkeys(imputed.split(", ") if imputed else (), rows))
    for facts, (users, items) in found(
        "SELECT day, count(DISTINCT user_id), count(DISTINCT item_id) FROM events WHERE the_days GROUP BY day"
    ):
        facts.users, facts.items = users, items
    for facts, (rows, seconds) in found(
        "SELECT day, count(*), median(duration) FROM sessions WHERE the_days GROUP BY day"
    ):
        facts.sessions, facts.median_seconds = rows, seconds
    # Files that differ come first: they are what one looks for when a day is odd.
    for facts, (file, rows, drift) in found(
        "SELECT day, file, rows, drift FROM source_files WHERE the_days ORDER BY day, drift IS NULL, file"
    ):
        facts.files.append((file, rows, drift))
    _compare(connection, by_day)
    return list(by_day.values())


_EXAMPLES_QUERY = f"""
    SELECT
        day, reason, source_file, source_row, left(user_id, 5), left(item_id, {_LONGEST + 1}),
        left(event_type, {_LONGEST + 1}), ts::VARCHAR, value, quantity, left(unparsed, {_LONGEST + 1})
    FROM quarantined_events
    WHERE the_days
    QUALIFY row_number() OVER (PARTITION BY day, reason ORDER BY source_file, source_row) <= {_EXAMPLES}
    ORDER BY day, reason, source_file, source_row
"""
_EVENTS_QUERY = """
    SELECT day, event_type, (epoch_us(ts) - epoch_us(day::TIMESTAMP)) // 3_600_000_000 AS hour, imputed, count(*)
    FROM events
    WHERE the_days
    GROUP BY ALL
"""


def _compare(connection: duckdb.DuckDBPyConnection, by_day: Mapping[date, DayFacts]) -> None:
    """What is usual: the same weekday in the weeks before, where it has rows, so that weeks before the log do not count."""
    rows = dict(
        connection.execute("SELECT day, sum(rows) FROM source_files GROUP BY day HAVING sum(rows) > 0").fetchall()
    )
    for day, facts in by_day.items():
        before = [day - timedelta(weeks=back) for back in range(1, _WEEKS_BEFORE + 1)]
        found = [int(rows[one]) for one in before if one in rows]
        facts.compared = len(found)
        facts.usual = median(found) if found else None


def _example(row: dict[str, Any]) -> dict[str, str]:
    """A row in quarantine as texts, by field."""
    numbers = {name: "" if row[name] is None else f"{row[name]:,.15g}" for name in ("value", "quantity")}
    time = (row["ts"] or "").removesuffix("+00")
    texts = {name: _cut(row[name]) for name in ("source_file", "item_id", "event_type", "unparsed")}
    return {**texts, **numbers, "source_row": str(row["source_row"]), "user_id": shortened(row["user_id"]), "ts": time}


def shortened(user: str | None) -> str:
    """The first characters of a user id, never all of them: enough to look it up where one may, not to tell who it is."""
    return "" if user is None else _CONTROL.sub("�", user[: min(4, len(user) - 1)]) + "…"


def _cut(value: str | None, longest: int = _LONGEST) -> str:
    """Text to show: cut with an ellipsis, and without characters that are invisible or turn the direction of writing."""
    text = _CONTROL.sub("�", value or "")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("segflow.events", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, share=_share, words=_words, cut=_cut, duration=_duration)
    return environment.get_template("day.html.jinja")


def _render(template: Template, facts: DayFacts, config: Config) -> str:
    types = facts.types.most_common()
    types.sort(key=lambda one: (-one[1], one[0]))
    bot_rows, bot_users = facts.bots
    return template.render(
        facts=facts,
        weekday=WEEKDAYS[facts.day.weekday()].capitalize(),
        reasons=[(name, *facts.reasons[name], *_explained(name, config)) for name in facts.reasons],
        no_rows_for=[name for name in REASONS if name not in facts.reasons],
        fields=_EXAMPLE_FIELDS,
        bot_rows=bot_rows,
        bot_users=bot_users,
        bots_enabled=config.cleaning.bots.enabled,
        imputed=sorted(facts.imputed.items()),
        types=types[:_MOST_TYPES],
        other_types=types[_MOST_TYPES:],
        files=[
            (_cut(file, _LONGEST_LINE), rows, _cut(drift, _LONGEST_LINE))
            for file, rows, drift in facts.files[:_MOST_FILES]
        ],
        other_files=facts.files[_MOST_FILES:],
        difference=None if not facts.usual else facts.raw / facts.usual - 1,
    )


def _explained(reason: str, config: Config) -> tuple[str, Sequence[str]]:
    """What the reason means, and each setting that governs it with its value."""
    meaning, keys = REASONS[reason]
    return meaning, [_setting(key, config) for key in keys]


def _setting(key: str, config: Config) -> str:
    value = attrgetter(key)(config)
    # A mapping is too long to show, and has its own place in the settings.
    return (
        key if isinstance(value, Mapping) else f"{key}: {_cut(json.dumps(value, default=str, ensure_ascii=False), 120)}"
    )


def _number(value: float) -> str:
    """With thousands separators; a half is shown only where there is one."""
    return f"{value:,.1f}".removesuffix(".0")


def _share(part: float, whole: float) -> str:
    if not whole:
        return "–"
    text = f"{part / whole:.2%}" if part == 0 or part / whole >= 0.0001 else "< 0.01%"
    return text.replace("%", "\N{NO-BREAK SPACE}%")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _duration(seconds: float | None) -> str:
    """Seconds as a person would say them."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [
        f"{count}\N{NO-BREAK SPACE}{unit}" for count, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if count
    ]
    return " ".join(parts) or "0\N{NO-BREAK SPACE}s"
