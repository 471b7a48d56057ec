"""One message, and one run of `doctor`, tells all that is wrong with the tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import InputError, Problems
from gpu_dcgen.inputs import columns
from gpu_dcgen.inputs.shop import check_tables
from gpu_dcgen.preflight import doctor
from tests.support.csv_tables import write_csv_tables
from tests.support.input_tables import (
    ARTICLES,
    CPU,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    drop_column,
    load_tables,
    write_tables,
)

LONG = "x" * (columns.MAX_TEXT_BYTES + 1)
BAD_PRICES = TRANSACTIONS | {"price": [-1.0, 1.0, 2.0]}


def read_problems(caught: pytest.ExceptionInfo) -> list[str]:
    """Return the first lines of the problems that a message numbers."""
    return re.findall(r"^\d+\. (.*)$", str(caught.value), re.MULTILINE)


def test_all_columns_that_cannot_be_read_are_named(tmp_path, backend):
    articles = ARTICLES | {"department_name": [LONG, "a", "b"], "prod_name": ["a", LONG, "b"]}
    with pytest.raises(InputError) as caught:
        load_tables(write_tables(tmp_path, articles=articles), backend)
    assert [text[:50] for text in read_problems(caught)] == [
        "articles.parquet: column 'department_name' has a t",
        "articles.parquet: column 'prod_name' has a text of",
    ]


def test_unreadable_columns_bad_rows_and_lost_units_come_in_one_message(tmp_path, backend):
    folder = write_tables(
        tmp_path,
        articles=ARTICLES | {"prod_name": ["a", LONG, "b"]},
        customers={"customer_id": ["u1", None, "u2"]},
        transactions=BAD_PRICES | {"sales_channel_id": [LONG, "1", "2"]},
        views=VIEWS | {"t_dat": ["not a time"]},
    )
    with pytest.raises(InputError) as caught:
        load_tables(folder, backend)
    first, second, third = read_problems(caught)
    assert first.startswith("articles.parquet: column 'prod_name' has a text of")
    assert second.startswith("transactions.parquet: column 'sales_channel_id' has a text of")
    assert third.startswith("inputs: found 2 bad rows")
    assert "customers.parquet: 1 missing_key" in str(caught.value)
    assert "views.parquet: 1 missing_time" in str(caught.value)
    assert len(caught.value.parts) == 3


def test_rows_are_not_set_aside_where_a_column_cannot_be_read(tmp_path):
    folder = write_tables(
        tmp_path / "shop",
        articles=ARTICLES | {"prod_name": ["a", LONG, "b"]},
        transactions=BAD_PRICES,
    )
    rejects = tmp_path / "rejects.parquet"
    with pytest.raises(InputError, match="prod_name"):
        load_tables(folder, rejects=rejects, on_bad_rows="reject", min_quality_score=0.1)
    assert not rejects.exists()


def write_faulty(folder: Path) -> Path:
    """Write a shop with faults of files, of columns and of rows, in different tables."""
    folder = write_tables(
        folder,
        articles={"id": ["a1", "a2", "a3"]},
        customers={"customer_id": ["u1", "u1", "u2"], "age": [1, 2, 3]},
        transactions=BAD_PRICES,
    )
    (folder / "views.parquet").write_bytes(b"torn")
    return folder


def test_a_check_reads_the_rows_of_the_tables_without_a_problem(tmp_path):
    with pytest.raises(InputError) as caught:
        check_tables(write_faulty(tmp_path), DatasetConfig(), CPU)
    text = str(caught.value)
    assert "views.parquet: cannot be read as Parquet" in text
    assert "articles.parquet: column 'article_id' is missing" in text
    assert "customers.parquet: 2 duplicate_key" in text
    assert "transactions.parquet: 1 bad_price" in text
    assert len(caught.value.parts) == 3


def test_doctor_tells_all_of_it_too(tmp_path):
    checks = [c for c in doctor.checks(write_faulty(tmp_path)) if c.name == "tables"]
    text = " ".join(check.actual for check in checks)
    assert [check.verdict for check in checks] == ["fail"] * 3
    for words in ("cannot be read as Parquet", "'article_id'", "duplicate_key", "bad_price"):
        assert words in text


def test_doctor_tells_faults_of_columns_lines_and_rows_of_csv_files_at_once(tmp_path):
    write_csv_tables(
        tmp_path,
        articles="article_id,prod_name\na1,x\na2\n",
        customers={"customer_id": ["u1", "u1", "u2"], "age": [1, 2, 3]},
        transactions=BAD_PRICES,
        views=drop_column(TRANSACTIONS, "t_dat"),
    )
    checks = [check for check in doctor.checks(tmp_path) if check.name == "tables"]
    shown = [check.actual for check in checks if check.verdict == "fail"]
    assert len(shown) == 3
    assert "articles.csv: line 3: found 1 fields" in shown[0]
    assert "views.csv: column 't_dat' is missing" in shown[1]
    assert "customers.csv: 2 duplicate_key" in shown[2]
    assert "transactions.csv: 1 bad_price" in shown[2]
    assert not any("is missing; found" in text and "articles" in text for text in shown)


def test_doctor_does_not_miss_a_log_that_it_could_not_read(tmp_path):
    write_csv_tables(tmp_path, transactions="t_dat,customer_id,article_id\n1\n")
    shown = [check.actual for check in doctor.checks(tmp_path) if check.verdict == "fail"]
    assert len(shown) == 1 and "transactions.csv: line 2: found 1 fields" in shown[0]


def test_tables_of_customers_and_articles_are_read_without_a_log(tmp_path):
    folder = write_tables(
        tmp_path,
        articles=ARTICLES | {"article_id": ["a1", "a1", "a2"]},
        transactions=drop_column(TRANSACTIONS, "t_dat"),
    )
    with pytest.raises(InputError) as caught:
        check_tables(folder, DatasetConfig(), CPU)
    assert "'t_dat' is missing" in str(caught.value)
    assert "articles.parquet: 2 duplicate_key" in str(caught.value)


def test_a_sound_folder_has_a_report(tmp_path):
    report = check_tables(write_tables(tmp_path, customers=CUSTOMERS), DatasetConfig(), CPU)
    assert report.quality_score == 1 and report.rows["transactions"].accepted == 3


def test_an_error_that_tells_several_problems_counts_as_so_many():
    problems, more = Problems(), Problems()
    more.errors = [InputError("a.\nMend it."), InputError("b.")]
    with problems.collect():
        more.raise_all("shop")
    with problems.collect():
        raise InputError("c.")
    with pytest.raises(
        InputError, match=r"(?s)found 3 problems:\n1. a.\n   Mend it.\n2. b.\n3. c."
    ):
        problems.raise_all("shop")
