"""Turn columns of Parquet files into NumPy codes, numbers and times.

A column gives its Arrow chunks as the files hold them: text stays dictionary-encoded from the
Parquet page to its codes, so no id is written out once per row. Chunks of one column may differ in
type from file to file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .file_columns import FileColumn, is_text
from .memory import release_unused
from .text_order import sort_texts
from .text_table import TextTable, look_up, mark_occurring

Column = Iterable[pa.Array]  # a list of chunks, or a `FileColumn`

NS_PER_S = 10**9
NS_PER_DAY = 86_400 * NS_PER_S
NS_PER_UNIT = {"s": NS_PER_S, "ms": 10**6, "us": 10**3, "ns": 1}
INT64_MAX = 2**63 - 1
_MERGED_BYTES = 1 << 26  # of dictionaries that wait to be merged, at least
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
# The forms of ISO 8601 that databases and Python write.
ISO_TIME = (
    r"^\s*(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})"
    r"(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?"
    r" ?(?:Z|UTC|(?P<sign>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2}))?)?)?\s*$"
)


def encode(column: Column) -> tuple[np.ndarray, pa.Array]:
    """Return codes (n,) int32 into the sorted distinct values, and these values.

    Codes of null and NaN are -1. Text sorts by code point, numbers by value. Values of a dictionary
    that no row has are dropped.
    """
    codes, n_rows = np.empty(_length(column), dtype=np.int32), 0
    merger: _TextMerger | _NumberMerger | None = None
    for rows, dictionary, indices in encode_chunks(column):
        _require_room(rows, codes)
        codes[rows], n_rows = indices, rows.stop
        if len(dictionary):
            merger = merger or (_TextMerger() if is_text(dictionary.type) else _NumberMerger())
            merger.add(rows, dictionary, indices, codes)
    if merger is None:
        return codes[:n_rows], pa.array([], pa.string())
    values = merger.finish(codes[:n_rows])
    del merger
    release_unused()
    return codes[:n_rows], values


class _TextMerger:
    """Gives the rows of each chunk places among the distinct texts, and in the end codes."""

    def __init__(self) -> None:
        self._texts = TextTable()

    def add(
        self, rows: slice, dictionary: pa.Array, indices: np.ndarray, codes: np.ndarray
    ) -> None:
        """Write the places of the next rows, which have `indices` into their dictionary."""
        if not is_text(dictionary.type):
            raise pa.ArrowInvalid(f"text in some of the rows, {dictionary.type} in others")
        places = self._texts.add(dictionary, mark_occurring(indices, len(dictionary)))
        look_up(places, indices, codes[rows])

    def finish(self, codes: np.ndarray) -> pa.Array:
        """Write the codes of all rows, and return the sorted distinct texts."""
        texts = self._texts.to_arrow()
        order = sort_texts(texts)
        code_of = np.empty(len(texts), dtype=np.int32)
        code_of[order] = np.arange(len(texts), dtype=np.int32)
        look_up(code_of, codes, codes)
        return texts.take(pa.array(order))


class _NumberMerger:
    """Merges the dictionaries of chunks as they come, a few at a time.

    Rows have indices into their chunk's dictionary, then places among the distinct values so far,
    and in the end codes.
    """

    def __init__(self) -> None:
        self._values: pa.Array | None = None  # distinct, in order of appearance
        self._used = np.zeros(0, dtype=bool)  # of these values
        self._n_placed = 0  # rows that have places
        self._waiting: list[tuple[slice, pa.Array, np.ndarray]] = []  # rows, dictionary, used
        self._waiting_bytes = 0

    def add(
        self, rows: slice, dictionary: pa.Array, indices: np.ndarray, codes: np.ndarray
    ) -> None:
        """Take the dictionary of the next rows; `codes` has their `indices` into it."""
        used = np.zeros(len(dictionary) + 1, dtype=bool)
        used[indices] = True  # index -1, null, sets the last cell
        self._waiting.append((rows, dictionary, used[:-1]))
        self._waiting_bytes += dictionary.nbytes
        held = 0 if self._values is None else self._values.nbytes
        if self._waiting_bytes > max(_MERGED_BYTES, held):
            self._merge(codes)

    def finish(self, codes: np.ndarray) -> pa.Array:
        """Write the codes of all rows, and return the sorted distinct values."""
        self._merge(codes)
        assert self._values is not None  # of the dictionaries that were added
        code_of, values = _sort_used(self._values, self._used)
        look_up(code_of, codes, codes)
        return values

    def _merge(self, codes: np.ndarray) -> None:
        """Give the waiting rows places."""
        if not self._waiting:
            return
        held = [] if self._values is None else [self._values]
        places, self._values = _place_values([*held, *(values for _, values, _ in self._waiting)])
        used = np.zeros(len(self._values), dtype=bool)
        if held:
            used[places[0][self._used]] = True
            # Values that were distinct may be equal as another type.
            if not np.array_equal(places[0], np.arange(len(places[0]))):
                placed = codes[: self._n_placed]
                look_up(places[0], placed, placed)
        for (rows, _, occurs), place in zip(self._waiting, places[len(held) :], strict=True):
            _mark_used(used, place, occurs)
            look_up(place, codes[rows], codes[rows])
            self._n_placed = rows.stop
        self._used, self._waiting, self._waiting_bytes = used, [], 0


def merge_dictionaries(
    dictionaries: list[pa.Array], indices: list[np.ndarray]
) -> tuple[list[np.ndarray], pa.Array]:
    """Return codes (d,) int32 of each dictionary's entries, and the sorted distinct values.

    Codes of null and NaN are -1. `indices` are those of the rows (-1 for null) into each
    dictionary: values that no row has get no code.
    """
    if not dictionaries:
        return [], pa.array([], pa.string())
    places, values = _place_values(dictionaries)
    used = np.zeros(len(values), dtype=bool)
    for place, rows in zip(places, indices, strict=True):
        _mark_used(used, place, np.bincount(rows + 1, minlength=len(place) + 1)[1:] > 0)
    code_of, values = _sort_used(values, used)
    return [code_of[place] for place in places], values


def _place_values(dictionaries: list[pa.Array]) -> tuple[list[np.ndarray], pa.Array]:
    """Return the places (d,) int32 of each dictionary's entries among distinct values.

    These come second, in the order of their appearance; places of null and NaN are -1.
    """
    # One hash table over the dictionaries, not over the rows.
    merged = pa.chunked_array(_unify_types(dictionaries)).dictionary_encode()
    return [_indices(chunk) for chunk in merged.chunks], merged.chunk(0).dictionary


def _mark_used(used: np.ndarray, place: np.ndarray, occurs: np.ndarray) -> None:
    """Mark the values at the places (d,) of a dictionary's entries that occur (d,) bool."""
    occurring = place[occurs]
    used[occurring[occurring >= 0]] = True


def _sort_used(values: pa.Array, used: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """Return the code (n + 1,) int32 of each value, and the values that are used, sorted.

    A code is the value's place among these, -1 where it is not used; the last cell is for place -1,
    null.
    """
    values = values.filter(pa.array(used))
    order = pc.sort_indices(values)
    code_of = np.full(len(used) + 1, -1, dtype=np.int32)
    code_of[np.flatnonzero(used)[order.to_numpy()]] = np.arange(len(values), dtype=np.int32)
    return code_of, values.take(order)


def _require_room(rows: slice, array: np.ndarray) -> None:
    """ArrowInvalid where a column has more values than its files claim rows."""
    if rows.stop > len(array):
        raise pa.ArrowInvalid(f"more values than the {len(array)} rows of its files")


def parse_numbers(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Return values (n,) float64, 0 where not valid, and valid (n,) bool.

    Null, NaN and text that is not a number are not valid.
    """
    return _convert(column, np.float64, parse_number_array)


def parse_times(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Return nanoseconds since 1970 UTC (n,) int64, 0 where not valid, and valid (n,) bool.

    Dates, timestamps of any unit, ISO 8601 text; no time zone means UTC. Not valid: null, text that
    is not a calendar time, and times outside int64 nanoseconds (before 1677 or after 2262).
    """
    return _convert(column, np.int64, parse_time_array)


def _length(column: Column) -> int:
    if isinstance(column, FileColumn):
        return column.n_rows
    return sum(len(chunk) for chunk in column)


def encode_chunks(column: Column) -> Iterator[tuple[slice, pa.Array, np.ndarray]]:
    """Yield each chunk's rows, its dictionary, and indices (n,) int32 into it, -1 for null."""
    row = 0
    for chunk in column:
        rows = slice(row, row := row + len(chunk))
        if pa.types.is_null(chunk.type):
            chunk = chunk.cast(pa.string())
        if not pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_encode()
        indices = _indices(chunk)
        # Arrow decodes such pages without a check.
        if indices.max(initial=-1) >= len(chunk.dictionary):
            raise pa.ArrowInvalid("an index beyond the end of its dictionary")
        yield rows, chunk.dictionary, indices


def _indices(chunk: pa.DictionaryArray) -> np.ndarray:
    return chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy()


def _unify_types(dictionaries: list[pa.Array]) -> list[pa.Array]:
    """Return dictionaries of one type, with NaN as null.

    Text becomes string; numbers stay, or become int64 or float64 where files differ.
    """
    dictionaries = [
        values.cast(pa.string()) if is_text(values.type) else values for values in dictionaries
    ]
    types = {values.type for values in dictionaries}
    if len(types) > 1 and all(pa.types.is_integer(type_) for type_ in types):
        dictionaries = [values.cast(pa.int64()) for values in dictionaries]
    elif len(types) > 1 and pa.string() not in types:
        dictionaries = [_float64(values) for values in dictionaries]
    if pa.types.is_floating(dictionaries[0].type):
        dictionaries = [pc.if_else(pc.is_nan(values), None, values) for values in dictionaries]
    return dictionaries


def _convert(
    column: Column, dtype: Any, convert: Callable[[pa.Array], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Run `convert(array) -> values, valid` by chunk, over distinct values where it is slow."""
    values, valid = np.zeros(_length(column), dtype=dtype), np.zeros(_length(column), dtype=bool)
    row = 0
    for chunk in column:
        rows = slice(row, row := row + len(chunk))
        _require_room(rows, values)
        if _is_cheap(chunk.type):
            values[rows], valid[rows] = convert(chunk)
            continue
        for _, distinct, indices in encode_chunks([chunk]):
            distinct_values, distinct_valid = convert(distinct)
            # Index -1, null, takes the appended cell.
            values[rows] = np.append(distinct_values, dtype(0))[indices]
            valid[rows] = np.append(distinct_valid, False)[indices]
    release_unused()
    return values[:row], valid[:row]


def _is_cheap(type_: pa.DataType) -> bool:
    return pa.types.is_temporal(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _float64(array: pa.Array) -> pa.Array:
    """Return numbers as float64, decimals correctly rounded.

    Arrow's own cast of decimals multiplies by an inexact power of ten.
    """
    if pa.types.is_decimal(array.type):
        return array.cast(pa.string()).cast(pa.float64())
    return array.cast(pa.float64(), safe=False)


def parse_number_array(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """`parse_numbers` of one array that is not a dictionary."""
    if is_text(array.type):
        texts = array.to_pylist()
        values = np.array(
            [float(text) if text and NUMBER.fullmatch(text) else np.nan for text in texts],
            dtype=np.float64,
        )
    else:
        values = _float64(array).fill_null(np.nan).to_numpy()
    valid = ~np.isnan(values)
    return np.where(valid, values, 0.0), valid


def parse_time_array(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """`parse_times` of one array that is not a dictionary."""
    if is_text(array.type):
        return _parse_iso_times(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    raw = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    counts = raw.fill_null(0).to_numpy().astype(np.int64, copy=False)
    return to_nanoseconds(np, counts, nanoseconds_per_count(array.type), valid)


def nanoseconds_per_count(type_: pa.DataType) -> int:
    """Return the unit of a date or timestamp; Arrow counts from 1970 UTC in every time zone."""
    if pa.types.is_date32(type_):
        return NS_PER_DAY
    return NS_PER_UNIT["ms" if pa.types.is_date64(type_) else type_.unit]


def to_nanoseconds(xp: Any, counts: Any, unit: int, valid: Any) -> tuple[Any, Any]:
    """Convert counts (n,) int64 of `unit` nanoseconds; 0 and not valid where int64 overflows.

    The arrays are of `xp`, NumPy or CuPy.
    """
    limit = INT64_MAX // unit
    valid = valid & (counts >= -limit) & (counts <= limit)
    return xp.where(valid, counts, 0) * unit, valid


def _parse_iso_times(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    fields = pc.extract_regex(texts.cast(pa.string()), ISO_TIME)
    valid = fields.is_valid().to_numpy(zero_copy_only=False)

    def field(name: str) -> np.ndarray:
        text = pc.struct_field(fields, name)
        return pc.if_else(pc.equal(text, ""), "0", text).fill_null("0").cast(pa.int64()).to_numpy()

    year, month, day = field("year"), field("month"), field("day")
    hour, minute, second = field("hour"), field("minute"), field("second")
    zone_hour, zone_minute = field("zone_hour"), field("zone_minute")
    valid &= (
        (month >= 1)
        & (month <= 12)
        & (hour < 24)
        & (minute < 60)
        & (second < 60)
        & (zone_hour < 24)
        & (zone_minute < 60)
    )
    months = ((year - 1970) * 12 + np.where(valid, month, 1) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    # 30 February lies in March, and day 0 in the month before.
    valid &= days.astype("datetime64[M]") == months

    zone = (zone_hour * 60 + zone_minute) * 60
    is_behind_utc = (
        pc.equal(pc.struct_field(fields, "sign"), "-")
        .fill_null(False)
        .to_numpy(zero_copy_only=False)
    )
    seconds = (
        days.astype(np.int64) * 86_400
        + hour * 3600
        + minute * 60
        + second
        + np.where(is_behind_utc, zone, -zone)
    )
    valid &= np.abs(seconds) < INT64_MAX // NS_PER_S  # leaves room for the fraction
    whole, valid = to_nanoseconds(np, seconds, NS_PER_S, valid)
    fraction = (
        pc.utf8_rpad(pc.struct_field(fields, "fraction").fill_null(""), 9, "0")
        .cast(pa.int64())
        .to_numpy()
    )
    return whole + np.where(valid, fraction, 0), valid
