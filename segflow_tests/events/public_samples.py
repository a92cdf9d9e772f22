"""Small logs in the published layouts of public data sets: the layouts are theirs, the values are invented.

Each sample says what must come out of it: the reasons of its rows, one event in full, an item, the sessions, attributes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]


def at(text: str) -> datetime:
    """A UTC moment from `2024-01-02 10:00:00`, with or without a fraction."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Sample:
    """Files of a layout (text, bytes, or rows of a Parquet file) and what they hold."""

    preset: str
    files: Mapping[str, str | bytes | Rows]
    reasons: list[str | None]  # of the raw rows in source order
    event: Mapping[str, Any]  # one event in full
    items: Mapping[str, tuple[str, list[str], str | None, float | None]]  # id -> title, category, brand, price
    sessions: Sequence[tuple[str, list[str]]]  # user and items in order; by day, user, start
    users: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The folder with the files and a settings file that names nothing but the preset."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            place = folder / name
            if isinstance(content, str):
                place.write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                place.write_bytes(content)
            else:
                pq.write_table(pa.Table.from_pylist([dict(row) for row in content]), place)
        (folder / "segflow.yaml").write_text(f"preset: {self.preset}\n", encoding="utf-8")
        return folder


def _lines(*lines: str) -> str:
    return "".join(line + "\n" for line in lines)


def _json_lines(*rows: Mapping[str, Any]) -> str:
    return _lines(*(json.dumps(row) for row in rows))


_EVENT: dict[str, Any] = {"event_id": None, "value": None, "quantity": None, "session_id": None, "text": None}

MOVIELENS = Sample(
    preset="movielens",
    files={
        "ratings.csv": _lines(
            "userId,movieId,rating,timestamp",
            "1,10,4.5,1546300800",
            "1,20,3.0,1546300860",
            "1,30,1.5,1546304400",
            "2,10,2.0,1546387230",
            "2,20,5.0,1546387200",
        ),
        "movies.csv": _lines(
            "movieId,title,genres",
            '10,"Lantern, The (1998)",Drama|Mystery',
            "20,Paper Boats (2003),Comedy",
            "30,Untold (2011),(no genres listed)",
        ),
    },
    reasons=[None] * 5,
    event=_EVENT | {"user_id": "1", "item_id": "10", "event_type": "like", "ts": at("2019-01-01 00:00:00")},
    items={
        "10": ("Lantern, The (1998)", ["Drama", "Mystery"], None, None),
        "20": ("Paper Boats (2003)", ["Comedy"], None, None),
        "30": ("Untold (2011)", [], None, None),
    },
    sessions=[("1", ["10", "20"]), ("1", ["30"]), ("2", ["20", "10"])],
)

MOVIELENS_1M = Sample(
    preset="movielens_1m",
    files={
        "ratings.dat": _lines("7::11::1::978307200", "7::12::4::978307260", "8::12::3::978307300"),
        "movies.dat": _lines('11::Café "Nord" (1971)::Drama|Romance', "12::Two: Steps (1980)::Action").encode(
            "latin-1"
        ),
        "users.dat": _lines("7::F::1::10::48067", "8::M::56::16::70072"),
    },
    reasons=[None] * 3,
    event=_EVENT | {"user_id": "7", "item_id": "11", "event_type": "dislike", "ts": at("2001-01-01 00:00:00")},
    items={
        "11": ('Café "Nord" (1971)', ["Drama", "Romance"], None, None),
        "12": ("Two: Steps (1980)", ["Action"], None, None),
    },
    sessions=[("7", ["11", "12"]), ("8", ["12"])],
    users={
        "7": {"gender": "F", "age": "1", "occupation": "10"},
        "8": {"gender": "M", "age": "56", "occupation": "16"},
    },
)

RETAILROCKET = Sample(
    preset="retailrocket",
    files={
        "events.csv": _lines(
            "timestamp,visitorid,event,itemid,transactionid",
            "1433152800117,501,view,100,",
            "1433152860000,501,addtocart,100,",
            "1433152920000,501,transaction,100,42",
            "1433152920000,501,transaction,200,42",
            "1433152800117,501,view,100,",
            "1433160000000,502,view,300,",
        ),
        "item_properties_part1.csv": _lines(
            "timestamp,itemid,property,value",
            "1431226800000,100,categoryid,5",
            "1431226800000,100,790,n15360.000",
            "1431226800000,200,categoryid,77",
        ),
        "item_properties_part2.csv": _lines(
            "timestamp,itemid,property,value",
            "1432436400000,100,categoryid,9",
            "1432436400000,300,888,1116713 960601 n277.200",
        ),
        "category_tree.csv": _lines("categoryid,parentid", "5,1", "9,5", "1,"),
    },
    reasons=[None, None, None, None, "duplicate", None],
    event=_EVENT | {"user_id": "501", "item_id": "100", "event_type": "view", "ts": at("2015-06-01 10:00:00.117")},
    items={
        "100": ("100", ["category 1", "category 5", "category 9"], None, None),
        "200": ("200", ["category 77"], None, None),
        "300": ("300", [], None, None),
    },
    sessions=[("501", ["100", "100", "100", "200"]), ("502", ["300"])],
)

YOOCHOOSE = Sample(
    preset="yoochoose",
    files={
        "yoochoose-clicks.dat": _lines(
            "11,2014-04-07T10:51:09.277Z,2145,S",
            "11,2014-04-07T11:54:09.868Z,2146,3",
            "12,2014-04-07T10:57:00.306Z,2146,3",
            "12,2014-04-07T10:58:00.000Z,2146,0",
            "12,2014-04-07T10:59:00.000Z,2147,2077155912",
        ),
        "yoochoose-buys.dat": _lines(
            "11,2014-04-07T11:56:01.000Z,2146,1046,2",
            "12,2014-04-07T11:00:00.000Z,2147,0,1",
        ),
    },
    reasons=[None] * 7,
    event=_EVENT
    | {
        "user_id": "11",
        "item_id": "2146",
        "event_type": "purchase",
        "ts": at("2014-04-07 11:56:01"),
        "value": 2092.0,
        "quantity": 2.0,
        "session_id": "11",
    },
    items={
        "2145": ("2145", [], None, None),
        "2146": ("2146", ["category 3"], None, 1046.0),
        "2147": ("2147", [], "brand 2077155912", None),
    },
    sessions=[("11", ["2145", "2146", "2146"]), ("12", ["2146", "2146", "2147", "2147"])],
)

OTTO = Sample(
    preset="otto",
    files={
        "otto-recsys-train.jsonl": _json_lines(
            {
                "session": 900,
                "events": [
                    {"aid": 59625, "ts": 1659304800025, "type": "clicks"},
                    {"aid": 59625, "ts": 1659304860000, "type": "carts"},
                    {"aid": 59625, "ts": 1659304920000, "type": "orders"},
                    {"aid": 70000, "ts": 1659391200000, "type": "clicks"},
                ],
            },
            {"session": 901, "events": []},
            {"session": 902, "events": [{"aid": 70000, "ts": 1659304800300, "type": "clicks"}]},
        ),
    },
    reasons=[None, None, None, None, "missing_time", None],
    event=_EVENT | {"user_id": "900", "item_id": "59625", "event_type": "view", "ts": at("2022-07-31 22:00:00.025")},
    items={"59625": ("59625", [], None, None), "70000": ("70000", [], None, None)},
    sessions=[("900", ["59625", "59625", "59625"]), ("902", ["70000"]), ("900", ["70000"])],
)

DIGINETICA = Sample(
    preset="diginetica",
    files={
        "train-item-views.csv": _lines(
            "sessionId;userId;itemId;timeframe;eventdate",
            "1;NA;81766;526309;2016-05-09",
            "1;NA;31331;1031018;2016-05-09",
            "2;77;81766;1000;2016-05-10",
            "3;NA;31331;soon;2016-05-10",
        ),
        "train-purchases.csv": _lines(
            "sessionId;userId;timeframe;eventdate;ordernumber;itemId", "2;77;61000;2016-05-10;7;81766"
        ),
        "products.csv": _lines("itemId;pricelog2;product.name.tokens", "81766;10;4875,776,56689", "31331;0;4"),
        "product-categories.csv": _lines("itemId;categoryId", "81766;170", "31331;0"),
    },
    reasons=[None, None, None, None, "unreadable_field"],
    event=_EVENT
    | {
        "user_id": "77",
        "item_id": "81766",
        "event_type": "purchase",
        "ts": at("2016-05-10 00:01:01"),
        "value": 1023.0,
        "session_id": "2",
    },
    items={"81766": ("81766", ["category 170"], None, 1023.0), "31331": ("31331", ["category 0"], None, None)},
    sessions=[("session 1", ["81766", "31331"]), ("77", ["81766", "81766"])],
)

_ARTIST = "1f9df192-a621-4f54-8850-2c5373b7eac9"
LASTFM_1K = Sample(
    preset="lastfm_1k",
    files={
        "userid-timestamp-artid-artname-traid-traname.tsv": _lines(
            f'user_000001\t2009-05-04T23:08:57Z\t{_ARTIST}\tThe "Low" Tide\t\tHarbour, Part 1',
            f'user_000001\t2009-05-04T13:54:10Z\t{_ARTIST}\tThe "Low" Tide\tf1\tMoorings "live"',
            "user_000001\t2009-05-04T13:52:04Z\t\tÖstersjön\t\tVågor",
            "user_000002\t2013-09-29T18:32:04Z\t\tÖstersjön\t\tVågor",
        ),
        "userid-profile.tsv": _lines(
            "#id\tgender\tage\tcountry\tregistered",
            "user_000001\tm\t\tJapan\tAug 13, 2006",
            "user_000002\tf\t31\tPeru\tFeb 24, 2006",
        ),
    },
    reasons=[None, None, None, "outside_calendar"],
    event=_EVENT
    | {
        "user_id": "user_000001",
        "item_id": _ARTIST,
        "event_type": "play",
        "ts": at("2009-05-04 23:08:57"),
        "text": "Harbour, Part 1",
    },
    items={_ARTIST: ('The "Low" Tide', [], None, None), "Östersjön": ("Östersjön", [], None, None)},
    sessions=[("user_000001", ["Östersjön", _ARTIST]), ("user_000001", [_ARTIST])],
    users={
        "user_000001": {"gender": "m", "country": "Japan"},
        "user_000002": {"gender": "f", "age": "31", "country": "Peru"},
    },
)


def _review(user: str, item: str, time: int, verified: bool, title: str) -> dict[str, Any]:
    return {
        "rating": 5.0,
        "title": title,
        "text": "As described.",
        "images": [],
        "asin": f"{item}-blue",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": verified,
    }


def _product(item: str, title: str, categories: list[str], price: Any, store: str | None) -> dict[str, Any]:
    return {
        "main_category": "All Beauty",
        "title": title,
        "average_rating": 4.8,
        "rating_number": 10,
        "features": [],
        "description": [],
        "price": price,
        "images": [{"thumb": "t.jpg", "large": "l.jpg", "variant": "MAIN"}],
        "videos": [],
        "store": store,
        "categories": categories,
        "details": {"Package": "1 ounce"},
        "parent_asin": item,
        "bought_together": None,
    }


AMAZON = Sample(
    preset="amazon_reviews_2023",
    files={
        "All_Beauty.jsonl.gz": gzip.compress(
            _json_lines(
                _review("AGKH", "B00Y", 1588687728923, True, "Lovely scent, née rose"),
                _review("AGKH", "B0XZ", 1588687800000, False, "Meh"),
                _review("AQ2W", "B00Y", 1589665266052, True, "Good"),
            ).encode()
        ),
        "meta_All_Beauty.jsonl.gz": gzip.compress(
            _json_lines(
                _product("B00Y", "Rose Water Mist", [], 14.99, "Petal & Co"),
                _product("B0XZ", "Clay Mask", ["Skin Care", "Masks"], "from 9.99", None),
            ).encode()
        ),
    },
    reasons=[None] * 3,
    event=_EVENT
    | {
        "user_id": "AGKH",
        "item_id": "B00Y",
        "event_type": "verified_review",
        "ts": at("2020-05-05 14:08:48.923"),
        "text": "Lovely scent, née rose",
    },
    items={
        "B00Y": ("Rose Water Mist", ["All Beauty"], "Petal & Co", 14.99),
        "B0XZ": ("Clay Mask", ["Skin Care", "Masks"], None, None),
    },
    sessions=[("AGKH", ["B00Y", "B0XZ"]), ("AQ2W", ["B00Y"])],
)

SYNERISE = Sample(
    preset="synerise_recsys_2025",
    files={
        "product_buy.parquet": [{"client_id": 17, "timestamp": "2022-07-01 10:09:30", "sku": 501}],
        "add_to_cart.parquet": [
            {"client_id": 17, "timestamp": "2022-07-01 10:05:00", "sku": 501},
            {"client_id": 17, "timestamp": "2022-07-01 10:05:10", "sku": 502},
        ],
        "remove_from_cart.parquet": [{"client_id": 17, "timestamp": "2022-07-01 10:06:00", "sku": 502}],
        "page_visit.parquet": [
            {"client_id": 17, "timestamp": "2022-07-01 10:00:00", "url": 9001},
            {"client_id": 17, "timestamp": "2022-07-01 10:00:00", "url": 9002},
            {"client_id": 17, "timestamp": "2022-07-01 10:00:00", "url": 9002},
            {"client_id": 18, "timestamp": "2022-07-02 23:59:59", "url": 9001},
        ],
        "search_query.parquet": [{"client_id": 17, "timestamp": "2022-07-01 10:01:00", "query": "[12 0 255]"}],
        "product_properties.parquet": [
            {"sku": 501, "category": 33, "price": 62, "name": "[1 2 3]"},
            {"sku": 502, "category": 34, "price": 7, "name": "[4 5 6]"},
        ],
    },
    # add_to_cart, page_visit, product_buy, remove_from_cart, search_query
    reasons=[None, None, None, None, "duplicate", None, None, None, None],
    event=_EVENT | {"user_id": "17", "item_id": "501", "event_type": "cart", "ts": at("2022-07-01 10:05:00")},
    items={"501": ("501", ["category 33"], None, None), "502": ("502", ["category 34"], None, None)},
    sessions=[("17", ["501", "502", "502", "501"]), ("18", [])],
)

_ARTICLES = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,graphical_appearance_no,"
    "graphical_appearance_name,colour_group_code,colour_group_name,perceived_colour_value_id,perceived_colour_value_name,"
    "perceived_colour_master_id,perceived_colour_master_name,department_no,department_name,index_code,index_name,"
    "index_group_no,index_group_name,section_no,section_name,garment_group_no,garment_group_name,detail_desc"
)
H_AND_M = Sample(
    preset="h_and_m",
    files={
        "transactions_train.csv": _lines(
            "t_dat,customer_id,article_id,price,sales_channel_id",
            "2019-01-15,00ab,0663713001,0.0508,2",
            "2019-01-15,00ab,0663713001,0.0508,2",
            "2019-01-15,00ab,0541518023,0.0305,1",
            "2019-01-16,00cd,0541518023,0.0305,1",
        ),
        "articles.csv": _lines(
            _ARTICLES,
            "0663713001,0663713,Silja top,253,Vest top,Garment Upper body,1010016,Solid,09,Black,4,Dark,5,Black,1676,"
            'Jersey Basic,A,Ladieswear,1,Ladieswear,16,Everyday,1002,Jersey Basic,"Top, in jersey"',
            "0541518023,0541518,Rolf sock,302,Socks,Socks & Tights,1010016,Solid,10,White,3,Light,9,White,3608,"
            "Socks,F,Menswear,3,Menswear,26,Mens Underwear,1021,Socks and Tights,Ribbed",
        ),
        "customers.csv": _lines(
            "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code",
            "00ab,,,ACTIVE,NONE,49,52043e",
            "00cd,1.0,1.0,ACTIVE,Regularly,,2973ab",
        ),
    },
    reasons=[None] * 4,
    event=_EVENT
    | {
        "event_id": "transactions_train.csv:0",
        "user_id": "00ab",
        "item_id": "0663713001",
        "event_type": "online_purchase",
        "ts": at("2019-01-15 00:00:00"),
        "value": 0.0508,
    },
    items={
        "0663713001": ("Silja top", ["Ladieswear", "Garment Upper body", "Vest top"], None, None),
        "0541518023": ("Rolf sock", ["Menswear", "Socks & Tights", "Socks"], None, None),
    },
    sessions=[("00ab", ["0663713001", "0663713001", "0541518023"]), ("00cd", ["0541518023"])],
    users={
        "00ab": {"club_member_status": "ACTIVE", "fashion_news_frequency": "NONE", "age": "49"},
        "00cd": {"club_member_status": "ACTIVE", "fashion_news_frequency": "Regularly"},
    },
)

INSTACART = Sample(
    preset="instacart",
    files={
        "orders.csv": _lines(
            "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order",
            "2001,1,prior,1,2,08,",
            "2002,1,prior,2,3,07,15.0",
            "2003,1,train,3,3,12,21.0",
            "2004,2,prior,1,0,23,",
            "2005,2,test,2,6,05,6.0",
        ),
        "order_products__prior.csv": _lines(
            "order_id,product_id,add_to_cart_order,reordered",
            "2001,31,1,0",
            "2001,32,2,0",
            "2002,31,1,1",
            "2004,32,1,0",
            "9999,31,1,0",
        ),
        "order_products__train.csv": _lines("order_id,product_id,add_to_cart_order,reordered", "2003,32,1,1"),
        "products.csv": _lines(
            "product_id,product_name,aisle_id,department_id",
            '31,"Oat Drink, ""Barista""",91,16',
            "32,Rye Crackers,78,19",
        ),
        "aisles.csv": _lines("aisle_id,aisle", "91,soy lactosefree", "78,crackers"),
        "departments.csv": _lines("department_id,department", "16,dairy eggs", "19,snacks"),
    },
    reasons=[None, None, None, None, "missing_user", None],
    # The third order is on Wednesday of the last week, 2017-12-27; this one lies 21 + 15 days before.
    event=_EVENT
    | {
        "event_id": "2001-31",
        "user_id": "1",
        "item_id": "31",
        "event_type": "purchase",
        "ts": at("2017-11-21 08:00:00"),
        "session_id": "2001",
    },
    items={
        "31": ('Oat Drink, "Barista"', ["dairy eggs", "soy lactosefree"], None, None),
        "32": ("Rye Crackers", ["snacks", "crackers"], None, None),
    },
    # The second customer's last order has no published lines but sets the dates: a Saturday, six days after a Sunday.
    sessions=[("1", ["31", "32"]), ("1", ["31"]), ("2", ["32"]), ("1", ["32"])],
)

CLICKSTREAM = Sample(
    preset="clickstream",
    files={
        "events.csv": _lines(
            "user_id,item_id,event_type,timestamp,price,session_id",
            "u1,i1,view,2024-01-02T10:00:00+01:00,5.5,s1",
            "u1,i1,Purchase,2024-01-02 09:05:00,5.5,s1",
            "u2,i2,view,1704189600,,s2",
        )
    },
    reasons=[None] * 3,
    event=_EVENT
    | {
        "user_id": "u1",
        "item_id": "i1",
        "event_type": "purchase",
        "ts": at("2024-01-02 09:05:00"),
        "value": 5.5,
        "session_id": "s1",
    },
    items={"i1": ("i1", [], None, 5.5), "i2": ("i2", [], None, None)},
    sessions=[("u1", ["i1", "i1"]), ("u2", ["i2"])],
)

SAMPLES = (
    MOVIELENS,
    MOVIELENS_1M,
    RETAILROCKET,
    YOOCHOOSE,
    OTTO,
    DIGINETICA,
    LASTFM_1K,
    AMAZON,
    SYNERISE,
    H_AND_M,
    INSTACART,
    CLICKSTREAM,
)
