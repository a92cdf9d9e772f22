"""The catalogue and static attributes of users."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import pytest
from pydantic import ValidationError

from segflow import settings
from segflow.config import CsvDialect, EdgeSource, EventSource, ItemSource, SourceConfig, TextConfig, UserSource
from segflow.errors import UserError
from segflow.events import catalogue
from segflow.events.source import reading
from segflow_tests.events.steps import records, source, write

FULL: dict[str, str | list[str]] = {
    "item_id": "product", "title": "name", "category": ["group", "kind"], "brand": "maker", "price": "price",
}  # fmt: skip


def items(
    connection: duckdb.DuckDBPyConnection, folder: Path, *rows: str, text: TextConfig | None = None
) -> dict[str, dict]:
    path = write(folder / "items.csv", "product,name,group,kind,maker,price", *rows)
    settings = SourceConfig(events=source("unused.csv"), items=ItemSource(path=str(path), columns=FULL))
    found = records(connection, catalogue.items_query(connection, settings, text))
    assert len({row["item_id"] for row in found}) == len(found)
    return {row["item_id"]: row for row in found}


def test_text_is_composed_from_path_brand_and_title(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    found = items(
        connection, tmp_path, "1,Oat Milk,Food,Drinks,Alpro,2.5", "2,Bread,Food,,,", "3,,,,,cheap", "4,Wine,,,,inf"
    )
    assert found["1"] == {
        "item_id": "1",
        "title": "Oat Milk",
        "category": ["Food", "Drinks"],
        "brand": "Alpro",
        "price": 2.5,
        "text": "food > drinks > alpro oat milk",
        "text_hash": hashlib.sha256(b"food > drinks > alpro oat milk").hexdigest(),
    }
    assert [
        (found[key]["category"], found[key]["brand"], found[key]["price"], found[key]["text"]) for key in "234"
    ] == [
        (["Food"], None, None, "food > bread"),
        ([], None, None, "3"),
        ([], None, None, "wine"),
    ]
    assert found["3"]["title"] == "3"


@pytest.mark.parametrize(
    ("template", "full", "title_only", "brand_only"),
    [
        ("{category} > {brand} {title}", "Food > Drinks > Alpro Oat Milk", "Oat Milk", "Alpro"),
        ("{title}", "Oat Milk", "Oat Milk", ""),
        ("{title} by {brand}, {price} EUR", "Oat Milk by Alpro, 2.50 EUR", "Oat Milk", "Alpro"),
        ("passage: {title} ({brand})", "passage: Oat Milk (Alpro)", "passage: Oat Milk", "passage: (Alpro)"),
        ("{item_id}: {brand}", "1: Alpro", "1", "1: Alpro"),
        ("{title}.", "Oat Milk.", "Oat Milk.", ""),
        ("{{x}} {title}", "{x} Oat Milk", "{x} Oat Milk", "{x}"),
    ],
)
def test_a_template_composes_what_is_there(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, template: str, full: str, title_only: str, brand_only: str
) -> None:
    settings = TextConfig(template=template, lowercase=False, stop_phrases=["nameless"])
    rows = ("1,Oat Milk,Food,Drinks,Alpro,2.5", "1,nameless,,,Alpro,", "1,Oat Milk,,,,")
    texts = [items(connection, tmp_path, row, text=settings)["1"]["text"] for row in rows]
    assert texts == [full, brand_only, title_only]


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Tea\u00a0\u0007 Bag  Ü", "tea bag ü"),
        ("Milk 12oz 3 fl OZ 4 ozone oz", "milk 12 ounces 3 fluid ounces 4 ozone oz"),
        ("NEW! Special Offer special offer Brot Neu Neuheit", "! brot neuheit"),
        ("neu neu neu NEU", ""),
        ("größe neu.", "größe ."),
        ("C++ (red) 'n' a\\1", "(red) 'n' a\\1"),
    ],
)
def test_words_are_cleaned(connection: duckdb.DuckDBPyConnection, tmp_path: Path, title: str, text: str) -> None:
    settings = TextConfig(
        template="{title}",
        units={"oz": "ounces", "fl oz": "fluid ounces"},
        stop_phrases=["new", "special offer", "neu", "C++"],
    )
    (only,) = items(connection, tmp_path, f"1,{title},,,,", text=settings).values()
    assert only["text"] == text
    assert only["text_hash"] == hashlib.sha256(text.encode()).hexdigest()


def test_an_emptied_category_leaves_no_separator(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    settings = TextConfig(stop_phrases=["misc"])
    found = items(connection, tmp_path, "1,Tea,misc,Hot,,", "2,Tea,Misc,MISC,,", "3,misc,misc,,misc,", text=settings)
    assert [found[key]["text"] for key in "123"] == ["hot > tea", "tea", ""]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{titel}", r"unknown field 'titel' \(did you mean 'title'\?\)"),
        ("{title!r}", "unknown field 'title'"),
        ("{title", "is no template"),
        ("title", "names no field"),
        ("", "names no field"),
    ],
)
def test_a_template_of_unknown_fields_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TextConfig(template=template)


def test_a_wrong_template_is_named_with_its_file(tmp_path: Path) -> None:
    lines = ["preset: complete_journey_types", "text: {template: '{brand} {titel}'}"]
    with pytest.raises(UserError, match=r"segflow\.yaml: text\.template: unknown field 'titel'"):
        settings.load(write(tmp_path / "segflow.yaml", *lines))
    file = write(tmp_path / "segflow.yaml", "preset: complete_journey_types", "text: {cache: kept/here}")
    assert settings.load(file).text.cache == str(tmp_path / "kept" / "here")


def test_the_most_frequent_spelling_wins_and_ties_are_settled(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [
        "1,milk,,,,1",
        "1,Milk,,,,2",
        "1,Milk,,,,4",
        "2,b,,,,",
        "2,a,,,,",
        "3,x,g2,,,",
        "3,x,g1,,,",
        ",nameless,,,,",
    ]
    found = items(connection, tmp_path, *rows)
    assert [(found[key]["title"], found[key]["category"]) for key in sorted(found)] == [
        ("Milk", []), ("a", []), ("x", ["g1"]),
    ]  # fmt: skip
    assert found["1"]["price"] == 3.0
    assert items(connection, tmp_path, *reversed(rows)) == found


def test_without_a_catalogue_items_are_what_events_name(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv", "user,item,type,time", "u,Tea,view,2024-01-02", "u,Tea,view,2024-01-03", "u,,view,"
    )
    found = records(connection, catalogue.items_query(connection, SourceConfig(events=source(path))))
    assert [(row["item_id"], row["title"], row["text"], row["category"]) for row in found] == [
        ("Tea", "Tea", "tea", [])
    ]
    events = EventSource(path=str(path), columns={"user_id": "user", "ts": "time", "event_type": "type"})
    with pytest.raises(UserError, match=r"source\.items: map `item_id`"):
        catalogue.items_query(connection, SourceConfig(events=events))


def test_a_catalogue_may_stand_in_the_event_files(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,name", "u,1,view,2024-01-02,Tea", "u,1,buy,2024-01-02,Tea")
    settings = SourceConfig(
        events=source(path), items=ItemSource(path=None, columns={"item_id": "item", "title": "name"})
    )
    (only,) = records(connection, catalogue.items_query(connection, settings))
    assert (only["item_id"], only["title"]) == ("1", "Tea")


def test_a_missing_catalogue_column_is_named(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", "product,name", "1,Tea")
    wrong = ItemSource(path=str(path), columns={"item_id": "product", "title": "nam"})
    with pytest.raises(UserError, match=r"items\.csv: source\.items\.columns\.title: no column 'nam' .*'name'"):
        catalogue.items_query(connection, SourceConfig(events=source("unused.csv"), items=wrong))


def with_users(users: UserSource | None) -> SourceConfig:
    return SourceConfig(events=source("unused.csv"), users=users)


def test_users_are_one_row_per_attribute(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "users.csv", "id,age,it's,other", "1,30,yes,x", "2,,no,x", ",40,no,x", "1,30,yes,x")
    users = UserSource(path=str(path), user_id="id", attributes=["it's", "age"])
    found = records(connection, f"SELECT * FROM ({catalogue.users_query(connection, with_users(users))}) ORDER BY ALL")
    assert [tuple(row.values()) for row in found] == [("1", "age", "30"), ("1", "it's", "yes"), ("2", "it's", "no")]
    with pytest.raises(UserError, match=r"users\.csv: source\.users\.attributes: no column 'agee'"):
        catalogue.users_query(connection, with_users(users.model_copy(update={"attributes": ["agee"]})))


@pytest.mark.parametrize("users", [None, UserSource(path="unused.csv")])
def test_without_attributes_there_are_no_users(connection: duckdb.DuckDBPyConnection, users: UserSource | None) -> None:
    assert records(connection, catalogue.users_query(connection, with_users(users))) == []


def with_edges(edges: EdgeSource | None) -> SourceConfig:
    return SourceConfig(events=source("unused.csv"), edges=edges)


def edges(connection: duckdb.DuckDBPyConnection, settings: EdgeSource | None) -> list[tuple]:
    query = catalogue.user_edges_query(connection, with_edges(settings))
    return [tuple(row.values()) for row in records(connection, f"SELECT * FROM ({query}) ORDER BY ALL")]


def test_ties_are_summed_and_never_to_oneself(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = (
        "a,b,1",
        "b,a,2",
        "a,b,0.5",
        " a , c ,1",
        "a,a,9",
        ",a,1",
        "a,,1",
        "c,d,0",
        "c,e,-1",
        "c,f,inf",
        "c,g,x",
        "d,a,",
    )
    path = write(tmp_path / "ties.csv", "from,to,times", *rows)
    settings = EdgeSource(path=str(path), user_id="from", other_id="to", weight="times")
    assert edges(connection, settings) == [("a", "b", 1.5), ("a", "c", 1.0), ("b", "a", 2.0)]
    assert edges(connection, settings.model_copy(update={"mutual": True})) == [
        ("a", "b", 3.5), ("a", "c", 1.0), ("b", "a", 3.5), ("c", "a", 1.0),
    ]  # fmt: skip
    unweighted = edges(connection, settings.model_copy(update={"weight": None}))
    assert ("a", "b", 2.0) in unweighted
    assert ("c", "d", 1.0) in unweighted
    assert not any(user == other for user, other, _ in unweighted)


def test_ties_name_users_as_events_do(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    connection.execute(f"COPY (SELECT 1.0::DOUBLE AS user_id, 2 AS other_id) TO '{tmp_path}/1.parquet'")
    assert edges(connection, EdgeSource(path=str(tmp_path))) == [("1", "2", 1.0)]
    assert edges(connection, None) == []
    described = connection.execute(f"DESCRIBE {catalogue.user_edges_query(connection, with_edges(None))}").fetchall()
    assert [(row[0], row[1]) for row in described] == [
        ("user_id", "VARCHAR"),
        ("other_id", "VARCHAR"),
        ("weight", "DOUBLE"),
    ]
    with pytest.raises(UserError, match=r"source\.edges\.weight: no column 'strength'; it has: user_id, other_id"):
        edges(connection, EdgeSource(path=str(tmp_path), weight="strength"))


def test_a_catalogue_has_a_dialect_and_drift_too(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(tmp_path / "items" / "1.dat", "1::Tea::2.5")
    write(tmp_path / "items" / "2.dat", "2::NA::")
    dialect = CsvDialect(delimiter="::", columns=["id", "name", "price"], missing=["NA"])
    columns: dict[str, str | list[str]] = {"item_id": "id", "title": "name", "price": "price"}
    catalogued = ItemSource(path=str(tmp_path / "items"), format="csv", csv=dialect, columns=columns)
    found = records(
        connection, catalogue.items_query(connection, SourceConfig(events=source("unused.csv"), items=catalogued))
    )
    assert sorted((row["item_id"], row["title"], row["price"]) for row in found) == [
        ("1", "Tea", 2.5),
        ("2", "2", None),
    ]


def test_a_broken_row_of_a_catalogue_is_refused(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", "id,name", "1,Tea", "2,Coffee,strong")
    catalogued = ItemSource(path=str(path), columns={"item_id": "id", "title": "name"})
    query = catalogue.items_query(connection, SourceConfig(events=source("unused.csv"), items=catalogued))
    with (
        pytest.raises(UserError, match=r"items\.csv: cannot be read as csv: line 3: .*; correct that line"),
        reading(str(path)),
    ):
        records(connection, query)
