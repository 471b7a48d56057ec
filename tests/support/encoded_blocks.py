"""Blocks with every kind of column, written by our encoder and by pyarrow."""

import struct

import numpy as np
import pyarrow as pa

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen.backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values
from gpu_dcgen.contract.schema import WriterSettings
from gpu_dcgen.digest import vocabulary
from gpu_dcgen.thrift import CompactReader
from tests.support.arrow_part_writer import ArrowPartWriter

CPU = NumpyBackend(1)
CATEGORY = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("ns")
NUMBERS = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "time": TIME,
}


def draw_numbers(rng, type_, n, spread):
    dtype = np.dtype(type_.to_pandas_dtype()) if type_ != TIME else np.dtype(np.int64)
    if dtype.kind == "b":
        return rng.random(n) < 0.5
    limit = min(spread, 100) if dtype.itemsize == 1 else spread
    numbers = rng.integers(-limit, limit + 1, n)
    return (numbers / 7 if dtype.kind == "f" else numbers).astype(dtype)


def draw_valid(rng, n, null_share):
    return None if null_share is None else rng.random(n) >= null_share


def words_of(n):
    # Some are empty, long, or not ASCII, so that lengths in characters and in bytes differ.
    return [("", "ß", "日本", "x" * 300)[k] if k < 4 else f"wörd-{k:05d}" for k in range(n)]


def make_block(n_entries, repeats, *, n_words, spread, null_share, max_length, seed, first=0):
    """A block with a column of every kind, and its schema."""
    rng = np.random.default_rng(seed)
    words, columns, fields = vocabulary(words_of(n_words), CPU), {}, []
    n_rows = n_entries * repeats

    def add(name, type_, column, nullable):
        columns[name] = column
        fields.append(pa.field(name, type_, nullable, {"of": name}))

    for by, n, times in (("entry", n_entries, repeats), ("row", n_rows, 1)):
        for name, type_ in NUMBERS.items():
            for encoding in ("plain", "dictionary"):
                values, valid = draw_numbers(rng, type_, n, spread), draw_valid(rng, n, null_share)
                add(f"{encoding}_{name}_{by}", type_, Values(values, valid, times), True)
            add(f"plain_{name}_{by}_required", type_, Values(values, None, times), False)
        for name, type_ in (("id", pa.string()), ("category", CATEGORY)):
            codes = rng.integers(0, max(1, n_words), n).astype(np.int32)
            if not n_words:
                codes[:] = -1
            nulls = draw_valid(rng, n, null_share)
            if nulls is not None:
                codes[~nulls] = -1
            add(f"{name}_{by}", type_, Codes(codes, words, times), True)
            if n_words:
                add(
                    f"{name}_{by}_required", type_, Codes(np.maximum(codes, 0), words, times), False
                )
    lengths = rng.integers(0, max_length + 1, n_entries).astype(np.int32)
    starts = rng.integers(0, 200 - max_length, n_entries)
    for name in ("int16", "int32", "int64", "float32", "time"):
        history = draw_numbers(rng, NUMBERS[name], 200, spread)
        for nullable in (False, True):
            list_type = pa.list_(pa.field("element", NUMBERS[name], nullable))
            for encoding in ("plain", "dictionary"):
                column = Lists(history, starts, lengths, repeats)
                add(f"{encoding}_list_{name}_{nullable}", list_type, column, nullable)
    for name in ("int32", "float32"):
        cells = draw_numbers(rng, NUMBERS[name], n_rows * 3, spread).reshape(n_rows, 3)
        valid = draw_valid(rng, (n_rows, 3), null_share)
        list_type = pa.list_(pa.field("element", NUMBERS[name]), 3)
        for encoding in ("plain", "dictionary"):
            add(f"{encoding}_matrix_{name}", list_type, Matrix(cells, valid), False)
    codes = rng.integers(-1 if null_share else 0, max(1, n_words), (n_rows, 3)).astype(np.int32)
    for name, type_ in (("id", pa.string()), ("category", CATEGORY)):
        if n_words:
            list_type = pa.list_(pa.field("element", type_), 3)
            add(f"matrix_{name}", list_type, Matrix(codes, vocabulary=words), False)
    ids = SampleIds("train", first + 98, n_entries, repeats)
    add("sample_id", pa.string(), ids, False)
    return Block(first * repeats, n_rows, columns), pa.schema(fields, {"a": "b"})


def make_settings(schema, **changes):
    encodings = {field.name: "PLAIN" for field in schema if field.name.startswith("plain")}
    encodings |= {field.name: "PLAIN" for field in schema if field.type == pa.bool_()}
    statistics = tuple(
        field.name
        for field in schema
        if not pa.types.is_nested(field.type) and field.name != "sample_id"
    )
    return WriterSettings(
        **{
            "compression": "zstd",
            "compression_level": 3,
            "rows_per_row_group": 1 << 20,
            "encodings": {**encodings, "sample_id": "DELTA_BYTE_ARRAY"},
            "statistics": statistics,
        }
        | changes
    )


def write_both(folder, blocks, schema, **changes):
    paths = folder / "ours.parquet", folder / "arrow.parquet"
    for path, writer in zip(paths, (PartWriter, ArrowPartWriter), strict=True):
        with writer(path, schema, make_settings(schema, **changes)) as opened:
            for block in blocks:
                opened.write(block)
    return paths


def read_struct(path, position=None):
    """The struct at a position of the file, or its footer."""
    data = path.read_bytes()
    if position is None:
        (length,) = struct.unpack("<I", data[-8:-4])
        position = len(data) - 8 - length
    return CompactReader(data[position:]).read_struct()
