"""Write the footer of a Parquet file, and its page index.

Names and numbers of fields are those of parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .column_layout import physical_type
from .encodings import PLAIN, RLE, RLE_DICTIONARY, Extremes
from .pages import Chunk, Leaf
from .parquet import is_list
from .thrift import (
    BINARY,
    EMPTY,
    I16,
    I32,
    I64,
    STRUCT,
    TRUE,
    StructWriter,
    encode_binary,
    encode_booleans,
    encode_integer,
)

MAGIC = b"PAR1"
CODECS = {"snappy": 1, "zstd": 6}  # CompressionCodec
_VERSION = 2  # of the format: types and encodings of 2.x
_REQUIRED, _OPTIONAL, _REPEATED = range(3)  # FieldRepetitionType
_BOOLEAN, _INT32, _INT64, _FLOAT, _DOUBLE, _BYTE_ARRAY = 0, 1, 2, 4, 5, 6  # Type
_PHYSICAL = {
    np.dtype(np.bool_): _BOOLEAN,
    np.dtype(np.int32): _INT32,
    np.dtype(np.int64): _INT64,
    np.dtype(np.float32): _FLOAT,
    np.dtype(np.float64): _DOUBLE,
}
_UTF8, _LIST, _INT_8, _INT_16 = 0, 3, 15, 16  # ConvertedType
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2  # PageType
_UNORDERED, _ASCENDING, _DESCENDING = range(3)  # BoundaryOrder
# Fields of ColumnChunk: where an index is; the next field has its length.
_OFFSET_INDEX, _COLUMN_INDEX = 4, 6
_MAX_ORDINAL = (1 << 15) - 1  # of a row group: 16 bits


class Column(NamedTuple):
    """What the end of the file says of a column's part of a row group, encoded."""

    metadata: bytes  # ColumnMetaData
    offsets: bytes  # OffsetIndex
    bounds: bytes | None  # ColumnIndex


class RowGroup(NamedTuple):
    """What the end of the file says of a row group."""

    n_rows: int
    position: int  # of its first page in the file
    n_bytes: int
    n_unpacked_bytes: int
    columns: list[Column]


def make_leaf(field: pa.Field, has_statistics: bool) -> Leaf:
    """Return a column as levels see it; ValueError for a type that is not written."""
    is_nested = is_list(field.type)
    element = field.type.value_field if is_nested else field
    return Leaf(
        path=(field.name, "list", "element") if is_nested else (field.name,),
        physical=_find_physical(element.type),
        is_nullable=field.nullable,
        is_list=is_nested,
        has_nullable_elements=is_nested and element.nullable,
        has_statistics=has_statistics,
    )


def describe_row_group(chunks: list[Chunk]) -> RowGroup:
    """Return what the end of the file says of a row group, encoded."""
    return RowGroup(
        n_rows=chunks[0].n_rows,
        position=chunks[0].position,
        n_bytes=sum(chunk.n_bytes for chunk in chunks),
        n_unpacked_bytes=sum(chunk.n_unpacked_bytes for chunk in chunks),
        columns=[
            Column(_write_metadata(chunk), _write_offset_index(chunk), _write_column_index(chunk))
            for chunk in chunks
        ],
    )


def write_end(
    schema: pa.Schema,
    metadata: Mapping[bytes, bytes],
    created_by: str,
    row_groups: list[RowGroup],
    position: int,
) -> bytes:
    """Return what follows the pages, from a position of the file: page index, footer, magic."""
    index: list[bytes] = []
    columns = [column for row_group in row_groups for column in row_group.columns]
    places: list[dict[int, int]] = [{} for _ in columns]
    # Readers that skip pages read these together: first all bounds, then all places.
    for field_number in (_COLUMN_INDEX, _OFFSET_INDEX):
        for column, place in zip(columns, places, strict=True):
            data = column.bounds if field_number == _COLUMN_INDEX else column.offsets
            if data is not None:
                place |= {field_number: position, field_number + 1: len(data)}
                position += len(data)
                index.append(data)
    next_place = iter(places)
    groups = [
        _write_row_group(row_group, number, next_place)
        for number, row_group in enumerate(row_groups)
    ]
    pairs = [
        StructWriter().add_binary(1, key).add_binary(2, value).finish()
        for key, value in metadata.items()
    ]
    footer = (
        StructWriter()
        .add_integer(1, _VERSION)
        .add_list(2, STRUCT, list(_write_schema(schema)))
        .add_integer(3, sum(row_group.n_rows for row_group in row_groups), I64)
        .add_list(4, STRUCT, groups)
        .add_list(5, STRUCT, pairs)
        .add_binary(6, created_by.encode())
        # ColumnOrder: the order of each column's type.
        .add_list(7, STRUCT, [StructWriter().add_struct(1, EMPTY).finish()] * len(schema))
        .finish()
    )
    return b"".join((*index, footer, len(footer).to_bytes(4, "little"), MAGIC))


def _write_schema(schema: pa.Schema) -> Iterable[bytes]:
    """Yield the SchemaElements, each before those below it."""
    root = StructWriter().add_integer(3, _REQUIRED).add_binary(4, b"schema")
    yield root.add_integer(5, len(schema)).finish()
    for field in schema:
        repetition = _OPTIONAL if field.nullable else _REQUIRED
        if not is_list(field.type):
            yield _write_leaf(field, field.name, repetition)
            continue
        logical = StructWriter().add_struct(3, EMPTY).finish()
        group = StructWriter().add_integer(3, repetition).add_binary(4, field.name.encode())
        yield group.add_integer(5, 1).add_integer(6, _LIST).add_struct(10, logical).finish()
        middle = StructWriter().add_integer(3, _REPEATED).add_binary(4, b"list")
        yield middle.add_integer(5, 1).finish()
        element = field.type.value_field
        yield _write_leaf(element, "element", _OPTIONAL if element.nullable else _REQUIRED)


def _write_leaf(field: pa.Field, name: str, repetition: int) -> bytes:
    converted, logical = _find_logical(field.type)
    return (
        StructWriter()
        .add_integer(1, _find_physical(field.type))
        .add_integer(3, repetition)
        .add_binary(4, name.encode())
        .add_integer(6, converted)
        .add_struct(10, logical)
        .finish()
    )


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_dictionary(type_)


def _find_physical(type_: pa.DataType) -> int:
    """Return the Type of values; ValueError for one that no file has."""
    if _is_text(type_):
        return _BYTE_ARRAY
    is_time = pa.types.is_timestamp(type_)
    if is_time and type_ == pa.timestamp("ns") or not is_time and not pa.types.is_nested(type_):
        try:
            return _PHYSICAL[physical_type(type_)]
        except (KeyError, TypeError, ValueError):
            pass
    raise ValueError(f"{type_} is a type that the writer of samples does not know.")


def _find_logical(type_: pa.DataType) -> tuple[int | None, bytes | None]:
    """Return ConvertedType and LogicalType of values, None where the Type says all."""
    if _is_text(type_):
        return _UTF8, StructWriter().add_struct(1, EMPTY).finish()
    if pa.types.is_timestamp(type_):
        unit = StructWriter().add_struct(3, EMPTY).finish()  # nanoseconds
        # Local time, which is not adjusted to UTC.
        time = StructWriter().add_bool(1, False).add_struct(2, unit).finish()
        return None, StructWriter().add_struct(8, time).finish()
    if type_ in (pa.int8(), pa.int16()):
        bits = StructWriter().add_byte(1, type_.bit_width).add_bool(2, True).finish()
        converted = _INT_8 if type_ == pa.int8() else _INT_16
        return converted, StructWriter().add_struct(10, bits).finish()
    return None, None


def _write_row_group(row_group: RowGroup, number: int, places: Iterator[dict[int, int]]) -> bytes:
    """Return a RowGroup; `places` yields where the page index of each column is."""
    columns = []
    for column in row_group.columns:
        place = next(places)
        chunk = StructWriter().add_integer(2, 0, I64).add_struct(3, column.metadata)
        for field_number in (_OFFSET_INDEX, _COLUMN_INDEX):
            chunk.add_integer(field_number, place.get(field_number), I64)
            chunk.add_integer(field_number + 1, place.get(field_number + 1))
        columns.append(chunk.finish())
    return (
        StructWriter()
        .add_list(1, STRUCT, columns)
        .add_integer(2, row_group.n_unpacked_bytes, I64)
        .add_integer(3, row_group.n_rows, I64)
        .add_integer(5, row_group.position, I64)
        .add_integer(6, row_group.n_bytes, I64)
        # Row groups beyond have no number, as in files of other writers.
        .add_integer(7, number if number <= _MAX_ORDINAL else None, I16)
        .finish()
    )


def _write_metadata(chunk: Chunk) -> bytes:
    """Return a ColumnMetaData."""
    pages = chunk.position + chunk.dictionary_bytes
    encodings, pages_by_encoding = [PLAIN, RLE], [(_DATA_PAGE, chunk.encoding, len(chunk.pages))]
    if chunk.encoding != PLAIN:
        encodings.append(chunk.encoding)
    if chunk.encoding == RLE_DICTIONARY:
        pages_by_encoding.insert(0, (_DICTIONARY_PAGE, PLAIN, 1))
    elif chunk.encoding != PLAIN:
        encodings.remove(PLAIN)
    return (
        StructWriter()
        .add_integer(1, chunk.leaf.physical)
        .add_list(2, I32, [encode_integer(encoding) for encoding in encodings])
        .add_list(3, BINARY, [encode_binary(name.encode()) for name in chunk.leaf.path])
        .add_integer(4, CODECS[chunk.codec])
        .add_integer(5, chunk.n_values, I64)
        .add_integer(6, chunk.n_unpacked_bytes, I64)
        .add_integer(7, chunk.n_bytes, I64)
        .add_integer(9, pages, I64)
        .add_integer(11, chunk.position if chunk.dictionary_bytes else None, I64)
        .add_struct(12, _write_statistics(chunk))
        .add_list(
            13,
            STRUCT,
            [
                StructWriter().add_integer(1, a).add_integer(2, b).add_integer(3, n).finish()
                for a, b, n in pages_by_encoding
            ],
        )
        .add_struct(16, _write_size_statistics(chunk))
        .finish()
    )


def _write_statistics(chunk: Chunk) -> bytes | None:
    """Return the Statistics of a column that has them."""
    if not chunk.leaf.has_statistics:
        return None
    n_nulls = sum(page.n_nulls for page in chunk.pages)
    bounds = [page.extremes for page in chunk.pages if page.extremes is not None]
    if not bounds:
        return StructWriter().add_integer(3, n_nulls, I64).finish()
    least = min(bounds, key=lambda extremes: extremes.least).least_bytes
    greatest = max(bounds, key=lambda extremes: extremes.greatest).greatest_bytes
    # The first two fields are those of older readers, which took the bytes of texts as signed.
    is_text = chunk.leaf.physical == _BYTE_ARRAY
    return (
        StructWriter()
        .add_binary(1, None if is_text else greatest)
        .add_binary(2, None if is_text else least)
        .add_integer(3, n_nulls, I64)
        .add_binary(5, greatest)
        .add_binary(6, least)
        .add_bool(7, True)
        .add_bool(8, True)
        .finish()
    )


def _write_size_statistics(chunk: Chunk) -> bytes | None:
    """Return SizeStatistics: bytes of text, and how often each level occurs."""
    leaf, text = chunk.leaf, _sum_text(chunk)
    if text is None and not leaf.max_definition:
        return None
    sizes = StructWriter().add_integer(1, text, I64)
    if leaf.is_list:
        counts = (chunk.n_rows, chunk.n_values - chunk.n_rows)
        sizes.add_list(2, I64, [encode_integer(count) for count in counts])
    if leaf.max_definition:
        sizes.add_list(3, I64, [encode_integer(count) for count in chunk.definitions.tolist()])
    return sizes.finish()


def _sum_text(chunk: Chunk) -> int | None:
    texts = [page.text_bytes for page in chunk.pages if page.text_bytes is not None]
    return int(sum(texts)) if texts else None


def _write_offset_index(chunk: Chunk) -> bytes:
    pages = [
        StructWriter()
        .add_integer(1, page.position, I64)
        .add_integer(2, page.n_bytes)
        .add_integer(3, page.first_row, I64)
        .finish()
        for page in chunk.pages
    ]
    texts = None
    if _sum_text(chunk) is not None:
        texts = [encode_integer(int(page.text_bytes or 0)) for page in chunk.pages]
    return StructWriter().add_list(1, STRUCT, pages).add_list(2, I64, texts).finish()


def _write_column_index(chunk: Chunk) -> bytes | None:
    """Return the ColumnIndex; None where a page with values has no minimum and maximum."""
    pages = chunk.pages
    is_null = [page.n_nulls == _count_rows(chunk, number) for number, page in enumerate(pages)]
    bounds = [page.extremes for page, null in zip(pages, is_null, strict=True) if not null]
    if not chunk.leaf.has_statistics or None in bounds:
        return None
    least = [b"" if page.extremes is None else page.extremes.least_bytes for page in pages]
    greatest = [b"" if page.extremes is None else page.extremes.greatest_bytes for page in pages]
    return (
        StructWriter()
        .add_list(1, TRUE, encode_booleans(is_null))
        .add_list(2, BINARY, [encode_binary(value) for value in least])
        .add_list(3, BINARY, [encode_binary(value) for value in greatest])
        .add_integer(4, _find_order([extremes for extremes in bounds if extremes is not None]))
        .add_list(5, I64, [encode_integer(page.n_nulls) for page in pages])
        .finish()
    )


def _count_rows(chunk: Chunk, number: int) -> int:
    pages = chunk.pages
    stop = pages[number + 1].first_row if number + 1 < len(pages) else chunk.n_rows
    return stop - pages[number].first_row


def _find_order(pages: list[Extremes]) -> int:
    """Return the BoundaryOrder of the pages' minima and maxima."""
    pairs: list[tuple[Any, Any]] = [(page.least, page.greatest) for page in pages]
    steps = list(zip(pairs, pairs[1:], strict=False))
    if all(a[0] <= b[0] and a[1] <= b[1] for a, b in steps):
        return _ASCENDING
    if all(a[0] >= b[0] and a[1] >= b[1] for a, b in steps):
        return _DESCENDING
    return _UNORDERED
