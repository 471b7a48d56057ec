"""Read times by the settings: epoch numbers, text in a format, local times of a zone (D1).

One distinct value after the other, by Python's own calendar and time zones.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from ..config import InputsConfig
from .input_columns import EPOCH, MAX_INT64, NS_PER_UNIT, InputTable, parse_time, read_times

_ZONED = re.compile(r"\d:\d.*(Z|UTC|[+-]\d\d(:?\d\d)?)\s*$", re.ASCII)


def read_log_times(
    table: InputTable, name: str, inputs: InputsConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Read times as ns since 1970 UTC (n,) int64, and whether each is known (n,) bool."""
    if (inputs.time_unit, inputs.time_format, inputs.time_zone) == (None, None, None):
        return read_times(table, name)
    zone = None if inputs.time_zone is None else ZoneInfo(inputs.time_zone)
    times, is_known = [], []
    for chunk in table.chunks(name):
        chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
        values, kind = _to_plain(chunk)
        distinct = values.dictionary_encode()
        parsed = [_parse(value, kind, inputs, zone) for value in distinct.dictionary.to_pylist()]
        column = pa.array(parsed, pa.int64()).take(distinct.indices)
        times.append(column.fill_null(0).to_numpy())
        is_known.append(column.is_valid().to_numpy(zero_copy_only=False))
    return np.concatenate(times), np.concatenate(is_known)


def _to_plain(chunk: pa.Array) -> tuple[pa.Array, str]:
    """Return values that Python holds exactly, and what they are: counts, numbers or text."""
    if types.is_timestamp(chunk.type):
        zoned = "" if chunk.type.tz is None else " UTC"
        return chunk.view(pa.int64()), f"{chunk.type.unit}{zoned}"
    if types.is_date32(chunk.type):
        return chunk.view(pa.int32()), "day"
    if types.is_date64(chunk.type):
        return chunk.view(pa.int64()), "ms"
    if types.is_integer(chunk.type):
        return chunk, "number"
    return chunk.cast(pa.string()), "text"


def _parse(value: Any, kind: str, inputs: InputsConfig, zone: ZoneInfo | None) -> int | None:
    """Return nanoseconds since 1970 UTC, None for what is no time."""
    if value is None:
        return None
    if kind not in ("number", "text"):
        unit, _, zoned = kind.partition(" ")
        nanoseconds = value * (86_400 * 10**9 if unit == "day" else NS_PER_UNIT[unit])
        return _limit(nanoseconds if zoned else _shift(nanoseconds, zone))
    is_whole = kind == "number" or re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value) is not None
    if (
        inputs.time_unit is not None
        and is_whole
        and (kind == "number" or inputs.time_format is None)
    ):
        return _limit(int(value) * NS_PER_UNIT[inputs.time_unit])
    if inputs.time_format is not None:
        return _parse_format(str(value).strip(), inputs.time_format, zone)
    if inputs.time_unit is not None:
        return None
    nanoseconds = parse_time(value)
    return _limit(nanoseconds if _ZONED.search(value) else _shift(nanoseconds, zone))


def _parse_format(text: str, time_format: str, zone: ZoneInfo | None) -> int | None:
    try:
        time = dt.datetime.strptime(text, time_format)
    except ValueError:
        return None
    naive = time.replace(tzinfo=None) - (time.utcoffset() or dt.timedelta())
    nanoseconds = (naive - EPOCH) // dt.timedelta(microseconds=1) * 1000
    return _limit(nanoseconds if time.tzinfo else _shift(nanoseconds, zone))


def _shift(nanoseconds: int | None, zone: ZoneInfo | None) -> int | None:
    """Return the moment of a local time: of a repeated one the first, a skipped one moved on."""
    if nanoseconds is None or zone is None:
        return nanoseconds
    try:
        local = EPOCH + dt.timedelta(seconds=nanoseconds // 10**9)
        offset = local.replace(tzinfo=zone, fold=0).utcoffset()
    except OverflowError:
        return nanoseconds  # out of range in any zone
    return nanoseconds - round((offset or dt.timedelta()).total_seconds()) * 10**9


def _limit(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None or abs(nanoseconds) > MAX_INT64 else nanoseconds
