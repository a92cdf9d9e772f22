"""Guesses about an unknown log: what each column holds, and which event field it most likely is.

Names decide first, content where names say nothing. Nothing is written here, and no file is read but through a view.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from segflow.events.source import columns as columns_of
from segflow.sql import identifier

SAMPLE_ROWS = 50_000
FEW = 30
"""Most distinct values that a column holds whose content alone makes it one of kinds, such as the event type."""

_MOST_TYPES = 1000

_NAMES: Mapping[str, Sequence[str]] = {
    "ts": (
        "timestamp", "ts", "eventtime", "eventtimestamp", "eventts", "datetime", "time", "createdat", "occurredat",
        "eventdate", "servertime", "transactiontimestamp", "invoicedate", "orderdate", "purchasedate", "date", "day", "tdat",
    ),
    "user_id": (
        "userid", "user", "uid", "customerid", "customer", "visitorid", "visitor", "clientid", "client", "memberid",
        "accountid", "householdid", "shopperid", "buyerid", "listenerid", "reviewerid", "personid", "deviceid", "cookieid",
        "cookie", "userpseudoid", "fullvisitorid", "anonymousid",
    ),
    "item_id": (
        "itemid", "item", "iid", "productid", "product", "pid", "sku", "articleid", "article", "movieid", "trackid", "songid",
        "artistid", "contentid", "videoid", "bookid", "isbn", "parentasin", "asin", "aid", "goodsid", "offerid", "listingid",
        "stockcode", "adid", "newsid", "courseid",
    ),
    "event_type": (
        "eventtype", "event", "eventname", "type", "action", "actiontype", "behavior", "behaviour", "behaviortype",
        "interaction", "interactiontype", "activity", "verb",
    ),
    "session_id": ("sessionid", "session", "usersession", "visitid", "basketid", "orderid", "invoiceno", "invoiceid"),
    "event_id": ("eventid", "eventuuid", "messageid", "hitid", "uuid", "rowid", "id"),
    "quantity": ("quantity", "qty", "units", "pieces", "count"),
    "value": ("value", "salesvalue", "revenue", "amount", "total", "sales", "spend", "price", "unitprice", "itemprice"),
    "text": ("query", "searchquery", "searchphrase", "searchterm", "keyword", "keywords", "text"),
}  # fmt: skip
_STEMS: Mapping[str, Sequence[str]] = {
    "ts": ("timestamp", "datetime", "time", "date"),
    "user_id": ("user", "customer", "visitor", "client", "member", "household", "account", "shopper"),
    "item_id": ("item", "product", "sku", "article", "movie", "track", "artist", "content", "video", "book"),
}
_TITLES = (
    "title",
    "itemtitle",
    "productname",
    "producttitle",
    "prodname",
    "itemname",
    "name",
    "producttype",
    "description",
)
_CATEGORIES = (
    "department", "departmentname", "category", "categories", "categorycode", "categoryname", "maincategory", "subcategory",
    "productcategory", "productgroup", "genre", "genres", "aisle", "categoryid",
)  # fmt: skip
_BRANDS = ("brand", "brandname", "manufacturer", "maker", "store", "label")
_WEIGHTS = {5: ("purchase", "buy", "order", "transaction", "checkout", "sale", "paid"), 3: ("cart", "basket")}


@dataclass(frozen=True)
class Column:
    """What the sample says of a column. Shares are of the values that are given; `given` is of all rows."""

    name: str
    kind: str
    rows: int
    given: float
    distinct: int
    times: float
    numbers: float
    whole: float
    zoned: float
    midnight: float
    median: float | None
    values: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name without case and punctuation."""
        return re.sub(r"[^a-z0-9]", "", self.name.lower())

    @property
    def is_number(self) -> bool:
        return self.numbers > 0.9

    @property
    def unit(self) -> str | None:
        """The unit of a time written as a number since 1970, told from its size."""
        if not self.is_number or self.median is None:
            return None
        sizes = ((1e11, "s"), (1e14, "ms"), (2.5e17, "us"))
        return next((unit for bound, unit in sizes if abs(self.median) < bound), "ns")


@dataclass(frozen=True)
class Guess:
    """A source column for an event field, and on what grounds if the name alone does not settle it."""

    column: Column
    why: str | None = None


def look(connection: duckdb.DuckDBPyConnection, view: str, sample: str) -> list[Column]:
    """The columns of `view` by its first 50,000 rows, which are kept as the table `sample`."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {identifier(sample)} AS SELECT * EXCLUDE (source_file, source_row) "
        f"FROM {identifier(view)} LIMIT {SAMPLE_ROWS}"
    )
    kinds = columns_of(connection, sample)
    return [_column(connection, sample, name, kind) for name, kind in kinds.items()]


def fields(connection: duckdb.DuckDBPyConnection, sample: str, columns: Sequence[Column]) -> dict[str, Guess]:
    """Event field -> its column, for the fields that some column fits. Each column is used once."""
    found: dict[str, Guess] = {}

    def free(field: str) -> list[Column]:
        taken = {guess.column.name for guess in found.values()}
        return [column for column in columns if column.name not in taken and _fits(field, column)]

    for field, names in _NAMES.items():
        named = sorted((one for one in free(field) if one.key in names), key=lambda one: names.index(one.key))
        if named:
            found[field] = Guess(named[0])
    for field, stems in _STEMS.items():
        alike = [one for one in free(field) if any(stem in one.key for stem in stems)]
        if field not in found and alike:
            found[field] = Guess(alike[0], "by its name")
    for field in ("ts", "user_id", "item_id", "event_type", "value"):
        if field not in found and (fitting := _by_content(field, free(field))):
            found[field] = fitting
    if "session_id" in found and not _one_user_a_session(connection, sample, found):
        del found["session_id"]
    return found


def catalogue(columns: Sequence[Column], item: str) -> dict[str, str | list[str]]:
    """The mapping of a catalogue whose item column is `item`; empty when no column could be a title or a category.

    Categories go from the widest, which has the fewest values, to the narrowest.
    """
    others = [column for column in columns if column.name != item and column.distinct > 0]
    title, brand, price = _first(others, _TITLES), _first(others, _BRANDS), _first(others, ("price",))
    narrow = sorted((one for one in others if one.key in _CATEGORIES), key=lambda one: one.distinct)
    if title is None and not narrow:
        return {}
    mapping: dict[str, str | list[str]] = {"item_id": item}
    for field, column in (("title", title), ("brand", brand), ("price", price)):
        if column is not None and (field != "price" or column.is_number):
            mapping[field] = column.name
    if narrow:
        mapping["category"] = [one.name for one in narrow]
    return mapping


def same_key(columns: Iterable[Column], name: str, field: str) -> str | None:
    """The column that joins a side table: called as `name` in the log, or else by a usual name of the field."""
    by_key = {column.key: column.name for column in columns}
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((by_key[key] for key in (wanted, *_NAMES[field], "id") if key in by_key), None)


def attributes(columns: Sequence[Column], user: str) -> list[str]:
    """Columns of a table of users that group them: few values beside the user's id."""
    return [one.name for one in columns if one.name != user and 1 < one.distinct <= FEW]


def weights(types: Collection[str]) -> dict[str, int]:
    """Event type -> weight: 5 for what sounds like a purchase, 3 for a cart, 1 for all else."""
    return {kind: _weight(kind) for kind in sorted(types)}


def _weight(kind: str) -> int:
    if "remove" in kind:
        return 1
    return next((weight for weight, words in _WEIGHTS.items() if any(word in kind for word in words)), 1)


def _first(columns: Iterable[Column], names: Sequence[str]) -> Column | None:
    return min((one for one in columns if one.key in names), key=lambda one: names.index(one.key), default=None)


def _column(connection: duckdb.DuckDBPyConnection, sample: str, name: str, kind: str) -> Column:
    text = f"nullif(trim(CAST({identifier(name)} AS VARCHAR)), '')"
    row = connection.execute(f"""
        WITH texts AS (SELECT {text} AS text FROM {identifier(sample)}),
        read AS (
            SELECT
                text,
                TRY_CAST(text AS DOUBLE) AS number,
                coalesce(TRY_CAST(text AS TIMESTAMPTZ), TRY_CAST(text AS TIMESTAMP)::TIMESTAMPTZ) AS moment,
                regexp_matches(text, '[0-9]([Zz]| ?[+-][0-9]{{2}}(:?[0-9]{{2}})?| [A-Z][A-Za-z/_]+)$') AS zoned
            FROM texts
        )
        SELECT
            count(*),
            count(text),
            count(DISTINCT text),
            count(*) FILTER (
                -- A number is a time when it lies between 1990 and 2100 in some unit.
                CASE WHEN number IS NULL THEN moment BETWEEN '1900-01-01' AND '2200-01-01'
                ELSE number BETWEEN 6.3e8 AND 4.1e9 OR number BETWEEN 6.3e11 AND 4.1e12
                    OR number BETWEEN 6.3e14 AND 4.1e15 OR number BETWEEN 6.3e17 AND 4.1e18 END
            ),
            count(number) FILTER (isfinite(number)),
            count(*) FILTER (isfinite(number) AND number = trunc(number)),
            count(*) FILTER (zoned),
            count(*) FILTER (number IS NULL AND moment = date_trunc('day', moment)),
            median(number) FILTER (isfinite(number)),
            list_sort(list_distinct((list(text))[:{SAMPLE_ROWS}]))[:{FEW}]
        FROM read
    """).fetchone()
    assert row is not None
    total, given, distinct, times, numbers, whole, zoned, midnight, median, values = row
    share = max(given, 1)
    return Column(
        name,
        kind,
        rows=total,
        given=given / max(total, 1),
        distinct=distinct,
        times=times / share,
        numbers=numbers / share,
        whole=whole / share,
        zoned=1.0 if kind == "TIMESTAMP WITH TIME ZONE" else zoned / share if times == given and not numbers else 0.0,
        midnight=midnight / share,
        median=median,
        values=tuple(values) if values and distinct <= FEW else (),
    )


def _fits(field: str, column: Column) -> bool:
    """Whether the content allows the field."""
    is_id = column.given > 0.5 and not (column.is_number and column.whole < 0.99)
    if field == "ts":
        return column.times > 0.9 and column.given > 0.5
    if field in ("user_id", "item_id"):
        return is_id
    if field == "session_id":
        return is_id and column.given > 0.9
    if field == "event_id":
        # A log that delivers events twice repeats their ids; a column that is only called `id` must tell rows apart.
        least = 1.0 if column.key in ("id", "rowid") else 0.9
        return column.given >= least and column.distinct >= least * column.rows
    if field == "event_type":
        return 0 < column.distinct <= _MOST_TYPES and column.given > 0.5
    if field in ("value", "quantity"):
        return column.is_number and not (field == "value" and column.times > 0.9)
    return not column.is_number and column.given > 0


def _by_content(field: str, free: Sequence[Column]) -> Guess | None:
    """The likeliest of the columns whose names say nothing, in the order of the file: who, then what."""
    free = [one for one in free if one.key not in (*_TITLES, *_CATEGORIES, *_BRANDS)]
    if field == "ts":
        choice = max(free, key=lambda one: one.distinct, default=None)
        why = "it reads as a time"
    elif field in ("user_id", "item_id"):
        # An id names many, but not each row anew, and is no time.
        ids = [one for one in free if FEW < one.distinct < 0.95 * one.rows and one.times < 0.9]
        ids = ids or [one for one in free if one.times < 0.9 and not one.values]
        choice = ids[0] if ids else next((one for one in free if one.times < 0.9), None)
        why = f"{choice.distinct:,} distinct values" if choice else ""
    elif field == "event_type":
        choice = next((one for one in free if not one.is_number and len(one.values) > 1), None)
        why = f"{choice.distinct} distinct values" if choice else ""
    else:
        choice = next((one for one in free if one.whole < 0.9), None)
        why = "a decimal number"
    return Guess(choice, why) if choice else None


def _one_user_a_session(connection: duckdb.DuckDBPyConnection, sample: str, found: Mapping[str, Guess]) -> bool:
    """Whether sessions belong to one user each, as they must."""
    if "user_id" not in found:
        return False
    session, user = identifier(found["session_id"].column.name), identifier(found["user_id"].column.name)
    row = connection.execute(
        f"SELECT avg(CAST(users = 1 AS INTEGER)) FROM (SELECT count(DISTINCT {user}) AS users FROM {identifier(sample)} "
        f"WHERE {session} IS NOT NULL GROUP BY {session})"
    ).fetchone()
    return row is not None and (row[0] or 0) > 0.95
