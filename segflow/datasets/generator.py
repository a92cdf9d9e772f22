"""`generate`: the log of a made-up shop as a folder of Parquet or CSV files, ready to run, with the truth beside it.

Here is what a log looks like on disk. Who is in the shop is in `shop.py`, what they do in `traffic.py`. No segflow stage is
used here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import csv

from segflow.datasets.shop import DEPARTMENTS, Array, Items, Shop, Users, make_items, make_users
from segflow.datasets.traffic import BOT_DAY, DAY, MISSING_TIME, ROWS, TYPES, Traffic, joined
from segflow.errors import UserError
from segflow.watching import Watcher

Kind = Literal["parquet", "csv"]
_EPOCH = date(1970, 1, 1)
_DICTIONARY_BYTES = 16 << 20


@dataclass(frozen=True)
class Truth:
    """What is true of a generated log: its settings and exact counts of rows.

    `rows` = `clean` + `duplicates` + `bot_rows` + the sum of `bad`. `late` of the clean rows lie in the file of a later day
    than their own, as do `duplicates_in_later_files` of the copies. `bad` is by the reason for which cleaning refuses them.
    `largest_bot_day` is how many rows a bot leaves at most on a day: fewer than 5000 in logs of few bots.
    """

    shop: Shop
    rows: int
    clean: int
    duplicates: int
    duplicates_in_later_files: int
    late: int
    bad: dict[str, int]
    bot_rows: int
    bots: int
    largest_bot_day: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, default=str) + "\n"


def generate(folder: Path, shop: Shop, watcher: Watcher | None = None, kind: Kind = "parquet") -> Truth:
    """Write the log of `shop` to `folder`, which must be empty or not exist; the same shop gives the same content.

    `events/2024-01-01.parquet` (or `.csv`, by `kind`) and so on hold the rows that arrive on a day, in the order in which they
    arrive; `items.parquet` the catalogue, `truth.parquet` users with their segments, `truth.json` the counts, `segflow.yaml`
    settings to run the log with. Nothing is left behind when it fails. `watcher` is told how far it is.

    Raises UserError for settings that make no sense and for a folder that is in use.
    """
    shop.check()
    watcher = watcher or Watcher()
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not an empty folder; name a new one, or empty it")
    setup = np.random.default_rng([shop.seed, 0])
    items, users = make_items(shop, setup), make_users(shop, setup)
    traffic = Traffic(shop, items, users, setup)
    with _all_or_nothing(folder) as unfinished:
        counts = _write_events(unfinished / "events", shop, items, traffic, watcher, kind)
        truth = _truth(shop, traffic, **counts)
        catalogue = _items_table(shop, items)
        with _rows_file(unfinished / f"items.{kind}", catalogue.schema) as writer:
            writer.write_table(catalogue)
        pq.write_table(_users_table(shop, users, traffic.bots), unfinished / "truth.parquet")
        (unfinished / "truth.json").write_text(truth.to_json(), encoding="utf-8")
        (unfinished / "segflow.yaml").write_text(_settings(shop, kind), encoding="utf-8")
    watcher.say(f"{truth.rows:,} rows of {shop.users:,} users in {folder}")
    return truth


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its name if all goes well, and is removed if not."""
    unfinished = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        (unfinished / "events").mkdir(parents=True)
        yield unfinished
        # An empty folder may be replaced; one that somebody has filled meanwhile may not.
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_events(
    folder: Path, shop: Shop, items: Items, traffic: Traffic, watcher: Watcher, kind: Kind
) -> dict[str, int]:
    """One file for each day on which rows arrive. Rows wait until no more can arrive before them."""
    rows = 0
    ahead = 0
    watcher.begin("days", shop.days)
    waiting = np.zeros(0, ROWS)
    for day in range(shop.days):
        file = folder / f"{shop.start + timedelta(days=day)}.{kind}"
        with _DayFile(file, traffic.day_end(day) - DAY, shop, items) as writer:
            for horizon, made in traffic.rows(day):
                due, waiting = _due(joined([waiting, made]), horizon)
                writer.write(due)
            due, waiting = _due(waiting, traffic.day_end(day))
            writer.write(due)
            rows += writer.rows
            ahead += writer.from_earlier_days
        if (day + 1) * 10 // shop.days > day * 10 // shop.days:
            watcher.say(f"{file.stem}: {rows:,} rows")
        watcher.advance("days")
    return {"rows": rows, "from_earlier_days": ahead}


class _DayFile:
    """The file of one day, created with its first row."""

    def __init__(self, path: Path, start: int, shop: Shop, items: Items) -> None:
        """`start` is the first moment of the day."""
        self._path, self._start, self._shop, self._items = path, start, shop, items
        self._writer: _RowsFile | None = None
        self.rows = 0
        self.from_earlier_days = 0

    def __enter__(self) -> _DayFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: Array) -> None:
        """Append `rows` as one row group."""
        if not len(rows):
            return
        batch = _batch(rows, self._shop, self._items)
        if self._writer is None:
            self._writer = _rows_file(self._path, batch.schema)
        self._writer.write_batch(batch)
        self.rows += len(rows)
        self.from_earlier_days += int(((rows["ts"] < self._start) & (rows["ts"] != MISSING_TIME)).sum())


class _CsvFile(csv.CSVWriter):
    """Rows of a schema as CSV, whose writer takes no encoded texts."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._plain = pa.schema([(one.name, getattr(one.type, "value_type", one.type)) for one in schema])
        super().__init__(path, self._plain)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        super().write_batch(batch.cast(self._plain))


_RowsFile: TypeAlias = "pq.ParquetWriter | _CsvFile"


def _rows_file(path: Path, schema: pa.Schema) -> _RowsFile:
    """A file of rows, in the format that its name ends with."""
    if path.suffix == ".csv":
        return _CsvFile(path, schema)
    return pq.ParquetWriter(
        path,
        schema,
        compression="snappy",
        use_dictionary=["user_id", "item_id", "event_type"],
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
    )


def _due(rows: Array, horizon: int) -> tuple[Array, Array]:
    """The rows that arrive before `horizon`, all on one day, in the order of their arrival; and the others."""
    arrival = np.ascontiguousarray(rows["arrival"])
    due = np.flatnonzero(arrival < horizon)
    # Sorting numbers that hold the place is several times faster than argsort, and as stable.
    bits = len(rows).bit_length()
    keys = ((arrival[due] - (horizon - DAY)) << bits) | due
    keys.sort()
    return rows.take(keys & ((1 << bits) - 1)), rows.compress(arrival >= horizon)


def _batch(rows: Array, shop: Shop, items: Items) -> pa.RecordBatch:
    """Rows as they are written: ids and types as texts, encoded by a dictionary of those that occur."""
    types = rows["type"].astype(np.int32)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.ascontiguousarray(rows["event_id"])),
            _encoded(rows["user"], shop.users + shop.events // BOT_DAY + 1, "u", _user_width(shop)),
            _encoded(items.number[rows["item"]], shop.items, "p", _item_width(shop)),
            pa.DictionaryArray.from_arrays(pa.array(types, mask=types < 0), pa.array(TYPES)),
            pa.array(rows["ts"].astype("datetime64[us]")),
            pa.array(np.ascontiguousarray(rows["price"])),
        ],
        names=["event_id", "user_id", "item_id", "event_type", "ts", "price"],
    )


def _encoded(numbers: Array, size: int, prefix: str, width: int) -> pa.DictionaryArray:
    """Ids of numbers below `size`; -1 is missing."""
    occurs = np.zeros(size, bool)
    missing = numbers < 0
    occurs[numbers[~missing]] = True
    known = np.flatnonzero(occurs)
    place = np.empty(size, np.int32)
    place[known] = np.arange(len(known), dtype=np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(place[numbers], mask=missing), _ids(known, prefix, width))


def _ids(numbers: Array, prefix: str, width: int) -> pa.StringArray:
    """`prefix` and the number in `width` digits, made without a Python string each."""
    text = np.empty((len(numbers), 1 + width), np.uint8)
    text[:, 0] = ord(prefix)
    text[:, 1:] = numbers[:, None] // 10 ** np.arange(width - 1, -1, -1) % 10 + ord("0")
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * (1 + width)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _user_width(shop: Shop) -> int:
    return max(6, len(str(2 * shop.users)))


def _item_width(shop: Shop) -> int:
    return max(5, len(str(shop.items)))


def _dates(shop: Shop, days: Array, mask: Array | None = None) -> pa.Array:
    first = (shop.start - _EPOCH).days
    return pa.array((first + days.astype(np.int64)).astype("datetime64[D]"), pa.date32(), mask=mask)


def _items_table(shop: Shop, items: Items) -> pa.Table:
    """The catalogue by item id."""
    titles, categories, brands = items.titles()
    order = np.argsort(items.number)
    table = pa.table(
        {
            "item_id": _ids(items.number.astype(np.int64), "p", _item_width(shop)),
            "title": titles,
            "department": pa.array(DEPARTMENTS).take(pa.array(items.department)),
            "category": categories,
            "brand": brands,
            "price": items.price,
            "introduced": _dates(shop, items.introduced),
        }
    )
    return table.take(pa.array(order))


def _users_table(shop: Shop, users: Users, bots: int) -> pa.Table:
    """Users, then bots: who they are, when they come, and where those that drift go."""
    stays = np.concatenate([users.drift_day >= shop.days, np.ones(bots, bool)])

    def padded(values: Array, filler: int) -> Array:
        return np.concatenate([values.astype(np.int32), np.full(bots, filler, np.int32)])

    return pa.table(
        {
            "user_id": _ids(np.arange(shop.users + bots), "u", _user_width(shop)),
            "segment": padded(users.segment, -1),
            "kind": pa.array(["user", "bot"]).take(pa.array(padded(np.zeros(shop.users), 1))),
            "first_day": _dates(shop, padded(users.first_day, 0)),
            "later_segment": pa.array(padded(users.later_segment, -1), mask=stays),
            "drift_day": _dates(shop, padded(users.drift_day, 0), mask=stays),
        }
    )


def _truth(shop: Shop, traffic: Traffic, rows: int, from_earlier_days: int) -> Truth:
    dirt = traffic.dirt
    return Truth(
        shop=shop,
        rows=rows,
        clean=rows - dirt.duplicates - traffic.bot_rows - sum(dirt.bad.values()),
        duplicates=dirt.duplicates,
        duplicates_in_later_files=from_earlier_days - dirt.late,
        late=dirt.late,
        bad=dirt.bad,
        bot_rows=traffic.bot_rows,
        bots=traffic.bots,
        largest_bot_day=traffic.largest_bot_day,
    )


def _settings(shop: Shop, kind: Kind) -> str:
    """The `segflow.yaml` of the log."""
    settings = {
        "source": {
            "events": {
                "path": "events",
                "columns": {
                    "event_id": "event_id",
                    "user_id": "user_id",
                    "item_id": "item_id",
                    "event_type": "event_type",
                    "ts": "ts",
                    "value": "price",
                },
            },
            "items": {
                "path": f"items.{kind}",
                "columns": {
                    "item_id": "item_id",
                    "title": "title",
                    "category": ["department", "category"],
                    "brand": "brand",
                    "price": "price",
                },
            },
        },
        "calendar": {"start": shop.start, "end": shop.start + timedelta(days=shop.days)},
        "cleaning": {"require_positive": ["value"]},
    }
    return "# A generated log; what is true of it is in truth.json and truth.parquet.\n" + yaml.safe_dump(
        settings, sort_keys=False
    )
