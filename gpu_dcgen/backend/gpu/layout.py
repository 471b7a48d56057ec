"""Columns of a block laid out as Arrow lays columns out, still as arrays of the machine: what libcudf takes without a copy.

The meaning is that of `cpu_fallback.parquet`, down to the words of what is refused. `repeats` are expanded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cpu_fallback.parquet import numpy_type, require_codes, require_fit, require_lists

from ..blocks import Codes, Lists, Matrix, SampleIds, Values
from ..protocol import Array
from ..runs import offsets_from_lengths, repeat_index
from .transfers import Transfers

_MASK_BYTES = 64  # libcudf reads validity masks in whole cache lines
_DIGITS = 10  # of the group's number in a sample id


@dataclass(frozen=True)
class Flat:
    """Values of fixed width."""

    type: pa.DataType
    values: Array  # (n,) of the type's storage
    mask: Array | None = None  # bits of valid rows, the lowest first, uint8, padded; None: no nulls
    null_count: int = 0

    def __len__(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True)
class Words:
    """Strings as codes into a vocabulary of v of them."""

    codes: Array  # (n,) int32  v for null
    vocabulary: Any  # blocks.Vocabulary
    null_count: int

    def __len__(self) -> int:
        return self.codes.shape[0]


@dataclass(frozen=True)
class Texts:
    """Strings end to end, without nulls."""

    offsets: Array  # (n + 1,) int32
    text: Array  # (offsets[n],) uint8
    null_count = 0

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


@dataclass(frozen=True)
class Nested:
    """Lists, none of them null."""

    offsets: Array  # (n + 1,) int32
    elements: Flat | Words
    null_count = 0

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


Layout = Flat | Words | Texts | Nested


def is_list(type_: pa.DataType) -> bool:
    """Whether a file stores the type as a list, of fixed size or not."""
    return pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_)


def lay_out(type_: pa.DataType, column: Any, entries: slice, transfers: Transfers) -> Layout:
    """Some entries of a block's column as rows of the Arrow type; ValueError where they do not fit it."""
    xp = transfers.xp
    match column:
        case Values():
            valid = (
                None
                if column.valid is None
                else _repeated(column.valid[entries], column.repeats, xp)
            )
            return _flat(type_, _repeated(column.values[entries], column.repeats, xp), valid, xp)
        case Codes():
            return _words(column.codes[entries], column.vocabulary, column.repeats, xp)
        case Lists():
            return _lists(type_, column, entries, xp)
        case Matrix():
            return _matrix(type_, column, entries, xp)
        case SampleIds():
            return _sample_ids(column, entries, transfers)
    raise TypeError(f"no column of a block: {type(column).__name__}")


def _flat(type_: pa.DataType, values: Array, valid: Array | None, xp: Any) -> Flat:
    require_fit(type_, values)
    values = xp.ascontiguousarray(values, dtype=numpy_type(type_))
    n = values.shape[0]
    n_nulls = 0 if valid is None else n - int(xp.count_nonzero(valid))
    if not n_nulls:
        return Flat(type_, values)
    mask = xp.zeros(-(-n // (8 * _MASK_BYTES)) * _MASK_BYTES, dtype=xp.uint8)
    mask[: -(-n // 8)] = xp.packbits(valid, bitorder="little")
    return Flat(type_, values, mask, n_nulls)


def _words(codes: Array, vocabulary: Any, repeats: int, xp: Any) -> Words:
    n_words = len(vocabulary.strings)
    require_codes(codes, n_words)
    n_nulls = int(xp.count_nonzero(codes < 0)) * repeats
    codes = codes.astype(xp.int32)
    return Words(
        _repeated(xp.where(codes < 0, xp.int32(n_words), codes), repeats, xp), vocabulary, n_nulls
    )


def _lists(type_: pa.DataType, column: Lists, entries: slice, xp: Any) -> Nested:
    starts, lengths = column.starts[entries], column.lengths[entries]
    offsets = offsets_from_lengths(xp, _repeated(lengths, column.repeats, xp))
    require_lists(type_, column.values, starts, lengths, int(offsets[-1]))
    row = repeat_index(xp, xp.diff(offsets))
    place = _repeated(starts, column.repeats, xp)[row] + xp.arange(row.shape[0]) - offsets[row]
    return Nested(offsets.astype(xp.int32), _flat(type_.value_type, column.values[place], None, xp))


def _matrix(type_: pa.DataType, column: Matrix, entries: slice, xp: Any) -> Nested:
    cells = _repeated(column.values[entries], column.repeats, xp)
    n, width = cells.shape
    if width != type_.list_size:
        raise ValueError(f"rows of {width} elements for {type_}.")
    valid = (
        None
        if column.valid is None
        else _repeated(column.valid[entries], column.repeats, xp).reshape(n * width)
    )
    cells = cells.reshape(n * width)
    elements: Flat | Words
    if column.vocabulary is None:
        elements = _flat(type_.value_type, cells, valid, xp)
    else:
        codes = cells if valid is None else xp.where(valid, cells, cells.dtype.type(-1))
        elements = _words(codes, column.vocabulary, 1, xp)
    return Nested(xp.arange(n + 1, dtype=xp.int32) * xp.int32(width), elements)


def _sample_ids(column: SampleIds, entries: slice, transfers: Transfers) -> Texts:
    """Ids `{split}-{group:010d}-{slot:02d}`: a group's bytes are alike but for ten digits, written into each id."""
    xp = transfers.xp
    ids = [
        f"{column.split}-{0:0{_DIGITS}d}-{slot:02d}".encode()
        for slot in range(column.rows_per_group)
    ]
    ends = np.cumsum([len(text) for text in ids])
    n, width = entries.stop - entries.start, int(ends[-1])
    group = xp.arange(entries.start, entries.stop, dtype=xp.int64) + column.first_group
    places = transfers.upload(10 ** np.arange(_DIGITS - 1, -1, -1))
    digits = (group[:, None] // places % 10 + ord("0")).astype(xp.uint8)
    text = xp.tile(transfers.upload(np.frombuffer(b"".join(ids), np.uint8)), (n, 1))
    for start in [0, *ends[:-1].tolist()]:
        first = start + len(column.split) + 1
        text[:, first : first + _DIGITS] = digits
    offsets = xp.zeros(n * len(ids) + 1, dtype=xp.int32)
    offsets[1:] = (
        xp.arange(n, dtype=xp.int32)[:, None] * xp.int32(width)
        + transfers.upload(ends.astype(np.int32))
    ).ravel()
    return Texts(offsets, text.reshape(n * width))


def _repeated(values: Array, repeats: int, xp: Any) -> Array:
    return values if repeats == 1 else xp.repeat(values, repeats, axis=0)
