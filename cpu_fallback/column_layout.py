"""Lay out columns of blocks for the Parquet encoder, and check that they fit their types.

Entries stay as the block has them: codes, slices, and a value for `repeats` adjacent rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from . import cells
from .encodings import (
    Booleans,
    Encoder,
    NumberIndices,
    Numbers,
    SampleIdTexts,
    Slices,
    StringIndices,
    Strings,
    as_bits,
)
from .entries import Entries
from .parquet import (
    expand,
    expand_cells,
    numpy_type,
    require_codes,
    require_fit,
    require_lists,
    select_valid,
)

DICTIONARY, PLAIN = "DICTIONARY", "PLAIN"
# Of the distinct numbers of a row group, in bytes; more are PLAIN.
_MAX_DICTIONARY_BYTES = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Some rows of a column: entries, each of which stands for `repeats` rows.

    A cell is an entry's value, or an element of its list.
    """

    n_entries: int
    repeats: int
    encoder: Encoder
    lengths: np.ndarray | None = None  # (n_entries,) of lists; None: no lists
    valid: np.ndarray | None = None  # (n_cells,) bool; None: no nulls

    def __len__(self) -> int:
        return self.n_entries * self.repeats


def lay_out(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    """Lay out some entries of a block's column; ValueError if they do not fit the type."""
    return _LAYOUTS[type(column).__name__](type_, column, entries, encoding)


def physical_type(type_: pa.DataType) -> np.dtype:
    """Return the type in which Parquet stores numbers; it has none below 32 bits."""
    dtype = numpy_type(type_)
    return np.dtype(np.int32) if dtype.kind == "i" and dtype.itemsize < 4 else dtype


def _lay_out_values(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    values, valid = column.values[entries.places], select_valid(column, entries)
    encoder = _choose_encoder(type_, values, valid, column.repeats, encoding)
    return Rows(len(values), column.repeats, encoder, valid=valid)


def _lay_out_codes(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    codes, vocabulary, repeats = column.codes[entries.places], column.vocabulary, column.repeats
    encoder, valid = _encode_words(type_, codes, vocabulary, repeats, entries, encoding)
    return Rows(len(codes), repeats, encoder, valid=valid)


def _lay_out_lists(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    require_lists(type_, column, entries)
    starts, lengths = column.starts[entries.places], column.lengths[entries.places]
    values, repeats = column.values, column.repeats
    if encoding == PLAIN and values.dtype == physical_type(type_.value_type):
        return Rows(
            len(lengths), repeats, Slices(values, starts, lengths, repeats), lengths=lengths
        )
    # Narrower elements are widened, and a dictionary needs all elements side by side.
    gathered = np.empty(entries.n_elements * repeats, values.dtype)
    bits = f"u{values.itemsize}"  # copied as bits: one compiled loop a width
    cells.copy_lists(values.view(bits), starts, lengths, repeats, gathered.view(bits))
    encoder = _choose_encoder(type_.value_type, gathered, None, 1, encoding)
    return Rows(len(lengths) * repeats, 1, encoder, lengths=expand(lengths, repeats, np))


def _lay_out_matrix(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    elements, valid = expand_cells(type_, column, entries, np)
    element, vocabulary = type_.value_type, column.vocabulary
    if vocabulary is None:
        encoder = _choose_encoder(element, elements, valid, 1, encoding)
    else:
        encoder, valid = _encode_words(element, elements, vocabulary, 1, entries, encoding)
    n = len(column.values[entries.places]) * column.repeats
    return Rows(n, 1, encoder, lengths=np.full(n, type_.list_size, np.int32), valid=valid)


def _lay_out_sample_ids(type_: pa.DataType, column: Any, entries: Entries, encoding: str) -> Rows:
    if encoding != "DELTA_BYTE_ARRAY":
        raise ValueError(f"sample ids are written as DELTA_BYTE_ARRAY, not as {encoding}.")
    first, stop = entries.places.start, entries.places.stop
    return Rows(stop - first, column.rows_per_group, SampleIdTexts(column, first))


# By the name of the column's class in `gpu_dcgen.backend.blocks`.
_LAYOUTS: dict[str, Callable[[pa.DataType, Any, Entries, str], Rows]] = {
    "Values": _lay_out_values,
    "Codes": _lay_out_codes,
    "Lists": _lay_out_lists,
    "Matrix": _lay_out_matrix,
    "SampleIds": _lay_out_sample_ids,
}


def _choose_encoder(
    type_: pa.DataType, values: np.ndarray, valid: np.ndarray | None, repeats: int, encoding: str
) -> Encoder:
    """Return the encoder of numbers or booleans."""
    require_fit(type_, values)
    if encoding not in (PLAIN, DICTIONARY):
        raise ValueError(f"numbers are written as {PLAIN} or {DICTIONARY}, not as {encoding}.")
    values = np.ascontiguousarray(values, physical_type(type_))
    if pa.types.is_boolean(type_):
        return Booleans(values, valid, repeats)
    if encoding == DICTIONARY:
        indices = _number_values(values, valid, repeats)
        if indices is not None:
            return indices
    return Numbers(values, valid, repeats)


def _number_values(
    values: np.ndarray, valid: np.ndarray | None, repeats: int
) -> NumberIndices | None:
    """Return values as indices of those that occur; None if that would take more bytes."""
    occurring = values if valid is None else values[valid]
    bits = as_bits(occurring)
    codes = np.empty(len(bits), np.int32)
    distinct = np.empty(min(len(bits), _MAX_DICTIONARY_BYTES // bits.itemsize), bits.dtype)
    n_distinct = cells.number_cells(bits, codes, distinct)
    n_rows = len(bits) * repeats
    n_index_bytes = n_rows * max(1, (n_distinct - 1).bit_length()) // 8
    if n_distinct < 0 or n_distinct * bits.itemsize + n_index_bytes >= n_rows * bits.itemsize:
        return None
    if valid is not None:
        numbered = codes
        codes = np.full(len(values), -1, np.int32)
        codes[valid] = numbered
    return NumberIndices(values, codes, distinct[:n_distinct].view(values.dtype), repeats)


def _encode_words(
    type_: pa.DataType,
    codes: np.ndarray,
    vocabulary: Any,
    repeats: int,
    entries: Entries,
    encoding: str,
) -> tuple[StringIndices, np.ndarray | None]:
    """Return the encoder of codes of strings, and which are valid (None: all).

    An id's dictionary has the strings that occur, a category's all strings: it is the same in every
    row group, so readers join row groups without translating codes.
    """
    if encoding != DICTIONARY:
        raise ValueError(f"strings are written as {DICTIONARY}, not as {encoding}.")
    require_codes(entries, len(vocabulary.strings))
    codes = np.ascontiguousarray(codes, np.int32)
    strings, is_category = Strings.from_arrow(vocabulary.strings), not pa.types.is_string(type_)
    encoder = StringIndices(codes, strings, repeats, has_all=is_category)
    return encoder, codes >= 0 if entries.n_nulls else None
