"""The audit reads columns a row group at a time, and finds ids among known ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing.input_columns import NO_KEY, UNKNOWN_KEY, find_keys, read_numbers
from gpu_dcgen.auditing.table_reader import _read_column

TEXTS = ["b", None, "a", "b", "c"]


class Column:
    """A table of one column, of which integers have `width` digits."""

    def __init__(self, *chunks: pa.Array, width: int = 0) -> None:
        self._chunks, self.widths = chunks, {"x": width}

    def chunks(self, name: str):
        return iter(self._chunks)


def write(folder, values: pa.Array, **options) -> list[pa.Array]:
    pq.write_table(pa.table({"x": values}), folder / "a.parquet", **options)
    return list(_read_column(folder / "a.parquet", "x"))


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}}],
    ids=["dictionaries", "delta encoding, which has no dictionaries"],
)
def test_texts_of_several_row_groups_are_dictionaries(tmp_path, options):
    chunks = write(tmp_path, pa.array(TEXTS), row_group_size=2, **options)
    assert all(pa.types.is_dictionary(chunk.type) for chunk in chunks)
    assert [text for chunk in chunks for text in chunk.to_pylist()] == TEXTS


@pytest.mark.parametrize("type_", [pa.string(), pa.int64(), pa.timestamp("us")])
@pytest.mark.parametrize("n_groups", [0, 1])
def test_a_table_without_rows_has_an_empty_column(tmp_path, type_, n_groups):
    values = pa.array([], type_)
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"x": type_})) as writer:
        for _ in range(n_groups):
            writer.write_table(pa.table({"x": values}), row_group_size=1)
    chunks = list(_read_column(tmp_path / "a.parquet", "x"))
    assert [len(chunk) for chunk in chunks] == [0]
    if type_ == pa.int64():
        assert read_numbers(Column(*chunks), "x").tolist() == []


def test_a_torn_file_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    write(tmp_path, pa.array([f"text {number}" for number in range(10_000)]))
    content = bytearray(path.read_bytes())
    content[100:20_000] = bytes(19_900)
    path.write_bytes(content)
    with pytest.raises(OSError):
        list(_read_column(path, "x"))


def test_ids_are_found_among_known_ones():
    known = pa.array(["a", "b"])
    texts = Column(pa.array(TEXTS), pa.array(["", "a", None]))
    found = find_keys(texts, "x", known)
    assert found.dtype == np.int32
    assert found.tolist() == [1, NO_KEY, 0, 1, UNKNOWN_KEY, NO_KEY, 0, NO_KEY]
    assert find_keys(Column(), "x", known).tolist() == []
    assert find_keys(texts, "x", known[:0]).tolist() == [
        NO_KEY if text in (None, "") else UNKNOWN_KEY for text in [*TEXTS, "", "a", None]
    ]


def test_numbers_are_found_by_their_digits():
    known = pa.array(["0007", "1234"])
    numbers = pa.array([7, 1234, None, 12345])
    for chunk in (numbers, numbers.cast(pa.string())):
        found = find_keys(Column(chunk, width=4), "x", known)
        assert found.tolist() == [0, 1, NO_KEY, UNKNOWN_KEY]
