"""Lay out columns of a block as Arrow does, as device arrays.

libcudf takes them without a copy. Values and error messages are those of `cpu_fallback.parquet`.
`repeats` are expanded here. Nothing waits for the device: what the host has to know of the entries
has been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cpu_fallback.entries import Entries
from cpu_fallback.parquet import (
    build_sample_ids,
    expand,
    expand_cells,
    numpy_type,
    require_codes,
    require_fit,
    require_lists,
    select_valid,
)

from ...kernels import rows
from ..blocks import Codes, Lists, Matrix, SampleIds, Values, Vocabulary
from ..protocol import Array
from ..runs import offsets_from_lengths
from .transfers import Transfers

_MASK_BYTES = 64  # libcudf reads validity masks in whole cache lines


@dataclass(frozen=True)
class Flat:
    """Values of fixed width."""

    type: pa.DataType
    values: Array  # (n,) of the type's storage
    # Bits of valid rows, the lowest first, uint8, padded to whole cache lines; None: no nulls.
    mask: Array | None = None
    null_count: int = 0

    def __len__(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True)
class CodedStrings:
    """Strings as codes into a vocabulary of v of them."""

    codes: Array  # (n,) int32  v for null
    vocabulary: Vocabulary
    null_count: int

    def __len__(self) -> int:
        return self.codes.shape[0]


@dataclass(frozen=True)
class Strings:
    """Concatenated strings, without nulls."""

    offsets: Array  # (n + 1,) int32
    text: Array  # (offsets[n],) uint8

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


@dataclass(frozen=True)
class NestedLists:
    """Lists, none of them null."""

    offsets: Array  # (n + 1,) int32
    elements: Flat | CodedStrings

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


Layout = Flat | CodedStrings | Strings | NestedLists
ForEach = Callable[..., None]  # `Backend.for_each`


def lay_out(
    type_: pa.DataType, column: Any, entries: Entries, transfers: Transfers, for_each: ForEach
) -> Layout:
    """Lay out some entries of a block's column as rows of the Arrow type.

    ValueError where they do not fit the type.
    """
    xp = transfers.xp
    match column:
        case Values():
            return _lay_out_values(type_, column, entries, xp)
        case Codes():
            vocabulary, repeats = column.vocabulary, column.repeats
            codes = _code_nulls(column.codes[entries.places], vocabulary, entries, xp)
            return CodedStrings(expand(codes, repeats, xp), vocabulary, entries.n_nulls * repeats)
        case Lists():
            return _lay_out_lists(type_, column, entries, xp, for_each)
        case Matrix():
            return _lay_out_matrix(type_, column, entries, xp)
        case SampleIds():
            return Strings(*build_sample_ids(column, entries, xp, transfers.upload))
    raise TypeError(f"{type(column).__name__} is not a column of a block")


def _lay_out_values(type_: pa.DataType, column: Values, entries: Entries, xp: Any) -> Flat:
    valid, repeats = select_valid(column, entries), column.repeats
    values = expand(column.values[entries.places], repeats, xp)
    valid = None if valid is None else expand(valid, repeats, xp)
    return _lay_out_flat(type_, values, valid, entries.n_nulls * repeats, xp)


def _lay_out_flat(
    type_: pa.DataType, values: Array, valid: Array | None, n_nulls: int, xp: Any
) -> Flat:
    require_fit(type_, values)
    values = xp.ascontiguousarray(values, dtype=numpy_type(type_))
    if valid is None:
        return Flat(type_, values)
    n = values.shape[0]
    mask = xp.zeros(-(-n // (8 * _MASK_BYTES)) * _MASK_BYTES, dtype=xp.uint8)
    mask[: -(-n // 8)] = xp.packbits(valid, bitorder="little")
    return Flat(type_, values, mask, n_nulls)


def _code_nulls(codes: Array, vocabulary: Vocabulary, entries: Entries, xp: Any) -> Array:
    """Return codes as int32, null as the size of the vocabulary."""
    n_strings = len(vocabulary.strings)
    require_codes(entries, n_strings)
    codes = xp.ascontiguousarray(codes, dtype=xp.int32)
    return xp.where(codes < 0, xp.int32(n_strings), codes) if entries.n_nulls else codes


def _lay_out_lists(
    type_: pa.DataType, column: Lists, entries: Entries, xp: Any, for_each: ForEach
) -> NestedLists:
    """Lay out lists, each `repeats` times.

    A kernel copies them: arrays of places, an int64 for each element, would be twenty times the
    traffic, and the elements are most of a file.
    """
    require_lists(type_, column, entries)
    starts, lengths = column.starts[entries.places], column.lengths[entries.places]
    repeats = column.repeats
    entry_offsets = offsets_from_lengths(xp, lengths) * repeats
    elements = xp.empty(entries.n_elements * repeats, dtype=column.values.dtype)
    bits = f"u{column.values.dtype.itemsize}"  # copied as bits: one compiled kernel a width
    source, target = column.values.view(bits), elements.view(bits)
    for_each(
        rows.copy_lists, starts.shape[0], source, starts, lengths, repeats, entry_offsets, target
    )
    offsets = offsets_from_lengths(xp, expand(lengths, repeats, xp)).astype(xp.int32)
    return NestedLists(offsets, _lay_out_flat(type_.value_type, elements, None, 0, xp))


def _lay_out_matrix(type_: pa.DataType, column: Matrix, entries: Entries, xp: Any) -> NestedLists:
    cells, valid = expand_cells(type_, column, entries, xp)
    n, n_nulls = cells.shape[0] // type_.list_size, entries.n_nulls * column.repeats
    elements: Flat | CodedStrings
    if column.vocabulary is None:
        elements = _lay_out_flat(type_.value_type, cells, valid, n_nulls, xp)
    else:
        cells = _code_nulls(cells, column.vocabulary, entries, xp)
        elements = CodedStrings(cells, column.vocabulary, n_nulls)
    return NestedLists(xp.arange(n + 1, dtype=xp.int32) * xp.int32(type_.list_size), elements)
