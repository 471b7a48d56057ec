"""The part writer by pyarrow: the oracle of our own encoder, and a way to measure other encodings.

It expands every column to rows and hands them to `pyarrow.parquet.ParquetWriter`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback.cells import copy_lists
from cpu_fallback.entries import Entries
from cpu_fallback.parquet import (
    BlockWriter,
    build_sample_ids,
    encode_metadata,
    expand,
    expand_cells,
    is_list,
    numpy_type,
    require_codes,
    require_fit,
    require_lists,
    select_valid,
)

_CATEGORY = pa.dictionary(pa.int32(), pa.string())
# Rows encoded at a time (Arrow: 1,024). Statistics of a dictionary column walk its dictionary once
# a batch, so few batches are faster.
_BATCH_ROWS = 8_192


class ArrowPartWriter(BlockWriter[pa.Array]):
    """Writes what `cpu_fallback.PartWriter` writes, in any encoding that pyarrow knows."""

    _stored: pa.Schema
    _writer: pq.ParquetWriter

    def _open(self) -> None:
        settings = self._settings
        leaves = {field.name: _leaf_name(field) for field in self._schema}
        self._stored = pa.schema(
            [_stored_field(field, settings.encodings) for field in self._schema]
        )
        self._writer = pq.ParquetWriter(
            self._path,
            self._stored,
            compression=settings.compression,
            compression_level=settings.compression_level,
            use_dictionary=[leaf for name, leaf in leaves.items() if name not in settings.encodings]
            or False,
            column_encoding={
                leaves[name]: encoding
                for name, encoding in settings.encodings.items()
                if name in leaves
            },
            write_statistics=[leaves[name] for name in settings.statistics if name in leaves],
            write_page_index=True,
            write_batch_size=_BATCH_ROWS,
            store_schema=False,
        )
        self._writer.add_key_value_metadata(encode_metadata(self._schema))

    def _lay_out(self, field: pa.Field, column: Any, entries: Entries) -> pa.Array:
        return _BUILDERS[type(column).__name__](field.type, column, entries)

    def _append(self, columns: list[pa.Array]) -> None:
        table = pa.Table.from_arrays(columns, schema=self._stored)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _finish(self) -> None:
        self._writer.close()

    def _abandon(self) -> None:
        self._writer.close()


def _stored_field(field: pa.Field, encodings: dict[str, str]) -> pa.Field:
    """Return the field that the Parquet writer gets: strings as dictionaries where so encoded."""
    return field if field.name in encodings else field.with_type(_stored_type(field.type))


def _stored_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string(type_):
        return _CATEGORY
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(
            type_.value_field.with_type(_stored_type(type_.value_type)), type_.list_size
        )
    return type_


def _leaf_name(field: pa.Field) -> str:
    """Return the column's name inside Parquet."""
    return f"{field.name}.list.element" if is_list(field.type) else field.name


def _build_values(type_: pa.DataType, column: Any, entries: Entries) -> pa.Array:
    values = expand(column.values[entries.places], column.repeats, np)
    valid = select_valid(column, entries)
    return _build_flat(type_, values, None if valid is None else expand(valid, column.repeats, np))


def _build_codes(type_: pa.DataType, column: Any, entries: Entries) -> pa.Array:
    require_codes(entries, len(column.vocabulary.strings))
    return _build_dictionary(
        type_, column.codes[entries.places], column.vocabulary.strings, column.repeats
    )


def _build_lists(type_: pa.DataType, column: Any, entries: Entries) -> pa.Array:
    require_lists(type_, column, entries)
    starts, lengths = column.starts[entries.places], column.lengths[entries.places]
    offsets = np.zeros(len(lengths) * column.repeats + 1, np.int64)
    np.cumsum(expand(lengths, column.repeats, np), out=offsets[1:])
    element = numpy_type(type_.value_type)
    values = np.empty(offsets[-1], element)
    bits = f"u{element.itemsize}"  # copied as bits: one compiled loop a width
    copy_lists(column.values.view(bits), starts, lengths, column.repeats, values.view(bits))
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), _build_flat(type_.value_type, values, None), type=type_
    )


def _build_matrix(type_: pa.DataType, column: Any, entries: Entries) -> pa.Array:
    cells, valid = expand_cells(type_, column, entries, np)
    if column.vocabulary is None:
        elements = _build_flat(type_.value_type, cells, valid)
    else:
        require_codes(entries, len(column.vocabulary.strings))
        elements = _build_dictionary(type_.value_type, cells, column.vocabulary.strings, 1)
    return pa.FixedSizeListArray.from_arrays(elements, type=_stored_type(type_))


def _build_sample_ids(type_: pa.DataType, column: Any, entries: Entries) -> pa.Array:
    offsets, text = build_sample_ids(column, entries, np)
    return pa.Array.from_buffers(
        type_, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )


# By the name of the column's class in `gpu_dcgen.backend.blocks`.
_BUILDERS: dict[str, Callable[[pa.DataType, Any, Entries], pa.Array]] = {
    "Values": _build_values,
    "Codes": _build_codes,
    "Lists": _build_lists,
    "Matrix": _build_matrix,
    "SampleIds": _build_sample_ids,
}


def _build_flat(type_: pa.DataType, values: np.ndarray, valid: np.ndarray | None) -> pa.Array:
    require_fit(type_, values)
    element = numpy_type(type_)
    data = (
        np.packbits(values, bitorder="little")
        if pa.types.is_boolean(type_)
        else np.ascontiguousarray(values, element)
    )
    return pa.Array.from_buffers(type_, len(values), [_pack_valid(valid), pa.py_buffer(data)])


def _build_dictionary(
    type_: pa.DataType, codes: np.ndarray, strings: pa.Array, repeats: int
) -> pa.DictionaryArray:
    """Return codes as a dictionary array.

    An id's dictionary has the strings that occur, a category's all strings: it is the same in every
    row group, so readers join row groups without translating codes.
    """
    if pa.types.is_string(type_):
        codes, strings = _drop_unused(codes, strings)
    codes = expand(np.ascontiguousarray(codes, np.int32), repeats, np)
    buffers = [_pack_valid(codes >= 0), pa.py_buffer(codes)]
    return pa.DictionaryArray.from_buffers(
        _CATEGORY, len(codes), buffers, strings.cast(pa.string())
    )


def _drop_unused(codes: np.ndarray, strings: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Renumber the codes over the strings that occur, in the order of the vocabulary."""
    # The last cell stands for null, code -1.
    occurs = np.zeros(len(strings) + 1, bool)
    occurs[codes] = True
    occurs[-1] = False
    distinct = np.flatnonzero(occurs)
    # Only cells of occurring codes are set and read.
    position = np.empty(len(strings) + 1, np.int32)
    position[-1] = -1
    position[distinct] = np.arange(len(distinct), dtype=np.int32)
    return position[codes], strings.take(pa.array(distinct))


def _pack_valid(valid: np.ndarray | None) -> pa.Buffer | None:
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))
