"""Lay out columns of a block as Arrow does, as device arrays.

libcudf takes them without a copy. Values and error messages are those of `cpu_fallback.parquet`.
`repeats` are expanded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cpu_fallback.parquet import (
    build_sample_ids,
    expand,
    expand_cells,
    expand_values,
    numpy_type,
    require_codes,
    require_fit,
    require_lists,
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
    null_count = 0

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


@dataclass(frozen=True)
class NestedLists:
    """Lists, none of them null."""

    offsets: Array  # (n + 1,) int32
    elements: Flat | CodedStrings
    null_count = 0

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


Layout = Flat | CodedStrings | Strings | NestedLists
ForEach = Callable[..., None]  # `Backend.for_each`


def lay_out(
    type_: pa.DataType, column: Any, entries: slice, transfers: Transfers, for_each: ForEach
) -> Layout:
    """Lay out some entries of a block's column as rows of the Arrow type.

    ValueError where they do not fit the type.
    """
    xp = transfers.xp
    match column:
        case Values():
            return _lay_out_flat(type_, *expand_values(column, entries, xp), xp)
        case Codes():
            codes = column.codes[entries]
            return _lay_out_codes(codes, column.vocabulary, column.repeats, xp)
        case Lists():
            return _lay_out_lists(type_, column, entries, xp, for_each)
        case Matrix():
            return _lay_out_matrix(type_, column, entries, xp)
        case SampleIds():
            return Strings(*build_sample_ids(column, entries, xp, transfers.upload))
    raise TypeError(f"{type(column).__name__} is not a column of a block")


def _lay_out_flat(type_: pa.DataType, values: Array, valid: Array | None, xp: Any) -> Flat:
    require_fit(type_, values)
    values = xp.ascontiguousarray(values, dtype=numpy_type(type_))
    n = values.shape[0]
    n_nulls = 0 if valid is None else n - int(xp.count_nonzero(valid))
    if not n_nulls:
        return Flat(type_, values)
    mask = xp.zeros(-(-n // (8 * _MASK_BYTES)) * _MASK_BYTES, dtype=xp.uint8)
    mask[: -(-n // 8)] = xp.packbits(valid, bitorder="little")
    return Flat(type_, values, mask, n_nulls)


def _lay_out_codes(codes: Array, vocabulary: Vocabulary, repeats: int, xp: Any) -> CodedStrings:
    n_strings = len(vocabulary.strings)
    require_codes(codes, n_strings)
    n_nulls = int(xp.count_nonzero(codes < 0)) * repeats
    codes = codes.astype(xp.int32)
    codes = xp.where(codes < 0, xp.int32(n_strings), codes)
    return CodedStrings(expand(codes, repeats, xp), vocabulary, n_nulls)


def _lay_out_lists(
    type_: pa.DataType, column: Lists, entries: slice, xp: Any, for_each: ForEach
) -> NestedLists:
    """Lay out lists, each `repeats` times.

    A kernel copies them: arrays of places, an int64 for each element, would be twenty times the
    traffic, and the elements are most of a file.
    """
    starts, lengths, repeats = column.starts[entries], column.lengths[entries], column.repeats
    entry_offsets = offsets_from_lengths(xp, lengths) * repeats
    n_elements = int(entry_offsets[-1])
    require_lists(type_, column.values, starts, lengths, n_elements)
    elements = xp.empty(n_elements, dtype=column.values.dtype)
    bits = f"u{column.values.dtype.itemsize}"  # copied as bits: one compiled kernel a width
    source, target = column.values.view(bits), elements.view(bits)
    for_each(
        rows.copy_lists, starts.shape[0], source, starts, lengths, repeats, entry_offsets, target
    )
    offsets = offsets_from_lengths(xp, expand(lengths, repeats, xp)).astype(xp.int32)
    return NestedLists(offsets, _lay_out_flat(type_.value_type, elements, None, xp))


def _lay_out_matrix(type_: pa.DataType, column: Matrix, entries: slice, xp: Any) -> NestedLists:
    cells, valid = expand_cells(type_, column, entries, xp)
    elements: Flat | CodedStrings
    if column.vocabulary is None:
        elements = _lay_out_flat(type_.value_type, cells, valid, xp)
    else:
        elements = _lay_out_codes(cells, column.vocabulary, 1, xp)
    n = cells.shape[0] // type_.list_size
    return NestedLists(xp.arange(n + 1, dtype=xp.int32) * xp.int32(type_.list_size), elements)
