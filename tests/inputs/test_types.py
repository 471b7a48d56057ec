"""Every type that Parquet holds, alone and beside another in one table, is read or explained."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from tests.support.input_tables import list_sales, load_tables, write_tables

DAYS = [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
TIMES = [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2)]
# Type -> two values of it.
VALUES = {
    **{
        kind: [1, 2]
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
        + (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    **{kind: [1.0, 2.0] for kind in (pa.float32(), pa.float64())},
    pa.decimal128(9, 0): [Decimal(1), Decimal(2)],
    pa.decimal128(38, 0): [Decimal(1), Decimal(2)],
    pa.decimal128(12, 2): [Decimal("1.00"), Decimal("2.00")],
    pa.decimal256(60, 0): [Decimal(1), Decimal(2)],
    **{kind: ["1", "2"] for kind in (pa.string(), pa.large_string())},
    pa.dictionary(pa.int8(), pa.string()): ["1", "2"],
    **{kind: [b"1", b"2"] for kind in (pa.binary(), pa.large_binary(), pa.binary(1))},
    pa.bool_(): [True, False],
    **dict.fromkeys((pa.date32(), pa.date64()), DAYS),
    **dict.fromkeys(map(pa.timestamp, ("s", "ms", "us", "ns")), TIMES),
    pa.timestamp("us", "Europe/Stockholm"): TIMES,
    pa.time64("us"): [dt.time(1), dt.time(2)],
    pa.duration("s"): [dt.timedelta(1), dt.timedelta(2)],
    pa.list_(pa.int64()): [[1], [2]],
    pa.struct([("id", pa.int64())]): [{"id": 1}, {"id": 2}],
}
NAMES = [str(kind) for kind in VALUES]
TYPES = list(VALUES)
# Of these, each is tried beside each other one.
PAIRED = (
    *(pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string()),
    *(pa.decimal128(9, 0), pa.decimal128(38, 0), pa.decimal128(12, 2), pa.decimal256(60, 0)),
    *(pa.dictionary(pa.int8(), pa.string()), pa.binary(), pa.bool_(), pa.date32()),
    *(pa.timestamp("ns"), pa.timestamp("us", "Europe/Stockholm"), pa.list_(pa.int64())),
)
COLUMNS = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")


def make_array(kind: pa.DataType, column: str) -> pa.Array:
    values = VALUES[kind]
    if column == "t_dat" and isinstance(values[0], str):
        values = [str(day) for day in DAYS]
    if pa.types.is_dictionary(kind):
        return pa.array(values).dictionary_encode()
    return pa.array(values, kind)


def write_parts(folder: Path, column: str, kinds: list[pa.DataType]) -> Path:
    """Write a shop whose log has a file of two rows for each type of one column."""
    write_tables(
        folder,
        articles={"article_id": ["1", "2"], "product_group_name": ["x", "y"]},
        customers={"customer_id": ["1", "2"]},
        transactions=None,
    )
    (folder / "transactions").mkdir()
    plain = {
        "t_dat": DAYS,
        "customer_id": ["1", "2"],
        "article_id": ["1", "2"],
        "price": [1.0, 2.0],
        "sales_channel_id": [1, 2],
    }
    for number, kind in enumerate(kinds):
        table = pa.table(plain | {column: make_array(kind, column)})
        pq.write_table(table, folder / "transactions" / f"{number}.parquet")
    return folder


SALES = [("2020-01-01T00:00:00", "1", "1", 1.0, 1), ("2020-01-02T00:00:00", "2", "2", 2.0, 2)]


def check(folder: Path, column: str, kinds: list[pa.DataType]) -> bool:
    """Return whether the shop was read, as it should be; else the message must explain why."""
    write_parts(folder, column, kinds)
    try:
        sales = list_sales(load_tables(folder))
    except InputError as error:
        text = str(error)
        assert f"column {column!r}" in text, text
        assert "cannot be read as Parquet" not in text, text
        assert any(f"{number}.parquet" in text for number in range(len(kinds))), text
        return False
    assert sales == SALES * len(kinds)
    return True


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", TYPES, ids=NAMES)
def test_a_type_is_read_or_named(tmp_path, column, kind):
    check(tmp_path, column, [kind])


@pytest.mark.parametrize("column", COLUMNS)
def test_types_that_differ_among_files_are_read_or_named(tmp_path, column):
    n_read = 0
    for number, pair in enumerate(itertools.combinations(PAIRED, 2)):
        n_read += check(tmp_path / str(number), column, list(pair))
    assert n_read > 3


def test_integers_that_no_type_holds_together_are_explained(tmp_path):
    folder = write_parts(tmp_path, "customer_id", [pa.int64()])
    table = pa.table(
        {
            "t_dat": DAYS,
            "customer_id": pa.array([2**64 - 1, 2], pa.uint64()),
            "article_id": ["1", "2"],
            "price": [1.0, 2.0],
            "sales_channel_id": [1, 2],
        }
    )
    pq.write_table(table, folder / "transactions" / "a.parquet")
    with pytest.raises(
        InputError,
        match=r"'customer_id' is int64 in 0.parquet and uint64 in a.parquet.*\n.*ids as text",
    ):
        load_tables(folder)
