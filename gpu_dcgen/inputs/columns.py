"""The columns of one input table as codes, numbers and times, whether they come from the files or from the path (D1)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array
from ..backend.runs import count_codes, repeat_index
from ..errors import InputError
from ..resources import require_memory
from .sources import Source, explain_unreadable

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
INT64_MAX = 2**63 - 1
MAX_TEXT_BYTES = 1 << 16  # of one value; a longer id or category is a document in the wrong column
VALUE_BYTES = 8  # of a column in memory, per row, besides its distinct texts


class Reader:
    """Reads a table's columns once and hands them out one by one, letting go of each: a column can be asked for once."""

    def __init__(self, source: Source, backend: Any) -> None:
        self.source, self.backend = source, backend
        source.check_pages()
        if backend.name != "gpu":  # which reads in pieces
            needed = source.unpacked_bytes + source.n_rows * len(source.columns) * VALUE_BYTES
            require_memory(
                needed, f"{source.label}: {source.n_rows:,} rows of {len(source.columns)} columns"
            )
        try:
            columns = backend.read_columns(source.files, sorted(set(source.columns.values())))
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise InputError(explain_unreadable(str(source.path), error)) from error
        self._columns = {name: columns[theirs] for name, theirs in source.columns.items()}

    def encode(self, name: str) -> tuple[Array, pa.Array]:
        """Codes (n,) int32 into the sorted distinct values, -1 for null, and those values; all -1 where the column is absent."""
        xp, source = self.backend.xp, self.source
        if name in source.classes:
            return self._taken(name, self.backend.encode)
        if name not in source.partitions:
            return xp.full(source.n_rows, -1, dtype=xp.int32), pa.array([], pa.string())
        values, place = sorted_distinct(pa.array(source.partitions[name], pa.string()))
        return self._spread(place), values

    def texts(self, name: str, width: int = 0) -> tuple[Array, pa.Array]:
        """Codes (n,) int32 into sorted distinct texts, -1 for null, and those texts as a host string array.

        Integers become decimal texts, padded with zeros to `width`. InputError where text is not UTF-8, or too long.
        """
        codes, values = self.encode(name)
        if pa.types.is_integer(values.type):
            texts, place = sorted_distinct(
                pa.array([str(value).zfill(width) for value in values.to_pylist()], pa.string())
            )
            return gather(self.backend, place, codes), texts
        texts = values.cast(pa.string())
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{self.source.label}: column {name!r} holds text that is not UTF-8.\nWrite the table as UTF-8."
            ) from error
        lengths = pc.binary_length(texts)
        if len(texts) and (n_bytes := pc.max(lengths).as_py()) > MAX_TEXT_BYTES:
            code = pc.index(lengths, n_bytes).as_py()
            row = int(self.backend.xp.argmax(codes == code))
            raise InputError(
                f"{self.source.label}: column {self.source.names[name]!r} has a text of {n_bytes:,} bytes "
                f"({self.source.place(row)}); at most {MAX_TEXT_BYTES:,} are taken.\nShorten it, or leave the row out."
            )
        return codes, texts

    def keys(self, name: str, width: int = 0) -> tuple[Array, pa.Array]:
        """`texts` with the empty text as null too."""
        codes, texts = self.texts(name, width)
        if len(texts) and texts[0].as_py() == "":  # it sorts first
            return self.backend.xp.maximum(codes - 1, -1), texts[1:]
        return codes, texts

    def numbers(self, name: str) -> tuple[Array, Array]:
        """Values (n,) float64 and valid (n,) bool; none valid where the column is absent."""
        xp, source = self.backend.xp, self.source
        if name in source.classes:
            return self._taken(name, self.backend.numbers)
        if name not in source.partitions:
            return xp.zeros(source.n_rows, dtype=xp.float64), xp.zeros(source.n_rows, dtype=bool)
        parsed = pa.array([_number(text) for text in source.partitions[name]], pa.float64())
        return self._spread(parsed.fill_null(0.0)), self._spread(parsed.is_valid())

    def times(self, name: str) -> tuple[Array, Array]:
        """Nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool; none valid where the column is absent."""
        xp, source = self.backend.xp, self.source
        if name in source.classes:
            return self._taken(name, self.backend.times)
        if name not in source.partitions:
            return xp.zeros(source.n_rows, dtype=xp.int64), xp.zeros(source.n_rows, dtype=bool)
        parsed = pa.array([_nanoseconds(text) for text in source.partitions[name]], pa.int64())
        return self._spread(parsed.fill_null(0)), self._spread(parsed.is_valid())

    def _taken(self, name: str, convert: Callable[[Any], tuple[Array, Any]]) -> tuple[Array, Any]:
        """What `convert` makes of a column: a value a row, and what belongs to them."""
        label, theirs, expected = self.source.label, self.source.names[name], self.source.n_rows
        try:
            values, others = convert(self._columns.pop(name))
        except MemoryError:
            raise
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(explain_unreadable(f"{label}: column {theirs!r}", error)) from error
        if (found := values.shape[0]) != expected:
            raise InputError(
                explain_unreadable(
                    f"{label}: column {theirs!r}", f"it has {found} values for {expected} rows"
                )
            )
        return values, others

    def _spread(self, per_file: pa.Array) -> Array:
        """A value per file as a value per row."""
        rows = self.backend.from_host(pa.array(self.source.rows, pa.int64()).to_numpy())
        return self.backend.from_host(per_file.to_numpy(zero_copy_only=False))[
            repeat_index(self.backend.xp, rows)
        ]


def sorted_distinct(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The distinct texts in code point order, and the place of each text among them: (n,) int32, -1 for null."""
    distinct = texts.drop_null().unique().sort()
    return distinct, pc.index_in(texts, value_set=distinct).fill_null(-1)


def gather(backend: Any, lookup: pa.Array, codes: Array) -> Array:
    """`lookup` (m,) int32, on the host, at `codes` (n,): int32, -1 where the code is -1."""
    table = backend.from_host(pa.concat_arrays([pa.array([-1], pa.int32()), lookup]).to_numpy())
    return table[codes + 1]


def compact(backend: Any, codes: Array, values: pa.Array) -> tuple[Array, pa.Array]:
    """Codes (n,) int32 and host values without the values that no row has; order is kept."""
    rows = count_codes(backend.xp, codes + 1, len(values) + 1)[1:]
    used = pa.array(backend.to_host(rows > 0))
    kept = values.filter(used)
    if len(kept) == len(values):
        return codes, values
    place = pc.subtract(pc.cumulative_sum(used.cast(pa.int32())), 1)
    return gather(backend, pc.if_else(used, place, -1).cast(pa.int32()), codes), kept


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None


def _nanoseconds(text: str | None) -> int | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    nanoseconds = (time - EPOCH) // timedelta(microseconds=1) * 1000
    return nanoseconds if abs(nanoseconds) <= INT64_MAX else None
