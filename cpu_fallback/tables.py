"""Parquet tables on the CPU: columns are read with pyarrow and become NumPy codes, numbers and times.

A column is the list of its Arrow chunks, as the files hold them: text stays dictionary-encoded from the Parquet page
to its codes, so no id is ever written out once per row. Chunks of one column may differ in type from file to file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Column = list[pa.Array]

NS_PER_S = 10**9
NS_PER_DAY = 86_400 * NS_PER_S
NS_PER_UNIT = {"s": NS_PER_S, "ms": 10**6, "us": 10**3, "ns": 1}
INT64_MAX = 2**63 - 1
DELTA_ROWS = 4096  # decoded at a time
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
ISO_TIME = (  # the dialects of ISO 8601 that databases and Python write
    r"^\s*(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?"
    r" ?(?:Z|UTC|(?P<sign>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2}))?)?)?\s*$"
)


def read_columns(files: Sequence[Path], names: Sequence[str]) -> dict[str, Column]:
    """The named columns of Parquet files, in file and row order; OSError or ArrowInvalid where a file cannot be read.

    INT96 timestamps are read as microseconds: as nanoseconds, a sentinel such as the year 9999 would wrap around.
    Files are not buffered ahead: on a local disk that only costs their size in memory. Checksums of pages are verified where
    they are; that costs nothing.
    """
    names = list(names)
    columns: dict[str, Column] = {name: [] for name in names}
    for file in files:
        try:
            with _open(file, read_dictionary=names) as parquet:
                tables = [parquet.read(columns=names)]
        except (
            OSError,
            pa.ArrowNotImplementedError,
        ):  # delta encodings, as DuckDB writes them; a torn file is refused again
            tables = _delta_coded(file, names)
        for table in tables:
            for name in names:
                columns[name].extend(table[name].chunks)
    return columns


def _open(file: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(
        file,
        coerce_int96_timestamp_unit="us",
        pre_buffer=False,
        page_checksum_verification=True,
        **options,
    )


def _delta_coded(file: Path, names: list[str]) -> Iterator[pa.Table]:
    """Some rows at a time, with text as dictionaries: it may share prefixes, and unpack to any multiple of its pages."""
    with _open(file) as parquet:
        for batch in parquet.iter_batches(DELTA_ROWS, columns=names):
            columns = [
                column.dictionary_encode() if is_text(column.type) else column
                for column in batch.columns
            ]
            yield pa.table(columns, batch.schema.names)


def encode(column: Column) -> tuple[np.ndarray, pa.Array]:
    """Codes (n,) int32 in the order of the sorted distinct values, -1 for null and NaN; and those values.

    Text sorts by code point, numbers by value. Only values that occur are kept, whatever a dictionary lists.
    """
    codes = np.full(_length(column), -1, dtype=np.int32)
    parts = [part for part in split_chunks(column) if len(part[1])]
    entry_codes, values = merge(
        [values for _, values, _ in parts], [indices for _, _, indices in parts]
    )
    for entries, (rows, _, indices) in zip(entry_codes, parts, strict=True):
        codes[rows] = np.append(entries, np.int32(-1))[
            indices
        ]  # index -1, null, takes the appended cell
    return codes, values


def merge(
    dictionaries: list[pa.Array], indices: list[np.ndarray]
) -> tuple[list[np.ndarray], pa.Array]:
    """The code of each entry of each dictionary, (d,) int32, -1 for null and NaN, and the sorted distinct values.

    `indices` are those of the rows (-1 for null) into each dictionary: values that no row has get no code.
    """
    if not dictionaries:
        return [], pa.array([], pa.string())
    # One hash table over the chunks' dictionaries, not over the rows, gives each entry its place
    # among all values.
    merged = pa.chunked_array(_alike(dictionaries)).dictionary_encode()
    values = merged.chunk(0).dictionary
    places = [_indices(chunk) for chunk in merged.chunks]
    used = np.zeros(len(values), dtype=bool)
    for place, rows in zip(places, indices, strict=True):
        occurring = place[np.bincount(rows + 1, minlength=len(place) + 1)[1:] > 0]
        used[occurring[occurring >= 0]] = True
    values = values.filter(pa.array(used))
    order = pc.sort_indices(values)
    code_of = np.full(len(used) + 1, -1, dtype=np.int32)  # the last cell answers place -1, null
    code_of[np.flatnonzero(used)[order.to_numpy()]] = np.arange(len(values), dtype=np.int32)
    return [code_of[place] for place in places], values.take(order)


def numbers(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) float64, 0 where not valid, and valid (n,) bool; null, NaN and text that is no number are not valid."""
    return _convert(column, np.float64, numbers_of)


def times(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds since 1970 UTC (n,) int64, 0 where not valid, and valid (n,) bool.

    Dates, timestamps of any unit, ISO 8601 text; no time zone means UTC. Not valid: null, text that is no calendar
    time, and times that int64 nanoseconds cannot hold (before 1677 or after 2262).
    """
    return _convert(column, np.int64, times_of)


def _length(column: Column) -> int:
    return sum(len(chunk) for chunk in column)


def split_chunks(column: Column) -> Iterator[tuple[slice, pa.Array, np.ndarray]]:
    """Each chunk's rows, its distinct values, and indices (n,) int32 into them, -1 for null."""
    row = 0
    for chunk in column:
        rows = slice(row, row := row + len(chunk))
        if pa.types.is_null(chunk.type):
            chunk = chunk.cast(pa.string())
        if not pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_encode()
        indices = _indices(chunk)
        if indices.max(initial=-1) >= len(
            chunk.dictionary
        ):  # Arrow decodes such pages, and looks nowhere
            raise pa.ArrowInvalid("an index beyond the end of its dictionary")
        yield rows, chunk.dictionary, indices


def _indices(chunk: pa.DictionaryArray) -> np.ndarray:
    return chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy()


def _alike(dictionaries: list[pa.Array]) -> list[pa.Array]:
    """Dictionaries of one type: text as string; numbers as they are, or as int64 or float64 where files differ; NaN as null."""
    dictionaries = [
        values.cast(pa.string()) if is_text(values.type) else values for values in dictionaries
    ]
    types = {values.type for values in dictionaries}
    if len(types) > 1 and all(pa.types.is_integer(kind) for kind in types):
        dictionaries = [values.cast(pa.int64()) for values in dictionaries]
    elif len(types) > 1 and pa.string() not in types:
        dictionaries = [_float64(values) for values in dictionaries]
    if pa.types.is_floating(dictionaries[0].type):
        dictionaries = [pc.if_else(pc.is_nan(values), None, values) for values in dictionaries]
    return dictionaries


def _convert(
    column: Column, dtype: Any, convert: Callable[[pa.Array], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Run `convert(plain array) -> values, valid` chunk by chunk; over the distinct values only where that is dear."""
    values, valid = np.zeros(_length(column), dtype=dtype), np.zeros(_length(column), dtype=bool)
    row = 0
    for chunk in column:
        rows = slice(row, row := row + len(chunk))
        if _is_cheap(chunk.type):
            values[rows], valid[rows] = convert(chunk)
            continue
        for _, distinct, indices in split_chunks([chunk]):
            distinct_values, distinct_valid = convert(distinct)
            values[rows] = np.append(distinct_values, dtype(0))[
                indices
            ]  # index -1, null, takes the appended cell
            valid[rows] = np.append(distinct_valid, False)[indices]
    return values, valid


def _is_cheap(kind: pa.DataType) -> bool:
    return pa.types.is_temporal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are text, in any of Arrow's layouts of it."""
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _float64(array: pa.Array) -> pa.Array:
    """Numbers as float64, each decimal correctly rounded (Arrow's own cast multiplies by an inexact power of ten)."""
    if pa.types.is_decimal(array.type):
        return array.cast(pa.string()).cast(pa.float64())
    return array.cast(pa.float64(), safe=False)


def numbers_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """What `numbers` says of one array that is no dictionary."""
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


def times_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """What `times` says of one array that is no dictionary."""
    if is_text(array.type):
        return _iso_times(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    raw = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    counts = raw.fill_null(0).to_numpy().astype(np.int64, copy=False)
    return nanoseconds(np, counts, nanoseconds_per_count(array.type), valid)


def nanoseconds_per_count(kind: pa.DataType) -> int:
    """What one count of a date or timestamp stands for; Arrow counts from 1970 UTC, whatever the zone."""
    if pa.types.is_date32(kind):
        return NS_PER_DAY
    return NS_PER_UNIT["ms" if pa.types.is_date64(kind) else kind.unit]


def nanoseconds(xp: Any, counts: Any, unit: int, valid: Any) -> tuple[Any, Any]:
    """Counts (n,) int64 of `unit` nanoseconds as nanoseconds, 0 and not valid where int64 cannot hold them.

    The arrays are of `xp`, NumPy or CuPy.
    """
    limit = INT64_MAX // unit
    valid = valid & (counts >= -limit) & (counts <= limit)
    return xp.where(valid, counts, 0) * unit, valid


def _iso_times(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
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
    valid &= (
        days.astype("datetime64[M]") == months
    )  # 30 February lies in March, and day 0 in the month before

    zone = (zone_hour * 60 + zone_minute) * 60
    behind = (
        pc.equal(pc.struct_field(fields, "sign"), "-")
        .fill_null(False)
        .to_numpy(zero_copy_only=False)
    )
    seconds = (
        days.astype(np.int64) * 86_400
        + hour * 3600
        + minute * 60
        + second
        + np.where(behind, zone, -zone)
    )
    valid &= np.abs(seconds) < INT64_MAX // NS_PER_S  # leaves room for the fraction
    whole, valid = nanoseconds(np, seconds, NS_PER_S, valid)
    fraction = (
        pc.utf8_rpad(pc.struct_field(fields, "fraction").fill_null(""), 9, "0")
        .cast(pa.int64())
        .to_numpy()
    )
    return whole + np.where(valid, fraction, 0), valid
