"""Read columns of an input table as codes, numbers and times, from files or paths (D1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, map_in_place, repeat_index
from ..errors import InputError, Problems
from ..resources import require_memory
from .sources import Source, explain_unreadable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_INT64 = 2**63 - 1
MAX_TEXT_BYTES = 1 << 16  # of one value; a longer id or category is a document in the wrong column
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_BAND = re.compile(r"\s*(\d{1,3})\s*(?:(?:-|\u2013|to)\s*(\d{1,3})|\+)\s*", re.ASCII)


class TextCount(NamedTuple):
    """Rows with texts that are alike in some way."""

    n_rows: int = 0
    example: str = ""


class Numbers(NamedTuple):
    """A column of numbers."""

    values: Array  # (n,) float64  undefined where not valid
    valid: Array  # (n,) bool
    bands: TextCount = TextCount()  # texts that are two bounds of a number
    unread: TextCount = TextCount()  # texts that are no numbers

    def warn(self, where: str) -> Iterator[str]:
        """Yield warnings of texts that are not read as they are."""
        if self.bands.n_rows:
            yield (
                f"{where} is a band such as {self.bands.example!r} in {self.bands.n_rows} rows; "
                "the middle of the band is used, its lower bound where it is open."
            )
        if self.unread.n_rows:
            yield (
                f"{where} is text that is no number in {self.unread.n_rows} rows (for example "
                f"{self.unread.example!r}); null is used there."
            )


class ColumnReader:
    """Reads a table's columns one by one, and converts them.

    A column is released when it is converted, so it can be asked for once. One that cannot be
    converted is given as null; `require` then raises what is wrong with all such columns.
    """

    def __init__(self, source: Source, backend: Backend) -> None:
        """Check the pages and the memory they need, and open. InputError where either fails."""
        self.source, self.backend = source, backend
        source.check_pages()
        if backend.name != "gpu":  # which reads in pieces
            require_memory(
                source.held_bytes,
                f"{source.label}: {source.n_rows:,} rows of {len(source.columns)} columns",
            )
        try:
            columns = backend.read_columns(source.files, sorted(set(source.columns.values())))
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise InputError(explain_unreadable(str(source.path), error)) from error
        self._columns = {name: columns[own_name] for name, own_name in source.columns.items()}
        self._problems = Problems()
        self._keys: dict[str, tuple[Array, pa.Array]] = {}  # read, and not yet asked for

    def require(self) -> None:
        """InputError where columns that were read could not be converted."""
        self._problems.raise_all(self.source.label)

    def read_codes(self, name: str) -> tuple[Array, pa.Array]:
        """Return codes (n,) int32 into the sorted distinct values, and those values.

        -1 is null; all codes are -1 where the column is absent.
        """
        source = self.source
        if name in source.type_classes:
            with self._problems.collect():
                return self._convert(name, self.backend.encode)
        if name not in source.partitions:
            return self._make_null_codes()
        values, codes = encode_texts(pa.array(source.partitions[name], pa.string()))
        return self.repeat_per_row(codes), values

    def read_texts(self, name: str, width: int = 0) -> tuple[Array, pa.Array]:
        """Return codes (n,) int32 into sorted distinct texts, -1 for null, and those texts.

        Texts are a host string array. Integers become decimal texts; these, and texts that are
        whole numbers, are padded with zeros to `width`. InputError where a text is not UTF-8, or
        too long.
        """
        codes, values = self.read_codes(name)
        if pa.types.is_integer(values.type) or pa.types.is_decimal(values.type):
            texts, places = encode_texts(
                pa.array([str(value).zfill(width) for value in values.to_pylist()], pa.string())
            )
            return map_codes(self.backend, places, codes), texts
        texts = values.cast(pa.string())
        with self._problems.collect():
            try:
                texts.validate(full=True)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.source.label}: column {name!r} holds text that is not UTF-8.\n"
                    "Write the table as UTF-8."
                ) from error
            self._require_short_texts(name, codes, texts)
            if not width:
                return codes, texts
            texts, places = encode_texts(_pad_numbers(texts, width))
            return map_codes(self.backend, places, codes), texts
        return self._make_null_codes()

    def read_keys(self, name: str, width: int = 0) -> tuple[Array, pa.Array]:
        """Return the same as `read_texts`, with empty texts as null."""
        if name in self._keys:
            return self._keys.pop(name)
        codes, texts = self.read_texts(name, width)
        if len(texts) and texts[0].as_py() == "":  # it sorts first
            return self.backend.xp.maximum(codes - 1, -1), texts[1:]
        return codes, texts

    def peek_keys(self, name: str, width: int = 0) -> pa.Array:
        """Return the sorted distinct ids; `read_keys` returns them again with their codes."""
        self._keys[name] = self.read_keys(name, width)
        return self._keys[name][1]

    def read_numbers(self, name: str, *, has_bands: bool = False) -> Numbers:
        """Return a column of numbers; none is valid where the column is absent.

        With `has_bands`, the text `35-44` is the middle of its bounds and `65+` its bound.
        """
        xp, source = self.backend.xp, self.source
        if source.type_classes.get(name) == "text" or name in source.partitions:
            return self._parse_numbers(*self.read_texts(name), has_bands)
        if name in source.type_classes:
            with self._problems.collect():
                return Numbers(*self._convert(name, self.backend.parse_numbers))
        return Numbers(xp.zeros(source.n_rows), xp.zeros(source.n_rows, dtype=bool))

    def read_times(self, name: str) -> tuple[Array, Array]:
        """Return nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool.

        No value is valid where the column is absent.
        """
        xp, source = self.backend.xp, self.source
        if name in source.type_classes:
            with self._problems.collect():
                return self._convert(name, self.backend.parse_times)
        if name not in source.partitions:
            return xp.zeros(source.n_rows, dtype=xp.int64), xp.zeros(source.n_rows, dtype=bool)
        parsed = pa.array([_parse_time(text) for text in source.partitions[name]], pa.int64())
        return self.repeat_per_row(parsed.fill_null(0)), self.repeat_per_row(parsed.is_valid())

    def _parse_numbers(self, codes: Array, texts: pa.Array, has_bands: bool) -> Numbers:
        """Parse texts, and count those that are bands or no numbers."""
        xp, backend = self.backend.xp, self.backend
        distinct = texts.to_pylist()
        numbers = [_parse_number(text) for text in distinct]
        bands = [_parse_band(text) if has_bands else None for text in distinct]
        is_band = [
            number is None and band is not None for number, band in zip(numbers, bands, strict=True)
        ]
        parsed = pa.array(
            [
                band if number is None else number
                for number, band in zip(numbers, bands, strict=True)
            ],
            pa.float64(),
        )
        rows = backend.to_host(count_codes(xp, codes + 1, len(distinct) + 1)[1:]).tolist()
        # The first cell is that of code -1, null.
        table = pa.concat_arrays([pa.nulls(1, pa.float64()), parsed])
        values = backend.from_host(table.fill_null(0).to_numpy())
        valid = backend.from_host(table.is_valid().to_numpy(zero_copy_only=False))
        is_unread = [
            value is None and bool(text.strip())
            for text, value in zip(distinct, parsed.to_pylist(), strict=True)
        ]
        return Numbers(
            values[codes + 1],
            valid[codes + 1],
            _count_texts(distinct, rows, is_band),
            _count_texts(distinct, rows, is_unread),
        )

    def _convert(self, name: str, convert: Callable[[Any], tuple[Array, Any]]) -> tuple[Array, Any]:
        """Return what `convert` makes of a column in the files, and release the column.

        InputError where it cannot be converted or has another number of values than rows.
        """
        source = self.source
        where = f"{source.label}: column {source.names[name]!r}"
        try:
            values, meaning = convert(self._columns.pop(name))
        except MemoryError:
            raise
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(
                self._explain_types(name, error) or explain_unreadable(where, error)
            ) from error
        if (n_values := values.shape[0]) != source.n_rows:
            raise InputError(
                explain_unreadable(where, f"it has {n_values} values for {source.n_rows} rows")
            )
        return values, meaning

    def _make_null_codes(self) -> tuple[Array, pa.Array]:
        xp = self.backend.xp
        return xp.full(self.source.n_rows, -1, dtype=xp.int32), pa.array([], pa.string())

    def _explain_types(self, name: str, error: Exception) -> str | None:
        """Return the text of an InputError where a column's types differ among the files."""
        source, own_name = self.source, self.source.names[name]
        files: dict[str, str] = {}
        for file in source.files:
            files.setdefault(str(pq.read_schema(file).field(own_name).type), file.name)
        if len(files) == 1:
            return None
        types = " and ".join(f"{kind} in {file}" for kind, file in sorted(files.items()))
        return (
            f"{source.label}: column {own_name!r} is {types}, which do not fit together "
            f"({' '.join(str(error).split()):.200}).\n"
            "Write the column with one type in all files; write ids as text."
        )

    def _require_short_texts(self, name: str, codes: Array, texts: pa.Array) -> None:
        """InputError with column and row where a text is longer than MAX_TEXT_BYTES."""
        lengths = pc.binary_length(texts)
        if len(texts) and (n_bytes := pc.max(lengths).as_py()) > MAX_TEXT_BYTES:
            code = pc.index(lengths, n_bytes).as_py()
            row = int(self.backend.xp.argmax(codes == code))
            raise InputError(
                f"{self.source.label}: column {self.source.names[name]!r} has a text of "
                f"{n_bytes:,} bytes ({self.source.locate_row(row)}); expected at most "
                f"{MAX_TEXT_BYTES:,}.\nShorten it, or leave the row out."
            )

    def repeat_per_row(self, per_file: pa.Array) -> Array:
        """Repeat a value per file for each row of the file."""
        rows = self.backend.from_host(pa.array(self.source.rows, pa.int64()).to_numpy())
        values = self.backend.from_host(per_file.to_numpy(zero_copy_only=False))
        return values[repeat_index(self.backend.xp, rows)]


def parse_floats(texts: pa.Array) -> pa.Array:
    """Return the numbers (n,) float64 that texts are, null where a text is none."""
    bare = pc.utf8_ltrim(pc.utf8_trim_whitespace(texts), "+")
    is_number = pc.match_substring_regex(texts, f"^(?:{_NUMBER.pattern})$")
    return pc.if_else(is_number, bare, None).cast(pa.float64())


def _pad_numbers(texts: pa.Array, width: int) -> pa.Array:
    """Return texts (n,), the whole numbers among them with leading zeros up to `width`."""
    is_number = pc.match_substring_regex(texts, "^-?[0-9]+$")
    numbers = [text.zfill(width) for text in texts.filter(is_number).to_pylist()]
    return pc.replace_with_mask(texts, is_number, pa.array(numbers, pa.string()))


def encode_texts(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the distinct texts, sorted, and each text's code (n,) int32, -1 for null."""
    distinct = texts.drop_null().unique().sort()
    return distinct, pc.index_in(texts, value_set=distinct).fill_null(-1)


def map_codes(backend: Backend, lookup: pa.Array, codes: Array) -> Array:
    """Return `lookup` (m,) int32, on the host, at `codes` (n,), -1 where the code is -1."""
    table = backend.from_host(pa.concat_arrays([pa.array([-1], pa.int32()), lookup]).to_numpy())
    mapped = codes + 1
    map_in_place(table, mapped)
    return mapped


def drop_unused_values(backend: Backend, codes: Array, values: pa.Array) -> tuple[Array, pa.Array]:
    """Return codes (n,) int32 and host values without those that no row has, in their order."""
    rows = count_codes(backend.xp, codes + 1, len(values) + 1)[1:]
    is_used = pa.array(backend.to_host(rows > 0))
    used = values.filter(is_used)
    if len(used) == len(values):
        return codes, values
    places = pc.subtract(pc.cumulative_sum(is_used.cast(pa.int32())), 1)
    return map_codes(backend, pc.if_else(is_used, places, -1).cast(pa.int32()), codes), used


def _count_texts(
    texts: Sequence[str], rows: Sequence[int], is_counted: Sequence[bool]
) -> TextCount:
    """Count the rows of some texts."""
    counted = [(n, text) for n, text, is_one in zip(rows, texts, is_counted, strict=True) if is_one]
    return TextCount(sum(n for n, _ in counted), counted[0][1]) if counted else TextCount()


def _parse_number(text: str) -> float | None:
    """Return the number that a text is, else None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_band(text: str) -> float | None:
    """Return the middle of a band such as `35-44`, the bound of `65+`, else None."""
    match = _BAND.fullmatch(text)
    if match is None:
        return None
    low, high = float(match[1]), float(match[2] or match[1])
    return (low + high) / 2 if low <= high else None


def _parse_time(text: str | None) -> int | None:
    """Return the ISO time in a folder's name as nanoseconds since 1970 UTC, else None."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    nanoseconds = (time - EPOCH) // timedelta(microseconds=1) * 1000
    return nanoseconds if abs(nanoseconds) <= MAX_INT64 else None
