"""Columns of many types, under other names and from paths, become the same shop (D1)."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    can_write_views,
    decode,
    drop_column,
    list_sales,
    load_rejecting,
    load_tables,
    replace_column,
    to_list,
    write_tables,
)


def test_a_column_in_other_letter_case_is_pointed_out(tmp_path):
    shop = load_tables(write_tables(tmp_path, customers=CUSTOMERS | {"Age": [30, 40]}))
    assert to_list(shop.age) == [-1, -1]
    assert any(
        "column 'Age' is not read, only 'age' would be; this reads it: inputs.columns" in warning
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
        match="Numbers lose leading zeros; this restores them: inputs.article_id_width: 10",
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
def test_times_of_every_type(tmp_path, backend, times):
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
def test_prices_of_every_type(tmp_path, backend, prices, expected):
    shop = load_tables(
        write_tables(tmp_path, transactions=replace_column(TRANSACTIONS, "price", prices)), backend
    )
    assert shop.prices.tolist() == expected
    assert shop.prices.dtype == np.float64


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_ids_in_every_text_type(tmp_path, backend, kind):
    if kind == pa.string_view() and not can_write_views():
        pytest.skip(f"pyarrow {pa.__version__} does not write string views")
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
