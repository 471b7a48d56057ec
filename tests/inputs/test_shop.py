"""Stage 1: tables become one shop, with a report of every row and file (D1, D3)."""

from __future__ import annotations

import hashlib
import threading
import time

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
    assert shop.report.rows["transactions"] == (3, 3, 0, 0, 0)


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
        "transactions.parquet: sales_channel_id is null or not in inputs.channels (2) in 2 rows; "
        "null is used there."
    ]


def test_null_categories_and_values_beyond_the_contract_are_reported(tmp_path):
    customers = CUSTOMERS | {
        "club_member_status": ["PRE-MADE", None],
        "fashion_news_frequency": ["None", "NONE"],
    }
    warnings = load_tables(write_tables(tmp_path, customers=customers)).report.warnings
    assert warnings == (
        "articles.parquet: product_group_name is null in 1 rows; "
        "null acts as a category of its own.",
        "customers.parquet: club_member_status is null in 1 rows; "
        "null acts as a category of its own.",
        "customers.parquet: club_member_status has 'PRE-MADE'; the contract lists "
        "'ACTIVE', 'PRE-CREATION', 'LEFT CLUB'. The values are used as they are.",
        "transactions.parquet: sales_channel_id is null or not in inputs.channels (1, 2) in 1 "
        "rows; null is used there.",
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
    """A build may accept less than 0.95; below 0.90 that is a critical alert (D2)."""
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
    """A file of a thousand bytes takes minutes, read byte by byte with pauses."""

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


def test_the_values_of_hm_are_no_surprise(tmp_path):
    customers = CUSTOMERS | {"club_member_status": ["PRE-CREATE", "ACTIVE"]}
    warnings = load_tables(write_tables(tmp_path, customers=customers)).report.warnings
    assert not [text for text in warnings if "the contract lists" in text]
