"""Tables of the log: source files, events and what became of the other rows, sessions, catalogue, users."""

from __future__ import annotations

from segflow.tables.schema import USER, Column, Table, columns_made_from, day

_SOURCE = (
    Column("source_file", "VARCHAR", "file the row came from"),
    Column("source_row", "BIGINT", "row number in that file, counted from 0", minimum=0),
)


_RAW_FIELDS = (
    Column("event_id", "VARCHAR", "the source's id of the event, if it has one", nullable=True),
    Column("user_id", "VARCHAR", "user", nullable=True, users=True),
    Column("item_id", "VARCHAR", "item", nullable=True),
    Column("event_type", "VARCHAR", "kind of event, lower case", nullable=True),
    Column("ts", "TIMESTAMPTZ", "moment of the event", nullable=True),
    Column("value", "DOUBLE", "money value of the line, in the source's currency", nullable=True),
    Column("quantity", "DOUBLE", "number of units", nullable=True),
    Column("session_id", "VARCHAR", "the source's own session or basket", nullable=True),
    Column("text", "VARCHAR", "free text of the event, such as a search phrase", nullable=True),
    Column("unparsed", "VARCHAR", "fields that could not be read, as `field=original text`", nullable=True),
)

SOURCE_FILES = Table(
    "source_files",
    "What lies in which source file: one row a file and day that it holds rows of. Only new and changed files are read.",
    columns_made_from(
        ["source file"],
        Column("file", "VARCHAR", "file, as in `source_file` of its rows"),
        Column("day", "DATE", "UTC day of rows in it; undated rows lie with the file's last day"),
        Column("rows", "BIGINT", "rows of that day", minimum=0),
        Column("digest", "VARCHAR", "digest of these rows as they are mapped"),
        Column("size", "BIGINT", "bytes of the file", minimum=0),
        Column("modified", "BIGINT", "when the file was changed last, in nanoseconds since 1970"),
        Column("drift", "VARCHAR", "how its columns differ from those of the other files", nullable=True),
        Column(
            "mapping",
            "VARCHAR",
            "digest of the settings and code that the rows were mapped by; until the day when a row dated ahead is due",
        ).made_from("settings", "code"),
    ),
    key=("file", "day"),
)

RAW_EVENTS = Table(
    "raw_events",
    "Source rows mapped to the event schema, with their file and row number. None is dropped here but those of erased users.",
    columns_made_from(
        ["source file", "settings"],
        day("the event; rows without a usable date are kept on the last day of their file"),
        *_RAW_FIELDS,
        *_SOURCE,
    ),
    key=("source_file", "source_row"),
    partitions=("day",),
)

# The mapped fields: duplicates are equal in all of them, and an id is hashed from them.
_IDENTITY = tuple(f"raw_events.{one.name}" for one in _RAW_FIELDS if one.name != "unparsed")
_UNCHANGED = tuple(one.made_from(f"raw_events.{one.name}") for one in (*_RAW_FIELDS, *_SOURCE))

REASONS = (
    "unreadable_field",
    "missing_user",
    "missing_time",
    "outside_calendar",
    "absurd_number",
    "missing_type",
    "unknown_item",
    "excluded_item",
    "non_positive_quantity",
    "non_positive_value",
    "unknown_type",
    "bot_rate",
    "bot_pattern",
    "duplicate",
)

EVENTS = Table(
    "events",
    "Valid, deduplicated, human events.",
    (
        day("the event").made_from("raw_events.day"),
        Column("event_id", "VARCHAR", "the source's id, or a hash of what identifies the row").made_from(
            *_IDENTITY,
        ),
        USER.made_from("raw_events.user_id"),
        Column("item_id", "VARCHAR", "item", nullable=True).made_from("raw_events.item_id"),
        Column("event_type", "VARCHAR", "kind of event, lower case").made_from("raw_events.event_type", "settings"),
        Column("ts", "TIMESTAMPTZ", "moment of the event").made_from("raw_events.ts"),
        Column("value", "DOUBLE", "money value of the line", nullable=True).made_from(
            "raw_events.value", "raw_events.quantity", "raw_events.item_id", "items.item_id", "items.price", "settings"
        ),
        Column("quantity", "DOUBLE", "number of units", nullable=True).made_from("raw_events.quantity", "settings"),
        Column("weight", "DOUBLE", "how much an event of this type counts", minimum=0.0).made_from(
            "raw_events.event_type", "settings"
        ),
        Column("session_id", "VARCHAR", "the source's own session or basket", nullable=True).made_from(
            "raw_events.session_id"
        ),
        Column("text", "VARCHAR", "free text of the event", nullable=True).made_from("raw_events.text"),
        Column("imputed", "VARCHAR", "fields that were missing and filled in by rule", nullable=True).made_from(
            "raw_events.event_type",
            "raw_events.value",
            "raw_events.quantity",
            "raw_events.item_id",
            "items.item_id",
            "items.price",
            "settings",
        ),
        *_UNCHANGED[-2:],
    ),
    key=("day", "event_id"),
    partitions=("day",),
)

QUARANTINED_EVENTS = Table(
    "quarantined_events",
    "Every source row that did not become an event, unchanged, with the reason.",
    (
        day("the event").made_from("raw_events.day"),
        Column("reason", "VARCHAR", "why the row is no event", values=REASONS).made_from(
            "raw_events.day",
            *_IDENTITY,
            "raw_events.unparsed",
            "items.item_id",
            "items.category",
            "settings",
        ),
        *_UNCHANGED,
    ),
    key=("source_file", "source_row"),
    partitions=("day",),
)

SESSIONS = Table(
    "sessions",
    "One row a session, kept on the day it starts; a session may cross midnight.",
    (
        day("the session's first event").made_from("events.ts"),
        Column("session_id", "VARCHAR", "the source's own session, or user and start").made_from(
            "events.session_id", "events.user_id", "events.ts"
        ),
        USER.made_from("events.user_id"),
        Column("start", "TIMESTAMPTZ", "first event").made_from("events.ts"),
        Column("end", "TIMESTAMPTZ", "last event").made_from("events.ts"),
        Column("duration", "DOUBLE", "seconds from the first to the last event", minimum=0.0).made_from("events.ts"),
        Column("events", "INTEGER", "number of events", minimum=1).made_from("events.*"),
        Column("type_counts", "MAP(VARCHAR, BIGINT)", "number of events of each type").made_from("events.event_type"),
        Column("distinct_items", "INTEGER", "number of different items", minimum=0).made_from("events.item_id"),
        Column("value", "DOUBLE", "sum of event values").made_from("events.value"),
        Column("weight", "DOUBLE", "sum of event weights", minimum=0.0).made_from("events.weight"),
        Column("items", "VARCHAR[]", "items in order").made_from("events.item_id"),
        Column("event_types", "VARCHAR[]", "event types in order").made_from("events.event_type"),
        Column("gaps", "REAL[]", "seconds since the event before, 0 for the first").made_from("events.ts"),
        Column("text", "VARCHAR", "titles of the distinct items in order of first event", nullable=True).made_from(
            "events.item_id", "items.item_id", "items.title"
        ),
    ),
    key=("day", "user_id", "session_id"),
    partitions=("day",),
)

USER_DAYS = Table(
    "user_days",
    "What a user did on a day, as sums: engagement over any time is had by adding days up.",
    (
        day("the events").made_from("events.day"),
        USER.made_from("events.user_id"),
        Column("events", "BIGINT", "number of events", minimum=1).made_from("events.*"),
        Column("sessions", "BIGINT", "sessions that started on the day", minimum=0).made_from("sessions.*"),
        Column("seconds", "DOUBLE", "length of these sessions", minimum=0.0).made_from("sessions.duration"),
        Column("value", "DOUBLE", "sum of event values").made_from("events.value"),
        Column("quantity", "DOUBLE", "sum of quantities").made_from("events.quantity"),
        Column("weight", "DOUBLE", "sum of event weights", minimum=0.0).made_from("events.weight"),
        Column("distinct_items", "BIGINT", "number of different items", minimum=0).made_from("events.item_id"),
        Column("distinct_categories", "BIGINT", "number of different widest categories", minimum=0).made_from(
            "events.item_id", "items.item_id", "items.category"
        ),
        Column("type_counts", "MAP(VARCHAR, BIGINT)", "number of events of each type").made_from("events.event_type"),
        Column("hour_counts", "BIGINT[]", "number of events in each of the 24 hours (UTC)").made_from("events.ts"),
        Column("first", "TIMESTAMPTZ", "first event").made_from("events.ts"),
        Column("last", "TIMESTAMPTZ", "last event").made_from("events.ts"),
    ),
    key=("day", "user_id"),
    partitions=("day",),
)

DAY_REPORTS = Table(
    "day_reports",
    "The report page of each day: what came, what became of it, and why rows are in quarantine.",
    (
        day("the log").made_from("raw_events.day"),
        Column("raw_rows", "BIGINT", "source rows", minimum=0).made_from("raw_events.*"),
        Column("event_rows", "BIGINT", "rows that became events", minimum=0).made_from("events.*"),
        Column("reasons", "MAP(VARCHAR, BIGINT)", "rows in quarantine by reason").made_from(
            "quarantined_events.reason"
        ),
        Column("html", "VARCHAR", "the page").made_from(
            "raw_events.*",
            "events.event_type",
            "events.ts",
            "events.imputed",
            "events.user_id",
            "events.item_id",
            "quarantined_events.reason",
            "quarantined_events.user_id",
            "quarantined_events.item_id",
            "quarantined_events.event_type",
            "quarantined_events.ts",
            "quarantined_events.value",
            "quarantined_events.quantity",
            "quarantined_events.unparsed",
            "quarantined_events.source_file",
            "quarantined_events.source_row",
            "sessions.duration",
            "source_files.file",
            "source_files.rows",
            "source_files.drift",
            "settings",
        ),
    ),
    key=("day",),
    partitions=("day",),
)

ITEMS = Table(
    "items",
    "The catalogue, with the text that the language model reads.",
    columns_made_from(
        ["source file"],
        Column("item_id", "VARCHAR", "item"),
        Column("title", "VARCHAR", "what people call it"),
        Column("category", "VARCHAR[]", "path from the widest category to the narrowest"),
        Column("brand", "VARCHAR", "brand", nullable=True),
        Column("price", "DOUBLE", "list price", nullable=True),
        Column("text", "VARCHAR", "composed text").made_from("source file", "settings"),
        Column("text_hash", "VARCHAR", "SHA-256 of the text").made_from("source file", "settings"),
    ),
    key=("item_id",),
)

USERS = Table(
    "users",
    "Optional static attributes of users, one row per user and attribute. Never clustered on; used to validate.",
    columns_made_from(
        ["source file"],
        USER,
        Column("attribute", "VARCHAR", "name of the attribute").made_from("settings"),
        Column("value", "VARCHAR", "its value"),
    ),
    key=("user_id", "attribute"),
)

USER_EDGES = Table(
    "user_edges",
    "Optional ties between users, such as friends or followers.",
    columns_made_from(
        ["source file"],
        USER,
        Column("other_id", "VARCHAR", "the user that it is tied to", users=True),
        Column("weight", "DOUBLE", "strength of the tie", minimum=0.0),
    ),
    key=("user_id", "other_id"),
)
