"""CSV files are read as text, block by block, and give the shop that Parquet files give (D1)."""

from __future__ import annotations

import hashlib
import random

import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs import csv_files
from tests.support.csv_tables import (
    SHOP,
    convert_folder,
    describe,
    load_folder,
    pack,
    to_csv,
    write_csv_tables,
)
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    decode,
    list_sales,
    load_tables,
    replace_column,
    to_list,
    write_tables,
)
from tests.support.shops import random_shop, write_shop

FORMATS = (".csv", ".tsv", ".csv.gz", ".csv.zst", ".tsv.gz", ".CSV")


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_gives_the_shop_of_the_parquet_files(tmp_path, backend, suffix):
    expected = load_tables(write_tables(tmp_path / "parquet"), backend)
    shop = load_folder(write_csv_tables(tmp_path / "shop", suffix), backend)
    assert describe(shop) == describe(expected)


def test_many_blocks_give_the_shop_of_the_parquet_files(tmp_path, monkeypatch):
    tables = random_shop(3, n_users=40, n_items=30, n_rows=900)
    parquet = write_shop(tables, tmp_path / "parquet")
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1024)
    folder = convert_folder(parquet, tmp_path / "csv")
    options = {"on_bad_rows": "reject", "min_quality_score": 0.0}
    shop = load_folder(folder, rejects=tmp_path / "a", **options)
    file = folder.with_name("csv.workplace") / "tables" / "transactions_train.csv"
    assert pq.ParquetFile(file).num_row_groups > 20
    expected = load_tables(parquet, rejects=tmp_path / "b", **options)
    assert describe(shop) == describe(expected)


def test_a_folder_of_csv_files_with_partitions_is_one_table(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    lines = to_csv({name: TRANSACTIONS[name] for name in TRANSACTIONS if name != "t_dat"})
    head, first, second, third = lines.splitlines(keepends=True)
    for day, rows in (("2020-01-01", second + third), ("2020-01-02", first)):
        part = folder / "transactions" / f"t_dat={day}"
        part.mkdir(parents=True)
        (part / "part-0.csv").write_text(head + rows)
    (folder / "transactions" / "_SUCCESS").touch()
    shop = load_folder(folder)
    assert sorted(map(str, list_sales(shop))) == sorted(
        map(str, list_sales(load_tables(write_tables(tmp_path / "parquet"))))
    )
    assert any("1 hidden file (_SUCCESS)" in text for text in shop.report.warnings)
    assert [file.file for file in shop.report.files if file.table == "transactions"] == [
        "transactions/t_dat=2020-01-01/part-0.csv",
        "transactions/t_dat=2020-01-02/part-0.csv",
    ]


def test_parquet_tables_stand_beside_csv_tables(tmp_path):
    folder = write_tables(tmp_path / "shop", transactions=None)
    (folder / "transactions_train.csv").write_text(to_csv(TRANSACTIONS))
    shop = load_folder(folder)
    assert len(list_sales(shop)) == 3
    assert [file.file for file in shop.report.files] == [
        "articles.parquet",
        "customers.parquet",
        "transactions_train.csv",
    ]


def test_files_are_recorded_with_the_bytes_that_were_read(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", ".csv.gz")
    for file in load_folder(folder).report.files:
        data = (folder / file.file).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_ids_keep_their_leading_zeros(tmp_path):
    ids = ["0108775015", "0000000007", "7"]
    sales = replace_column(TRANSACTIONS, "article_id", ids)
    shop = load_folder(
        write_csv_tables(
            tmp_path / "shop",
            articles=replace_column(ARTICLES, "article_id", ids),
            transactions=sales,
        )
    )
    assert shop.item_ids.to_pylist() == sorted(ids)


def test_quotes_hold_delimiters_line_breaks_and_quotes(tmp_path, monkeypatch):
    names = ['a "wide", red\nskirt', "b\r\nc", "plain"]
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 64)
    articles = {**ARTICLES, "prod_name": names, "detail_desc": ['x,"\n'] * 3}
    shop = load_folder(write_csv_tables(tmp_path / "shop", articles=articles))
    by_id = dict(zip(ARTICLES["article_id"], names, strict=True))
    assert decode(shop.item_columns["name"]) == [by_id[item] for item in sorted(by_id)]


WRITTEN = {
    "semicolons and decimal commas": (
        {"delimiter": ";"},
        {"csv": {"decimal_point": ","}},
        lambda text: text.replace("2.0", "2,0").replace("1.5", "1,5"),
        "utf-8",
    ),
    "vertical bars": ({"delimiter": "|"}, {}, None, "utf-8"),
    "a byte-order mark": ({}, {}, None, "utf-8-sig"),
    "utf-16": ({}, {"csv": {"encoding": "utf-16"}}, None, "utf-16"),
    "cp1252": ({}, {"csv": {"encoding": "cp1252"}}, None, "cp1252"),
    "another quote": ({"quotechar": "'"}, {"csv": {"quote": "'"}}, None, "utf-8"),
    "escapes": (
        {"escapechar": "\\", "doublequote": False},
        {"csv": {"escape": "\\"}},
        None,
        "utf-8",
    ),
    "a delimiter that is stated": ({"delimiter": "~"}, {"csv": {"delimiter": "~"}}, None, "utf-8"),
    "Windows line ends": ({}, {}, lambda text: text.replace("\n", "\r\n"), "utf-8"),
    "no line end at the end": ({}, {}, lambda text: text.rstrip("\n"), "utf-8"),
}


@pytest.mark.parametrize(("dialect", "inputs", "edit", "encoding"), WRITTEN.values(), ids=WRITTEN)
def test_files_that_are_written_otherwise(tmp_path, dialect, inputs, edit, encoding):
    group = "Grün" + dialect.get("delimiter", ",") + dialect.get("quotechar", '"') + " é"
    articles = replace_column(ARTICLES, "product_group_name", [group, None, "Bags"])
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, table in (SHOP | {"articles": articles}).items():
        text = to_csv(table, **dialect)
        text = edit(text) if edit and name == "transactions" else text
        (folder / f"{name}.csv").write_bytes(pack(text, ".csv", encoding))
    expected = load_tables(write_tables(tmp_path / "parquet", articles=articles))
    assert describe(load_folder(folder, **inputs)) == describe(expected)


def test_only_the_null_values_that_are_stated_are_null(tmp_path):
    articles = replace_column(ARTICLES, "product_group_name", ["None", "\\N", "NA"])
    folder = write_csv_tables(tmp_path / "shop", articles=articles)
    groups = decode(load_folder(folder).item_columns["product_group"])
    assert groups == ["\\N", "None", "NA"]
    groups = decode(
        load_folder(folder, csv={"null_values": ["", "\\N"]}).item_columns["product_group"]
    )
    assert groups == [None, "None", "NA"]


def test_numbers_are_read_as_python_reads_them(tmp_path):
    rng = random.Random(5)
    texts = [repr(rng.random()) for _ in range(300)] + ["1e-3", "+2.5", " 7 ", ".5", "3."]
    n = len(texts)
    sales = {
        "t_dat": ["2020-01-01"] * n,
        "customer_id": ["u1"] * n,
        "article_id": ["a1"] * n,
        "price": texts,
    }
    shop = load_folder(write_csv_tables(tmp_path / "shop", transactions=sales))
    assert [row[3] for row in list_sales(shop)] == [float(text) for text in texts]


def test_tables_with_names_of_their_own(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    (folder / "ratings.csv").write_text(to_csv(TRANSACTIONS))
    (folder / "transactions.csv").write_text("another,table\n")
    shop = load_folder(folder, files={"transactions": "ratings.csv"})
    assert len(list_sales(shop)) == 3


HEAD = "t_dat,customer_id,article_id,price\n"
GOOD = "2020-01-01,u1,a1,2.0\n"
FAULTS = {
    "too few fields": (
        HEAD + GOOD + "2020-01-01,u1,a1\n",
        r"transactions.csv: line 3: found 3 fields, beginning with '2020-01-01'; expected 4, as in "
        r"the first line \(t_dat, customer_id, article_id, price\)\.\nFix the file, or say how",
    ),
    "too many fields, after a line break in quotes": (
        HEAD + '2020-01-01,u1,"a\n1",2.0\n' + GOOD + "2020-01-01,u1,a1,2,0\n",
        "transactions.csv: line 5: found 5 fields",
    ),
    "a quote that is not closed": (
        HEAD + GOOD + '2020-01-01,u1,"a1,2.0\n' + GOOD * 40,
        "transactions.csv: line 3: .*; expected 4|is a quote not closed",
    ),
    "bytes of another encoding": (
        (HEAD + GOOD).encode() + "2020-01-01,ü1,a1,2.0\n".encode("cp1252"),
        r"transactions.csv: line 3: found the bytes b'\\xfc'; expected utf-8.\n"
        "Write the file as UTF-8, or state its encoding",
    ),
    "a price that is no number": (
        HEAD + GOOD + "2020-01-01,u1,a1,2 EUR\n" + "2020-01-01,u1,a1,\n",
        r'transactions.csv: 2 missing_price: .*\(first: line 3, price "2 EUR"\)',
    ),
    "a decimal comma": (
        HEAD.replace(",", ";") + "2020-01-01;u1;a1;2,5\n",
        r'\(first: line 2, price "2,5"\)(.|\n)*inputs.csv.decimal_point: ","',
    ),
    "decimal commas in few rows, and whole numbers": (
        HEAD.replace(",", ";") + "2020-01-01;u1;a1;2\n" * 5 + "2020-01-01;u1;a1;2,5\n",
        r'\(first: line 7, price "2,5"\)(.|\n)*inputs.csv.decimal_point: ","',
    ),
    "a time that is none": (
        HEAD + "01.02.2020,u1,a1,1\n" + GOOD,
        r'1 missing_time: .*\(first: line 2, t_dat "01.02.2020"\)',
    ),
    "no header": ("\n\n", "transactions.csv: found no names of columns in the first line"),
    "an empty file": ("", "transactions.csv: found no names of columns in the first line"),
    "no rows": (HEAD, "transactions.csv: the table has no rows"),
    "a missing column": (
        HEAD.replace("article_id", "thing"),
        r"transactions.csv: column 'article_id' is missing; found t_dat, customer_id, thing, price",
    ),
    "a column twice": (
        HEAD.replace("price", "t_dat"),
        "transactions.csv: column 't_dat' occurs 2 times",
    ),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_name_the_file_and_the_line(tmp_path, text, message):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "transactions.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_folder(folder)


def test_a_fault_far_below_names_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 4096)
    text = HEAD + GOOD * 3000 + "2020-01-01,u1,a1\n" + GOOD * 3000
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match="transactions.csv: line 3002: found 3 fields"):
        load_folder(folder)


def test_what_is_wrong_with_columns_is_said_before_all_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 4096)
    text = (
        HEAD.replace("article_id", "thing") + GOOD * 3000 + "x\n"
    )  # the last line is never reached
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match="column 'article_id' is missing"):
        load_folder(folder)


def test_a_row_is_named_where_lines_do_not_tell_it(tmp_path):
    text = HEAD + "\n" + GOOD + "2020-01-01,u1,a1,-1\n"
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match=r"bad_price: .*\(first: row 1, price"):
        load_folder(folder)


def test_packed_files_that_are_cut_off_are_refused(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    data = pack(HEAD + GOOD * 5000, ".gz")
    (folder / "transactions.csv.gz").write_bytes(data[:-40])
    with pytest.raises(InputError, match="transactions.csv.gz: cannot be"):
        load_folder(folder)


def test_files_of_two_formats_in_a_folder_are_refused(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    write_tables(folder / "transactions", transactions=None, articles=None)
    (folder / "transactions" / "part.csv").write_text(HEAD + GOOD)
    with pytest.raises(InputError, match="found CSV files and customers.parquet; expected files"):
        load_folder(folder)


def test_a_table_that_is_there_twice_is_refused(tmp_path):
    folder = write_csv_tables(tmp_path / "shop")
    (folder / "transactions_train.csv").write_text(HEAD + GOOD)
    with pytest.raises(InputError, match="found both transactions_train.csv and transactions.csv"):
        load_folder(folder)


def test_all_files_that_cannot_be_read_are_named_at_once(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", articles="\n", customers="\n")
    with pytest.raises(InputError, match=r"2 problems(.|\n)*articles.csv(.|\n)*customers.csv"):
        load_folder(folder)


def test_bad_rows_are_set_aside_with_the_text_that_was_found(tmp_path):
    text = HEAD + GOOD + "2020-01-01,u1,a1,free\n"
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    rejects = tmp_path / "rejects.parquet"
    shop = load_folder(folder, rejects=rejects, on_bad_rows="reject", min_quality_score=0.0)
    assert shop.report.rejects["transactions"] == {"missing_price": 1}
    assert '"price": "free"' in pq.read_table(rejects)["row"][0].as_py()


def test_customers_of_a_folder_that_is_written_by_hand(tmp_path):
    customers = {**CUSTOMERS, "age": ["35-44", "old"], "club_member_status": ["ACTIVE", None]}
    shop = load_folder(write_csv_tables(tmp_path / "shop", customers=customers))
    assert to_list(shop.age) == [39, -1]


def test_a_width_pads_the_same_ids_in_csv_as_in_parquet(tmp_path):
    log = TRANSACTIONS | {"article_id": [7, -12, 7]}
    tables = {"articles": None, "transactions": log}
    csv_shop = load_folder(write_csv_tables(tmp_path / "csv", **tables), article_id_width=4)
    shop = load_tables(write_tables(tmp_path / "parquet", **tables), article_id_width=4)
    assert csv_shop.item_ids.to_pylist() == shop.item_ids.to_pylist() == ["-012", "0007"]


def test_lost_leading_zeros_of_text_are_hinted_at(tmp_path):
    log = TRANSACTIONS | {"article_id": ["101", "7", "7"]}
    articles = {"article_id": ["0101", "0007"]}
    folder = write_csv_tables(tmp_path / "shop", articles=articles, transactions=log)
    with pytest.raises(InputError, match="restores them: inputs.article_id_width: 4"):
        load_folder(folder)
    assert load_folder(folder, article_id_width=4).item_ids.to_pylist() == ["0007", "0101"]


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (lambda text: text.encode("utf-16"), "found text in UTF-16.*inputs.csv.encoding: utf-16"),
        (lambda text: text.encode("utf-32"), "found text in UTF-32.*encoding: utf-32"),
        (
            lambda text: text.replace("t_dat", "größe").encode("cp1252"),
            r"line 1: found the bytes b'\\xf6'; expected utf-8.*encoding: cp1252",
        ),
        (lambda text: pack(text, ".gz"), "found gz data.*transactions.csv.gz"),
        (lambda text: pack(text, ".zst"), "found zst data.*transactions.csv.zst"),
    ],
)
def test_what_is_no_text_is_said_to_be_none(tmp_path, encode, words):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    (folder / "transactions.csv").write_bytes(encode(to_csv(TRANSACTIONS)))
    with pytest.raises(InputError, match=f"(?s){words}"):
        load_folder(folder)


@pytest.mark.parametrize("price", ["1.234", "+123.000"])
def test_a_point_beside_decimal_commas_is_not_read_as_one(tmp_path, price):
    log = TRANSACTIONS | {"price": ["2,0", price, "3"]}
    folder = write_csv_tables(tmp_path / "shop", transactions=log)
    with pytest.raises(InputError, match="column 'price' has the number .* separate thousands"):
        load_folder(folder, csv={"decimal_point": ","})


def test_separators_of_thousands_are_shown_as_they_are_written(tmp_path):
    log = TRANSACTIONS | {"price": ["2,0", "1.234,56", "3"]}
    folder = write_csv_tables(tmp_path / "shop", transactions=log)
    with pytest.raises(InputError, match=r'1 missing_price: .* price "1\.234,56"\)'):
        load_folder(folder, csv={"decimal_point": ","})


def test_points_that_separate_no_thousands_are_read_beside_decimal_commas(tmp_path):
    log = TRANSACTIONS | {"price": ["2,0", "16.5", "0.125"]}
    folder = write_csv_tables(tmp_path / "shop", transactions=log)
    shop = load_folder(folder, csv={"decimal_point": ","})
    assert [sale[3] for sale in list_sales(shop)] == [2.0, 16.5, 0.125]
