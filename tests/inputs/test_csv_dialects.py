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
