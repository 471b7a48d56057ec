"""Read Parquet tables with libcudf and turn columns into codes, numbers and times.

A column is the list of its chunks, in file and row order. Text becomes codes while it is read,
piece by piece, so no text is held once per row. Values that have to be parsed (text that is a
number or a time, decimals, types that libcudf reads otherwise than Arrow does) are handed, as their
few distinct values, to the functions of the CPU backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import file_columns
from cpu_fallback import tables as cpu
from cpu_fallback.file_columns import is_text
from cpu_fallback.parquet import numpy_type

from ..protocol import Array
from .transfers import Transfers

if TYPE_CHECKING:
    from .libcudf import DistinctStrings

Pair = tuple[Array, Array]  # values and valid, both (n,)

_INTEGERS = {pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()}
# Beside text and timestamps, the types that stay on the device.
_PLAIN = _INTEGERS | {pa.float32(), pa.float64(), pa.date32()}


@dataclass(frozen=True)
class Text:
    """Rows of text as codes into distinct values, all of which occur."""

    codes: Array  # (n,) int32  -1 for null
    values: DistinctStrings

    def __len__(self) -> int:
        return self.codes.shape[0]

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        """Return the distinct values on the host, and indices (n,) int32 into them."""
        return self.values.to_host(transfers), self.codes

    def parse_numbers(self, transfers: Transfers) -> Pair:
        """Return values and valid of each row."""
        return self._parse(cpu.parse_number_array, transfers)

    def parse_times(self, transfers: Transfers) -> Pair:
        """Return nanoseconds and valid of each row."""
        return self._parse(cpu.parse_time_array, transfers)

    def _parse(
        self, parse: Callable[[pa.Array], tuple[np.ndarray, np.ndarray]], transfers: Transfers
    ) -> Pair:
        values, valid = parse(self.values.to_host(transfers))
        return _take(values, self.codes, transfers), _take(valid, self.codes, transfers)


@dataclass(frozen=True)
class Plain:
    """Rows of integers, floats, dates or timestamps, as Parquet holds them."""

    type: pa.DataType
    values: Array  # (n,) of the type's storage; undefined where not valid
    valid: Array | None  # (n,) bool; None: no nulls

    def __len__(self) -> int:
        return self.values.shape[0]

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        """Return the distinct values on the host, and indices (n,) int32 into them, -1 for null.

        As Arrow's dictionaries: distinct by bits (0.0 is not -0.0), in order of their first rows.
        """
        xp, n = transfers.xp, len(self)
        rows = xp.arange(n) if self.valid is None else xp.nonzero(self.valid)[0]
        bits = self.values[rows].view(f"i{self.values.dtype.itemsize}")
        values, first, inverse = xp.unique(bits, return_index=True, return_inverse=True)
        order = xp.argsort(first, kind="stable")
        rank = xp.empty_like(order)
        rank[order] = xp.arange(order.shape[0])
        indices = xp.full(n, -1, dtype=xp.int32)
        indices[rows] = rank[inverse].astype(xp.int32)
        return self._to_arrow(transfers.download(values[order]), None), indices

    def parse_numbers(self, transfers: Transfers) -> Pair:
        """Return values as float64, and valid."""
        if pa.types.is_temporal(self.type):  # the CPU's function raises the error
            return self._to_host(transfers).parse_numbers(transfers)
        xp = transfers.xp
        values = self.values.astype(xp.float64)
        valid = self._valid(xp) & ~xp.isnan(values)
        return xp.where(valid, values, 0.0), valid

    def parse_times(self, transfers: Transfers) -> Pair:
        """Return nanoseconds, and valid."""
        xp = transfers.xp
        return cpu.to_nanoseconds(
            xp, self.values.astype(xp.int64), cpu.nanoseconds_per_count(self.type), self._valid(xp)
        )

    def _valid(self, xp: Any) -> Array:
        return xp.ones(len(self), dtype=bool) if self.valid is None else self.valid

    def _to_host(self, transfers: Transfers) -> Host:
        valid = None if self.valid is None else transfers.download(self.valid)
        return Host(self._to_arrow(transfers.download(self.values), valid))

    def _to_arrow(self, values: np.ndarray, valid: np.ndarray | None) -> pa.Array:
        mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.Array.from_buffers(
            self.type, len(values), [mask, pa.py_buffer(np.ascontiguousarray(values))]
        )


@dataclass(frozen=True)
class Host:
    """Rows of a type that stays on the host: decimals, booleans, INT96 and unexpected types."""

    array: pa.Array

    def __len__(self) -> int:
        return len(self.array)

    def distinct(self, transfers: Transfers) -> tuple[pa.Array, Array]:
        """Return the values that occur, and indices (n,) int32 into them, -1 for null."""
        [(_, values, indices)] = cpu.encode_chunks([self.array])
        # A dictionary may list more than occurs.
        occurs = np.bincount(indices + 1, minlength=len(values) + 1)[1:] > 0
        position = np.append(np.cumsum(occurs) - 1, -1).astype(np.int32)
        return values.filter(pa.array(occurs)), transfers.upload(position[indices])

    def parse_numbers(self, transfers: Transfers) -> Pair:
        """Return values as float64, and valid."""
        values, valid = cpu.parse_numbers([self.array])
        return transfers.upload(values), transfers.upload(valid)

    def parse_times(self, transfers: Transfers) -> Pair:
        """Return nanoseconds, and valid."""
        values, valid = cpu.parse_times([self.array])
        return transfers.upload(values), transfers.upload(valid)


Chunk = Text | Plain | Host
Column = list[Chunk]


def read_columns(
    files: Sequence[Path], names: Sequence[str], *, piece_bytes: int, transfers: Transfers
) -> dict[str, Column]:
    """Read the named columns of Parquet files, in file and row order.

    Files are decoded in pieces of about `piece_bytes` of device memory (0: each in one), besides
    the columns that are returned. OSError, ArrowInvalid or RuntimeError where a file cannot be
    read, KeyError where a column is missing.
    """
    columns: dict[str, Column] = {name: [] for name in names}
    for file in files:
        for name, chunks in _read_file(Path(file), list(columns), piece_bytes, transfers).items():
            columns[name] += chunks
    return columns


def encode(column: Column, transfers: Transfers) -> tuple[Array, pa.Array]:
    """Return codes (n,) int32 into the sorted distinct values, and these values.

    Codes of null and NaN are -1; the values are on the host. Text sorts by code point, numbers by
    value. Values of a dictionary that no row has are dropped.
    """
    xp = transfers.xp
    texts = [chunk for chunk in column if isinstance(chunk, Text)]
    if texts and len(texts) == len(column):
        values, codes = _merge_texts(texts, xp).distinct(transfers)
        return codes, values
    codes = xp.full(sum(map(len, column)), -1, dtype=xp.int32)
    parts = [(rows, *chunk.distinct(transfers)) for rows, chunk in _rows(column)]
    parts = [part for part in parts if len(part[1])]
    entry_codes, values = cpu.merge_dictionaries(
        [values for _, values, _ in parts], [np.arange(len(values)) for _, values, _ in parts]
    )
    for entries, (rows, _, indices) in zip(entry_codes, parts, strict=True):
        codes[rows] = _take(entries, indices, transfers, null=-1)
    return codes, values


def parse_numbers(column: Column, transfers: Transfers) -> Pair:
    """Run `cpu_fallback.tables.parse_numbers` for a column of the device."""
    return _convert(column, lambda chunk: chunk.parse_numbers(transfers), "float64", transfers.xp)


def parse_times(column: Column, transfers: Transfers) -> Pair:
    """Run `cpu_fallback.tables.parse_times` for a column of the device."""
    return _convert(column, lambda chunk: chunk.parse_times(transfers), "int64", transfers.xp)


def _read_file(
    file: Path, names: list[str], piece_bytes: int, transfers: Transfers
) -> dict[str, Column]:
    # Imported here, so that the rest of this module runs without RAPIDS, as in tests.
    from . import libcudf

    with pq.ParquetFile(file) as parquet:
        types = {name: stored_type(parquet, name) for name in names}
        on_device = [name for name, type_ in types.items() if type_ is not None]
        transfers.count_upload(_stored_bytes(parquet.metadata, on_device))
    on_host = [name for name in names if name not in on_device]
    columns: dict[str, Column] = {name: [] for name in names}
    if on_host:
        columns |= {
            name: list(map(Host, chunks))
            for name, chunks in file_columns.read_columns([file], on_host).items()
        }
    for piece in libcudf.read_pieces(file, on_device, piece_bytes) if on_device else ():
        for name, values in piece.items():
            type_ = types[name]
            if values.size() == 0:
                continue
            if values.type() != libcudf.type_of(type_):
                raise RuntimeError(
                    f"{file}: column '{name}' is {type_}, libcudf read it as {values.type()}."
                )
            if pa.types.is_string(type_):
                columns[name].append(Text(*libcudf.encode_strings(values, transfers.xp)))
            else:
                arrays = libcudf.to_arrays(values, numpy_type(type_), transfers.xp)
                columns[name].append(Plain(type_, *arrays))
        del piece, values  # before the next piece is decoded
    return columns


def stored_type(parquet: pq.ParquetFile, name: str) -> pa.DataType | None:
    """Return the type in which the device reads a column, or None if the host reads it.

    libcudf has other decimals than Arrow, takes any bytes for text, and turns INT96 into
    nanoseconds, in which a sentinel such as the year 9999 wraps around. It also splits names at
    dots. KeyError where there is no such column.
    """
    type_ = parquet.schema_arrow.field(name).type
    if pa.types.is_dictionary(type_) and is_text(type_.value_type):
        type_ = type_.value_type
    if "." in name or pa.types.is_nested(type_):
        return None
    if is_text(type_):
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


def _merge_texts(column: list[Text], xp: Any) -> Text:
    """Return all rows with codes into the distinct values of all chunks."""
    if len(column) == 1:
        return column[0]
    values, merged_codes = type(column[0].values).merge([chunk.values for chunk in column], xp)
    # The first cell is for null, code -1.
    lookup = xp.concatenate([xp.full(1, -1, dtype=xp.int32), merged_codes])
    codes, start = [], 1
    for chunk in column:
        codes.append(lookup[xp.where(chunk.codes < 0, 0, chunk.codes + start)])
        start += len(chunk.values)
    return Text(xp.concatenate(codes), values)


def _rows(column: Column) -> Iterator[tuple[slice, Chunk]]:
    row = 0
    for chunk in column:
        yield slice(row, row := row + len(chunk)), chunk


def _convert(column: Column, convert: Callable[[Chunk], Pair], dtype: str, xp: Any) -> Pair:
    n = sum(map(len, column))
    values, valid = xp.zeros(n, dtype=dtype), xp.zeros(n, dtype=bool)
    for rows, chunk in _rows(column):
        values[rows], valid[rows] = convert(chunk)
    return values, valid


def _take(per_value: np.ndarray, codes: Array, transfers: Transfers, null: int = 0) -> Array:
    """Return the value of each row's code; `null` where the code is -1."""
    return transfers.upload(np.append(per_value.dtype.type(null), per_value))[codes + 1]
