"""Read times by the settings: epoch numbers, text in a format, local times of a zone (D1)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpu_fallback.tables import NS_PER_UNIT, parse_time_array

from ..backend.protocol import Array
from ..config import InputsConfig
from .columns import MAX_INT64, ColumnReader
from .time_formats import ParsedTimes, parse_texts

_NS = 10**9
_INTEGER = r"^\s*-?\d{1,19}\s*$"
_ZONE = r"\d:\d.*(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)\s*$"  # at the end of ISO 8601 text
_STEP_S = 6 * 3600  # between two looks for a change of the clock; changes are further apart
_FIRST_S, _LAST_S = -(2 * 86_400), 7_290_000_000  # 1969-12-30 and 2201-01-05, seconds since 1970


class Times(NamedTuple):
    """A column of times."""

    values: Array  # (n,) int64  nanoseconds since 1970 UTC, 0 where not valid
    valid: Array  # (n,) bool
    n_skipped: int = 0  # rows at local times that a change of the clock skips
    n_repeated: int = 0  # and at those that it repeats

    def warn(self, where: str, inputs: InputsConfig) -> Iterator[str]:
        """Yield a warning of local times that are not those of one moment."""
        if self.n_skipped or self.n_repeated:
            yield (
                f"{where}: of the clock in {inputs.time_zone}, {self.n_skipped} rows have a time "
                f"that a change skips, and is moved forward, and {self.n_repeated} rows one that a "
                "change repeats, of which the first is taken."
            )


def read_times(reader: ColumnReader, name: str, inputs: InputsConfig) -> Times:
    """Read a column of times.

    Integers, and text of digits, count `inputs.time_unit` from 1970 UTC; other text has
    `inputs.time_format`, ISO 8601 where there is none. What has no zone is in `inputs.time_zone`,
    where there is one; see `_to_utc`.
    """
    source, type_class = reader.source, reader.source.type_classes.get(name)
    is_plain = inputs.time_unit is None and inputs.time_format is None and inputs.time_zone is None
    if is_plain or (type_class is None and name not in source.partitions):
        return Times(*reader.read_times(name))
    if type_class in ("date", "timestamp"):
        values, valid = reader.read_times(name)
        is_local = _find_local_rows(reader, name) if inputs.time_zone is not None else valid
    else:
        read = reader.read_codes if type_class == "integer" else reader.read_texts
        codes, distinct = read(name)
        parsed = _parse_distinct(distinct, inputs)
        values = _take(reader, parsed.time.fill_null(0), codes)
        valid = _take(reader, parsed.time.is_valid(), codes)
        is_local = _take(reader, parsed.is_local, codes)
    if inputs.time_zone is None:
        return Times(values, valid)
    return _to_utc(reader.backend, values, valid, is_local, ZoneInfo(inputs.time_zone))


def _find_local_rows(reader: ColumnReader, name: str) -> Array:
    """Return whether the file of each row has its times without a zone: (n,) bool."""
    source = reader.source
    kinds = [pq.read_schema(file).field(source.names[name]).type for file in source.files]
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    return reader.repeat_per_row(pa.array([getattr(kind, "tz", None) is None for kind in kinds]))


def _take(reader: ColumnReader, per_value: pa.Array, codes: Array) -> Array:
    """Return what distinct values have, per row; zero or False at code -1."""
    table = pa.concat_arrays([pa.array([0]).cast(per_value.type), per_value])
    return reader.backend.from_host(table.to_numpy(zero_copy_only=False))[codes + 1]


def _parse_distinct(values: pa.Array, inputs: InputsConfig) -> ParsedTimes:
    """Parse the distinct values of a column that is no date and no timestamp."""
    if pa.types.is_integer(values.type):
        if inputs.time_unit is not None:
            return _count_from_epoch(values, inputs.time_unit)
        values = values.cast(pa.string())  # such as 20200131
    if inputs.time_format is not None:
        return parse_texts(values, inputs.time_format)
    if inputs.time_unit is not None:
        is_number = pc.match_substring_regex(values, _INTEGER)
        bare = pc.utf8_trim_whitespace(pc.if_else(is_number, values, None))
        # Of 19 digits, not all are below 2^63.
        digits = bare.cast(pa.decimal128(19, 0))
        fits = pc.and_(pc.less_equal(digits, MAX_INT64), pc.greater_equal(digits, -MAX_INT64))
        numbers = pc.if_else(fits, digits, None).cast(pa.int64())
        return _count_from_epoch(numbers, inputs.time_unit)
    times, valid = parse_time_array(values)
    time = pc.if_else(pa.array(valid), pa.array(times), None)
    return ParsedTimes(time, pc.invert(pc.match_substring_regex(values, _ZONE)))


def _count_from_epoch(numbers: pa.Array, unit: str) -> ParsedTimes:
    """Return numbers of a unit as nanoseconds, null where int64 does not hold them."""
    factor = NS_PER_UNIT[unit]
    limit, wide = MAX_INT64 // factor, numbers
    fits = pc.and_(pc.less_equal(wide, limit), pc.greater_equal(wide, -limit))
    time = pc.multiply(pc.if_else(fits, wide, None).cast(pa.int64()), factor)
    return ParsedTimes(time, pa.repeat(pa.scalar(False), len(numbers)))


class _Changes(NamedTuple):
    """Changes of a zone's clock, in nanoseconds since 1970, and the offsets between them."""

    starts: list[int]  # local time at which the change begins to skip or to repeat
    ends: list[int]  # local time at which it has ended, and the new offset holds
    is_skipped: list[bool]  # whether the times between are skipped; else they are repeated
    offsets: list[int]  # that the clock is ahead of UTC; one more than changes


def _to_utc(backend: Any, time: Array, valid: Array, is_local: Array, zone: ZoneInfo) -> Times:
    """Convert local times of a zone to UTC.

    Of a time that is repeated, the first moment is taken. A time that is skipped is read as if the
    clock had not been changed yet, so that it moves forward by what is skipped (PEP 495, fold 0).
    """
    xp, is_local = backend.xp, is_local & valid
    if not bool(is_local.any()):
        return Times(time, valid)
    local = time[is_local]
    first, last = (int(moment) // _NS for moment in (local.min(), local.max()))
    changes = _find_changes(zone, max(first, _FIRST_S), min(last, _LAST_S))

    def upload(values: list[int]) -> Array:
        return backend.from_host(pa.array(values, pa.int64()).to_numpy())

    # The number of changes that are over; each row is before the next one's end.
    place = xp.searchsorted(upload(changes.ends), time, side="right")
    is_within = is_local & (time >= upload([*changes.starts, MAX_INT64])[place])
    is_skipped = is_within & (upload([*map(int, changes.is_skipped), 0])[place] == 1)
    values = xp.where(is_local, time - upload(changes.offsets)[place], time)
    n_skipped = int(is_skipped.sum())
    return Times(values, valid, n_skipped, int(is_within.sum()) - n_skipped)


def _find_changes(zone: ZoneInfo, first: int, last: int) -> _Changes:
    """Find the changes of a clock between two moments, in seconds, and two days around them."""

    def get_offset(moment: int) -> int:
        offset = datetime.fromtimestamp(moment, zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    changes = _Changes([], [], [], [get_offset(first - 2 * 86_400) * _NS])
    for low in range(first - 2 * 86_400, last + 2 * 86_400, _STEP_S):
        before, after, high = changes.offsets[-1] // _NS, get_offset(low + _STEP_S), low + _STEP_S
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if get_offset(middle) == before else (low, middle)
        changes.starts.append((high + min(before, after)) * _NS)
        changes.ends.append((high + max(before, after)) * _NS)
        changes.is_skipped.append(after > before)
        changes.offsets.append(after * _NS)
    return changes
