"""Encode the cells of a column as the pages of a Parquet file hold them.

A cell is a value, or an element of a list. Cells stay as a block has them, one for `repeats`
adjacent rows, and are repeated when a page is written. Nulls take no room in pages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from . import cells
from .hybrid import encode_hybrid
from .sample_ids import count_group_bytes, encode_sample_ids

# Numbers of encodings in parquet.thrift.
PLAIN, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 3, 7, 8
# Longer minima and maxima are left out, as Arrow does.
_MAX_EXTREME_BYTES = 4096
_SORTING_COST = 64  # of a code, in cells of a table that are passed over

Buffer = Any  # bytes or an array


class Strings(NamedTuple):
    """A vocabulary as its buffers."""

    offsets: np.ndarray  # (v + 1,) int32
    text: np.ndarray  # uint8

    @classmethod
    def from_arrow(cls, strings: pa.Array) -> Strings:
        """Return the buffers of an Arrow array of strings, without a copy."""
        strings = strings.cast(pa.string())
        _, offsets, text = strings.buffers()
        if offsets is None or not len(strings):
            return cls(np.zeros(1, np.int32), np.zeros(0, np.uint8))
        first = strings.offset
        return cls(
            np.frombuffer(offsets, np.int32)[first : first + len(strings) + 1],
            np.zeros(0, np.uint8) if text is None else np.frombuffer(text, np.uint8),
        )

    def get_bytes(self, code: int) -> bytes:
        """Return a string by its position."""
        return self.text[self.offsets[code] : self.offsets[code + 1]].tobytes()


class PageRange(NamedTuple):
    """What a page holds: entries of the column, and the cells of these entries."""

    entries: slice
    cells: slice


class Extremes(NamedTuple):
    """The least and the greatest value of a page: as they compare, and as PLAIN bytes."""

    least: Any
    greatest: Any
    least_bytes: bytes
    greatest_bytes: bytes


class Encoder(ABC):
    """Cells of a column with their encoding.

    `cell_bits` is about how many bits a cell takes in a page, with its repeats.
    """

    encoding = PLAIN
    cell_bits: int

    @abstractmethod
    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return the bytes of a page: its levels, then its values without nulls."""

    def find_extremes(self, page: PageRange) -> Extremes | None:
        """Return minimum and maximum of a page; None where it has none."""
        return None

    def count_text(self, page: PageRange) -> int | None:
        """Return the bytes of a page's strings, without lengths; None if they are no strings."""
        return None


class Numbers(Encoder):
    """Fixed-width values as PLAIN."""

    def __init__(self, values: np.ndarray, valid: np.ndarray | None, repeats: int) -> None:
        """Take values (n,) of the physical type, and which are valid (None: all)."""
        self._values, self._valid, self._repeats = values, valid, repeats
        self.cell_bits = 8 * values.itemsize * repeats

    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return the values as they lie in memory."""
        bits = as_bits(self._select(page))
        if self._repeats == 1 and not levels:
            return bits
        body, room = _lay_out(levels, len(bits) * self._repeats, bits.dtype)
        cells.repeat_cells(bits, room.reshape(len(bits), self._repeats))
        return body

    def find_extremes(self, page: PageRange) -> Extremes | None:
        """Return the bounds of numbers, NaN left out."""
        return _find_number_extremes(self._select(page))

    def _select(self, page: PageRange) -> np.ndarray:
        values = self._values[page.cells]
        return values if self._valid is None else values[self._valid[page.cells]]


class Booleans(Numbers):
    """Booleans as PLAIN: a bit each."""

    def __init__(self, values: np.ndarray, valid: np.ndarray | None, repeats: int) -> None:
        """Take values (n,) bool, and which are valid (None: all)."""
        super().__init__(values, valid, repeats)
        self.cell_bits = repeats

    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return a bit a value, the first in the lowest."""
        values = np.repeat(self._select(page), self._repeats)
        return levels + np.packbits(values, bitorder="little").tobytes()


class Slices(Encoder):
    """Lists that are slices of an array of numbers, as PLAIN."""

    def __init__(
        self, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, repeats: int
    ) -> None:
        """Take values (m,) of the physical type; entry e is values[starts[e]:][:lengths[e]]."""
        self._bits, self._starts, self._lengths = as_bits(values), starts, lengths
        self._repeats = repeats
        self.cell_bits = 8 * values.itemsize * repeats

    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return the elements of the lists."""
        n_cells = (page.cells.stop - page.cells.start) * self._repeats
        body, room = _lay_out(levels, n_cells, self._bits.dtype)
        entries = page.entries
        cells.copy_lists(
            self._bits, self._starts[entries], self._lengths[entries], self._repeats, room
        )
        return body


class SampleIdTexts(Encoder):
    """Sample ids as DELTA_BYTE_ARRAY."""

    encoding = DELTA_BYTE_ARRAY

    def __init__(self, column: Any, first_group: int) -> None:
        """Take a `SampleIds` column, of which `first_group` is entry 0."""
        self._column, self._first = column, first_group
        # Two lengths and one or two characters that differ: some three bytes.
        self.cell_bits = 24 * column.rows_per_group

    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return what each id shares with the one before, and the rest."""
        first, last = page.entries.start, page.entries.stop
        ids: list[Buffer] = encode_sample_ids(self._column, self._first + first, self._first + last)
        return b"".join((levels, *ids))

    def count_text(self, page: PageRange) -> int | None:
        """Return the bytes of the ids."""
        n_groups = page.entries.stop - page.entries.start
        return n_groups * count_group_bytes(self._column)


class Indices(Encoder):
    """Cells as indices of a dictionary."""

    encoding = RLE_DICTIONARY

    def __init__(self, codes: np.ndarray, n_values: int, repeats: int) -> None:
        """Take codes (n,) int32, -1 for null, into a dictionary of `n_values`."""
        self._codes, self._repeats, self.n_values = codes, repeats, n_values
        self._width = max(1, (n_values - 1).bit_length())
        self.cell_bits = self._width * repeats

    @abstractmethod
    def encode_dictionary(self) -> Buffer:
        """Return the values of the dictionary as PLAIN."""

    def encode(self, page: PageRange, levels: bytes) -> Buffer:
        """Return the width of an index, and the indices."""
        codes = self._codes[page.cells]
        if len(codes) and codes.min() < 0:
            codes = codes[codes >= 0]
        indices: list[Buffer] = encode_hybrid(codes, self._repeats, self._width)
        return b"".join((levels, bytes((self._width,)), *indices))


class NumberIndices(Indices):
    """Fixed-width values as indices of those that occur."""

    def __init__(
        self, values: np.ndarray, codes: np.ndarray, distinct: np.ndarray, repeats: int
    ) -> None:
        """Take values (n,), the code of each, -1 for null, and the distinct values."""
        super().__init__(codes, len(distinct), repeats)
        self._values, self._distinct = values, distinct

    def encode_dictionary(self) -> Buffer:
        """Return the distinct values."""
        return self._distinct

    def find_extremes(self, page: PageRange) -> Extremes | None:
        """Return the bounds of numbers, NaN left out."""
        return _find_number_extremes(self._values[page.cells][self._codes[page.cells] >= 0])


class StringIndices(Indices):
    """Strings as indices of all of a vocabulary, or of those that occur."""

    def __init__(self, words: np.ndarray, strings: Strings, repeats: int, *, has_all: bool) -> None:
        """Take codes (n,) int32 into the vocabulary, -1 for null.

        The dictionary has all strings, or those that occur.
        """
        n_strings = len(strings.offsets) - 1
        selected, codes = (
            (np.arange(n_strings), words) if has_all else _number_words(words, n_strings)
        )
        super().__init__(codes, len(selected), repeats)
        self._words, self._selected, self._strings = words, selected, strings
        self._lengths = strings.offsets[selected + 1] - strings.offsets[selected]

    def encode_dictionary(self) -> Buffer:
        """Return the strings, each after its length."""
        n_bytes = 4 * len(self._selected) + int(self._lengths.sum(dtype=np.int64))
        out = np.empty(n_bytes, np.uint8)
        cells.write_strings(self._selected, *self._strings, out)
        return out

    def find_extremes(self, page: PageRange) -> Extremes | None:
        """Return the bounds of strings by their bytes."""
        least, greatest = cells.find_extreme_strings(self._words[page.cells], *self._strings)
        if least < 0:
            return None
        texts = [self._strings.get_bytes(code) for code in (least, greatest)]
        return None if max(map(len, texts)) > _MAX_EXTREME_BYTES else Extremes(*texts, *texts)

    def count_text(self, page: PageRange) -> int | None:
        """Return the bytes of the strings."""
        return cells.sum_lengths(self._codes[page.cells], self._lengths) * self._repeats


def _number_words(words: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of 0..n-1 occur, rising, and the place (n,) int32 of each word among them.

    A word of -1 is null, and its place is -1.
    """
    if len(words) * _SORTING_COST < n:
        selected = np.unique(words)
        selected = selected[np.searchsorted(selected, 0) :]
        places = np.searchsorted(selected, words).astype(np.int32)
        places[words < 0] = -1
        return selected, places
    occurs = np.zeros(n + 1, bool)  # the last cell stands for null
    occurs[words] = True
    occurs[-1] = False
    selected = np.flatnonzero(occurs)
    place_of = np.empty(n + 1, np.int32)  # only cells of words that occur are set and read
    place_of[-1] = -1
    place_of[selected] = np.arange(len(selected), dtype=np.int32)
    return selected, place_of[words]


def as_bits(values: np.ndarray) -> np.ndarray:
    """Return values of 4 or 8 bytes as unsigned integers, without a copy if they adjoin."""
    return np.ascontiguousarray(values).view(f"u{values.itemsize}")


def _lay_out(levels: bytes, n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of a page that begins with `levels`, and the room for `n` values in it.

    The values are aligned, the page's first byte is not.
    """
    before = -len(levels) % 8
    start = before + len(levels)
    body = np.empty(start + n * dtype.itemsize, np.uint8)
    body[before:start] = np.frombuffer(levels, np.uint8)
    return body[before:], body[start:].view(dtype)


def _find_number_extremes(values: np.ndarray) -> Extremes | None:
    if values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    if not len(values):
        return None
    least, greatest = values.min(), values.max()
    # Of zeros, Parquet's rules take -0.0 as the least and 0.0 as the greatest.
    if least == 0:
        least = values.dtype.type(-0.0)
    if greatest == 0:
        greatest = values.dtype.type(0)
    return Extremes(least, greatest, least.tobytes(), greatest.tobytes())
