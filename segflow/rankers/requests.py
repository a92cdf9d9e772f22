"""What is asked of a served ranker: users with the events that the caller knows of them.

Lives here: the form of a request, the message for one that breaks it, and the event sequences made of requests. Does not live
here: what is answered (``served``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import isnan
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from segflow.errors import UserError
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

REASONS = ("unknown_item", "unknown_type", "not_before_now", "duplicate")
"""Why an event, or the item of one, is not taken into account."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _moment(value: object) -> object:
    """ISO 8601 text as a moment. A number would leave its unit to guess, a time without an offset its zone."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"not an ISO 8601 time: {value[:40]!r}; write 2024-01-31T12:00:00Z") from None
    if isinstance(moment, datetime) and moment.tzinfo is None:
        raise ValueError("a time without an offset from UTC; write 2024-01-31T12:00:00Z")
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment)]


class Event(BaseModel):
    """One event of a user. Events of one `event_id` are one; without ids, equal events are lines of one basket."""

    model_config = ConfigDict(strict=True, extra="forbid")

    event_type: str
    ts: Moment
    item_id: str | None = None
    value: float | None = None
    event_id: str | None = None


class Request(BaseModel):
    """A user to recommend to.

    `segment_id`, or `segments` with a probability each, is where `user_segments` or `newcomer_segments` has the user. `now` is
    the moment of asking; without it, right after the latest event, and not before the moment that the ranker was made for.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    events: list[Event] = []
    user_id: str | None = None
    segment_id: str | None = None
    segments: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    n: Annotated[int, Field(ge=1, le=1000)] | None = None
    exclude_seen: bool | None = None
    now: Moment | None = None

    @model_validator(mode="after")
    def _agreeing(self) -> Request:
        if self.segment_id is not None and self.segments is not None:
            raise ValueError("segment_id and segments: give one of them")
        if self.segments and sum(self.segments.values()) > 1 + 1e-6:
            raise ValueError(f"segments: probabilities sum to {sum(self.segments.values()):g}, more than one")
        return self

    @property
    def shares(self) -> Mapping[str, float]:
        """Segment -> probability; nothing where the caller says nothing."""
        return {self.segment_id: 1.0} if self.segment_id is not None else self.segments or {}


def read_requests(rows: Sequence[object]) -> list[Request]:
    """Checked requests. Raises UserError that names the number of the first wrong row, from 0, and the key in it."""
    found = []
    for number, row in enumerate(rows):
        try:
            found.append(Request.model_validate(row))
        except ValidationError as error:
            raise UserError(f"request {number}: {_explained(error.errors()[0])}") from error
    return found


def example_request(catalogue: Catalogue, moment: datetime) -> dict[str, Any]:
    """A request as JSON holds it: one event, of the first item and type, at ``moment``."""
    item, event_type = str(catalogue.item_ids[0]), catalogue.event_types[0]
    event = {"item_id": item, "event_type": event_type, "ts": moment.isoformat(), "value": 1.0}
    return {"user_id": "someone", "events": [event], "n": 10}


def _explained(error: Mapping[str, Any]) -> str:
    """`events[3].ts: what is wrong with it`."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = Event.model_fields if error["loc"][0] == "events" else Request.model_fields
        return f"{key}: unknown key; known here: {', '.join(known)}"
    if error["type"] == "model_type":
        return f"{f'{key}: ' if key else ''}expected keys and values, found {type(error['input']).__name__}"
    message = "missing; add it" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


@dataclass(frozen=True)
class Catalogue:
    """The items and event types that a ranker knows, in the order of its arrays."""

    item_ids: npt.NDArray[np.str_]
    event_types: tuple[str, ...]

    @cached_property
    def place(self) -> dict[str, int]:
        """Item id -> index."""
        return {item: index for index, item in enumerate(self.item_ids.tolist())}

    @cached_property
    def type_of(self) -> dict[str, int]:
        """Event type -> index."""
        return {name: index for index, name in enumerate(self.event_types)}


@dataclass(frozen=True)
class Asked:
    """A request as the rankers read it.

    Attributes:
        rows: (time in microseconds, item or -1, event type, value) of the events that count, in order of time.
        cut_us: the first midnight at or after the moment of asking: features count whole days.
        ignored: reason in REASONS -> number of events.
    """

    rows: list[tuple[int, int, int, float]]
    cut_us: int
    ignored: dict[str, int]


def asked(request: Request, catalogue: Catalogue, made_us: int) -> Asked:
    """The events of ``request`` that count; equal times keep the order in which they are given.

    An event of an unknown item still is a visit, as it is in the log. Events of unknown types, of an id that was there
    before, and not before the moment of asking are left out.

    Args:
        made_us: the moment that the ranker was made for, in microseconds.
    """
    moments = [(event.ts - _EPOCH) // _MICROSECOND for event in request.events]
    now = max([made_us, *(moment + 1 for moment in moments)])
    if request.now is not None:
        now = (request.now - _EPOCH) // _MICROSECOND
    rows, ids, ignored = [], set(), dict.fromkeys(REASONS, 0)
    for moment, event in zip(moments, request.events, strict=True):
        if event.event_type not in catalogue.type_of:
            ignored["unknown_type"] += 1
        elif moment >= now:
            ignored["not_before_now"] += 1
        elif event.event_id in ids:
            ignored["duplicate"] += 1
        else:
            if event.event_id is not None:
                ids.add(event.event_id)
            item = -1 if event.item_id is None else catalogue.place.get(event.item_id, -1)
            ignored["unknown_item"] += item < 0 and event.item_id is not None
            # A missing value counts as none, and NaN is how tables write one.
            value = 0.0 if event.value is None or isnan(event.value) else event.value
            rows.append((moment, item, catalogue.type_of[event.event_type], value))
    cut = -(-now // MICROSECONDS_PER_DAY) * MICROSECONDS_PER_DAY
    return Asked(sorted(rows, key=lambda row: row[0]), cut, ignored)


def sequence_of(request: Asked, catalogue: Catalogue) -> EventSequences:
    """The events of ``request``, as those of the only user."""
    times, items, types, values = zip(*request.rows, strict=True) if request.rows else ((), (), (), ())
    return EventSequences(
        user_ids=np.array([""]),
        offsets=np.array([0, len(request.rows)]),
        items=np.array(items, np.int32),
        types=np.array(types, np.int8),
        times=np.array(times, np.int64),
        values=np.array(values, np.float32),
        item_ids=catalogue.item_ids,
        event_types=catalogue.event_types,
    )
