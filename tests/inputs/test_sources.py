"""Tables that cannot be used are refused with what was found, expected, and a remedy (D1)."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.inputs import sources
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    decode,
    drop_column,
    load_tables,
    write_tables,
)

UNUSABLE = {
    "no such folder": (
        lambda folder: folder.rename(folder.with_name("moved")),
        r"shop: the folder does not exist\.\nName the folder",
    ),
    "missing table": (
        lambda folder: (folder / "transactions.parquet").unlink(),
        r"table transactions is missing; found articles.parquet, customers.parquet; "
        r"expected transactions.parquet or transactions.csv \(a file.*\n"
        "Put the table of transactions there",
    ),
    "missing table under another name": (
        lambda folder: (folder / "transactions.parquet").rename(folder / "sales.parquet"),
        r"found articles.parquet, customers.parquet, sales.parquet; (?s:.*)If one of them holds "
        r"transactions, name it: inputs.files: \{transactions: NAME\}; 'gpu-dcgen init \S+' "
        "suggests a configuration",
    ),
    "two tables of one name": (
        lambda folder: (folder / "articles").mkdir(),
        "found both articles.parquet and articles/; expected one of them",
    ),
    "folder without files": (
        lambda folder: ((folder / "articles.parquet").unlink(), (folder / "articles").mkdir()),
        "articles: the folder has no .parquet files",
    ),
    "no Parquet": (
        lambda folder: (folder / "articles.parquet").write_text("article_id,x\n"),
        "articles.parquet: cannot be read as Parquet",
    ),
    "no bytes": (
        lambda folder: (folder / "articles.parquet").write_bytes(b""),
        "articles.parquet: cannot be read as Parquet",
    ),
}


@pytest.mark.parametrize(("damage", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_files_that_cannot_be_used(tmp_path, damage, message):
    folder = write_tables(tmp_path / "shop")
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_tables(folder)


def test_torn_pages_are_named(tmp_path):
    path = write_tables(tmp_path) / "customers.parquet"
    pq.write_table(
        pa.table({"customer_id": [f"u{k}" for k in range(5000)]}),
        path,
        compression="none",
        use_dictionary=False,
    )
    raw = bytearray(path.read_bytes())
    raw[4:60] = b"\xff" * 56
    path.write_bytes(raw)
    with pytest.raises(InputError, match="customers.parquet: cannot be read as Parquet"):
        load_tables(tmp_path)


@pytest.mark.parametrize("table", ["articles", "customers", "transactions"])
def test_a_table_without_rows_is_an_error(tmp_path, table):
    empty = pa.table(
        {"articles": ARTICLES, "customers": CUSTOMERS, "transactions": TRANSACTIONS}[table]
    ).slice(0, 0)
    with pytest.raises(InputError, match=f"{table}.parquet: the table has no rows"):
        load_tables(write_tables(tmp_path, **{table: empty}))


def test_more_rows_than_are_numbered_are_refused_unread(tmp_path, monkeypatch):
    """Articles and customers have codes of 32 bits; a log may have any number of rows."""
    most = max(len(next(iter(table.values()))) for table in (ARTICLES, CUSTOMERS))
    assert len(TRANSACTIONS["price"]) > most - 1
    monkeypatch.setattr(sources, "MAX_ENTITIES", most)
    load_tables(write_tables(tmp_path))
    monkeypatch.setattr(sources, "MAX_ENTITIES", most - 1)
    with pytest.raises(InputError, match=f"found {most} rows; expected at most {most - 1}"):
        load_tables(tmp_path)


def test_of_several_empty_tables_each_is_named(tmp_path):
    tables = {"articles": ARTICLES, "customers": CUSTOMERS, "transactions": TRANSACTIONS}
    empty = {name: pa.table(table).slice(0, 0) for name, table in tables.items()}
    with pytest.raises(
        InputError, match=r"(?s)found 3 problems:\n1. articles.*2. customers.*3. transactions"
    ):
        load_tables(write_tables(tmp_path, **empty))


def test_all_problems_of_all_tables_are_in_one_message(tmp_path):
    folder = write_tables(
        tmp_path,
        articles={"article_id": [1.5], "product_group_name": [True]},
        customers={"id": ["u1"]},
        transactions=drop_column(TRANSACTIONS, "price") | {"t_dat": [1, 2, 3], "Price": [1] * 3},
    )
    (folder / "views").mkdir()
    (folder / "views" / "a").write_text("no Parquet")
    (folder / "views" / "b").symlink_to("nowhere")
    with pytest.raises(InputError) as caught:
        load_tables(folder)
    text = str(caught.value)
    for words in (
        "found 6 problems:\n1. articles.parquet: column 'article_id' is double",
        "2. articles.parquet: column 'product_group_name' is bool",
        "3. transactions.parquet: column 't_dat' is int64",
        "views/a: cannot be read as Parquet",
        "views/b: is a link to nowhere",
        "customers.parquet: column 'customer_id' is missing; found id",
        "transactions.parquet: column 'price' is missing",
        "inputs.columns: {customers: {customer_id: ITS_NAME}, transactions: {price: Price}}",
    ):
        assert words in text, text


def test_a_folder_that_may_not_be_read_is_an_input_error(tmp_path, monkeypatch):
    folder = write_tables(tmp_path, articles=None)
    (folder / "articles").mkdir()

    def refuse(path):
        if str(path).endswith("articles"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(
        InputError, match=r"articles: cannot be read \(Permission denied\)\.\nMake it readable"
    ):
        load_tables(folder)


WRONG_COLUMNS = {
    "float ids": (
        "customers",
        {"customer_id": [1.0, 2.0]},
        "column 'customer_id' is double in customers.parquet; expected integer or text.*dtype=str",
    ),
    "nested": (
        "articles",
        ARTICLES | {"prod_name": [["x"]] * 3},
        "column 'prod_name' is a nested type, list",
    ),
    "nested id": (
        "customers",
        {"customer_id": [{"id": "x"}]},
        "column 'customer_id' is a nested type, struct",
    ),
    "epoch numbers": (
        "transactions",
        TRANSACTIONS | {"t_dat": [1, 2, 3]},
        "'t_dat' is int64.*expected date or text or timestamp.*has no unit",
    ),
    "text prices": (
        "transactions",
        TRANSACTIONS | {"price": ["1", "2", "3"]},
        "'price' is string.*expected decimal or float or integer",
    ),
    "truth for age": ("customers", CUSTOMERS | {"age": [True, False]}, "'age' is bool"),
    "twice": (
        "customers",
        pa.Table.from_arrays([pa.array(["u1"])] * 2, ["customer_id"] * 2),
        "column 'customer_id' occurs 2 times in customers.parquet; expected one",
    ),
    "twice in other case": (
        "customers",
        {"customer_id": ["u1"], "Customer_ID": ["u1"]},
        "'customer_id' and 'Customer_ID'.*differ in case only",
    ),
}


@pytest.mark.parametrize(("table", "columns", "message"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_columns_of_the_wrong_kind(tmp_path, table, columns, message):
    with pytest.raises(InputError, match=f"(?s){table}.parquet: .*{message}"):
        load_tables(write_tables(tmp_path, **{table: columns}))


def test_a_missing_column_is_named_with_what_is_there_and_the_remedy(tmp_path):
    transactions = {
        "Price_SEK" if name == "price" else name: values for name, values in TRANSACTIONS.items()
    }
    with pytest.raises(InputError) as caught:
        load_tables(write_tables(tmp_path, transactions=transactions))
    assert str(caught.value) == (
        "transactions.parquet: column 'price' is missing; "
        "found t_dat, customer_id, article_id, Price_SEK, sales_channel_id (close: Price_SEK).\n"
        "If it has another name, map it in the configuration: "
        "inputs.columns: {transactions: {price: Price_SEK}}\n"
        "If the log has no prices, build with inputs.price: none."
    )


def test_a_mapped_column_must_be_there_even_if_optional(tmp_path):
    with pytest.raises(InputError, match="column 'years' is missing"):
        load_tables(write_tables(tmp_path), columns={"customers": {"age": "years"}})
    with pytest.raises(
        ConfigError,
        match=r"found 'agee' in customers; expected one of customer_id, age, club_member_status, "
        r"fashion_news_frequency\.\nWrite {customers: {OUR_NAME: ITS_NAME}}",
    ):
        load_tables(write_tables(tmp_path), columns={"customers": {"agee": "years"}})


def two_files(folder: Path, first: dict, second: dict) -> Path:
    write_tables(folder, articles=None)
    (folder / "articles").mkdir()
    for number, table in enumerate((first, second)):
        pq.write_table(pa.table(table), folder / "articles" / f"{number}.parquet")
    return folder


def test_files_of_one_table_must_agree(tmp_path):
    more = {"article_id": ["a4"], "product_group_name": ["x"]}
    with pytest.raises(
        InputError, match="column 'department_name' is in 1 of 2 files, not in 0.parquet"
    ):
        load_tables(two_files(tmp_path / "absent", ARTICLES, more | {"department_name": ["x"]}))
    with pytest.raises(
        InputError,
        match="changes its type from file to file: integer in 1.parquet, text in 0.parquet",
    ):
        load_tables(two_files(tmp_path / "types", ARTICLES, more | {"article_id": [4]}))


def test_files_of_one_table_may_differ_in_what_does_not_matter(tmp_path, backend):
    more = {"article_id": pa.array(["a4"]).dictionary_encode(), "product_group_name": pa.nulls(1)}
    shop = load_tables(two_files(tmp_path, ARTICLES, more), backend)
    assert decode(shop.item_columns["product_group"]) == [None, "Shoes", "Bags", None]


def test_text_that_is_not_utf8_is_an_error(tmp_path):
    latin = pa.array([b"r\xf6d", b"x", b"y"]).view(pa.string())
    with pytest.raises(
        InputError,
        match="articles.parquet: column 'colour_group_name' holds text that is not UTF-8",
    ):
        load_tables(write_tables(tmp_path, articles=ARTICLES | {"colour_group_name": latin}))
