"""Pages of days that show examples of rows in quarantine: without the users' rows they are made anew.

They hold no id, only its first characters; but where a row stands in which file, and what it was, they do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb

from segflow import tables
from segflow.config import Config
from segflow.erasure.files import files_below
from segflow.events.day_page import pages
from segflow.pages import write_page
from segflow.storage import Storage

_READ = (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS, tables.SESSIONS)
_TITLE = re.compile(rb"<title>(\d{4}-\d\d-\d\d):")
_HEAD = 2000


def make_anew(
    storage: Storage, connection: duckdb.DuckDBPyConnection, config: Config, days: Collection[date]
) -> Iterator[Path]:
    """Make the pages of those `days` that have one, in the table and in the folder; copies in MLflow go. Yields the files."""
    made = {key[0] for key in storage.partitions(tables.DAY_REPORTS) if isinstance(key[0], date)}
    storage.view(connection, tables.SOURCE_FILES)
    for day in sorted(made & set(days)):
        span = (day, day + timedelta(days=1))
        for table in _READ:
            storage.view(connection, table, where={"day": span})
        rows = pages(connection, span, config)
        connection.register("pages_made_anew", rows)
        storage.write(connection, tables.DAY_REPORTS, "FROM pages_made_anew", [(day,)], commit={"why": "erasure"})
        yield write_page(config.report.folder, f"days/{day}.html", rows["html"][0].as_py())
    if config.tracking.uri is None:
        wanted = {str(day).encode() for day in days}
        for file in files_below(Path(config.tracking.root)):
            title = _TITLE.search(file.read_bytes()[:_HEAD]) if file.name == "day.html" else None
            if title and title[1] in wanted:
                file.unlink()
                yield file
