"""Write blocks of columns as Parquet row groups, without a Python object per row.

Blocks and settings come from `gpu_dcgen.backend.blocks` and `gpu_dcgen.contract.schema` and are
known by class name and attributes. The GPU writer shares `BlockWriter` and the functions that take
`xp`, which is NumPy or CuPy.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_CATEGORY = pa.dictionary(pa.int32(), pa.string())
# Rows encoded at a time (Arrow: 1,024). Statistics of a dictionary column walk its dictionary once
# a batch, so few batches are faster.
_BATCH_ROWS = 8_192
_GROUP_DIGITS = 10  # of the group's number in a sample id

LaidOut = TypeVar("LaidOut")


class BlockWriter(ABC, Generic[LaidOut]):
    """Base of the part writers: checks a block's columns and cuts them into row groups.

    A backend implements `_open`, `_lay_out` (some rows of a column, with a length and a
    `null_count`), `_append` (a row group of these), `_finish`, and `_abandon`, which closes the
    file after an error. After an error the file is removed.
    """

    def __init__(self, path: Path, schema: pa.Schema, settings: Any) -> None:
        self._path, self._schema, self._settings = Path(path), schema, settings

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_complete = False
        try:
            if kind is None:
                self._finish()
                is_complete = True
            else:
                self._abandon()
        finally:
            if not is_complete:
                self._path.unlink(missing_ok=True)

    def write(self, block: Any) -> None:
        """Append the rows of a block.

        ValueError if its columns are not the schema's or do not fit their types.
        """
        if list(block.columns) != self._schema.names:
            raise ValueError(
                f"{self._path.name}: block has columns {list(block.columns)}, "
                f"the schema {self._schema.names}."
            )
        unit = max(map(_rows_per_entry, block.columns.values()))
        n_units = block.n_rows // unit
        n_row_groups = -(-n_units // max(1, self._settings.rows_per_row_group // unit))
        starts = [n_units * k // n_row_groups * unit for k in range(n_row_groups)]
        for start, stop in pairwise([*starts, n_units * unit]):
            self._append(
                [
                    self._lay_out_rows(field, block.columns[field.name], start, stop)
                    for field in self._schema
                ]
            )

    def _lay_out_rows(self, field: pa.Field, column: Any, start: int, stop: int) -> LaidOut:
        entries = slice(start // _rows_per_entry(column), stop // _rows_per_entry(column))
        try:
            array: Any = self._lay_out(field.type, column, entries)
            if len(array) != stop - start:
                raise ValueError(f"{len(array)} rows where the block has {stop - start}.")
            if array.null_count and not field.nullable:
                raise ValueError(f"{array.null_count} nulls where the schema allows none.")
        except ValueError as error:
            raise ValueError(f"{self._path.name}: column '{field.name}': {error}") from error
        return array

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _lay_out(self, type_: pa.DataType, column: Any, entries: slice) -> LaidOut: ...

    @abstractmethod
    def _append(self, columns: list[LaidOut]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...


class PartWriter(BlockWriter[pa.Array]):
    """Writes one Parquet file; `write(block)` appends one row group or several equal ones.

    `schema` is what every reader sees, metadata included. `settings` has `compression`,
    `compression_level`, `rows_per_row_group` (at most; row groups hold whole groups, D16),
    `encodings` (column -> Parquet encoding where it is not the dictionary) and `statistics`
    (columns with minima and maxima, which are also in the page index). Equal blocks give equal
    bytes.

    Ids are stored as dictionaries of the ids in their row group, under an Arrow schema that calls
    them strings: the file equals that of a writer that builds the dictionary by hashing every
    string.
    """

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

    def _lay_out(self, type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
        return _BUILDERS[type(column).__name__](type_, column, entries)

    def _append(self, columns: list[pa.Array]) -> None:
        table = pa.Table.from_arrays(columns, schema=self._stored)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _finish(self) -> None:
        self._writer.close()

    def _abandon(self) -> None:
        self._writer.close()


def encode_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Return the schema's metadata, and the schema itself where Arrow's readers look for it."""
    return {
        **(schema.metadata or {}),
        b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()),
    }


def is_list(type_: pa.DataType) -> bool:
    """Return whether a file stores the type as a list, of fixed size or not."""
    return pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_)


def numpy_type(type_: pa.DataType) -> np.dtype:
    """Return the type in which Arrow holds values of a fixed-width type: integers for times."""
    if pa.types.is_temporal(type_):
        return np.dtype(f"int{type_.bit_width}")
    # Arrow's names are NumPy's but for these; `to_pandas_dtype` needs pandas in older versions.
    return np.dtype({"float": "float32", "double": "float64"}.get(str(type_), str(type_)))


def require_fit(type_: pa.DataType, values: Any) -> None:
    """Raise ValueError unless every value of the array's type is one of the Arrow type's."""
    if not np.can_cast(values.dtype, numpy_type(type_), "safe"):
        raise ValueError(f"{values.dtype} values for {type_}: not every value would fit.")


def require_codes(codes: Any, n_strings: int) -> None:
    """Raise ValueError unless the codes are -1 or index a vocabulary of `n_strings`."""
    low, high = (int(codes.min()), int(codes.max())) if len(codes) else (-1, -1)
    if not -1 <= low <= high < n_strings:
        raise ValueError(f"codes {low}..{high} for a vocabulary of {n_strings}.")


def require_lists(
    type_: pa.DataType, values: Any, starts: Any, lengths: Any, n_elements: int
) -> None:
    """Raise ValueError unless lists have the element's type and lie within `values`.

    Also if `n_elements` of a row group are more than Arrow's offsets can count.
    """
    if values.dtype != numpy_type(type_.value_type):
        raise ValueError(f"lists of {values.dtype} for {type_}.")
    if len(starts) and not 0 <= int(starts.min()) <= int((starts + lengths).max()) <= len(values):
        raise ValueError(f"lists reach outside their {len(values)} values.")
    if n_elements > np.iinfo(np.int32).max:
        raise ValueError(
            f"{n_elements} list elements in a row group, Arrow takes 2^31 - 1; "
            "write smaller row groups."
        )


def expand(values: Any, repeats: int, xp: Any) -> Any:
    """Return each entry `repeats` times."""
    return values if repeats == 1 else xp.repeat(values, repeats, axis=0)


def expand_values(column: Any, entries: slice, xp: Any) -> tuple[Any, Any]:
    """Return rows of a `Values` or `Matrix` column, and which are valid (None: all)."""
    valid = None if column.valid is None else expand(column.valid[entries], column.repeats, xp)
    return expand(column.values[entries], column.repeats, xp), valid


def expand_cells(type_: pa.DataType, column: Any, entries: slice, xp: Any) -> tuple[Any, Any]:
    """Return the elements of a `Matrix` row by row, and which are valid (None: all).

    Codes of null elements become -1. ValueError if rows have another width than the type.
    """
    cells, valid = expand_values(column, entries, xp)
    n, width = cells.shape
    if width != type_.list_size:
        raise ValueError(f"rows of {width} elements for {type_}.")
    cells = cells.reshape(n * width)
    if valid is None:
        return cells, None
    valid = valid.reshape(n * width)
    if column.vocabulary is None:
        return cells, valid
    return xp.where(valid, cells, cells.dtype.type(-1)), None


def build_sample_ids(
    column: Any, entries: slice, xp: Any, upload: Callable[[np.ndarray], Any] = np.asarray
) -> tuple[Any, Any]:
    """Return offsets (n + 1,) int32 and bytes of the ids `{split}-{group:010d}-{slot:02d}`.

    The ids of all groups have the same bytes except for ten digits, which are written into each.
    `upload` makes an array of `xp` from one of NumPy.
    """
    ids = [
        f"{column.split}-{0:0{_GROUP_DIGITS}d}-{slot:02d}".encode()
        for slot in range(column.rows_per_group)
    ]
    ends = np.cumsum([len(text) for text in ids])
    n, width = entries.stop - entries.start, int(ends[-1])
    group = xp.arange(entries.start, entries.stop, dtype=xp.int64) + column.first_group
    powers = upload(10 ** np.arange(_GROUP_DIGITS - 1, -1, -1))
    digits = (group[:, None] // powers % 10 + ord("0")).astype(xp.uint8)
    text = xp.tile(upload(np.frombuffer(b"".join(ids), np.uint8)), (n, 1))
    for start in [0, *ends[:-1].tolist()]:
        first = start + len(column.split) + 1
        text[:, first : first + _GROUP_DIGITS] = digits
    offsets = xp.zeros(n * len(ids) + 1, dtype=xp.int32)
    offsets[1:] = (
        xp.arange(n, dtype=xp.int32)[:, None] * xp.int32(width) + upload(ends.astype(np.int32))
    ).ravel()
    return offsets, text.reshape(n * width)


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


def _rows_per_entry(column: Any) -> int:
    return column.rows_per_group if type(column).__name__ == "SampleIds" else column.repeats


def _build_values(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    return _build_flat(type_, *expand_values(column, entries, np))


def _build_codes(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    return _build_dictionary(
        type_, column.codes[entries], column.vocabulary.strings, column.repeats
    )


def _build_lists(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    starts, lengths = column.starts[entries], column.lengths[entries]
    offsets = np.zeros(len(lengths) * column.repeats + 1, np.int64)
    np.cumsum(expand(lengths, column.repeats, np), out=offsets[1:])
    element = numpy_type(type_.value_type)
    require_lists(type_, column.values, starts, lengths, int(offsets[-1]))
    values = np.empty(offsets[-1], element)
    bits = f"u{element.itemsize}"  # copied as bits: one compiled loop a width
    _copy_lists(column.values.view(bits), starts, lengths, column.repeats, values.view(bits))
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), _build_flat(type_.value_type, values, None), type=type_
    )


def _build_matrix(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    cells, valid = expand_cells(type_, column, entries, np)
    if column.vocabulary is None:
        elements = _build_flat(type_.value_type, cells, valid)
    else:
        elements = _build_dictionary(type_.value_type, cells, column.vocabulary.strings, 1)
    return pa.FixedSizeListArray.from_arrays(elements, type=_stored_type(type_))


def _build_sample_ids(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    offsets, text = build_sample_ids(column, entries, np)
    return pa.Array.from_buffers(
        type_, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )


# By the name of the column's class in `gpu_dcgen.backend.blocks`.
_BUILDERS: dict[str, Callable[[pa.DataType, Any, slice], pa.Array]] = {
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
    require_codes(codes, len(strings))
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


@numba.njit(nogil=True, cache=True)
def _copy_lists(values, starts, lengths, repeats, out):
    at = 0
    for entry in range(len(starts)):
        start, length = starts[entry], lengths[entry]
        for _ in range(repeats):
            out[at : at + length] = values[start : start + length]
            at += length
