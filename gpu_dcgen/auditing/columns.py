"""Columns of the input tables as codes, numbers and times, whatever types the files have (D1, D3).

A table gives a column as `chunks(name)`, a list of arrays, and the `width` of its integer ids.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

INT64_MAX = 2**63 - 1
NS_PER_DAY = 86_400 * 10**9
NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EPOCH = dt.datetime(1970, 1, 1)
TIME = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?:(:\d\d)(?:[.,](\d{1,9})\d*)?)? ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?\s*",
    re.ASCII,
)
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True)
class Category:
    """A column of categories: codes into its sorted distinct values."""

    codes: np.ndarray  # (n,) int64  -1 for null
    values: pa.Array  # strings

    def take(self, rows: np.ndarray) -> Category:
        return Category(self.codes[rows], self.values)

    def text(self, row: int) -> str | None:
        code = int(self.codes[row])
        return None if code < 0 else self.values[code].as_py()


def texts(table: Any, name: str, width: int = 0) -> Category:
    """A column of keys or categories as sorted distinct texts; integers in decimal, padded to `width`."""
    parts = []
    for chunk in table.chunks(name):
        chunk = chunk.cast(pa.string()) if types.is_null(chunk.type) else chunk
        chunk = chunk if types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        values = chunk.dictionary
        if types.is_integer(values.type):
            values = pa.array(
                [str(value).zfill(width) for value in values.to_pylist()], pa.string()
            )
        elif types.is_floating(values.type):  # pandas writes text that is null throughout like this
            values = pa.nulls(len(values), pa.string())
        parts.append((values.cast(pa.string()), chunk.indices))
    occurring = [values.take(indices.drop_null().unique()) for values, indices in parts]
    distinct = pa.chunked_array(occurring, pa.string()).drop_null().unique()
    distinct = distinct.take(pc.sort_indices(distinct))
    codes = [_at(places(values, distinct), indices) for values, indices in parts]
    return Category(np.concatenate(codes) if codes else np.zeros(0, np.int64), distinct)


def places(values: pa.Array, among: pa.Array) -> np.ndarray:
    """Places of texts among others, int64; -1 for null and for what is not there."""
    found = pc.index_in(values, value_set=among).fill_null(-1).to_numpy().astype(np.int64)
    if values.null_count:
        found[values.is_null().to_numpy(zero_copy_only=False)] = -1
    return found


def _at(table: np.ndarray, indices: pa.Array) -> np.ndarray:
    return np.append(table, -1)[indices.cast(pa.int64()).fill_null(len(table)).to_numpy()]


def keys(table: Any, name: str) -> Category:
    """`texts` in which the empty text is null too."""
    found = texts(table, name, table.width if name == "article_id" else 0)
    if len(found.values) and found.values[0].as_py() == "":
        return Category(np.maximum(found.codes - 1, -1), found.values[1:])
    return found


def numbers(table: Any, name: str) -> np.ndarray:
    """Float64 (n,), NaN where null or no number."""
    parts = []
    for chunk in table.chunks(name):
        chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
        if types.is_decimal(chunk.type):
            chunk = chunk.cast(pa.string()).cast(pa.float64())
        if types.is_string(chunk.type) or types.is_large_string(chunk.type):
            chunk = pa.array([_number(text) for text in chunk.to_pylist()], pa.float64())
        parts.append(
            chunk.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        )
    return np.concatenate(parts)


def _number(text: str | None) -> float | None:
    return float(text) if text and NUMBER.fullmatch(text) else None


def times(table: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds since 1970 UTC (n,) int64 and whether there is a time (n,) bool."""
    found, known = [], []
    for chunk in table.chunks(name):
        chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
        if types.is_timestamp(chunk.type):
            counts, unit = chunk.view(pa.int64()), NS[chunk.type.unit]
        elif types.is_date32(chunk.type):
            counts, unit = chunk.view(pa.int32()).cast(pa.int64()), NS_PER_DAY
        elif types.is_date64(chunk.type):
            counts, unit = chunk.view(pa.int64()), NS["ms"]
        else:
            distinct = chunk.cast(pa.string()).dictionary_encode()
            parsed = pa.array(
                [_nanoseconds(text) for text in distinct.dictionary.to_pylist()], pa.int64()
            )
            counts, unit = parsed.take(distinct.indices), 1
        values, most = counts.fill_null(0).to_numpy(), INT64_MAX // unit
        fits = (
            counts.is_valid().to_numpy(zero_copy_only=False) & (values >= -most) & (values <= most)
        )
        found.append(np.where(fits, values, 0) * unit)
        known.append(fits)
    return np.concatenate(found), np.concatenate(known)


def _nanoseconds(text: str | None) -> int | None:
    """ISO 8601 as databases and Python write it, to the nanosecond, UTC where it names no zone; None for anything else."""
    match = TIME.fullmatch(text or "")
    if match is None:
        return None
    date, timer, second, fraction, zone = match.groups()
    try:
        time = dt.datetime.fromisoformat(f"{date}T{timer or '00:00'}{second or ':00'}") - EPOCH
        away = (
            dt.time.fromisoformat(f"{zone[1:3]}:{zone[3:].strip(':') or '00'}")
            if zone and zone[0] in "+-"
            else dt.time()
        )
    except ValueError:
        return None
    minutes = (away.hour * 60 + away.minute) * (1 if zone and zone[0] == "+" else -1)
    seconds = time.days * 86_400 + time.seconds - minutes * 60
    nanoseconds = seconds * 10**9 + int((fraction or "").ljust(9, "0"))
    return nanoseconds if abs(nanoseconds) <= INT64_MAX else None
