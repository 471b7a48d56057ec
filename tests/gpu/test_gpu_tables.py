"""The GPU's table verbs give what the CPU's give: every case of
`tests/cpu_fallback/test_tables.py`, read from Parquet files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.backend.gpu import tables as gpu
from tests.cpu_fallback import test_tables
from tests.cpu_fallback.test_tables import *  # noqa: F403  all its tests, on the GPU's tables
from tests.support.input_tables import can_write_views

del test_text_is_never_written_out_once_per_row  # noqa: F821  looks into the CPU's chunks
del test_a_null_inside_a_dictionary_is_null  # noqa: F821  no Parquet file has one
del test_more_values_than_rows_are_an_error  # noqa: F821  a column of the device is read at once


class OnDevice:
    """`cpu_fallback.tables` for the tests: Arrow chunks go through files to the device, results
    come back as NumPy arrays.
    """

    def __init__(self, transfers, piece_bytes=0):
        self.transfers, self.piece_bytes = transfers, piece_bytes

    def read_columns(self, files, names):
        return gpu.read_columns(
            files, names, piece_bytes=self.piece_bytes, transfers=self.transfers
        )

    def encode(self, column):
        codes, values = gpu.encode(self.column(column), self.transfers)
        return self.transfers.download(codes), values

    def parse_numbers(self, column):
        parsed = gpu.parse_numbers(self.column(column), self.transfers)
        return tuple(map(self.transfers.download, parsed))

    def parse_times(self, column):
        parsed = gpu.parse_times(self.column(column), self.transfers)
        return tuple(map(self.transfers.download, parsed))

    def column(self, chunks):
        if not all(isinstance(chunk, pa.Array) for chunk in chunks):
            return chunks  # as they were read
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{number}.parquet" for number in range(len(chunks))]
            for file, chunk in zip(files, chunks, strict=True):
                if chunk.type == pa.string_view() and not can_write_views():
                    chunk = chunk.cast(pa.string())
                pq.write_table(pa.table({"x": chunk}), file)
            return self.read_columns(files, ["x"])["x"]


@pytest.fixture(autouse=True, scope="module")
def on_device(transfers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_tables, "tables", OnDevice(transfers))
        patch.setattr(test_tables, "read_columns", test_tables.tables.read_columns)
        yield test_tables.tables


def kinds(on_device, array):
    return [type(chunk).__name__ for chunk in on_device.column([array])]


def test_what_libcudf_reads_as_arrow_does_stays_on_the_device(on_device):
    text = pa.array(["a", None])
    for array in (
        text,
        text.cast(pa.large_string()),
        text.cast(pa.string_view()),
        text.dictionary_encode(),
    ):
        assert kinds(on_device, array) == ["Text"]
    plain = (
        pa.int8(),
        pa.int64(),
        pa.uint32(),
        pa.float32(),
        pa.date32(),
        pa.timestamp("ns"),
        pa.timestamp("us", "Asia/Tokyo"),
    )
    for type_ in plain:
        assert kinds(on_device, pa.array([1, None], type_)) == ["Plain"]
    for type_ in (pa.uint64(), pa.decimal128(9, 2), pa.bool_(), pa.binary(), pa.time32("s")):
        assert kinds(on_device, pa.nulls(2, type_)) == ["Host"]


def test_int96_and_names_with_dots_are_read_on_the_host(on_device, tmp_path):
    moments = pa.array([1, None], pa.timestamp("us"))
    pq.write_table(
        pa.table({"t": moments}), tmp_path / "t.parquet", use_deprecated_int96_timestamps=True
    )
    pq.write_table(pa.table({"a.b": ["x"]}), tmp_path / "dot.parquet")
    assert [
        type(chunk).__name__
        for chunk in on_device.read_columns([tmp_path / "t.parquet"], ["t"])["t"]
    ] == ["Host"]
    assert [
        type(chunk).__name__
        for chunk in on_device.read_columns([tmp_path / "dot.parquet"], ["a.b"])["a.b"]
    ] == ["Host"]


def test_long_keys_do_not_pass_through_floats(on_device):
    keys = [2**53 + 1, 2**53, None, 2**63 - 1, -(2**63)]
    codes, values = on_device.encode([pa.array(keys[:2]), pa.array(keys[2:], pa.int64())])
    assert values.to_pylist() == [-(2**63), 2**53, 2**53 + 1, 2**63 - 1]
    assert codes.tolist() == [2, 1, -1, 3, 0]


@pytest.mark.parametrize(
    "chunks",
    [
        [pa.array([-0.0, 0.0, 1.5]), pa.array([0.0, -0.0])],
        [pa.array([None, 0.0, -0.0])],
        [pa.array([3, 1, None], pa.int16()), pa.nulls(2, pa.int16())],
        [
            pa.array(["b", None, "a"]),
            pa.nulls(1),
            pa.array([None], pa.string()),
            pa.array(["a", "c"]),
            pa.array(["b"]),
        ],
        [pa.array([True, False, None])],
        [pa.array([2, 1, 2], pa.date32())],
        [pa.array([7, None, 7]).dictionary_encode(), pa.array([9])],
    ],
    ids=[
        "signed zeros",
        "a null beside zeros",
        "a file of nulls",
        "texts",
        "booleans",
        "dates",
        "listed numbers",
    ],
)
def test_codes_and_values_are_those_of_the_cpu(on_device, chunks):
    from cpu_fallback import tables as cpu

    codes, values = on_device.encode(chunks)
    expected_codes, expected_values = cpu.encode(chunks)
    assert codes.tolist() == expected_codes.tolist()
    assert values.equals(expected_values)
    assert [str(value) for value in values] == [
        str(value) for value in expected_values
    ]  # also which zero is negative


def test_a_dictionary_read_on_the_host_may_list_more_than_occurs(on_device):
    listed = pa.DictionaryArray.from_arrays(
        pa.array([2, None, 2, 1, 0]), pa.array([None, b"y", b"z", b"unused"])
    )
    codes, values = on_device.encode([gpu.Host(listed)])
    assert (codes.tolist(), values.to_pylist()) == ([1, -1, 1, 0, -1], [b"y", b"z"])


@pytest.mark.parametrize(
    "verb, column",
    [("parse_times", [pa.array([1])]), ("parse_numbers", [pa.array([1], pa.date32())])],
)
def test_what_is_no_time_or_number_is_refused_as_on_the_cpu(on_device, verb, column):
    from cpu_fallback import tables as cpu

    with pytest.raises(Exception) as expected:
        getattr(cpu, verb)(column)
    with pytest.raises(expected.type):
        getattr(on_device, verb)(column)


def test_pieces_of_a_file_make_one_column(transfers, tmp_path):
    texts = [f"user {k * 7919 % 3000}" if k % 5 else None for k in range(20_000)]
    pq.write_table(
        pa.table({"id": texts, "n": range(20_000)}), tmp_path / "a.parquet", row_group_size=3_000
    )
    in_pieces = OnDevice(transfers, piece_bytes=100_000)
    columns = in_pieces.read_columns([tmp_path / "a.parquet"], ["n", "id"])
    assert len(columns["id"]) > 1
    codes, values = in_pieces.encode(columns["id"])
    assert [None if code < 0 else values[int(code)].as_py() for code in codes] == texts
    assert in_pieces.parse_numbers(columns["n"])[0].tolist() == list(range(20_000))


def test_bytes_that_move_are_counted(on_device, tmp_path):
    pq.write_table(pa.table({"n": range(1_000), "other": range(1_000)}), tmp_path / "a.parquet")
    before = on_device.transfers.to_device, on_device.transfers.to_host
    column = on_device.read_columns([tmp_path / "a.parquet"], ["n"])["n"]
    stored = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0).total_compressed_size
    assert on_device.transfers.to_device - before[0] == stored
    on_device.parse_numbers(column)
    assert on_device.transfers.to_host - before[1] == 1_000 * (
        8 + 1
    )  # values and valid, brought back by this test


def test_a_column_that_libcudf_takes_for_something_else_is_an_error(
    on_device, tmp_path, monkeypatch
):
    from gpu_dcgen.backend.gpu import libcudf

    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    monkeypatch.setattr(libcudf, "type_of", lambda type_: "something else")
    with pytest.raises(RuntimeError, match=r"a\.parquet: column 'n' is int64, libcudf read it as "):
        on_device.read_columns([tmp_path / "a.parquet"], ["n"])
