"""Part writer of the CPU machine: blocks of columns to Parquet row groups, without a Python object per row.

Blocks and settings come from `gpu_dcgen.blocks` and `gpu_dcgen.contract` and are known by class name and attributes.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_CATEGORY = pa.dictionary(pa.int32(), pa.string())
# rows encoded at a time (Arrow: 1,024): statistics of a dictionary column walk its dictionary once
# a batch
_BATCH_ROWS = 8_192


class BlockWriter:
    """What the part writers of all machines share: a block's columns are checked and cut into row groups; no half part stays.

    A machine says how: `_open`, `_lay_out` (some rows of a column; its result has a length and `null_count`), `_append`
    (a row group of such), `_finish`, and `_abandon`, which lets go of the file after an error.
    """

    def __init__(self, path: Path, schema: pa.Schema, settings: Any) -> None:
        self._path, self._schema, self._settings = Path(path), schema, settings

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        complete = False
        try:
            if kind is None:
                self._finish()
                complete = True
            else:
                self._abandon()
        finally:
            if not complete:
                self._path.unlink(missing_ok=True)

    def write(self, block: Any) -> None:
        """Append the rows of a block; ValueError where its columns are not the schema's or do not fit their types."""
        if list(block.columns) != self._schema.names:
            raise ValueError(
                f"{self._path.name}: block has columns {list(block.columns)}, the schema {self._schema.names}."
            )
        unit = max(map(_rows_per_entry, block.columns.values()))
        n_units = block.n_rows // unit
        n_row_groups = -(-n_units // max(1, self._settings.rows_per_row_group // unit))
        bounds = [n_units * k // n_row_groups * unit for k in range(n_row_groups)] + [
            n_units * unit
        ]
        for start, stop in pairwise(bounds):
            self._append(
                [
                    self._column(field, block.columns[field.name], start, stop)
                    for field in self._schema
                ]
            )

    def _column(self, field: pa.Field, column: Any, start: int, stop: int) -> Any:
        entries = slice(start // _rows_per_entry(column), stop // _rows_per_entry(column))
        try:
            array = self._lay_out(field.type, column, entries)
            if len(array) != stop - start:
                raise ValueError(f"{len(array)} rows where the block has {stop - start}.")
            if array.null_count and not field.nullable:
                raise ValueError(f"{array.null_count} nulls where the schema allows none.")
        except ValueError as problem:
            raise ValueError(f"{self._path.name}: column '{field.name}': {problem}") from problem
        return array


class PartWriter(BlockWriter):
    """Writes one Parquet file; `write(block)` appends the block's rows as one row group or several equal ones.

    `schema` is what every reader sees, metadata included. `settings` has `compression`, `compression_level`,
    `rows_per_row_group` (at most; row groups hold whole groups, D16), `encodings` (column -> Parquet encoding where it is
    not the dictionary) and `statistics` (columns with minima and maxima, which also get them in the page index).
    Equal blocks give equal bytes. A part whose writing failed is removed.

    Ids are stored as dictionaries of the ids in their row group, under an Arrow schema that calls them strings: the file
    is that of a writer that found the dictionary by hashing every string, without the hashing.
    """

    def _open(self) -> None:
        settings = self._settings
        leaves = {field.name: _leaf(field) for field in self._schema}
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
        self._writer.add_key_value_metadata(key_value_metadata(self._schema))

    def _lay_out(self, type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
        return _BUILDERS[type(column).__name__](type_, column, entries)

    def _append(self, columns: list[pa.Array]) -> None:
        table = pa.Table.from_arrays(columns, schema=self._stored)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _finish(self) -> None:
        self._writer.close()

    def _abandon(self) -> None:
        self._writer.close()


def key_value_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """The schema's own metadata, and the schema itself where Arrow's readers look for it."""
    return {
        **(schema.metadata or {}),
        b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()),
    }


def _stored_field(field: pa.Field, encodings: dict[str, str]) -> pa.Field:
    """The field as handed to the Parquet writer: strings as dictionaries wherever the file encodes them so."""
    return field if field.name in encodings else field.with_type(_stored_type(field.type))


def _stored_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string(type_):
        return _CATEGORY
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(
            type_.value_field.with_type(_stored_type(type_.value_type)), type_.list_size
        )
    return type_


def _leaf(field: pa.Field) -> str:
    """The column's name inside Parquet."""
    is_list = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if is_list else field.name


def _rows_per_entry(column: Any) -> int:
    return column.rows_per_group if type(column).__name__ == "SampleIds" else column.repeats


def _values(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    valid = None if column.valid is None else _repeated(column.valid[entries], column.repeats)
    return _flat(type_, _repeated(column.values[entries], column.repeats), valid)


def _codes(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    return _coded(type_, column.codes[entries], column.vocabulary.strings, column.repeats)


def _lists(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    starts, lengths = column.starts[entries], column.lengths[entries]
    offsets = np.zeros(len(lengths) * column.repeats + 1, np.int64)
    np.cumsum(_repeated(lengths, column.repeats), out=offsets[1:])
    element = numpy_type(type_.value_type)
    require_lists(type_, column.values, starts, lengths, int(offsets[-1]))
    values = np.empty(offsets[-1], element)
    bits = f"u{element.itemsize}"  # copied as bits: one compiled loop a width
    _copy_lists(column.values.view(bits), starts, lengths, column.repeats, values.view(bits))
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), _flat(type_.value_type, values, None), type=type_
    )


def _matrix(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    cells = _repeated(column.values[entries], column.repeats)
    valid = (
        None if column.valid is None else _repeated(column.valid[entries], column.repeats).ravel()
    )
    if column.vocabulary is None:
        elements = _flat(type_.value_type, cells.ravel(), valid)
    else:
        codes = cells.ravel() if valid is None else np.where(valid, cells.ravel(), -1)
        elements = _coded(type_.value_type, codes, column.vocabulary.strings, 1)
    return pa.FixedSizeListArray.from_arrays(elements, type=_stored_type(type_))


def _sample_ids(type_: pa.DataType, column: Any, entries: slice) -> pa.Array:
    """Ids `{split}-{group:010d}-{slot:02d}`: a group's bytes are alike but for ten digits, copied into each id."""
    ids = [f"{column.split}-{0:010d}-{slot:02d}".encode() for slot in range(column.rows_per_group)]
    ends = np.cumsum([len(text) for text in ids])
    groups = np.arange(column.first_group + entries.start, column.first_group + entries.stop)
    digits = (groups[:, None] // 10 ** np.arange(9, -1, -1) % 10 + ord("0")).astype(np.uint8)
    text = np.tile(np.frombuffer(b"".join(ids), np.uint8), (len(groups), 1))
    for first in np.concatenate(([0], ends[:-1])) + len(column.split) + 1:
        text[:, first : first + 10] = digits
    offsets = np.zeros(len(groups) * len(ids) + 1, np.int32)
    offsets[1:] = (np.arange(len(groups))[:, None] * ends[-1] + ends).ravel()
    return pa.Array.from_buffers(
        type_, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )


_BUILDERS = {
    "Values": _values,
    "Codes": _codes,
    "Lists": _lists,
    "Matrix": _matrix,
    "SampleIds": _sample_ids,
}


def _flat(type_: pa.DataType, values: np.ndarray, valid: np.ndarray | None) -> pa.Array:
    require_fit(type_, values)
    element = numpy_type(type_)
    data = (
        np.packbits(values, bitorder="little")
        if pa.types.is_boolean(type_)
        else np.ascontiguousarray(values, element)
    )
    return pa.Array.from_buffers(type_, len(values), [_bitmap(valid), pa.py_buffer(data)])


def _coded(
    type_: pa.DataType, codes: np.ndarray, strings: pa.Array, repeats: int
) -> pa.DictionaryArray:
    """Codes as a dictionary array: over the strings that occur for an id, over all of them for a category.

    A category's dictionary is the same in every row group, so readers join the row groups without translating codes.
    """
    require_codes(codes, len(strings))
    if pa.types.is_string(type_):
        codes, strings = _occurring(codes, strings)
    codes = _repeated(np.ascontiguousarray(codes, np.int32), repeats)
    buffers = [_bitmap(codes >= 0), pa.py_buffer(codes)]
    return pa.DictionaryArray.from_buffers(
        _CATEGORY, len(codes), buffers, strings.cast(pa.string())
    )


def _occurring(codes: np.ndarray, strings: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The codes renumbered over the strings that occur, and those strings, in the order of the vocabulary."""
    occurs = np.zeros(len(strings) + 1, bool)  # the last cell takes the nulls: code -1
    occurs[codes] = True
    occurs[-1] = False
    distinct = np.flatnonzero(occurs)
    position = np.empty(
        len(strings) + 1, np.int32
    )  # only cells of occurring codes are set and read
    position[-1] = -1
    position[distinct] = np.arange(len(distinct), dtype=np.int32)
    return position[codes], strings.take(pa.array(distinct))


def _repeated(values: np.ndarray, repeats: int) -> np.ndarray:
    return values if repeats == 1 else np.repeat(values, repeats, axis=0)


def numpy_type(type_: pa.DataType) -> np.dtype:
    """The type of the values that Arrow keeps in memory for a type of fixed width: counts for dates and times."""
    return np.dtype(
        f"int{type_.bit_width}" if pa.types.is_temporal(type_) else type_.to_pandas_dtype()
    )


def require_fit(type_: pa.DataType, values: Any) -> None:
    """ValueError unless every value of the array's type is one of the Arrow type's."""
    if not np.can_cast(values.dtype, numpy_type(type_), "safe"):
        raise ValueError(f"{values.dtype} values for {type_}: not every value would fit.")


def require_codes(codes: Any, n_strings: int) -> None:
    """ValueError unless the codes are of a vocabulary of that size, or -1."""
    low, high = (int(codes.min()), int(codes.max())) if len(codes) else (-1, -1)
    if not -1 <= low <= high < n_strings:
        raise ValueError(f"codes {low}..{high} for a vocabulary of {n_strings}.")


def require_lists(
    type_: pa.DataType, values: Any, starts: Any, lengths: Any, n_elements: int
) -> None:
    """ValueError unless the lists lie within `values`, those have the element's type, and Arrow can number their elements."""
    if values.dtype != numpy_type(type_.value_type):
        raise ValueError(f"lists of {values.dtype} for {type_}.")
    if len(starts) and not 0 <= int(starts.min()) <= int((starts + lengths).max()) <= len(values):
        raise ValueError(f"lists reach outside their {len(values)} values.")
    if n_elements > np.iinfo(np.int32).max:
        raise ValueError(
            f"{n_elements} list elements in a row group, Arrow takes 2^31 - 1; write smaller row groups."
        )


def _bitmap(valid: np.ndarray | None) -> pa.Buffer | None:
    return (
        None
        if valid is None or valid.all()
        else pa.py_buffer(np.packbits(valid, bitorder="little"))
    )


@numba.njit(nogil=True, cache=True)
def _copy_lists(values, starts, lengths, repeats, out):
    at = 0
    for entry in range(len(starts)):
        start, length = starts[entry], lengths[entry]
        for _ in range(repeats):
            out[at : at + length] = values[start : start + length]
            at += length
