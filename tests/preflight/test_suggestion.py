"""init: the configuration that it prints reads the log, whatever files and columns are called."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs.opening import open_tables
from gpu_dcgen.inputs.shop import Shop, load_shop
from gpu_dcgen.preflight.suggestion import suggest_config
from tests.support.command_line import run
from tests.support.csv_tables import to_csv
from tests.support.input_tables import CPU, decode, list_sales

TIMES = [
    dt.datetime(2020, 1, 2, 3, 4),
    dt.datetime(2020, 11, 1, 8, 26),
    dt.datetime(2020, 2, 29, 1),
]
SHOWN = ["2020-01-02T03:04:00", "2020-11-01T08:26:00", "2020-02-29T01:00:00"]
USERS, ITEMS = ["u2", "u1", "u2"], ["a1", "a3", "a1"]
SALES = [(SHOWN[k], USERS[k], ITEMS[k]) for k in range(3)]


def epoch(time: dt.datetime, factor: int = 1) -> int:
    return int(time.replace(tzinfo=dt.UTC).timestamp()) * factor


def write_csv(folder: Path, **tables: dict[str, list]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        (folder / f"{name}.csv").write_text(to_csv(columns), "utf-8")
    return folder


def suggest(folder: Path, tmp_path: Path) -> tuple[str, DatasetConfig]:
    text = suggest_config(folder)
    (file := tmp_path / "mine.yaml").write_text(text, "utf-8")
    return text, load_config(file)


def load(folder: Path, tmp_path: Path) -> tuple[str, Shop]:
    """Load a folder by its own suggestion."""
    text, config = suggest(folder, tmp_path)
    return text, load_shop(open_tables(folder, config.inputs, tmp_path / "csv"), config, CPU)


def list_triples(shop: Shop) -> list[tuple]:
    return [sale[:3] for sale in list_sales(shop)]


# Known logs


def test_hm_needs_nothing(tmp_path):
    folder = write_csv(
        tmp_path / "hm",
        transactions_train={
            "t_dat": ["2020-01-02"], "customer_id": ["u1"], "article_id": ["0108775015"],
            "price": [0.5], "sales_channel_id": [2],
        },
        articles={
            "article_id": ["0108775015"], "product_code": ["0108775"], "prod_name": ["Strap top"],
            "product_group_name": ["Garment Upper body"],
        },
        customers={
            "customer_id": ["u1"], "club_member_status": ["ACTIVE"],
            "fashion_news_frequency": ["NONE"], "age": [30],
        },
    )  # fmt: skip
    text, config = suggest(folder, tmp_path)
    assert config == DatasetConfig()
    assert "H&M" in text and "builds without a configuration" in text
    assert load(folder, tmp_path)[1].item_ids.to_pylist() == ["0108775015"]


def test_movielens(tmp_path):
    folder = write_csv(
        tmp_path / "ml",
        ratings={
            "userId": ["1", "1", "2"],
            "movieId": ["10", "20", "10"],
            "rating": [4.0, 3.5, 5.0],
            "timestamp": [epoch(time) for time in TIMES],
        },
        movies={
            "movieId": ["10", "20"],
            "title": ["Heat (1995)", "Sabrina"],
            "genres": ["Action|Crime", "Comedy"],
        },
        links={"movieId": ["10"], "imdbId": ["1"], "tmdbId": ["2"]},
    )
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == [(SHOWN[0], "1", "10"), (SHOWN[2], "2", "10")]
    assert decode(shop.item_columns["product_group"]) == ["Action|Crime", "Comedy"]
    assert "Not read: links.csv." in text and "MovieLens" in text


def test_retailrocket(tmp_path):
    folder = write_csv(
        tmp_path / "rr",
        events={
            "timestamp": [epoch(time, 1000) for time in TIMES],
            "visitorid": ["1", "1", "2"],
            "event": ["view", "transaction", "addtocart"],
            "itemid": ["10", "20", "10"],
            "transactionid": [None, "5", None],
        },
    )
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == [(SHOWN[1], "1", "20"), (SHOWN[2], "2", "10")]
    assert shop.views is not None and len(shop.views[0]) == 1
    assert "RetailRocket" in text


@pytest.mark.parametrize("time_format", ["%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M"])
@pytest.mark.parametrize("second", [False, True])
def test_online_retail(tmp_path, second, time_format):
    names = (
        ("Invoice", "Price", "Customer ID") if second else ("InvoiceNo", "UnitPrice", "CustomerID")
    )
    folder = write_csv(
        tmp_path / "retail",
        online_retail={
            names[0]: ["536365", "536366", "536367", "C53"],
            "StockCode": [*ITEMS, "a1"],
            "Description": ["x"] * 4,
            "Quantity": [6, 2, 1, -1],
            "InvoiceDate": [time.strftime(time_format) for time in (*TIMES, TIMES[0])],
            names[1]: [2.55, 1.0, 3.0, 2.0],
            names[2]: [*USERS, None],
            "Country": ["UK"] * 4,
        },
    )
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == SALES
    assert [sale[3] for sale in list_sales(shop)] == [2.55, 1.0, 3.0]
    assert "Online Retail" in text


def test_the_complete_journey(tmp_path):
    folder = tmp_path / "cj"
    folder.mkdir()
    log = pa.table(
        {
            "household_id": USERS, "store_id": ["1"] * 3, "basket_id": ["1"] * 3,
            "product_id": ITEMS, "quantity": [1, 1, 2], "sales_value": [1.5, 0.0, 2.0],
            "transaction_timestamp": pa.array(TIMES, pa.timestamp("us")),
        }
    )  # fmt: skip
    pq.write_table(log, folder / "transactions.parquet")
    products = {
        "product_id": ["a1", "a3"], "department": ["GROCERY", "MEAT"],
        "product_category": ["SOUP", "BEEF"], "product_type": ["CAN", "STEAK"],
    }  # fmt: skip
    pq.write_table(pa.table(products), folder / "products.parquet")
    pq.write_table(pa.table({"household_id": ["u1"], "age": ["19-24"]}), folder / "demo.parquet")
    text, config = suggest(folder, tmp_path)
    assert config.inputs.columns["articles"]["product_group_name"] == "product_category"
    assert config.inputs.files == {"articles": "products.parquet"}
    assert config.inputs.on_bad_rows == "reject"
    assert "Complete Journey" in text and "not read as customers" in text


@pytest.mark.parametrize("log", ["instacart", "dunnhumby"])
def test_logs_without_dates_come_with_a_query_that_gives_them(tmp_path, log):
    """And the folder that the query was run in has a suggestion that reads it."""
    duckdb = pytest.importorskip("duckdb")
    if log == "instacart":
        folder = write_csv(
            tmp_path / log,
            orders={
                "order_id": [1, 2, 3], "user_id": [7, 7, 8], "eval_set": ["prior"] * 3,
                "order_number": [1, 2, 1], "order_dow": [1, 2, 3],
                "days_since_prior_order": [None, 5.0, None],
            },
            order_products__prior={
                "order_id": [1, 2, 3], "product_id": [30, 31, 30],
                "add_to_cart_order": [1, 1, 1], "reordered": [0, 1, 0],
            },
        )  # fmt: skip
        expected = {("2017-01-01T00:00:00", "7", "30"), ("2017-01-06T00:00:00", "7", "31"),
                    ("2017-01-01T00:00:00", "8", "30")}  # fmt: skip
    else:
        folder = write_csv(
            tmp_path / log,
            transaction_data={
                "household_key": [7, 8], "BASKET_ID": [1, 2], "DAY": [1, 31],
                "PRODUCT_ID": [30, 31],
                "QUANTITY": [1, 1], "SALES_VALUE": [1.39, 0.0], "STORE_ID": [1, 1],
                "TRANS_TIME": [1631, 1640],
            },
        )  # fmt: skip
        expected = {("2014-01-02T00:00:00", "7", "30")}
    with pytest.raises(InputError, match="for example with DuckDB") as caught:
        suggest_config(folder)
    (query,) = [line for line in str(caught.value).splitlines() if line.startswith("COPY")]
    for name in [path.name for path in folder.iterdir()] + ["transactions.parquet"]:
        query = query.replace(f"'{name}'", f"'{folder / name}'")
    duckdb.sql(query)
    _, shop = load(folder, tmp_path)
    assert set(list_triples(shop)) == expected


# Unknown logs


@pytest.mark.parametrize(
    ("times", "setting"),
    [
        ([time.isoformat(sep=" ") for time in TIMES], {}),
        ([epoch(time) for time in TIMES], {"time_unit": "s"}),
        ([epoch(time, 10**6) for time in TIMES], {"time_unit": "us"}),
        ([time.strftime("%d.%m.%Y %H:%M") for time in TIMES], {"time_format": "%d.%m.%Y %H:%M"}),
    ],
)
def test_users_items_and_times_are_guessed(tmp_path, times, setting):
    folder = write_csv(
        tmp_path / "log",
        orders={"order_no": [1, 2, 3], "buyer": USERS, "sku": ITEMS, "bought_at": times},
    )
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == SALES
    config = suggest(folder, tmp_path)[1].inputs
    assert {name: getattr(config, name) for name in setting} == setting
    assert "No table of articles" in text and "No table of customers" in text


def test_tables_of_articles_customers_and_views_are_guessed(tmp_path):
    folder = write_csv(
        tmp_path / "log",
        purchases={
            "user_id": USERS, "product_id": ITEMS, "ts": TIMES, "unit_price": [1.0, 2.0, 3.0],
        },
        page_views={"user_id": ["u1"], "product_id": ["a1"], "ts": [TIMES[0]]},
        products={
            "product_id": ["a1", "a2", "a3", "a4"], "title": ["A", "B", "C", "D"],
            "category": ["x", "y", "x", "y"],
        },
        users={"user_id": ["u1", "u2"], "age": [30, 41]},
        notes={"text": ["nothing"]},
    )  # fmt: skip
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == SALES
    assert [sale[3] for sale in list_sales(shop)] == [1.0, 2.0, 3.0]
    assert decode(shop.item_columns["product_group"]) == ["x", "y", "x", "y"]
    assert decode(shop.item_columns["name"]) == ["A", "B", "C", "D"]
    assert shop.age.tolist() == [30, 41]
    assert shop.views is not None and len(shop.views[0]) == 1
    assert "Not read: notes.csv." in text


def test_events_and_ratings_are_guessed_with_a_doubt(tmp_path):
    folder = write_csv(
        tmp_path / "events",
        log={
            "user": USERS, "item": ITEMS, "time": TIMES,
            "event_type": ["click", "purchase", "like"],
        },
    )  # fmt: skip
    text, config = suggest(folder, tmp_path)
    assert config.inputs.events == {"click": "view", "like": "ignore", "purchase": "purchase"}
    assert "one that is not listed is a bad row" in " ".join(text.split("\n# "))
    assert list_triples(load(folder, tmp_path)[1]) == [SALES[1]]
    folder = write_csv(
        tmp_path / "ratings",
        log={"user": USERS, "item": ITEMS, "time": TIMES, "stars": [9, 3, 7]},
    )
    text, config = suggest(folder, tmp_path)
    assert config.inputs.min_rating == 7 and "ratings of 7 and more" in text
    assert list_triples(load(folder, tmp_path)[1]) == [SALES[0], SALES[2]]


def test_what_cannot_be_decided_is_asked(tmp_path):
    folder = write_csv(
        tmp_path / "log",
        sales={
            "customer": USERS, "user_group": ["1", "2", "1"], "item": ITEMS, "item_size": ["s"] * 3,
            "date": ["01/02/2020", "03/02/2020", "05/06/2020"], "action": ["a", "b", "c"],
        },
        things={"item": ["a1", "a3"], "weight": [1, 2]},
    )  # fmt: skip
    text, config = suggest(folder, tmp_path)
    flat = " ".join(line.lstrip("# ") for line in text.splitlines())
    for question in (
        "customer_id is customer, or user_group?",
        "article_id is item, or item_size?",
        "times are %m/%d/%Y or %d/%m/%Y?",
        "which values of action are purchases (inputs.events): found a, b, c.",
        "which column has the product groups, if any (product_group_name): found weight.",
    ):
        assert question in flat, text
    assert config.inputs.events == {}


def test_a_column_that_only_looks_like_prices_is_not_read(tmp_path):
    orders = {"user": USERS, "item": ITEMS, "time": TIMES, "price_band": ["low", "low", "high"]}
    folder = write_csv(tmp_path / "log", orders=orders)
    text, shop = load(folder, tmp_path)
    assert list_triples(shop) == SALES and not len(shop.prices)
    assert "prices are not read: price_band has no numbers." in text


def test_a_folder_without_a_log_is_refused_with_what_it_holds(tmp_path):
    folder = write_csv(tmp_path / "log", products={"sku": ["a"], "color": ["red"]})
    (folder / "log.zip").write_bytes(b"PK")
    (folder / "log.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="found no table with columns of users") as caught:
        suggest_config(folder)
    text = str(caught.value)
    assert "products.csv: sku, color" in text
    assert "log.zip: an archive: unpack it" in text and "save it as CSV" in text
    with pytest.raises(InputError, match="the folder does not exist"):
        suggest_config(tmp_path / "nowhere")


@pytest.mark.parametrize("line_break", ["\n", "\x85", "\u2028"])  # as YAML has them
def test_hostile_names_stay_within_their_comment(tmp_path, line_break):
    bad = f"x{line_break}inputs: {{min_rating: 3}}"
    orders = {"user": USERS, "item": ITEMS, f"time{line_break}of day": TIMES, bad: ["a"] * 3}
    folder = write_csv(tmp_path / "log", orders=orders, **{"more: [": {bad: ["1"]}})
    text, config = suggest(folder, tmp_path)
    assert config.inputs.min_rating is None
    assert all(line.isprintable() for line in text.split("\n"))
    assert list_triples(load(folder, tmp_path)[1]) == SALES


def test_the_command_prints_or_writes_and_replaces_nothing_unasked(tmp_path):
    folder = write_csv(tmp_path / "log", orders={"user": USERS, "item": ITEMS, "time": TIMES})
    printed = run("init", folder)
    assert printed.exit_code == 0 and printed.stdout == suggest_config(folder)
    file = tmp_path / "mine.yaml"
    assert run("init", folder, "--output", file).exit_code == 0
    assert file.read_text("utf-8") == printed.stdout
    assert run("init", folder, "--output", file).exit_code == 2
    assert run("init", tmp_path / "nowhere").exit_code == 2


def test_decimal_commas_are_read_as_such(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    log = {"user": USERS, "item": ITEMS, "time": SHOWN, "price": ["2,5", "3", "0,99"]}
    (folder / "orders.csv").write_text(to_csv(log, delimiter=";"), "utf-8")
    text, shop = load(folder, tmp_path)
    assert "decimal_point: ','" in text
    assert shop.prices.tolist() == [0.99, 2.5, 3.0]
