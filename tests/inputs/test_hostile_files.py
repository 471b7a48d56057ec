"""Damaged tables load or are refused: none ends the process, hangs, or takes the memory."""

from __future__ import annotations

import datetime as dt
import json
import os
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from gpu_dcgen import resources
from gpu_dcgen.errors import DcgenError, InputError
from gpu_dcgen.inputs import columns as input_columns
from gpu_dcgen.inputs.footers import FooterError, check_pages, parse_struct, read_footer
from tests.support.hostile_files import footer_start, many, survey
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    list_sales,
    load_rejecting,
    load_tables,
    write_tables,
)

MAX_BYTES = 256 << 20  # that a small file may cost
EXPECTED = {"loaded", "InputError"}


def require_calm(results):
    unexpected = [result for result in results if result["outcome"] not in EXPECTED]
    assert not unexpected, unexpected[:3]
    assert max(result["bytes"] for result in results) < MAX_BYTES
    assert {result["outcome"] for result in results} == EXPECTED  # not everything is refused


def test_damaged_files_load_or_are_refused(tmp_path):
    require_calm(survey(tmp_path, 0, 250).results)


@pytest.mark.slow
def test_thousands_of_damaged_files_load_or_are_refused(tmp_path):
    require_calm(survey(tmp_path, 10_000, 12_500).results)


def test_a_survey_reports_a_death(tmp_path, monkeypatch):
    package = tmp_path / "tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hostile_files.py").write_text("raise SystemExit(1)")
    # The workers' own folder comes first in their path.
    monkeypatch.setattr("tests.support.hostile_files.ROOT", tmp_path)
    outcomes = [result["outcome"] for result in survey(tmp_path, 0, 1).results]
    assert outcomes == ["died with 1"]


def rewritten(path, old: bytes, new: bytes):
    """The file with one place of its footer changed."""
    raw = path.read_bytes()
    start = footer_start(raw)
    assert raw[start:].count(old) == 1
    footer = raw[start:-8].replace(old, new)
    path.write_bytes(raw[:start] + footer + struct.pack("<I", len(footer)) + raw[-4:])


def varint(number: int) -> bytes:
    number <<= 1  # zigzag
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def test_rows_that_are_only_claimed_are_refused(tmp_path):
    """Two billion rows in a footer cost nothing to write; Arrow would allocate them."""
    path = write_tables(tmp_path, customers=many(CUSTOMERS, 12_345)) / "customers.parquet"
    rewritten(path, b"\x16" + varint(12_345) + b"\x19", b"\x16" + varint(2**31) + b"\x19")
    with pytest.raises(
        InputError,
        match=r"customers.parquet: cannot be read as Parquet \(its footer claims 2147483648 rows",
    ):
        load_tables(tmp_path)


def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A megabyte of one letter, a thousand times: some kilobytes in the file."""
    texts = ["x" * (1 << 20)] * 300
    articles = {"article_id": [str(k) for k in range(300)], "product_group_name": texts}
    path = write_tables(tmp_path, articles=None) / "articles.parquet"
    pq.write_table(pa.table(articles), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(resources, "available_memory", lambda: 200 << 20)
    with pytest.raises(
        InputError, match="articles.parquet: 300 rows of 2 columns need 1.26 GB of memory.* 0.21 GB"
    ):
        load_tables(tmp_path)


def test_pages_are_held_to_the_size_that_the_footer_claims(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": ["x" * 100_000]}), path, compression="zstd", use_dictionary=False)
    footer = read_footer(path)
    check_pages(path, footer, ["a"])
    (chunk,) = (group["a"] for group in footer.groups)
    lying = type(footer)(
        1, ({"a": type(chunk)(1, 0, chunk.first, chunk.packed_bytes, 5000)},), footer.data_end
    )
    with pytest.raises(FooterError, match="unpacks to more than the 5000 bytes"):
        check_pages(path, lying, ["a"])
    short = type(footer)(
        2,
        ({"a": type(chunk)(2, 0, chunk.first, chunk.packed_bytes, chunk.unpacked_bytes)},),
        footer.data_end,
    )
    with pytest.raises(FooterError, match="has 1 values in its pages, its footer claims 2"):
        check_pages(path, short, ["a"])


def test_a_table_that_lies_of_its_size_is_not_read(tmp_path):
    path = write_tables(tmp_path) / "customers.parquet"
    pq.write_table(
        pa.table(CUSTOMERS | {"club_member_status": ["x" * 60_000] * 2}),
        path,
        compression="zstd",
        use_dictionary=False,
    )
    (group,) = read_footer(path).groups
    chunk = group["club_member_status"]
    old, new = (
        b"\x16" + varint(size) + b"\x16" + varint(chunk.packed_bytes)
        for size in (chunk.unpacked_bytes, 500)
    )
    rewritten(path, old, new)
    with pytest.raises(
        InputError,
        match="column 'club_member_status' of row group 0 unpacks to more than the 500 bytes",
    ):
        load_tables(tmp_path)


@pytest.mark.skipif(
    Version(pa.__version__) < Version("20"), reason="older pyarrow writes no histograms of levels"
)
def test_a_footer_that_would_end_the_process_is_refused(tmp_path):
    """Arrow throws what nobody can catch where a histogram of levels has another length."""
    path = write_tables(tmp_path) / "customers.parquet"
    pq.write_table(pa.table({"customer_id": pa.array(["u1", "u2"])}), path)
    # SizeStatistics.definition_level_histogram: lists of int64
    two, three = b"\x19\x26\x00\x04", b"\x19\x36\x00\x04\x00"
    rewritten(path, two, three)
    with pytest.raises(InputError, match="histogram of levels"):
        load_tables(tmp_path)


def test_a_torn_page_with_a_checksum_is_refused(tmp_path):
    """Without one, a changed number is a number; writers such as Spark's add them."""
    path = write_tables(tmp_path) / "transactions.parquet"
    prices = pa.table(TRANSACTIONS | {"price": [3.25, 1.5, 2.0]})
    pq.write_table(prices, path, compression="none", use_dictionary=False, write_page_checksum=True)
    raw = path.read_bytes()
    assert raw.count(struct.pack("<3d", 3.25, 1.5, 2.0)) == 1
    path.write_bytes(
        raw.replace(struct.pack("<3d", 3.25, 1.5, 2.0), struct.pack("<3d", 99.0, 1.5, 2.0))
    )
    with pytest.raises(InputError, match="checksum verification failed"):
        load_tables(tmp_path)


def test_a_nest_of_structs_does_not_exhaust_the_stack():
    with pytest.raises(FooterError, match="nested too deeply"):
        parse_struct(b"\x1c" * 100_000)


def test_a_long_list_must_fit_the_bytes_that_are_there():
    with pytest.raises(FooterError, match="claims a list of"):
        parse_struct(b"\x19\xf5\xff\xff\xff\xff\x07")


def test_a_number_without_end_is_refused():
    with pytest.raises(FooterError, match="more than 64 bits"):
        parse_struct(b"\x16" + b"\xff" * 100_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_footer_or_a_footer_error(data):
    try:
        parse_struct(data)
    except FooterError as error:
        assert str(error)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_text_in_delta_encodings_is_read(tmp_path, encoding):
    """DuckDB writes it, and Arrow has no dictionary of it."""
    write_tables(tmp_path / "plain")
    write_tables(tmp_path / "delta")
    path = tmp_path / "delta" / "transactions.parquet"
    names = dict.fromkeys(("customer_id", "article_id"), encoding)
    pq.write_table(pa.table(TRANSACTIONS), path, use_dictionary=False, column_encoding=names)
    assert list_sales(load_tables(tmp_path / "delta")) == list_sales(
        load_tables(tmp_path / "plain")
    )


def test_a_text_that_is_too_long_is_refused_with_its_row(tmp_path):
    long = "u" * 10_000_000
    sale = {name: [values[0], values[1]] for name, values in TRANSACTIONS.items()} | {
        "customer_id": ["u1", long]
    }
    with pytest.raises(InputError) as caught:
        load_tables(write_tables(tmp_path, transactions=sale))
    assert str(caught.value) == (
        "transactions.parquet: column 'customer_id' has a text of 10,000,000 bytes (row 1); "
        "expected at most 65,536.\n"
        "Shorten it, or leave the row out."
    )


def test_a_text_of_the_maximal_length_is_an_id(tmp_path):
    long = "ü" * (input_columns.MAX_TEXT_BYTES // 2)
    sale = {name: values[:1] for name, values in TRANSACTIONS.items()} | {"customer_id": [long]}
    shop = load_tables(write_tables(tmp_path, customers={"customer_id": [long]}, transactions=sale))
    assert shop.user_ids.to_pylist() == [long]


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(ids=st.lists(IDS, min_size=1, max_size=6, unique=True))
def test_any_unicode_is_an_id(tmp_path, ids):
    sale = {
        "t_dat": [dt.date(2020, 1, 1)] * len(ids),
        "customer_id": ids,
        "article_id": ids[::-1],
        "price": [1.0] * len(ids),
    }
    tables = {
        "customers": {"customer_id": ids},
        "articles": {"article_id": ids, "product_group_name": ids},
    }
    shop = load_tables(write_tables(tmp_path, transactions=sale, **tables))
    assert shop.user_ids.to_pylist() == shop.item_ids.to_pylist() == sorted(ids)
    assert [(user, item) for _, user, item, *_ in list_sales(shop)] == list(
        zip(ids, ids[::-1], strict=True)
    )


TIMES = st.sampled_from([-(2**63), -(2**63) + 1, -1, 0, 2**31, 2**62, 2**63 - 1])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    times=st.lists(TIMES, min_size=1, max_size=4),
    unit=st.sampled_from(["ms", "us", "ns"]),
    zone=st.sampled_from([None, "UTC", "Asia/Tokyo"]),
    price=st.sampled_from([5e-324, -0.0, 1e308, float("inf"), float("nan"), 2**63 - 1, -(2**63)]),
)
def test_times_and_prices_at_the_ends_of_their_types_are_rows_or_rejects(
    tmp_path, times, unit, zone, price
):
    n = len(times) + 1
    kind = pa.timestamp(unit, zone)
    good = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit] * 1_577_836_800
    sale = {
        "t_dat": pa.array([good, *times], pa.int64()).cast(kind),
        "customer_id": ["u1"] * n,
        "article_id": ["a1"] * n,
        "price": [1.0] + [float(price)] * (n - 1),
    }
    shop, rows = load_rejecting(write_tables(tmp_path, transactions=sale))
    assert shop.report.rows["transactions"].accepted + len(rows) == n
    for row in pq.read_table(tmp_path / "rejects.parquet")["row"].to_pylist():
        json.loads(row)


NESTED = {
    "list": [["x"]] * 2,
    "struct": [{"a": "x"}] * 2,
    "map": pa.array([[("a", "x")]] * 2, pa.map_(pa.string(), pa.string())),
    "list of structs": [[{"a": ["x"]}]] * 2,
    "deep": pa.array([None, None], pa.list_(pa.list_(pa.struct({"a": pa.list_(pa.string())})))),
}


@pytest.mark.parametrize("values", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("column", ["customer_id", "age", "club_member_status"])
def test_nests_where_flat_columns_belong_are_refused(tmp_path, values, column):
    with pytest.raises(InputError, match=f"column '{column}' is a nested type"):
        load_tables(write_tables(tmp_path, customers=CUSTOMERS | {column: values}))


def test_columns_whose_names_differ_by_unicode_case_are_refused(tmp_path):
    with pytest.raises(InputError, match="differ in case only"):
        load_tables(write_tables(tmp_path, articles=ARTICLES | {"PRODUCT_GROUP_NAME": ["x"] * 3}))
    # `ſ` folds to the `s` of another word.
    other = write_tables(tmp_path / "other", articles=ARTICLES | {"ſection": ["x"] * 3})
    assert load_tables(other).n_items == 3


def test_a_name_with_controls_does_not_reach_the_terminal(tmp_path):
    sale = {
        ("\x1b[2Jprice" if name == "price" else name): values
        for name, values in TRANSACTIONS.items()
    }
    with pytest.raises(InputError) as caught:
        load_tables(write_tables(tmp_path, transactions=sale | {"y" * 100_000: [1, 2, 3]}))
    assert "\x1b" not in str(caught.value) and r"\x1b[2Jprice" in str(caught.value)
    assert len(str(caught.value)) < 12_000


def test_a_mapping_names_columns_and_opens_no_files(tmp_path):
    outside = tmp_path / "outside.parquet"
    pq.write_table(pa.table(TRANSACTIONS), outside)
    folder = write_tables(tmp_path / "shop")
    with pytest.raises(InputError, match=r"column '../outside.parquet' is missing"):
        load_tables(folder, columns={"transactions": {"price": "../outside.parquet"}})
    with pytest.raises(ValueError, match="columns"):
        load_tables(folder, columns={"../outside": {"price": "price"}})


@pytest.mark.parametrize("name", ["articles.parquet", "articles/part-0.parquet"])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    """Reading a pipe would hang for as long as nobody writes to it."""
    folder = write_tables(tmp_path, articles=None)
    (folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is neither a file nor a folder"):
        load_tables(folder)


def test_a_file_name_that_is_no_text_can_be_reported(tmp_path):
    (tmp_path / "articles").mkdir()
    write_tables(tmp_path, articles=None)
    os.close(
        os.open(os.fsencode(tmp_path / "articles") + b"/\xff.parquet", os.O_CREAT | os.O_WRONLY)
    )
    with pytest.raises(DcgenError) as caught:
        load_tables(tmp_path)
    str(caught.value).encode("utf-8")
