"""Settings of what is read, when it happened, and how it is cleaned: sources, calendar, cleaning, sessions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from segflow.config.base import Address, Section, did_you_mean
from segflow.errors import UserError

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_EARLIEST, _LATEST = date(1900, 1, 1), date(2200, 1, 1)


class CsvDialect(Section):
    """How a CSV file is written. What is not set is detected: comma, tab, semicolon or pipe; quotes; a header."""

    delimiter: str | None = Field(None, min_length=1, max_length=4, description="between fields; detected if not set")
    quote: str | None = Field(None, max_length=1, description="around fields; an empty text means none")
    escape: str | None = Field(None, max_length=1, description="before a quote inside quotes")
    columns: list[str] = Field(default_factory=list, description="column names of files that have no header line")
    missing: list[str] = Field(default_factory=list, description="texts that stand for a missing value, such as NA")
    encoding: Literal["utf-8", "utf-16", "latin-1"] = Field("utf-8", description="encoding of the text")
    skip: int = Field(0, ge=0, le=1_000_000, description="lines above the header")

    @model_validator(mode="after")
    def _distinct(self) -> CsvDialect:
        marks = {"delimiter": self.delimiter, "quote": self.quote, "escape": self.escape}
        for name, mark in marks.items():
            if mark and (set(mark) & {"\n", "\r"} or not mark.isascii()):
                raise ValueError(f"{name}: '{mark}' cannot be one; use ASCII characters, and no line break")
        for name in ("quote", "escape"):
            if self.delimiter and marks[name] and str(marks[name]) in self.delimiter:
                raise ValueError(f"{name}: '{marks[name]}' is in the delimiter '{self.delimiter}'; change one of them")
        lowered = [name.lower() for name in self.columns]
        if repeated := [name for name in self.columns if not name.strip() or lowered.count(name.lower()) > 1]:
            raise ValueError(f"columns: '{repeated[0]}' is empty or stands twice; name each column once")
        return self


class Input(Section):
    """Files of one layout. They may differ in columns; every file is mapped by its own."""

    path: Address = Field(
        min_length=1, description="file, folder, glob or object-store URI; `package:NAME/path` is a packaged file"
    )
    format: Literal["auto", "parquet", "csv", "json"] = Field("auto", description="`auto` reads it off the file name")
    csv: CsvDialect = CsvDialect()


class EventSource(Input):
    """Where events come from and how their columns map to the event schema."""

    timezone: str = Field(
        "UTC",
        description="IANA zone of timestamps that carry none; in an hour that clocks show twice, the second time is meant",
    )
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto", description="unit of times written as numbers since 1970; `auto` tells it from their size"
    )
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="event field -> source column; a list of columns for event_id is joined with '-'",
    )
    event_type: str | None = Field(None, description="event type of every row, for logs that have no such column")
    types: dict[str, str] = Field(
        default_factory=dict, description="source's event type -> event type, such as `1: purchase`; others stay"
    )
    missing_files: Literal["keep", "drop"] = Field(
        "keep", description="what happens to the rows of a file that is no longer there, such as a rotated log"
    )
    settle_seconds: int = Field(10, ge=0, description="age at which the sensor takes a file for completely written")
    sql: str | None = Field(
        None, description="statement beside the settings file or under sql/ that maps the source; replaces `columns`"
    )

    @field_validator("types", mode="before")
    @classmethod
    def _spelled(cls, types: object) -> object:
        # YAML reads a type such as 1 as a number.
        return {str(key): value for key, value in types.items()} if isinstance(types, Mapping) else types

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        # What the machine has set is no zone of the log's.
        if zone not in available_timezones() - {"localtime"}:
            near = difflib.get_close_matches(zone, sorted(available_timezones()), n=1)
            raise ValueError(f"unknown time zone '{zone}'{did_you_mean(near)}; use an IANA name such as Europe/Paris")
        return zone

    @model_validator(mode="after")
    def _mapped(self) -> EventSource:
        known = {"event_id", "user_id", "item_id", "event_type", "ts", "value", "quantity", "session_id", "text"}
        for field in sorted(set(self.columns) - known):
            near = difflib.get_close_matches(field, sorted(known), n=1)
            raise ValueError(f"columns: unknown event field '{field}'{did_you_mean(near)}; known: {sorted(known)}")
        for field in (field for field, column in self.columns.items() if not column):
            raise ValueError(f"columns: '{field}' names no column; name one, or take it out")
        for field in ("ts", "value", "quantity"):
            if isinstance(self.columns.get(field), list):
                raise ValueError(f"columns: '{field}' takes one column; only text can be joined from several")
        if self.sql is None:
            for field in ("user_id", "ts"):
                if field not in self.columns:
                    raise ValueError(f"columns: '{field}' is not mapped; add `{field}: <your column>`")
            if self.event_type is None and "event_type" not in self.columns:
                raise ValueError("columns: map 'event_type', or set `event_type: purchase` if all rows are of one kind")
        return self


class ItemSource(Section):
    """The catalogue. Without one, items are what the events name and their text is their id."""

    path: Address | None = Field(
        None, min_length=1, description="as for events; none reads the catalogue's columns off the event files"
    )
    format: Literal["auto", "parquet", "csv", "json"] = Field("auto", description="`auto` reads it off the file name")
    csv: CsvDialect = CsvDialect()
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="item_id, title, category (a list: widest first), brand, price -> source column",
    )
    sql: str | None = Field(None, description="as for events; replaces `columns`")

    @model_validator(mode="after")
    def _mapped(self) -> ItemSource:
        known = ["item_id", "title", "category", "brand", "price"]
        for field in sorted(set(self.columns) - set(known)):
            near = difflib.get_close_matches(field, known, n=1)
            raise ValueError(f"columns: unknown item field '{field}'{did_you_mean(near)}; known: {known}")
        if self.sql is None and not self.columns.get("item_id"):
            raise ValueError("columns: 'item_id' is not mapped; add `item_id: <your column>`")
        for field, column in self.columns.items():
            if not column and field != "category":
                raise ValueError(f"columns: '{field}' names no column; name one, or take it out")
        return self


class UserSource(Input):
    """Optional static attributes of users. They are never clustered on: they validate the segments."""

    user_id: str = Field("user_id", description="source column with the user")
    attributes: list[str] = Field(default_factory=list, description="source columns to keep")


class EdgeSource(Input):
    """Optional ties between users, such as friends or followers."""

    user_id: str = Field("user_id", description="source column with the user")
    other_id: str = Field("other_id", description="source column with the user that it is tied to")
    weight: str | None = Field(None, description="source column with the strength of the tie; 1 if there is none")
    mutual: bool = Field(False, description="whether a tie holds in both directions")


class PseudonymConfig(Section):
    """User ids replaced by keyed hashes where rows are read, so that no table, page, log or record holds an id of the source."""

    enabled: bool = Field(False, description="hash user ids; another key, or none, makes other users of everybody")
    key_variable: str = Field(
        "SEGFLOW_USER_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the secret key, at least 16 characters",
    )
    also: list[Literal["event_id", "session_id"]] = Field(
        default_factory=list, description="other fields to hash, where the source makes them of user ids"
    )


class SourceConfig(Section):
    """What is read."""

    events: EventSource
    items: ItemSource | None = None
    users: UserSource | None = None
    edges: EdgeSource | None = None
    inputs: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Input] = Field(
        default_factory=dict, description="more files that the `sql` statements read, each as a view of this name"
    )
    pseudonyms: PseudonymConfig = PseudonymConfig()
    suppressed: str | None = Field(
        "data/suppressed.jsonl",
        exclude=True,
        description="list, without ids, of the users whom `segflow erase` erased and whose rows are not read again; null: none",
    )

    @model_validator(mode="after")
    def _hidden(self) -> SourceConfig:
        if self.pseudonyms.enabled:
            users = _several(self.events.columns.get("user_id", []))
            for field in ("item_id", "event_type", "text", "ts", "value", "quantity"):
                for column in users & _several(self.events.columns.get(field, [])):
                    raise ValueError(
                        f"pseudonyms: the column '{column}' is the user and is mapped to events.columns.{field} too, where it "
                        "would stay as it is; map another column"
                    )
        return self


def _several(mapped: str | list[str]) -> set[str]:
    return {mapped} if isinstance(mapped, str) else set(mapped)


class CalendarConfig(Section):
    """Which days and weeks exist as partitions. Days are UTC."""

    start: date = Field(ge=_EARLIEST, le=_LATEST, description="first day of the log")
    end: date | None = Field(
        None, ge=_EARLIEST, le=_LATEST, description="day after the last day of a closed log; none while the log goes on"
    )
    week_starts: Literal[WEEKDAYS] = Field("monday", description="first day of a snapshot week")  # type: ignore[valid-type]
    history_weeks: int = Field(52, ge=2, le=520, description="weeks before a snapshot that models may see")

    @model_validator(mode="after")
    def _ordered(self) -> CalendarConfig:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"calendar.end ({self.end}) must come after calendar.start ({self.start})")
        return self

    @property
    def first_week(self) -> date:
        """The first day on or after `start` on which a week starts."""
        ahead = (WEEKDAYS.index(self.week_starts) - self.start.weekday()) % 7
        return self.start + timedelta(days=ahead)

    @property
    def first_snapshot(self) -> date:
        """The first week that can be a snapshot: a ranker learns from one week before it what the one before that foretells."""
        return self.first_week + timedelta(weeks=2)

    @property
    def last_day(self) -> date:
        """The last day that can hold events: the day before `end`, or today in UTC."""
        return self.end - timedelta(days=1) if self.end else datetime.now(UTC).date()

    @property
    def first_to_come(self) -> date:
        """The first day that no event can be of: `end`, or the day after tomorrow, since clocks differ."""
        return self.end or self.last_day + timedelta(days=2)

    def days(self) -> Iterator[date]:
        """Every day that can hold events, in order."""
        for number in range((self.last_day - self.start).days + 1):
            yield self.start + timedelta(days=number)

    def week(self, day: date) -> date:
        """The first day of the week that `day` lies in."""
        return day - timedelta(days=(day - self.first_week).days % 7)

    def testable(self, weeks: Sequence[date]) -> list[date]:
        """`weeks` in order, each with two weeks of history before it and a whole test week after it inside the calendar.

        Raises UserError for the first week that is not.
        """
        for week in weeks:
            if self.week(week) != week:
                near = self.week(week)
                raise UserError(f"week {week} is no {self.week_starts}; the snapshot week around it is {near}")
            if week < self.first_snapshot or week + timedelta(weeks=2) > self.last_day + timedelta(days=1):
                raise UserError(
                    f"week {week} has no two weeks of history before it, or no whole test week after it, between calendar.start "
                    f"({self.start}) and the last day ({self.last_day}); choose another week"
                )
        return sorted(set(weeks))

    def last_testable(self, count: int) -> list[date]:
        """The last `count` testable weeks."""
        last = self.week(self.last_day + timedelta(days=1)) - timedelta(weeks=2)
        return self.testable([last - timedelta(weeks=back) for back in range(count)])


class BotConfig(Section):
    """Users that act like machines are taken out for that day."""

    enabled: bool = Field(True, description="one line that turns all of it off")
    events_per_day: int | None = Field(
        5000, ge=1, description="more events of a user on a day are a bot's; null: no limit"
    )
    events_per_minute: int | None = Field(
        None, ge=1, description="more moments with events in one minute are a bot's; null: no limit"
    )
    user_pattern: str | None = Field(
        None, min_length=1, description="regular expression of user ids that are bots, such as `(?i)crawl`"
    )
    clockwork_events: int | None = Field(
        500, ge=10, description="so many events on a day are a bot's if nearly all pauses are equal; null: never"
    )
    clockwork_share: float = Field(0.9, gt=0.5, le=1, description="share of equal pauses that is nearly all")


class ImputeConfig(Section):
    """What stands in for a missing value. Imputed fields are named in the event's `imputed` column."""

    quantity: float | None = Field(None, gt=0, description="quantity of events without one")
    value: Literal["item_price", "item_median"] | float | None = Field(
        None,
        description="value of events without one: catalogue price times quantity, the item's median that day, or a number",
    )
    event_type: str | None = Field(None, description="type of events without one")


class CleaningConfig(Section):
    """What counts as a valid, human event."""

    require_positive: list[Literal["quantity", "value"]] = Field(
        default_factory=list, description="fields that must be above zero where they are given"
    )
    require_known_item: bool = Field(False, description="quarantine events whose item is missing from the catalogue")
    require_known_type: bool = Field(False, description="quarantine events whose type has no weight")
    exclude_categories: list[str] = Field(
        default_factory=list, description="widest categories that are no items, such as fuel or coupons"
    )
    bots: BotConfig = BotConfig()
    impute: ImputeConfig = ImputeConfig()
    type_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="event type -> how much an event of it counts, such as `purchase: 5`; 1 if absent",
    )


class SessionConfig(Section):
    """How events become sessions."""

    gap_minutes: int = Field(30, ge=1, le=720, description="inactivity that ends a session, in minutes")
    use_source_ids: bool = Field(True, description="keep the source's own session ids where an event has one")
