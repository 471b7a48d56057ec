"""What is called of RAPIDS is there, as it is called: checked wherever RAPIDS is installed, with or
without a device.

Without a driver libcudf runs nothing, but its options, metadata and columns can be made, and its
stubs give every signature.
"""

from __future__ import annotations

import ast
import base64
import inspect
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import gpu_dcgen.backend.gpu
from cpu_fallback import NumpyBackend
from cpu_fallback.parquet import encode_metadata, is_list, numpy_type
from gpu_dcgen.backend.gpu import layout
from gpu_dcgen.backend.gpu.transfers import Transfers
from gpu_dcgen.contract import schema as contract
from gpu_dcgen.digest import vocabulary

plc = pytest.importorskip("pylibcudf", reason="RAPIDS is not installed: its calls are not checked")
cupy = pytest.importorskip("cupy", reason="CuPy is not installed: its functions are not checked")

from gpu_dcgen.backend.gpu import libcudf  # noqa: E402  it imports RAPIDS

SOURCES = sorted(Path(gpu_dcgen.backend.gpu.__file__).parent.glob("*.py"))
OURS = [
    path for path in SOURCES if path.stem in {"layout", "libcudf", "parquet", "tables", "transfers"}
]


class OnDevice(np.ndarray):
    """An array that says it is on a device: enough to make a column of, which nobody reads."""

    @property
    def __cuda_array_interface__(self):
        return {**self.__array_interface__, "strides": None, "version": 3}


def on_device(n, dtype):
    return np.zeros(n, dtype).view(OnDevice)


def laid_out(type_, n=4):
    """A column of the type as `layout.lay_out` makes it, on the device."""
    if is_list(type_):
        return layout.NestedLists(on_device(n + 1, np.int32), laid_out(type_.value_type, 2 * n))
    if pa.types.is_string(type_):
        return layout.Strings(on_device(n + 1, np.int32), on_device(9, np.uint8))
    if pa.types.is_dictionary(
        type_
    ):  # codes are looked up by a kernel; strings stand for what comes of it
        return laid_out(pa.string(), n)
    return layout.Flat(type_, on_device(n, numpy_type(type_)), on_device(64, np.uint8), 1)


FILES = [(name, "labeled_pair") for name in contract.FILES] + [
    ("train_dataset", "n_tuple"),
    ("train_dataset", "triplet"),
]


@pytest.mark.parametrize("name, shape", FILES)
def test_every_file_of_the_contract_has_columns_metadata_and_options(tmp_path, name, shape):
    schema = contract.make_arrow_schema(name, shape=shape)
    metadata = {key.decode(): value.decode() for key, value in encode_metadata(schema).items()}
    settings = contract.make_writer_settings(name, shape=shape)
    writer = libcudf.RowGroupWriter(tmp_path / "a.parquet", schema, settings, metadata, None)
    table = plc.Table([writer._column(laid_out(field.type)) for field in schema])
    assert [column.type().id() for column in table.columns()] == [
        type_id(field.type) for field in schema
    ]
    assert all(column.size() == 4 for column in table.columns())
    named = writer._table_metadata(table)
    assert [column.get_name() for column in named.column_metadata] == schema.names
    assert isinstance(writer.options(table), plc.io.parquet.ChunkedParquetWriterOptions)


def type_id(type_):
    if is_list(type_):
        return plc.TypeId.LIST
    if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
        return plc.TypeId.STRING
    return {
        "timestamp[ns]": plc.TypeId.TIMESTAMP_NANOSECONDS,
        "bool": plc.TypeId.BOOL8,
        "float": plc.TypeId.FLOAT32,
    }.get(str(type_), getattr(plc.TypeId, str(type_).upper(), None))


def test_columns_see_the_memory_of_their_arrays():
    writer = libcudf.RowGroupWriter(Path("a.parquet"), pa.schema([]), None, {}, None)
    flat = laid_out(pa.timestamp("ns"))
    column = writer._column(flat)
    assert (column.data().ptr, column.data().size) == (flat.values.ctypes.data, 4 * 8)
    assert (column.null_mask().ptr, column.null_count()) == (flat.mask.ctypes.data, 1)
    nested = laid_out(pa.list_(pa.int32()))
    column = writer._column(nested)
    assert (column.num_children(), column.null_count(), column.null_mask()) == (2, 0, None)
    assert column.list_view().offsets().data().ptr == nested.offsets.ctypes.data
    assert column.list_view().child().data().ptr == nested.elements.values.ctypes.data
    texts = laid_out(pa.string())
    column = writer._column(texts)
    assert (column.data().ptr, column.child(0).data().ptr) == (
        texts.text.ctypes.data,
        texts.offsets.ctypes.data,
    )


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
@pytest.mark.parametrize("statistics", [(), ("x",)])
def test_every_setting_of_a_writer_has_an_option(tmp_path, compression, statistics):
    settings = replace(
        contract.make_writer_settings("train_dataset"),
        compression=compression,
        statistics=statistics,
    )
    settings = replace(settings, encodings={"x": "PLAIN"})
    schema = pa.schema([pa.field("x", pa.int8())])
    writer = libcudf.RowGroupWriter(tmp_path / "a.parquet", schema, settings, {"k": "v"}, None)
    writer.options(plc.Table([writer._column(laid_out(pa.int8()))]))
    assert {
        plc.io.types.ColumnEncoding[name].name
        for name in ("PLAIN", "DICTIONARY", "DELTA_BYTE_ARRAY")
    } == set(contract.Encoding.__args__)
    with pytest.raises(KeyError):
        writer = libcudf.RowGroupWriter(
            tmp_path / "a.parquet", schema, replace(settings, compression="gzip"), {}, None
        )
        writer.options(plc.Table([writer._column(laid_out(pa.int8()))]))


class Recorder:
    """Passes calls of a builder to pylibcudf's own, and notes their arguments by name."""

    def __init__(self, builder, asked):
        self.builder, self.asked = builder, asked

    def __getattr__(self, name):
        def call(*arguments):
            self.asked[name] = arguments[0] if arguments else None
            result = getattr(self.builder, name)(*arguments)
            return self if result is self.builder or type(result) is type(self.builder) else result

        return call


def record_options(monkeypatch, name):
    """Return what is asked of the builder of pylibcudf's options of that name, from now on."""
    asked, options = {}, getattr(plc.io.parquet, name)

    def build(*arguments):
        return Recorder(options.builder(*arguments), asked)

    monkeypatch.setattr(plc.io.parquet, name, SimpleNamespace(builder=build))
    return asked


def test_a_missing_column_is_an_error_and_types_are_those_of_the_file(tmp_path, monkeypatch):
    """By default libcudf leaves out columns that a file lacks, in silence."""
    asked = record_options(monkeypatch, "ParquetReaderOptions")
    (tmp_path / "a.parquet").touch()
    libcudf._reader_options(tmp_path / "a.parquet", ("x", "y"))
    assert asked.pop("column_names") == ["x", "y"] and "build" in asked
    assert asked["ignore_missing_columns"] is False
    assert asked["use_arrow_schema"] is False and asked["use_pandas_metadata"] is False


def test_dictionaries_of_ids_and_row_groups_have_no_limits_of_libcudf(tmp_path, monkeypatch):
    """Its defaults are 1 MiB of a dictionary and 1 million rows; our schema is in the metadata."""
    asked = record_options(monkeypatch, "ChunkedParquetWriterOptions")
    schema = pa.schema([pa.field("x", pa.int8())])
    settings = contract.make_writer_settings("train_dataset")
    writer = libcudf.RowGroupWriter(tmp_path / "a.parquet", schema, settings, {"k": "v"}, None)
    writer.options(plc.Table([writer._column(laid_out(pa.int8()))]))
    assert asked["max_dictionary_size"] >= 1 << 30 and asked["row_group_size_rows"] >= 1 << 30
    assert asked["write_arrow_schema"] is False and asked["key_value_metadata"] == [{"k": "v"}]


def test_types_that_stay_on_the_device_have_one_in_libcudf():
    from gpu_dcgen.backend.gpu.tables import _PLAIN

    for type_ in [*_PLAIN, pa.string(), *map(pa.timestamp, ("ms", "us", "ns"))]:
        assert libcudf.type_of(type_) == libcudf.type_of(type_)
        assert libcudf.type_of(type_) != libcudf.type_of(pa.bool_())
        if not pa.types.is_string(type_):
            assert plc.types.size_of(libcudf.type_of(type_)) == numpy_type(type_).itemsize


def stubs(module):
    """The functions and classes of a module's stub file, by name; of a class, its methods by
    'Class.method'.
    """
    text = Path(module.__file__.split(".abi3")[0]).with_suffix(".pyi").read_text()
    tree = ast.parse(
        re.sub(r"def (\w+)\[[^]]*\]", r"def \1", text)
    )  # type parameters, which Python 3.11 cannot parse
    members = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            members[node.name] = node
        if isinstance(node, ast.ClassDef):
            members |= {
                f"{node.name}.{part.name}": part
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            }
    return members


def parameters(function):
    return [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]


@pytest.mark.parametrize(
    "module, name, first",
    [
        ("transform", "encode", ["input"]),
        ("concatenate", "concatenate", ["objects"]),
        ("copying", "gather", ["source_table", "gather_map", "bounds_policy"]),
        ("copying", "slice", ["input", "indices"]),
        ("column", "Column.from_arrow", ["obj"]),
        ("column", "Column.to_arrow", []),
        (
            "column",
            "Column.__init__",
            ["data_type", "size", "data", "mask", "null_count", "offset", "children"],
        ),
        ("io.parquet", "ChunkedParquetReader.__init__", ["options"]),
        ("io.parquet", "ChunkedParquetReader.has_next", []),
        ("io.parquet", "read_parquet", ["options"]),
        ("io.parquet", "ParquetReaderOptions.set_row_groups", ["row_groups"]),
        ("io.parquet", "ChunkedParquetReader.read_chunk", []),
        ("io.parquet", "ChunkedParquetWriter.from_options", ["options"]),
        ("io.parquet", "ChunkedParquetWriter.write", ["table"]),
        ("io.parquet", "ChunkedParquetWriter.close", ["metadata_file_path"]),
        ("io.types", "TableWithMetadata.column_names", []),
        ("io.types", "TableWithMetadata.columns", []),
    ],
)
def test_calls_that_need_a_device_have_the_signature_they_are_called_with(module, name, first):
    owner = plc
    for part in [*module.split("."), *name.split(".")]:
        owner = getattr(owner, part)
    member = plc
    for part in module.split("."):
        member = getattr(member, part)
    function = stubs(member)[name]
    needed = len(parameters(function)) - len(function.args.defaults)
    assert parameters(function)[: len(first)] == first
    assert needed <= len(first)


def test_a_reader_takes_its_limits_by_name():
    names = parameters(stubs(plc.io.parquet)["ChunkedParquetReader.__init__"])
    assert {"chunk_read_limit", "pass_read_limit"} <= set(names)


def test_a_file_is_opened_with_the_options_that_are_asked_for(tmp_path, monkeypatch):
    """`read_pieces` up to the reader itself, which needs a device."""
    asked = {}

    class Reader:
        def __init__(self, options, **limits):
            asked.update(limits, options=options)

        def has_next(self):
            return False

    monkeypatch.setattr(plc.io.parquet, "ChunkedParquetReader", Reader)
    (tmp_path / "a.parquet").touch()
    assert list(libcudf.read_pieces(tmp_path / "a.parquet", ["x"], 1 << 20)) == []
    assert isinstance(asked.pop("options"), plc.io.parquet.ParquetReaderOptions)
    assert asked == {"chunk_read_limit": 1 << 20, "pass_read_limit": 1 << 20}


def test_one_row_group_is_read_with_the_options_that_are_asked_for(tmp_path, monkeypatch):
    """`read_row_group` up to the reading itself, which needs a device."""
    asked = []

    def read(options):
        asked.append(options)
        return SimpleNamespace(column_names=lambda: ["x"], columns=["a column"])

    monkeypatch.setattr(plc.io.parquet, "read_parquet", read)
    (tmp_path / "a.parquet").touch()
    assert libcudf.read_row_group(tmp_path / "a.parquet", 3, ["x"]) == {"x": "a column"}
    [options] = asked
    assert isinstance(options, plc.io.parquet.ParquetReaderOptions)


def test_the_parts_of_a_list_are_its_offsets_and_its_elements():
    writer = libcudf.RowGroupWriter(Path("a.parquet"), pa.schema([]), None, {}, None)
    nested = laid_out(pa.list_(pa.int32()))
    offsets, elements = libcudf.split_lists(writer._column(nested))
    assert offsets.data().ptr == nested.offsets.ctypes.data and offsets.size() == len(
        nested.offsets
    )
    assert elements.data().ptr == nested.elements.values.ctypes.data


def test_cupy_has_every_function_that_is_called_of_xp():
    called = set()
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "xp"
            ):
                called.add(node.attr)
    assert {"unique", "packbits", "unpackbits"} <= called
    assert not [name for name in called if not hasattr(cupy, name)]
    for name, keyword in [
        ("packbits", "bitorder"),
        ("unpackbits", "bitorder"),
        ("unique", "return_index"),
        ("repeat", "axis"),
    ]:
        assert keyword in inspect.signature(getattr(cupy, name)).parameters


def test_the_schema_travels_as_text():
    schema = contract.make_arrow_schema("train_dataset")
    metadata = encode_metadata(schema)
    assert pa.ipc.read_schema(pa.py_buffer(base64.b64decode(metadata[b"ARROW:schema"]))).equals(
        schema, check_metadata=True
    )
    assert all(value.decode() for value in metadata.values())


class Held:
    """A column as libcudf returns it: bytes, a mask of bits, a number of nulls."""

    def __init__(self, values, nulls=()):
        self.values, self.nulls = values, list(nulls)

    def size(self):
        return len(self.values)

    def null_count(self):
        return len(self.nulls)

    def data(self):
        return np.append(self.values, np.zeros(3, self.values.dtype)).view(
            np.uint8
        )  # buffers may be longer than their columns

    def null_mask(self):
        valid = np.ones(512, bool)
        valid[self.nulls] = False
        return np.packbits(valid, bitorder="little")


@pytest.mark.parametrize("n", [1, 8, 9])
def test_values_and_masks_of_a_column_become_arrays(n):
    values, valid = libcudf.to_arrays(Held(np.arange(n) * 2**40, [n - 1]), np.dtype(np.int64), np)
    assert values.tolist() == (np.arange(n) * 2**40).tolist()
    assert valid.tolist() == [True] * (n - 1) + [False]
    assert libcudf.to_arrays(Held(np.arange(n, dtype=np.int32)), np.dtype(np.int32), np)[1] is None


def in_place_of(plc, **functions):
    """pylibcudf with some functions replaced, which need a device."""
    return SimpleNamespace(
        **{name: getattr(plc, name) for name in ("Table", "Column", "DataType", "TypeId")}
        | functions
    )


@pytest.mark.parametrize("nulls, expected", [([1], [1, -1, 0]), ([], [1, 2, 0])])
def test_a_null_has_no_code_and_no_string(monkeypatch, nulls, expected):
    """libcudf sorts the null behind all keys and counts it as one; [b, null, a] and [b, c, a] have
    equal places.
    """
    keys, places = np.array(["a", "b", "last"]), Held(np.array([1, 2, 0], np.int32))
    encode = SimpleNamespace(
        encode=lambda table: (SimpleNamespace(columns=lambda: [Held(keys)]), places)
    )
    cut = SimpleNamespace(slice=lambda column, ends: [Held(column.values[ends[0] : ends[1]])])
    monkeypatch.setattr(libcudf, "plc", in_place_of(plc, Table=list, transform=encode, copying=cut))
    codes, strings = libcudf.encode_strings(Held(np.array(["b", "?", "a"]), nulls), np)
    assert codes.tolist() == expected
    assert strings._column.values.tolist() == ["a", "b", "last"][: max(expected) + 1]
    assert codes.dtype == np.int32


def test_a_vocabulary_is_uploaded_once_and_let_go_with_its_last_user(monkeypatch):
    monkeypatch.setattr(
        libcudf,
        "plc",
        in_place_of(plc, Column=SimpleNamespace(from_arrow=lambda strings: [strings])),
    )
    uploads, transfers = libcudf.Vocabularies(), Transfers(np)
    words = vocabulary(["a", "é"], NumpyBackend(1))
    column = uploads.column(words, transfers)
    assert column[0].to_pylist() == ["a", "é", None]
    assert transfers.to_device == column[0].nbytes > 0
    assert uploads.column(words, transfers) is column
    assert uploads.column(vocabulary(["a", "é"], NumpyBackend(1)), transfers) is not column
    del words
    assert not uploads._columns
