"""Parquet tables on the GPU: columns are read with libcudf and become codes, numbers and times on the device.

A column is the list of its chunks, in file and row order. Text becomes codes while it is read, piece by piece, so no text
is held once per row. Whatever has to be parsed or told apart by a rule (text that is a number or a time, decimals, kinds that
libcudf reads otherwise than Arrow does) is handed, as its few distinct values, to the very code that the CPU machine runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import tables as cpu
from cpu_fallback.parquet import numpy_type

from ..protocol import Array
from .transfers import Transfers

Pair = tuple[Array, Array]  # values and valid, both (n,)

_INTEGERS = {pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()}
_PLAIN = _INTEGERS | {
    pa.float32(),
    pa.float64(),
    pa.date32(),
}  # beside text and timestamps: what stays on the device


@dataclass(frozen=True)
class Text:
    """Rows of text as codes into distinct values; every value occurs."""

    codes: Array  # (n,) int32  -1 for null
    values: Any  # libcudf.Strings, sorted by code point

    def __len__(self) -> int:
        return self.codes.shape[0]

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        return self.values.to_host(transfers), self.codes

    def numbers(self, transfers: Transfers) -> Pair:
        return self._parsed(cpu.numbers_of, transfers)

    def times(self, transfers: Transfers) -> Pair:
        return self._parsed(cpu.times_of, transfers)

    def _parsed(
        self, parse: Callable[[pa.Array], tuple[np.ndarray, np.ndarray]], transfers: Transfers
    ) -> Pair:
        values, valid = parse(self.values.to_host(transfers))
        return _spread(values, self.codes, transfers), _spread(valid, self.codes, transfers)


@dataclass(frozen=True)
class Plain:
    """Rows of integers, floats, dates or timestamps, as Parquet holds them."""

    type: pa.DataType
    values: Array  # (n,) of the type's storage; anything where not valid
    valid: Array | None  # (n,) bool; None: no nulls

    def __len__(self) -> int:
        return self.values.shape[0]

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        """Distinct by bits, in the order of their first rows, as Arrow tells values apart: 0.0 is not -0.0."""
        xp, n = transfers.xp, len(self)
        rows = xp.arange(n) if self.valid is None else xp.nonzero(self.valid)[0]
        bits = self.values[rows].view(f"i{self.values.dtype.itemsize}")
        values, first, place = xp.unique(bits, return_index=True, return_inverse=True)
        order = xp.argsort(first, kind="stable")
        rank = xp.empty_like(order)
        rank[order] = xp.arange(order.shape[0])
        indices = xp.full(n, -1, dtype=xp.int32)
        indices[rows] = rank[place].astype(xp.int32)
        return self._arrow(transfers.download(values[order]), None), indices

    def numbers(self, transfers: Transfers) -> Pair:
        if pa.types.is_temporal(self.type):  # times are no numbers: let the CPU's code say so
            return self._on_host(transfers).numbers(transfers)
        xp = transfers.xp
        values = self.values.astype(xp.float64)
        valid = self._valid(xp) & ~xp.isnan(values)
        return xp.where(valid, values, 0.0), valid

    def times(self, transfers: Transfers) -> Pair:
        xp = transfers.xp
        return cpu.nanoseconds(
            xp, self.values.astype(xp.int64), cpu.nanoseconds_per_count(self.type), self._valid(xp)
        )

    def _valid(self, xp: Any) -> Array:
        return xp.ones(len(self), dtype=bool) if self.valid is None else self.valid

    def _on_host(self, transfers: Transfers) -> "Host":
        valid = None if self.valid is None else transfers.download(self.valid)
        return Host(self._arrow(transfers.download(self.values), valid))

    def _arrow(self, values: np.ndarray, valid: np.ndarray | None) -> pa.Array:
        mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.Array.from_buffers(
            self.type, len(values), [mask, pa.py_buffer(np.ascontiguousarray(values))]
        )


@dataclass(frozen=True)
class Host:
    """Rows of a kind that stays on the host: decimals, booleans, INT96, and what no column should be."""

    array: pa.Array

    def __len__(self) -> int:
        return len(self.array)

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        [(_, values, indices)] = cpu.split_chunks([self.array])
        occurs = (
            np.bincount(indices + 1, minlength=len(values) + 1)[1:] > 0
        )  # a dictionary may list more
        place = np.append(np.cumsum(occurs) - 1, -1).astype(np.int32)
        return values.filter(pa.array(occurs)), transfers.upload(place[indices])

    def numbers(self, transfers: Transfers) -> Pair:
        values, valid = cpu.numbers([self.array])
        return transfers.upload(values), transfers.upload(valid)

    def times(self, transfers: Transfers) -> Pair:
        values, valid = cpu.times([self.array])
        return transfers.upload(values), transfers.upload(valid)


Column = list[Text | Plain | Host]


def read_columns(
    files: Sequence[Path], names: Sequence[str], *, piece_bytes: int, transfers: Transfers
) -> dict[str, Column]:
    """The named columns of Parquet files, in file and row order.

    Files are decoded in pieces of about `piece_bytes` of device memory (0: each in one), besides the columns that are kept.
    OSError, ArrowInvalid or RuntimeError where a file cannot be read, KeyError where a column is missing.
    """
    columns: dict[str, Column] = {name: [] for name in names}
    for file in files:
        for name, chunks in _read_file(Path(file), list(columns), piece_bytes, transfers).items():
            columns[name] += chunks
    return columns


def encode(column: Column, transfers: Transfers) -> tuple[Array, pa.Array]:
    """Codes (n,) int32 in the order of the sorted distinct values, -1 for null and NaN; and those values, on the host.

    Text sorts by code point, numbers by value. Only values that occur are kept, whatever a dictionary lists.
    """
    xp = transfers.xp
    column = _with_one_dictionary(column, xp)
    if len(column) == 1 and isinstance(column[0], Text):  # sorted and distinct as it is
        values, codes = column[0].distinct(transfers)
        return codes, values
    codes = xp.full(sum(map(len, column)), -1, dtype=xp.int32)
    parts = [(rows, *chunk.distinct(transfers)) for rows, chunk in _rows(column)]
    parts = [part for part in parts if len(part[1])]
    entry_codes, values = cpu.merge(
        [values for _, values, _ in parts], [np.arange(len(values)) for _, values, _ in parts]
    )
    for entries, (rows, _, indices) in zip(entry_codes, parts, strict=True):
        codes[rows] = _spread(entries, indices, transfers, null=-1)
    return codes, values


def numbers(column: Column, transfers: Transfers) -> Pair:
    """Values (n,) float64, 0 where not valid, and valid (n,) bool; null, NaN and text that is no number are not valid."""
    return _converted(column, lambda chunk: chunk.numbers(transfers), "float64", transfers.xp)


def times(column: Column, transfers: Transfers) -> Pair:
    """Nanoseconds since 1970 UTC (n,) int64, 0 where not valid, and valid (n,) bool; what is valid: `cpu_fallback.tables`."""
    return _converted(column, lambda chunk: chunk.times(transfers), "int64", transfers.xp)


def _read_file(
    file: Path, names: list[str], piece_bytes: int, transfers: Transfers
) -> dict[str, Column]:
    from . import (
        libcudf,
    )  # not above: the rest of this module also runs, and is tested, where no RAPIDS is

    with pq.ParquetFile(file) as parquet:
        types = {name: stored_type(parquet, name) for name in names}
        on_device = [name for name, type_ in types.items() if type_ is not None]
        transfers.to_device += _stored_bytes(parquet.metadata, on_device)
    on_host = [name for name in names if name not in on_device]
    columns: dict[str, Column] = {name: [] for name in names}
    if on_host:
        columns |= {
            name: list(map(Host, chunks))
            for name, chunks in cpu.read_columns([file], on_host).items()
        }
    for piece in libcudf.read_pieces(file, on_device, piece_bytes) if on_device else ():
        for name, found in piece.items():
            expected = types[name]
            if found.size() == 0:
                continue
            if found.type() != libcudf.type_of(expected):
                raise RuntimeError(
                    f"{file}: column '{name}' is {expected}, libcudf read it as {found.type()}."
                )
            if pa.types.is_string(expected):
                columns[name].append(Text(*libcudf.encode_strings(found, transfers.xp)))
            else:
                columns[name].append(
                    Plain(expected, *libcudf.arrays(found, numpy_type(expected), transfers.xp))
                )
        del piece, found  # before the next one is decoded
    return columns


def stored_type(parquet: pq.ParquetFile, name: str) -> pa.DataType | None:
    """The type in which a column's stored values are read on the device, or None where the host has to read them.

    libcudf knows no decimals as Arrow means them, takes any bytes for text, and turns INT96 into nanoseconds, in which a
    sentinel such as the year 9999 wraps around. It also splits names at dots. KeyError where there is no such column.
    """
    type_ = parquet.schema_arrow.field(name).type
    if pa.types.is_dictionary(type_) and cpu.is_text(type_.value_type):
        type_ = type_.value_type
    if "." in name or pa.types.is_nested(type_):
        return None
    if cpu.is_text(type_):
        return pa.string()
    if pa.types.is_timestamp(type_):
        return pa.timestamp(type_.unit) if _physical_type(parquet.schema, name) == "INT64" else None
    return type_ if type_ in _PLAIN else None


def _physical_type(schema: pq.ParquetSchema, name: str) -> str:
    return next(
        schema.column(k).physical_type
        for k in range(len(schema.names))
        if schema.column(k).path == name
    )


def _stored_bytes(metadata: pq.FileMetaData, names: list[str]) -> int:
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = (group.column(k) for group in groups for k in range(group.num_columns))
    return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in names)


def _with_one_dictionary(column: Column, xp: Any) -> Column:
    """The column as one chunk if all of it is text: codes into all its texts."""
    if len(column) < 2 or not all(isinstance(chunk, Text) for chunk in column):
        return column
    first, *others = (chunk.values for chunk in column)
    values, places = first.merged(others, xp)
    lookup = xp.concatenate([xp.full(1, -1, dtype=xp.int32), places])  # the first cell answers null
    codes, start = [], 1
    for chunk in column:
        codes.append(lookup[xp.where(chunk.codes < 0, 0, chunk.codes + start)])
        start += len(chunk.values)
    return [Text(xp.concatenate(codes), values)]


def _rows(column: Column) -> Iterator[tuple[slice, Any]]:
    row = 0
    for chunk in column:
        yield slice(row, row := row + len(chunk)), chunk


def _converted(column: Column, convert: Callable[[Any], Pair], dtype: str, xp: Any) -> Pair:
    n = sum(map(len, column))
    values, valid = xp.zeros(n, dtype=dtype), xp.zeros(n, dtype=bool)
    for rows, chunk in _rows(column):
        values[rows], valid[rows] = convert(chunk)
    return values, valid


def _spread(per_value: np.ndarray, codes: Array, transfers: Transfers, null: int = 0) -> Array:
    """A value per distinct value as a value per row; `null` where the code is -1."""
    return transfers.upload(np.append(per_value.dtype.type(null), per_value))[codes + 1]
