"""CSV that is written otherwise than the settings say is refused with the setting that reads it."""

from __future__ import annotations

import csv
import re
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_dcgen.config import CsvConfig, load_config
from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs import csv_files
from gpu_dcgen.preflight import doctor
from gpu_dcgen.preflight.suggestion import suggest_config
from tests.support.csv_tables import load_folder, pack, to_csv, write_csv_tables
from tests.support.input_tables import ARTICLES, CUSTOMERS, TRANSACTIONS, decode, list_sales

ONE_COLUMN = {".csv": ("^", " ", ":", "~", "&"), ".tsv": (",", ";", "|")}


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [(s, mark) for s, marks in ONE_COLUMN.items() for mark in marks]
)
def test_one_column_with_another_delimiter_in_its_name_comes_with_the_setting(
    tmp_path, suffix, delimiter
):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / f"transactions{suffix}").write_text(to_csv(TRANSACTIONS, delimiter=delimiter))
    with pytest.raises(InputError, match="found one column in the first line, 't_dat") as caught:
        load_folder(folder)
    remedy = str(caught.value).rpartition("state it: ")[2]
    config = load_config(None, [remedy])
    assert config.inputs.csv.delimiter == delimiter
    shop = load_folder(folder, csv=config.inputs.csv.model_dump())
    assert len(list_sales(shop)) == 3
    doctor_says = " ".join(check.remedy for check in doctor.checks(folder))
    with pytest.raises(InputError) as caught:
        suggest_config(folder)
    assert remedy in doctor_says and remedy in str(caught.value)


def test_one_column_is_no_fault_where_it_is_all_that_is_read(tmp_path):
    folder = write_csv_tables(
        tmp_path / "shop", customers={"customer id": CUSTOMERS["customer_id"]}
    )
    shop = load_folder(folder, columns={"customers": {"customer_id": "customer id"}})
    assert shop.user_ids.to_pylist() == sorted(CUSTOMERS["customer_id"])
    folder = write_csv_tables(tmp_path / "ids", articles={"article_id": ARTICLES["article_id"]})
    assert load_folder(folder).item_ids.to_pylist() == sorted(ARTICLES["article_id"])


@pytest.mark.parametrize("block_bytes", [1 << 20, 64, 65, 66])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_an_escaped_quote_is_refused_with_its_line_and_setting(
    tmp_path, monkeypatch, block_bytes, suffix
):
    """Read on, the field would be `say \\hi\\""`: neither what is meant nor what is written."""
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
    lines = ["article_id,prod_name", 'a0,"C:\\"', 'a1,"two\nlines"', r'a2,"say \"hi\""', "a3,x"]
    text = "\n".join(lines) + "\n"
    folder = write_csv_tables(tmp_path / "shop", suffix, articles=text, transactions=None)
    log = {**TRANSACTIONS, "article_id": ["a1", "a2", "a3"]}
    (folder / f"transactions{suffix}").write_bytes(pack(to_csv(log), suffix))
    with pytest.raises(InputError, match=f"articles{suffix}: line 5: found a backslash") as caught:
        load_folder(folder)
    [remedy] = re.findall("say so: (.*)$", str(caught.value), re.MULTILINE)
    assert load_config(None, [remedy]).inputs.csv.escape == "\\"
    (folder / f"articles{suffix}").write_bytes(pack(text.replace('"C:\\"', "C"), suffix))
    shop = load_folder(folder, csv={"escape": "\\"})
    assert decode(shop.item_columns["name"]) == ["C", "two\nlines", 'say "hi"', "x"]


@given(
    st.lists(st.text('a\\", ;\n', min_size=1, max_size=8), min_size=1, max_size=12),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_backslash_has_no_meaning_by_itself(names, quoting):
    """What RFC 4180 allows is read as it says, and none of it is taken for an escape."""
    with tempfile.TemporaryDirectory() as scratch:
        ids = [f"{number:02}" for number in range(len(names))]
        text = to_csv({"article_id": ids, "prod_name": names}, quoting=quoting)
        file = Path(scratch, "articles.csv")
        file.write_text(text, "utf-8", newline="")
        roles = {"article_id": "key", "prod_name": "category"}
        csv_files.convert_csv(file, file.with_suffix(".parquet"), roles, CsvConfig())
        assert pq.read_table(file.with_suffix(".parquet"))["prod_name"].to_pylist() == names


FORMATS = {
    "a zip archive": (b"PK\x03\x04" + bytes(60), "an archive, or a spreadsheet.*\nUnpack it, or"),
    "a spreadsheet": (b"\xd0\xcf\x11\xe0\xa1" + bytes(600), "a spreadsheet.*\nSave it as CSV"),
    "Parquet": (b"PAR1\x15\x00", "Parquet; expected text.\nGive it a name .* .parquet"),
}


@pytest.mark.parametrize(("data", "message"), FORMATS.values(), ids=FORMATS)
def test_files_of_other_formats_are_named_by_their_first_bytes(tmp_path, data, message):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    (folder / "transactions.csv").write_bytes(data)
    with pytest.raises(InputError, match=rf"transactions\.csv: found {message}"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("transactions.csv.zip", "transactions.csv.zip: an archive: unpack it"),
        ("orders.xlsx", "orders.xlsx: a spreadsheet: save it as CSV"),
        ("log.jsonl", "log.jsonl: neither CSV nor Parquet: write it as one of them"),
    ],
)
def test_a_folder_with_files_of_other_formats_says_what_to_do_with_them(tmp_path, name, remedy):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    (folder / name).write_bytes(b"PK")
    with pytest.raises(InputError, match="transactions is missing") as caught:
        load_folder(folder)
    assert remedy in str(caught.value) and "inputs.files" not in str(caught.value)
    (folder / "orders.csv").touch()
    with pytest.raises(InputError, match=r"inputs\.files: {transactions: NAME}"):
        load_folder(folder)


def test_a_first_line_of_values_is_pointed_out(tmp_path):
    text = to_csv(TRANSACTIONS).partition("\n")[2]
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match="write the names of the columns above it"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (["01/13/2020", "02/01/2020", "03/04/2020"], ["%m/%d/%Y"]),
        (
            ["01/02/2020 10:00", "02/01/2020 11:30", "03/04/2020 01:00"],
            ["%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"],
        ),
        (["13.01.2020", "1.2.2020", "4.3.2020"], ["%d.%m.%Y"]),
    ],
)
def test_times_of_another_form_come_with_the_formats_that_read_them(tmp_path, days, expected):
    log = TRANSACTIONS | {"t_dat": days}
    folder = write_csv_tables(tmp_path / "shop", transactions=log)
    with pytest.raises(InputError, match="need a format") as caught:
        load_folder(folder)
    line = str(caught.value).partition("inputs.time_format: ")[2].partition("\n")[0]
    assert re.findall('"([^"]*)"', line) == expected
    for time_format in expected:
        assert len(list_sales(load_folder(folder, time_format=time_format))) == 3
