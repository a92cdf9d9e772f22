"""The presets of public logs, each on a sample in the published layout: from files to raw rows, items, events, sessions."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from segflow.config import Config
from segflow.events import catalogue
from segflow.events.preflight import preflight
from segflow.settings import DATASETS, load
from segflow_tests.events.public_samples import CLICKSTREAM, SAMPLES, Sample
from segflow_tests.events.steps import classified, mapped, records, sessions


@pytest.fixture(params=SAMPLES, ids=lambda sample: sample.preset)
def sample(request: pytest.FixtureRequest) -> Sample:
    found = request.param
    assert isinstance(found, Sample)
    return found


def raw_rows(connection: duckdb.DuckDBPyConnection, config: Config) -> list[dict[str, Any]]:
    return mapped(connection, config.source.events, config.source.items, config.calendar, config.source.inputs)


def test_each_preset_of_a_public_log_has_a_sample() -> None:
    assert {sample.preset for sample in SAMPLES} == {
        preset.stem for preset in DATASETS.glob("*.yaml") if not preset.stem.startswith("complete_journey")
    }


def test_rows_become_events_and_sessions(connection: duckdb.DuckDBPyConnection, tmp_path: Path, sample: Sample) -> None:
    config = load(sample.write(tmp_path) / "segflow.yaml")
    raw = raw_rows(connection, config)
    assert len({(row["source_file"], row["source_row"]) for row in raw}) == len(raw)
    reasons = classified(connection, config.cleaning, config.calendar)
    assert reasons == sample.reasons
    events = [row for row, reason in zip(raw, reasons, strict=True) if reason is None]
    kept = records(connection, "SELECT user_id, item_id, event_type, ts FROM events ORDER BY source_file, source_row")
    assert kept == [{name: row[name] for name in ("user_id", "item_id", "event_type", "ts")} for row in events]
    wanted = sample.event
    named = ("user_id", "item_id", "event_type")
    event = next(
        row for row in events if all(row[name] == wanted[name] for name in named) and row["ts"] == wanted["ts"]
    )
    assert {name: event[name] for name in wanted} == wanted
    assert event["day"] == wanted["ts"].date()
    days = [row["day"] for row in events]
    made = sessions(connection, config.sessions, min(days), max(days) + timedelta(days=1))
    assert [(session["user_id"], session["items"]) for session in made] == list(sample.sessions)


def test_items_have_titles_and_categories(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, sample: Sample
) -> None:
    config = load(sample.write(tmp_path) / "segflow.yaml")
    raw_rows(connection, config)
    items = records(connection, "SELECT * FROM items")
    assert {
        row["item_id"]: (row["title"], row["category"], row["brand"], pytest.approx(row["price"])) for row in items
    } == sample.items


def test_attributes_of_users(connection: duckdb.DuckDBPyConnection, tmp_path: Path, sample: Sample) -> None:
    config = load(sample.write(tmp_path) / "segflow.yaml")
    found: dict[str, dict[str, str]] = {}
    for row in records(connection, catalogue.users_query(connection, config.source)):
        found.setdefault(row["user_id"], {})[row["attribute"]] = row["value"]
    assert found == sample.users


def test_the_check_passes_and_weights_name_types_that_occur(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, sample: Sample
) -> None:
    config = load(sample.write(tmp_path) / "segflow.yaml")
    assert preflight(config)[0].startswith("events: ")
    types = {row["event_type"] for row in raw_rows(connection, config)} - {None}
    if config.cleaning.type_weights and sample is not CLICKSTREAM:
        assert types <= set(config.cleaning.type_weights)


def test_the_columns_that_a_clickstream_may_lack(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "user_id,item_id,event_type,timestamp,colour\nu,i,view,2024-03-01 10:00:00,red\n"
    )
    (tmp_path / "segflow.yaml").write_text("preset: clickstream\nsource:\n  events: {path: mine.csv}\n")
    row = raw_rows(connection, load(tmp_path / "segflow.yaml"))[0]
    assert (row["user_id"], row["item_id"], row["value"], row["session_id"], row["unparsed"]) == ("u", "i", *[None] * 3)
    assert row["ts"].astimezone(UTC).isoformat() == "2024-03-01T10:00:00+00:00"
