"""Stage 1: tables of many types and layouts become one shop (D1, D3)."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs import shop as inputs
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    decode,
    drop_column,
    list_sales,
    load_rejecting,
    load_tables,
    replace_column,
    to_list,
    write_tables,
)


def test_a_clean_shop_comes_coded_by_sorted_ids_in_row_order(tmp_path, backend):
    shop = load_tables(write_tables(tmp_path, views=VIEWS), backend)
    assert shop.item_ids.to_pylist() == ["a1", "a2", "a3"]
    assert shop.user_ids.to_pylist() == ["u1", "u2"]
    assert decode(shop.item_columns["product_group"]) == [None, "Shoes", "Bags"]
    assert shop.item_columns["product_group"].values == ("Bags", "Shoes")
    assert list_sales(shop) == [
        ("2020-01-02T00:00:00", "u2", "a1", 2.0, 2),
        ("2020-01-01T00:00:00", "u1", "a3", 1.5, 1),
        ("2020-01-01T00:00:00", "u2", "a1", 2.0, -1),
    ]
    assert shop.prices.tolist() == [1.5, 2.0]
    assert [to_list(array)[0] for array in shop.views[1:]] == [0, 1]
    assert [
        str(getattr(shop, name).dtype)
        for name in ("age", "time", "user", "item", "price", "channel")
    ] == [
        "int16",
        "int64",
        "int32",
        "int32",
        "int32",
        "int8",
    ]
    assert shop.report.quality_score == 1.0
    assert shop.report.rows["transactions"] == (3, 3, 0, 0)


def test_optional_columns_that_are_absent_are_null(tmp_path, backend):
    transactions = drop_column(TRANSACTIONS, "sales_channel_id")
    shop = load_tables(write_tables(tmp_path, transactions=transactions), backend)
    assert to_list(shop.age) == [-1, -1]
    assert to_list(shop.channel) == [-1, -1, -1]
    assert all(decode(column) == [None, None] for column in shop.user_columns.values())
    assert set(shop.item_columns) == {
        *("product_group", "color_group", "garment_group", "department"),
        *("index_group", "product_code", "section", "name"),
    }
    assert shop.item_columns["section"].values == ()
    assert shop.views is None
    assert not any("channel" in warning for warning in shop.report.warnings)


@pytest.mark.parametrize(
    "nothing", [pa.nulls(3), pa.array([None] * 3, pa.float64())], ids=["null", "float"]
)
def test_a_category_that_is_null_throughout_counts_as_absent_whatever_its_type(tmp_path, nothing):
    shop = load_tables(
        write_tables(tmp_path, articles=replace_column(ARTICLES, "department_name", nothing))
    )
    assert decode(shop.item_columns["department"]) == [None] * 3


def test_the_report_names_each_file_with_its_digest(tmp_path):
    folder = write_tables(tmp_path)
    files = load_tables(folder).report.files
    assert [file.file for file in files] == [
        "articles.parquet",
        "customers.parquet",
        "transactions.parquet",
    ]
    raw = (folder / "transactions.parquet").read_bytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    assert files[2] == ("transactions", "transactions.parquet", len(raw), 3, sha256)


def test_bad_ages_are_null_and_counted_and_fractions_are_floored(tmp_path, backend):
    ages = [None, 0.0, 35.9, 120.0, 120.5, -0.5, float("nan"), float("inf")]
    customers = {"customer_id": [f"u{k}" for k in range(8)], "age": ages}
    shop = load_tables(write_tables(tmp_path, customers=customers), backend)
    assert to_list(shop.age) == [-1, 0, 35, 120, -1, -1, -1, -1]
    assert (
        "customers.parquet: age is outside 0..120 in 3 rows; null is used there."
        in shop.report.warnings
    )
    customers["age"] = [None, "0", " 35.9", "1.2e2", "121", "-1", "young", ""]
    assert to_list(load_tables(write_tables(tmp_path, customers=customers), backend).age) == [
        -1,
        0,
        35,
        120,
        -1,
        -1,
        -1,
        -1,
    ]


def test_unknown_channels_are_null_and_counted(tmp_path, backend):
    shop = load_tables(
        write_tables(
            tmp_path, transactions=replace_column(TRANSACTIONS, "sales_channel_id", [2, 7, None])
        ),
        backend,
        channels={2: "online"},
    )
    assert to_list(shop.channel) == [2, -1, -1]
    assert [text for text in shop.report.warnings if "sales_channel_id" in text] == [
        "transactions.parquet: sales_channel_id is null or not in inputs.channels (2) in 2 rows; null is used there."
    ]


def test_null_categories_and_values_beyond_the_contract_are_reported(tmp_path):
    customers = CUSTOMERS | {
        "club_member_status": ["PRE-CREATE", None],
        "fashion_news_frequency": ["None", "NONE"],
    }
    warnings = load_tables(write_tables(tmp_path, customers=customers)).report.warnings
    assert warnings == (
        "articles.parquet: product_group_name is null in 1 rows; null acts as a category of its own.",
        "customers.parquet: club_member_status is null in 1 rows; null acts as a category of its own.",
        "customers.parquet: club_member_status has 'PRE-CREATE'; the contract lists "
        "'ACTIVE', 'PRE-CREATION', 'LEFT CLUB'. The values are used as they are.",
        "transactions.parquet: sales_channel_id is null or not in inputs.channels (1, 2) in 1 rows; null is used there.",
    )


def test_a_null_in_a_column_that_is_no_category_is_no_warning(tmp_path):
    named = {
        "product_code": [1, None, 3],
        "section_name": ["x", None, "z"],
        "prod_name": ["x", None, "z"],
    }
    report = load_tables(
        write_tables(tmp_path, articles=ARTICLES | named | {"department_name": ["x", None, "z"]})
    ).report
    assert [text.split()[1] for text in report.warnings if "category of its own" in text] == [
        "product_group_name",
        "department_name",
    ]


def test_only_a_quality_score_below_nine_tenths_is_an_alert(tmp_path, backend):
    """D2: above 0.95 by default; a build that accepts less goes on, and below 0.90 that is critical."""
    customers = {"customer_id": [f"u{n}" for n in range(95)]}

    def alerts(n_bad):  # of 100 rows: 2 articles, 95 customers, 3 sales
        articles = {"article_id": ["a1", "a3"], "product_group_name": ["x", "y"]}
        ids = [None] * n_bad + customers["customer_id"][n_bad:]
        list_sales = {**TRANSACTIONS, "customer_id": ["u90", "u91", "u92"]}
        folder = write_tables(
            tmp_path / str(n_bad),
            articles=articles,
            customers={"customer_id": ids},
            transactions=list_sales,
        )
        return load_tables(
            folder, backend, on_bad_rows="reject", min_quality_score=0.5
        ).report.alerts

    assert alerts(0) == alerts(10) == ()
    assert alerts(11) == (
        "inputs: found a data_quality_score of 0.890000 (11 of 100 rows are bad); "
        "expected at least 0.9.",
    )


def test_an_error_does_not_wait_for_the_digests_of_large_files(tmp_path, monkeypatch):
    """A file of a thousand bytes, read byte by byte with a pause after each, would take minutes."""

    class Slow:
        def update(self, chunk):
            time.sleep(0.1)

        def hexdigest(self):
            return "0"

    monkeypatch.setattr(inputs.hashlib, "sha256", Slow)
    monkeypatch.setattr(inputs, "_HASH_BYTES", 1)
    folder = write_tables(tmp_path, transactions=replace_column(TRANSACTIONS, "price", [-1.0] * 3))
    began = time.perf_counter()
    with pytest.raises(InputError, match="bad_price"):
        load_tables(folder)
    assert time.perf_counter() - began < 10
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sha256")]


def test_a_column_in_other_letter_case_is_pointed_out(tmp_path):
    shop = load_tables(write_tables(tmp_path, customers=CUSTOMERS | {"Age": [30, 40]}))
    assert to_list(shop.age) == [-1, -1]
    assert any(
        "column 'Age' is not read, only 'age' would be; inputs.columns" in warning
        for warning in shop.report.warnings
    )


def test_partitioned_folders_give_their_columns_to_the_rows(tmp_path, backend):
    """DC-001's layout: articles by product group, transactions by year and month."""
    articles = pa.table(
        replace_column(ARTICLES, "product_group_name", ["Garment Upper body", None, "A/B=C%"])
    )
    transactions = pa.table(TRANSACTIONS | {"year": [2020] * 3, "month": [2, 1, 1]})
    folder = write_tables(tmp_path, articles=None, transactions=None)
    pq.write_to_dataset(
        articles, folder / "articles.parquet", partition_cols=["product_group_name"]
    )
    pq.write_to_dataset(transactions, folder / "transactions", partition_cols=["year", "month"])
    (folder / "articles.parquet" / "_SUCCESS").touch()
    (folder / "transactions" / "_temporary").mkdir()
    (folder / "transactions" / "_temporary" / "half.parquet").write_text("torn")
    shop = load_tables(folder, backend)
    assert decode(shop.item_columns["product_group"]) == [None, "Garment Upper body", "A/B=C%"]
    assert sorted(list_sales(shop)) == sorted(
        list_sales(load_tables(write_tables(tmp_path / "plain"), backend))
    )
    assert len(shop.report.files) == 3 + 1 + 2
    assert {file.file.split("/")[0] for file in shop.report.files} == {
        "articles.parquet",
        "customers.parquet",
        "transactions",
    }


def test_numbers_and_times_may_come_from_the_path(tmp_path, backend):
    folder = write_tables(tmp_path, transactions=None)
    for day, channel in (
        ("2020-01-01", "1"),
        ("2020-01-02%2012%3A00", "__HIVE_DEFAULT_PARTITION__"),
        ("soon", "2"),
    ):
        part = folder / "transactions" / f"t_dat={day}" / f"sales_channel_id={channel}"
        part.mkdir(parents=True)
        pq.write_table(
            pa.table({"customer_id": ["u1"], "article_id": ["a1"], "price": [1.0]}),
            part / "0.parquet",
        )
    shop, rejects = load_rejecting(folder, backend)
    assert list_sales(shop) == [
        ("2020-01-01T00:00:00", "u1", "a1", 1.0, 1),
        ("2020-01-02T12:00:00", "u1", "a1", 1.0, -1),
    ]
    assert rejects == [("transactions", 2, "missing_time")]
    row = json.loads(pq.read_table(folder / "rejects.parquet")["row"][0].as_py())
    assert row["t_dat"] == "soon"


def test_columns_may_have_other_names(tmp_path, backend):
    transactions = {
        "order_date": TRANSACTIONS["t_dat"],
        "household": TRANSACTIONS["customer_id"],
        "sku": TRANSACTIONS["article_id"],
        "amount": TRANSACTIONS["price"],
        "store": TRANSACTIONS["sales_channel_id"],
    }
    names = {
        "t_dat": "order_date",
        "customer_id": "household",
        "article_id": "sku",
        "price": "amount",
        "sales_channel_id": "store",
    }
    articles = {"article_id": ARTICLES["article_id"], "kind": ["Shoes", None, "Bags"]}
    both = {"product_group_name": "kind", "department_name": "kind"}
    folder = write_tables(tmp_path / "theirs", transactions=transactions, articles=articles)
    shop = load_tables(folder, backend, columns={"transactions": names, "articles": both})
    assert list_sales(shop) == list_sales(load_tables(write_tables(tmp_path / "ours"), backend))
    assert (
        decode(shop.item_columns["department"])
        == decode(shop.item_columns["product_group"])
        == [None, "Shoes", "Bags"]
    )


def test_integer_ids_become_decimal_text(tmp_path, backend):
    articles = {
        "article_id": pa.array([10, 9, 108775015], pa.int32()),
        "product_group_name": ["x", "y", "z"],
        "product_code": [1, 1, 108775],
    }
    transactions = TRANSACTIONS | {"article_id": [9, 10, 108775015], "customer_id": [7, 7, 8]}
    views = VIEWS | {
        "article_id": pa.array([10], pa.uint64()),
        "customer_id": pa.array([8], pa.int8()),
    }
    tables = {
        "articles": articles,
        "customers": {"customer_id": [8, 7]},
        "transactions": transactions,
        "views": views,
    }
    shop = load_tables(write_tables(tmp_path, **tables), backend)
    assert shop.item_ids.to_pylist() == ["10", "108775015", "9"]  # sorted as text
    assert shop.user_ids.to_pylist() == ["7", "8"]
    assert decode(shop.item_columns["product_group"]) == ["x", "z", "y"]
    assert decode(shop.item_columns["product_code"]) == ["1", "108775", "1"]
    assert [sale[1:3] for sale in list_sales(shop)] == [("7", "9"), ("7", "10"), ("8", "108775015")]
    assert [to_list(array)[0] for array in shop.views[1:]] == [1, 0]

    padded = load_tables(tmp_path, backend, article_id_width=10)
    assert padded.item_ids.to_pylist() == ["0000000009", "0000000010", "0108775015"]
    assert padded.user_ids.to_pylist() == ["7", "8"]
    assert padded.item_columns["product_code"].values == ("1", "108775")
    assert [sale[2] for sale in list_sales(padded)] == ["0000000009", "0000000010", "0108775015"]


def test_lost_leading_zeros_are_restored_by_width_and_hinted_at_without(tmp_path):
    articles = {"article_id": ["0108775015"], "product_group_name": ["x"]}
    folder = write_tables(
        tmp_path,
        articles=articles,
        transactions=replace_column(TRANSACTIONS, "article_id", [108775015] * 3),
    )
    with pytest.raises(
        InputError,
        match="article_id is text in articles.parquet and integer in transactions.parquet.*article_id_width",
    ):
        load_tables(folder)
    assert load_tables(folder, article_id_width=10).item_ids.to_pylist() == ["0108775015"]


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-02", "2020-01-01T00:00:00Z", "2020-01-01 00:00"],
        pa.array(TRANSACTIONS["t_dat"], pa.date64()),
        pa.array([1577923200, 1577836800, 1577836800], pa.timestamp("s")),
        pa.array(
            [1577923200000, 1577836800000, 1577836800000], pa.timestamp("ms", "America/New_York")
        ),
        pa.array(["2020-01-02", "2020-01-01", "2020-01-01"]).dictionary_encode(),
    ],
    ids=["iso", "date64", "s", "tz", "dictionary"],
)
def test_times_in_every_dress(tmp_path, backend, times):
    shop = load_tables(
        write_tables(tmp_path, transactions=replace_column(TRANSACTIONS, "t_dat", times)), backend
    )
    assert [sale[0] for sale in list_sales(shop)] == [
        "2020-01-02T00:00:00",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00:00",
    ]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (pa.array([2, 1, 2], pa.int64()), [1.0, 2.0]),
        (
            pa.array([Decimal("81427.9383"), Decimal("0.1000"), Decimal("0.1000")]),
            [0.1, 81427.9383],
        ),
        (pa.array([0.1, 0.25, 0.1], pa.float32()), [float(np.float32(0.1)), 0.25]),
    ],
    ids=["int", "decimal", "float32"],
)
def test_prices_in_every_dress(tmp_path, backend, prices, expected):
    shop = load_tables(
        write_tables(tmp_path, transactions=replace_column(TRANSACTIONS, "price", prices)), backend
    )
    assert shop.prices.tolist() == expected
    assert shop.prices.dtype == np.float64


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_ids_in_every_text_type(tmp_path, backend, kind):
    tables = {
        name: pa.table(
            {
                column: pa.array(values, kind) if column.endswith("_id") and name != "x" else values
                for column, values in table.items()
            }
        )
        for name, table in {
            "articles": ARTICLES,
            "customers": CUSTOMERS,
            "transactions": drop_column(TRANSACTIONS, "sales_channel_id"),
        }.items()
    }
    shop = load_tables(write_tables(tmp_path, **tables), backend)
    assert [sale[1:3] for sale in list_sales(shop)] == [("u2", "a1"), ("u1", "a3"), ("u2", "a1")]


def test_a_log_without_prices(tmp_path, backend):
    shop = load_tables(
        write_tables(tmp_path, transactions=drop_column(TRANSACTIONS, "price")),
        backend,
        price="none",
    )
    assert shop.prices.tolist() == []
    assert to_list(shop.price) == [0, 0, 0]
    assert (
        load_tables(write_tables(tmp_path / "priced"), backend, price="none").prices.tolist() == []
    )


def test_index_groups_are_derived_from_index_names(tmp_path, backend):
    articles = ARTICLES | {
        "index_name": ["Lingeries/Tights", "Children Accessories, Swimwear", None]
    }
    shop = load_tables(write_tables(tmp_path, articles=articles), backend)
    assert decode(shop.item_columns["index_group"]) == ["Baby/Children", "Ladieswear", None]
    articles |= {"index_group_name": ["Divided", "Sport", "Sport"]}
    assert decode(
        load_tables(write_tables(tmp_path, articles=articles), backend).item_columns["index_group"]
    ) == [
        "Sport",
        "Divided",
        "Sport",
    ]


def test_indices_of_one_group_share_a_code(tmp_path, backend):
    shop = load_tables(
        write_tables(
            tmp_path,
            articles=ARTICLES | {"index_name": ["Ladies Accessories", "Ladieswear", "Home"]},
        ),
        backend,
    )
    assert decode(shop.item_columns["index_group"]) == ["Ladieswear", "Ladieswear", "Home"]


def test_views_are_left_alone_where_not_wanted(tmp_path):
    assert load_tables(write_tables(tmp_path, views={"nonsense": [1]}), views=False).views is None
    assert (
        to_list(load_tables(write_tables(tmp_path, views=pa.table(VIEWS).slice(0, 0))).views[0])
        == []
    )


def test_aggregates_over_the_whole_log_are_never_opened(tmp_path):
    leak = {
        "total_purchases": pa.array([[1], [2], [3]]),
        "popularity_score": pa.array([{"x": 1}] * 3),
    }
    assert len(load_tables(write_tables(tmp_path, articles=ARTICLES | leak)).item_ids) == 3


def test_online_retail_is_clean(online_retail, backend):
    shop = load_tables(online_retail, backend)
    table = pq.read_table(
        online_retail / "transactions.parquet",
        columns=["customer_id", "article_id", "price", "t_dat"],
    )
    assert (shop.n_users, shop.n_items, len(to_list(shop.time))) == (4334, 3659, 396_337)
    assert shop.report.quality_score == 1.0
    assert [shop.user_ids[code].as_py() for code in to_list(shop.user)[:1000]] == table[
        "customer_id"
    ].to_pylist()[:1000]
    assert [shop.item_ids[code].as_py() for code in to_list(shop.item)[-1000:]] == table[
        "article_id"
    ].to_pylist()[-1000:]
    assert np.array_equal(shop.prices[to_list(shop.price)], table["price"].to_numpy())
    assert np.array_equal(to_list(shop.time), table["t_dat"].to_numpy().astype(np.int64))
