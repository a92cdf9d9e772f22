"""Values of a log that look like code stay values: in SQL, in names of files and columns, in partition keys and in pages."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from segflow import tables
from segflow.config import CleaningConfig, ImputeConfig, ItemSource, SourceConfig, TextConfig
from segflow.errors import UserError
from segflow.events import catalogue
from segflow.storage.partitions import check_key, condition
from segflow_tests.events.steps import COLUMNS, classified, mapped, records, sessions, source
from segflow_tests.events.test_day_page import made, pages

ENGINE = duckdb.connect(config={"threads": 1})
HOSTILE = (
    "x' OR '1'='1",
    "'); DROP TABLE raw_events; --",
    '"; DROP TABLE items; --',
    "../../etc/passwd",
    "$(touch /tmp/taken)",
    "`id`",
    "{{week}}",
    "{% raw %}",
    "a\nb",
    "--\n1 = 1",
    "/* */",
    "аdmin",  # a Cyrillic first letter
    "ad\u200bmin",
    "\u202egnp.exe",
    "<script>alert('x')</script>",
    "javascript:alert(1)",
    "=cmd|' /C calc'!A0",
    "a\\'b",
    "nul\0nul",
    "%s{0}",
)


def log(folder: Path, name: str = "log.parquet", columns: dict[str, str] | None = None) -> Path:
    """A row for each hostile word, which is its user, item, type, session and text, one second apart."""
    named = columns or {}
    count = len(HOSTILE)
    values = {
        "user": HOSTILE,
        "item": HOSTILE,
        "type": HOSTILE,
        "visit": HOSTILE,
        "note": HOSTILE,
        "time": [f"2024-01-29 10:00:{second:02}" for second in range(count)],
    }
    pq.write_table(pa.table({named.get(key, key): list(value) for key, value in values.items()}), folder / name)
    return folder / name


FULL: dict[str, str | list[str]] = {**COLUMNS, "session_id": "visit", "text": "note"}


def test_words_of_a_log_come_through_as_they_are(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    events = source(log(tmp_path), FULL, types={word: word for word in HOSTILE})
    items = ItemSource(columns={"item_id": "item", "title": "note", "category": ["type", "note"], "brand": "user"})
    rows = mapped(connection, events, items)
    for field, expected in (
        ("user_id", str),
        ("item_id", str),
        ("session_id", str),
        ("text", str),
        ("event_type", str.lower),
    ):
        assert [row[field] for row in rows] == [expected(word) for word in HOSTILE], field
    assert {row["title"] for row in records(connection, "FROM items")} == set(HOSTILE)
    cleaning = CleaningConfig(
        exclude_categories=["'; --", "x' OR '1'='1"],
        type_weights={word.lower(): 2.0 for word in HOSTILE},
        impute=ImputeConfig(event_type="a\n1 = 1 OR 'b' = '"),
        require_known_type=True,
    )
    # Of the excluded category there is one; every other word is an event, whatever it says.
    assert classified(connection, cleaning) == [
        "excluded_item" if word.startswith("x' OR") else None for word in HOSTILE
    ]
    assert {row["weight"] for row in records(connection, "FROM events")} == {2.0}
    found = sessions(connection)
    assert {row["user_id"] for row in found} == set(HOSTILE[1:])
    assert {item for row in found for item in row["items"]} == set(HOSTILE[1:])


def test_names_of_columns_and_files_may_be_anything(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for number, word in enumerate(word for word in HOSTILE if "/" not in word and "\0" not in word):
        folder = tmp_path / str(number)
        folder.mkdir()
        columns = {"user": f"user {word}", "item": word}
        path = log(folder, f"{word}.parquet", columns)
        rows = mapped(connection, source(folder, {**FULL, "user_id": columns["user"], "item_id": word}))
        assert [row["user_id"] for row in rows] == list(HOSTILE), word
        assert {row["source_file"] for row in rows} == {path.name}


def test_templates_of_texts_hold_no_code(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    words = [word for word in HOSTILE if word.strip()]
    ending = "' || (SELECT 1) || '"
    text = TextConfig(
        template="{title}" + ending, units={word: word for word in words}, stop_phrases=words, lowercase=False
    )
    whole = SourceConfig(events=source(log(tmp_path)), items=ItemSource(columns={"item_id": "item", "title": "time"}))
    found = records(connection, catalogue.items_query(connection, whole, text))
    assert {row["text"] for row in found} == {f"2024-01-29 10:00:{second:02}{ending}" for second in range(len(HOSTILE))}


def test_a_page_runs_and_loads_nothing_that_a_log_says(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    config = made(connection, log(tmp_path, "<script>alert(1)<script>.parquet"), columns=FULL)
    (one,) = pages(connection, config, date(2024, 1, 29))
    assert "&lt;script&gt;alert" in one["html"]
    assert not re.search(r"<script|<[^>]*(javascript:|onerror)", one["html"])


@settings_of_hypothesis(max_examples=100)
@given(
    st.lists(st.tuples(st.dates(), st.one_of(st.text(max_size=12), st.sampled_from(HOSTILE))), min_size=1, max_size=3)
)
def test_a_condition_selects_its_partitions_and_no_other(partitions: list[tuple[date, str]]) -> None:
    """What `check_key` lets pass selects itself; what it refuses would too, for SQL is not all that reads keys."""
    table = tables.SEGMENT_RANKERS
    others = [(day, segment + "'") for day, segment in partitions] + [(date(1, 1, 1), "other")]
    stored = partitions + others
    ENGINE.register("stored", pa.table({"week": [one[0] for one in stored], "segment_id": [one[1] for one in stored]}))
    found = ENGINE.execute(f"SELECT week, segment_id FROM stored WHERE {condition(table, partitions)}").fetchall()
    assert set(found) == set(partitions)
    for _, segment in partitions:
        if segment in HOSTILE or not segment.isascii():
            with pytest.raises(UserError, match="partition key"):
                check_key(segment)
