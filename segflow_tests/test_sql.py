"""SQL literals and identifiers: what goes in comes out, whatever it holds."""

from __future__ import annotations

import re
from datetime import datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow import sql

# DuckDB text holds no half of a surrogate pair.
text = st.text(st.characters(exclude_categories=["Cs"]))
DUCK = duckdb.connect()


def through(literal: str) -> object:
    found = DUCK.execute(f"SELECT {literal}").fetchone()
    assert found is not None
    return found[0]


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.dates(),
        st.datetimes(min_value=datetime(1000, 1, 1)),
        text,
        st.lists(text, max_size=4),
    )
)
def test_a_literal_is_its_value(value: sql.Value) -> None:
    assert through(sql.literal(value)) == value


@given(st.floats())
def test_a_number_is_its_value(value: float) -> None:
    # A column of that name must not be read in its place.
    found = DUCK.execute(f"SELECT {sql.literal(value)} FROM (SELECT 7 AS inf, 7 AS nan)").fetchone()
    assert found is not None
    assert float(found[0]) == pytest.approx(value, rel=1e-15, nan_ok=True)


@pytest.mark.parametrize("value", ["x' OR '1'='1", "'; DROP TABLE t; --", "\\'", "{{start}}", "\0'; --"])
def test_text_stays_inside_its_quotes(value: str) -> None:
    assert through(sql.literal(value)) == value
    assert through(sql.literal([value, value])) == [value, value]


@given(text.filter(lambda name: 0 < len(name.encode()) < 200))
def test_an_identifier_is_one_name(name: str) -> None:
    quoted = sql.identifier(name)
    description = DUCK.execute(f"SELECT 1 AS {quoted}").description
    assert [column[0] for column in description] == [name]


@given(text, text)
def test_what_is_filled_in_stays_one_value(first: str, second: str) -> None:
    """Also where the comment above the statement names the placeholder: a line break would end the comment."""
    values = {"default_type": first + "{{default_type}}" + second}
    expression = sql.render("events/flaw.sql", **values)
    raw = "NULL AS unparsed, 'u' AS user_id, now() AS ts, now()::DATE AS day, 1 AS value, 1 AS quantity, NULL AS event_type"
    found = DUCK.execute(f"SELECT {expression} FROM (SELECT {raw}) AS raw").fetchone()
    assert found == (None,)
    assert sql.literal(values["default_type"]) in expression


_MORE = {"gap_us": 1, "half_day_us": 2, "share": 0, "shares": 1}


def test_every_placeholder_needs_a_value() -> None:
    with pytest.raises(KeyError, match="end"):
        sql.render("events/session_events.sql", start=None, use_source_ids=True, **_MORE)


def test_statements_are_found_and_say_what_they_do() -> None:
    statements = sorted(sql.folder().rglob("*.sql"))
    assert len(statements) > 3
    for path in statements:
        assert path.read_text().startswith("-- "), path


def test_no_statement_has_text_that_looks_like_a_comment() -> None:
    for path in sql.folder().rglob("*.sql"):
        for line in path.read_text().splitlines():
            code = line.partition("--")[0]
            assert code.count("'") % 2 == 0, f"{path}: {line}: a placeholder behind this would not be filled in"


def test_rendering_leaves_no_placeholder() -> None:
    rendered = sql.render("events/session_events.sql", start=None, end=None, use_source_ids=True, **_MORE)
    assert not re.search(r"\{\{|\}\}", re.sub(r"--.*", "", rendered))
