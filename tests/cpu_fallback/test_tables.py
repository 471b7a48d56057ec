"""The CPU's table verbs: what becomes of text, numbers and times, in every dress that Parquet gives
them.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_fallback import tables
from cpu_fallback.file_columns import read_columns

TEXTS = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=3))


@pytest.fixture(autouse=True, params=[tables._MERGED_BYTES, -1])
def merged_bytes(request, monkeypatch):
    """Dictionaries are merged all at once, or a few at a time."""
    monkeypatch.setattr("cpu_fallback.tables._MERGED_BYTES", request.param)


def decoded(column):
    codes, values = tables.encode(column)
    return [None if code < 0 else values[int(code)].as_py() for code in codes], values.to_pylist()


def test_codes_follow_the_sorted_values_of_all_chunks():
    dictionary, large = (
        pa.array(["é", "Z", "b"]).dictionary_encode(),
        pa.array(["a"], pa.large_string()),
    )
    column = [pa.array(["b", None]), pa.nulls(1), dictionary, large]
    codes, values = tables.encode(column)
    assert values.to_pylist() == ["Z", "a", "b", "é"]  # by code point
    assert codes.tolist() == [2, -1, -1, 3, 0, 2, 1]
    assert codes.dtype == np.int32


def test_values_that_no_row_has_get_no_code():
    listed = pa.DictionaryArray.from_arrays(
        pa.array([2, None, 2], pa.int8()), pa.array(["x", "y", "z"])
    )
    assert decoded([listed]) == (["z", None, "z"], ["z"])


def test_a_null_inside_a_dictionary_is_null():
    assert decoded(
        [pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array([None, "y"]))]
    ) == ([None, "y"], ["y"])


@pytest.mark.parametrize(
    "column",
    [[], [pa.array([], pa.string())], [pa.nulls(3)], [pa.array([None, None], pa.string())]],
)
def test_columns_without_values_encode_to_nothing(column):
    codes, values = tables.encode(column)
    assert codes.tolist() == [-1] * sum(map(len, column))
    assert len(values) == 0


def test_numbers_encode_in_numeric_order_and_nan_is_null():
    assert decoded([pa.array([10.0, float("nan"), None, -1.0])]) == (
        [10.0, None, None, -1.0],
        [-1.0, 10.0],
    )
    assert decoded([pa.array([10, 9], pa.int8()), pa.array([2**40])]) == (
        [10, 9, 2**40],
        [9, 10, 2**40],
    )
    assert decoded([pa.array([1.5]), pa.array([Decimal("0.10")]), pa.array([3])]) == (
        [1.5, 0.1, 3.0],
        [0.1, 1.5, 3.0],
    )


@given(
    st.lists(
        st.tuples(
            st.lists(TEXTS, max_size=6), st.sampled_from(["plain", "dictionary", "large", "view"])
        ),
        max_size=4,
    )
)
def test_encoding_loses_nothing(chunks):
    kinds = {
        "plain": pa.string(),
        "dictionary": pa.string(),
        "large": pa.large_string(),
        "view": pa.string_view(),
    }
    column = [
        pa.array(texts, kinds[kind]).dictionary_encode()
        if kind == "dictionary"
        else pa.array(texts, kinds[kind])
        for texts, kind in chunks
    ]
    rows = [text for texts, _ in chunks for text in texts]
    assert decoded(column) == (rows, sorted({text for text in rows if text is not None}))


def test_numbers_from_every_type():
    column = [
        pa.array([3, None], pa.int8()),
        pa.array([0.5, float("nan"), float("inf")], pa.float32()),
        pa.array([Decimal("0.10"), None]),
        pa.array(["4", " 2.5e1 ", "-.5", "four", "", "nan", "inf", "1_0", "٣", None]),
        pa.array([7, 7]).dictionary_encode(),
        pa.nulls(1),
    ]
    values, valid = tables.parse_numbers(column)
    numbers = [float(value) if ok else None for value, ok in zip(values, valid, strict=True)]
    text = [4.0, 25.0, -0.5, None, None, None, None, None, None, None]
    assert numbers == [3.0, None, 0.5, None, np.inf, 0.1, None, *text, 7.0, 7.0, None]
    assert not values[~valid].any()


@given(st.decimals(min_value=0, max_value=10**9, places=4))
def test_decimals_are_rounded_as_python_rounds_them(price):
    values, _ = tables.parse_numbers([pa.array([price], pa.decimal128(20, 4))])
    assert values[0] == float(price)


def ns(text):
    return int(np.datetime64(text, "ns").astype(np.int64))


def times(column):
    values, valid = tables.parse_times(column)
    assert not values[~valid].any()
    return [int(value) if ok else None for value, ok in zip(values, valid, strict=True)]


def test_times_of_every_unit_are_nanoseconds_of_utc():
    noon = dt.datetime(2020, 2, 29, 12)
    in_utc = noon.replace(tzinfo=dt.timezone.utc)
    for unit in ("s", "ms", "us", "ns"):
        assert times([pa.array([noon, None], pa.timestamp(unit))]) == [ns("2020-02-29T12:00"), None]
        assert times([pa.array([in_utc], pa.timestamp(unit, "Asia/Tokyo"))]) == [
            ns("2020-02-29T12:00")
        ]
    assert (
        times([pa.array([noon.date()], kind) for kind in (pa.date32(), pa.date64())])
        == [ns("2020-02-29")] * 2
    )
    coded = pa.array([noon, noon], pa.timestamp("s")).dictionary_encode()
    assert times([coded, pa.nulls(1)]) == [ns("2020-02-29T12:00")] * 2 + [None]


def test_times_that_int64_nanoseconds_cannot_hold_are_not_valid():
    sentinel = pa.array([dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)], pa.timestamp("us"))
    assert (
        times([sentinel, pa.array([dt.date(9999, 12, 31)]), pa.array(["9999-12-31", "2262-04-12"])])
        == [None] * 5
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-02-29", "2020-02-29"),
        (" 2020-02-29 07:08 ", "2020-02-29T07:08"),
        ("2020-02-29T07:08:09Z", "2020-02-29T07:08:09"),
        ("2020-02-29 07:08:09 UTC", "2020-02-29T07:08:09"),
        ("2020-02-29 07:08:09.12345678987", "2020-02-29T07:08:09.123456789"),
        ("2020-02-29T05:30:00+05:30", "2020-02-29T00:00"),
        ("2020-02-28T23:00:00.5-0100", "2020-02-29T00:00:00.5"),
        ("2020-02-28 23-01", None),
        ("1969-12-31T23:59:59.75", "1969-12-31T23:59:59.75"),
        ("2019-02-29", None),
        ("2020-13-01", None),
        ("2020-00-10", None),
        ("2020-01-00", None),
        ("2020-01-01 24:00", None),
        ("2020-01-01 00:60", None),
        ("20200229", None),
        ("29.02.2020", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_iso_texts(text, expected):
    assert times([pa.array([text], pa.string())]) == [expected and ns(expected)]


@given(st.datetimes(min_value=dt.datetime(1678, 1, 1), max_value=dt.datetime(2262, 1, 1)))
def test_what_python_writes_is_read(moment):
    assert times([pa.array([moment.isoformat()])]) == [ns(moment.isoformat())]


def three_files(folder):
    for number, rows in enumerate((["b", None, "b"], ["a"], [])):
        table = pa.table({"id": pa.array(rows, pa.string()), "other": [1] * len(rows)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=2)
    return [folder / f"{number}.parquet" for number in (1, 0, 2)]


def test_columns_come_in_file_and_row_order(tmp_path):
    columns = read_columns(three_files(tmp_path), ["id"])
    assert columns.keys() == {"id"}
    assert decoded(columns["id"])[0] == ["a", "b", None, "b"]


def test_a_column_that_a_file_lacks_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="misspelt"):
        read_columns(three_files(tmp_path), ["id", "misspelt"])


def test_text_is_never_written_out_once_per_row(tmp_path):
    chunks = read_columns(three_files(tmp_path), ["id"])["id"]
    assert all(pa.types.is_dictionary(chunk.type) for chunk in chunks)


def test_int96_timestamps_keep_the_year_9999(tmp_path):
    moments = pa.array(
        [dt.datetime(2020, 2, 29, 12), dt.datetime(9999, 12, 31)], pa.timestamp("us")
    )
    pq.write_table(
        pa.table({"t": moments}), tmp_path / "t.parquet", use_deprecated_int96_timestamps=True
    )
    assert times(read_columns([tmp_path / "t.parquet"], ["t"])["t"]) == [
        ns("2020-02-29T12:00"),
        None,
    ]


@given(
    chunks=st.lists(
        st.one_of(
            st.lists(TEXTS, max_size=4).map(lambda rows: pa.array(rows, pa.string())),
            st.lists(TEXTS, max_size=4).map(
                lambda rows: pa.array(rows, pa.string()).dictionary_encode()
            ),
        ),
        max_size=6,
    )
)
def test_texts_of_many_chunks_are_found_again(chunks):
    rows = [text for chunk in chunks for text in chunk.to_pylist()]
    assert decoded(chunks) == (rows, sorted({text for text in rows if text is not None}))


def test_numbers_that_are_equal_as_another_type_have_one_code():
    """2^53 and 2^53 + 1 are one float64."""
    column = [pa.array([2**53 + 1, 7, 2**53]), pa.array([0.5, None, float(2**53)] * 9)]
    codes, values = tables.encode(column)
    assert values.to_pylist() == [0.5, 7.0, float(2**53)]
    assert codes.tolist() == [2, 1, 2, *([0, -1, 2] * 9)]


def test_more_values_than_rows_are_an_error(tmp_path):
    column = read_columns(three_files(tmp_path), ["id"])["id"]
    column.n_rows = 3
    for convert in (tables.encode, tables.parse_numbers):
        with pytest.raises(pa.ArrowInvalid, match="more values than the 3 rows"):
            convert(column)
    column.n_rows = 9
    assert len(tables.encode(column)[0]) == len(tables.parse_times(column)[0]) == 4
