"""Read columns of the input tables as codes, numbers and times, of any type (D1, D3).

A table gives a column as `chunks(name)`, arrays in row order, and the `widths` of integer ids.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from .texts import Vocabulary

MAX_INT64 = 2**63 - 1
NO_KEY, UNKNOWN_KEY = -1, -2  # of `find_keys`
NS_PER_DAY = 86_400 * 10**9
NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EPOCH = dt.datetime(1970, 1, 1)
TIME = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)"
    r"(?:[T ](\d\d:\d\d)(?:(:\d\d)(?:[.,](\d{1,9})\d*)?)? ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?\s*",
    re.ASCII,
)
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


class InputTable(Protocol):
    """What this module needs of a table."""

    widths: dict[str, int]  # digits of ids that are numbers, by column

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """Yield a column as arrays, in row order."""


@dataclass(frozen=True)
class CodedColumn:
    """A column of texts as codes into its sorted distinct values."""

    codes: np.ndarray  # (n,) int32 or int64  -1 for null
    values: pa.Array  # strings

    def take(self, rows: np.ndarray) -> CodedColumn:
        """Return the column of some rows, over the same values."""
        return CodedColumn(self.codes[rows], self.values)

    def text(self, row: int) -> str | None:
        """Return the text of a row, None for null."""
        code = int(self.codes[row])
        return None if code < 0 else self.values[code].as_py()


def read_texts(table: InputTable, name: str, width: int = 0) -> CodedColumn:
    """Read keys or categories as texts; those of digits padded with zeros to `width`."""
    parts = list(_list_texts(table, name, width))
    occurring = [values.take(indices.drop_null().unique()) for values, indices in parts]
    distinct = pa.chunked_array(occurring, pa.string()).drop_null().unique()
    distinct = distinct.take(pc.sort_indices(distinct))
    vocabulary = Vocabulary(distinct)
    codes = [_take_or_null(vocabulary.find(values), indices) for values, indices in parts]
    return CodedColumn(np.concatenate(codes) if codes else np.zeros(0, np.int32), distinct)


def find_keys(table: InputTable, name: str, ids: pa.Array) -> np.ndarray:
    """Find a column of ids among distinct ones: their positions (n,) int32.

    NO_KEY where the id is null or the empty text, UNKNOWN_KEY where `ids` lacks it.
    """
    vocabulary, parts = Vocabulary(ids), [np.zeros(0, np.int32)]
    for values, indices in _list_texts(table, name, table.widths[name]):
        positions = vocabulary.find(values)
        has_key = pc.greater(pc.binary_length(values), 0).fill_null(False)
        is_unknown = has_key.to_numpy(zero_copy_only=False) & (positions < 0)
        parts.append(_take_or_null(np.where(is_unknown, UNKNOWN_KEY, positions), indices))
    return np.concatenate(parts)


def _list_texts(table: InputTable, name: str, width: int) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield the texts of each chunk of a column, and the place of each row among them."""
    for chunk in table.chunks(name):
        chunk = chunk.cast(pa.string()) if types.is_null(chunk.type) else chunk
        chunk = chunk if types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        values = chunk.dictionary
        if types.is_integer(values.type) or types.is_decimal(values.type):
            values = pa.array([str(value) for value in values.to_pylist()], pa.string())
        elif types.is_floating(values.type):  # how pandas writes a text column of nulls alone
            values = pa.nulls(len(values), pa.string())
        values = values.cast(pa.string())
        if width:
            values = pa.array([_pad(text, width) for text in values.to_pylist()], pa.string())
        yield values, chunk.indices


def _pad(text: str | None, width: int) -> str | None:
    """Return an id with leading zeros, where it is a number."""
    is_number = text is not None and re.fullmatch(r"-?[0-9]+", text) is not None
    return text.zfill(width) if text is not None and is_number else text


def _take_or_null(table: np.ndarray, indices: pa.Array) -> np.ndarray:
    """Return `table[indices]` as int32, -1 for a null index."""
    table = np.append(table, -1).astype(np.int32)
    return table[indices.cast(pa.int64()).fill_null(len(table) - 1).to_numpy()]


def read_keys(table: InputTable, name: str) -> CodedColumn:
    """Read a column of ids as `read_texts` does, with the empty text as null."""
    column = read_texts(table, name, table.widths[name])
    if len(column.values) and column.values[0].as_py() == "":
        return CodedColumn(np.maximum(column.codes - 1, -1), column.values[1:])
    return column


def read_ages(table: InputTable) -> np.ndarray:
    """Read ages as float64 (n,); of a band such as `35-44` or `65+` the middle, or the bound."""
    return read_numbers(table, "age", _parse_age)


def _parse_age(text: str | None) -> float | None:
    low, separator, high = (text or "").replace("\u2013", "-").replace("to", "-").partition("-")
    if (text or "").strip().endswith("+"):
        low, separator, high = (text or "").strip()[:-1], "-", (text or "").strip()[:-1]
    bounds = [bound.strip() for bound in (low, high)]
    if separator and all(re.fullmatch(r"[0-9]{1,3}", bound) for bound in bounds):
        first, last = map(int, bounds)
        return (first + last) / 2 if first <= last else None
    return _parse_number(text)


def read_numbers(
    table: InputTable, name: str, parse: Callable[[str | None], float | None] | None = None
) -> np.ndarray:
    """Read a column as float64 (n,), NaN for null and for texts that `parse` gives no number."""
    parse = parse or _parse_number
    parts = []
    for chunk in table.chunks(name):
        if types.is_dictionary(chunk.type) and types.is_string(chunk.type.value_type):
            numbers = [parse(text) for text in chunk.dictionary.to_pylist()]
            chunk = pa.array(numbers, pa.float64()).take(chunk.indices)
        chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
        if types.is_decimal(chunk.type):
            chunk = chunk.cast(pa.string()).cast(pa.float64())
        if types.is_string(chunk.type) or types.is_large_string(chunk.type):
            chunk = pa.array([parse(text) for text in chunk.to_pylist()], pa.float64())
        parts.append(
            chunk.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        )
    return np.concatenate(parts)


def _parse_number(text: str | None) -> float | None:
    return float(text) if text and NUMBER.fullmatch(text) else None


def read_times(table: InputTable, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read times as ns since 1970 UTC (n,) int64, and whether each is known (n,) bool."""
    times, is_known = [], []
    for chunk in table.chunks(name):
        chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
        if types.is_timestamp(chunk.type):
            counts, unit = chunk.view(pa.int64()), NS_PER_UNIT[chunk.type.unit]
        elif types.is_date32(chunk.type):
            counts, unit = chunk.view(pa.int32()).cast(pa.int64()), NS_PER_DAY
        elif types.is_date64(chunk.type):
            counts, unit = chunk.view(pa.int64()), NS_PER_UNIT["ms"]
        else:
            distinct = chunk.cast(pa.string()).dictionary_encode()
            parsed = pa.array(
                [parse_time(text) for text in distinct.dictionary.to_pylist()], pa.int64()
            )
            counts, unit = parsed.take(distinct.indices), 1
        values, limit = counts.fill_null(0).to_numpy(), MAX_INT64 // unit
        fits = (
            counts.is_valid().to_numpy(zero_copy_only=False)
            & (values >= -limit)
            & (values <= limit)
        )
        times.append(np.where(fits, values, 0) * unit)
        is_known.append(fits)
    return np.concatenate(times), np.concatenate(is_known)


def parse_time(text: str | None) -> int | None:
    """Parse ISO 8601, as databases and Python write it, to ns since 1970 UTC; else None.

    A time without a zone is taken as UTC; a date alone is its midnight.
    """
    match = TIME.fullmatch(text or "")
    if match is None:
        return None
    date, clock, second, fraction, zone = match.groups()
    try:
        time = dt.datetime.fromisoformat(f"{date}T{clock or '00:00'}{second or ':00'}") - EPOCH
        offset = (
            dt.time.fromisoformat(f"{zone[1:3]}:{zone[3:].strip(':') or '00'}")
            if zone and zone[0] in "+-"
            else dt.time()
        )
    except ValueError:
        return None
    minutes = (offset.hour * 60 + offset.minute) * (1 if zone and zone[0] == "+" else -1)
    seconds = time.days * 86_400 + time.seconds - minutes * 60
    nanoseconds = seconds * 10**9 + int((fraction or "").ljust(9, "0"))
    return nanoseconds if abs(nanoseconds) <= MAX_INT64 else None
