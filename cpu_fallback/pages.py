"""Cut the rows of a column into pages of a Parquet file, and compress them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from . import cells
from .column_layout import Rows
from .encodings import PLAIN, RLE, Buffer, Extremes, Indices, PageRange
from .hybrid import encode_hybrid, encode_run
from .thrift import StructWriter, encode_varint

_PAGE_BITS = 8 << 20  # of values, about: 1 MiB
# Rows of a page in a column with statistics: a reader may skip it by its minimum and maximum.
_INDEXED_ROWS = 20_000
_MAX_PAGE_BYTES = (1 << 31) - 1
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2  # PageType


@dataclass(frozen=True)
class Leaf:
    """A column of the file as Parquet's levels see it."""

    path: tuple[str, ...]  # names from the root of the schema
    physical: int  # Type
    is_nullable: bool
    is_list: bool
    has_nullable_elements: bool
    has_statistics: bool

    @property
    def max_definition(self) -> int:
        """The definition level of a cell that is there."""
        return self.is_nullable + self.is_list + self.has_nullable_elements


@dataclass
class Page:
    """What the footer and the page index say of a data page."""

    position: int  # in the file
    n_bytes: int  # of the file, header included
    first_row: int  # in the row group
    n_nulls: int
    text_bytes: int | None
    extremes: Extremes | None


@dataclass
class Chunk:
    """A column's part of a row group: its bytes, and what the footer says of it."""

    leaf: Leaf
    codec: str
    encoding: int
    n_rows: int
    position: int  # in the file
    definitions: np.ndarray  # (levels,) int64  how often each definition level occurs
    data: list[Buffer] = field(default_factory=list)
    n_bytes: int = 0
    n_unpacked_bytes: int = 0  # headers included
    dictionary_bytes: int = 0  # of the file; 0: no dictionary
    pages: list[Page] = field(default_factory=list)
    n_values: int = 0  # nulls and empty lists included


class ChunkWriter:
    """Encodes and compresses the columns of row groups with one codec."""

    def __init__(self, compression: str, level: int | None) -> None:
        self._compression = compression
        self._codec = pa.Codec(compression, compression_level=level)

    def encode(self, leaf: Leaf, rows: Rows, position: int) -> Chunk:
        """Return the pages of rows that are to begin at a position of the file."""
        encoder = rows.encoder
        counts = np.zeros(leaf.max_definition + 1, np.int64)
        chunk = Chunk(leaf, self._compression, encoder.encoding, len(rows), position, counts)
        if isinstance(encoder, Indices):
            header = StructWriter().add_integer(1, encoder.n_values).add_integer(2, PLAIN)
            header = header.add_bool(3, False)
            self._add_page(chunk, _DICTIONARY_PAGE, 7, header, encoder.encode_dictionary())
            chunk.dictionary_bytes = chunk.n_bytes
        for page in _cut(rows, _INDEXED_ROWS if leaf.has_statistics else None):
            levels, page_counts = _encode_levels(leaf, rows, page)
            n_values = int(page_counts.sum())
            header = StructWriter().add_integer(1, n_values).add_integer(2, encoder.encoding)
            header = header.add_integer(3, RLE).add_integer(4, RLE)
            first = chunk.n_bytes
            self._add_page(chunk, _DATA_PAGE, 5, header, encoder.encode(page, levels))
            n_nulls = n_values - int(page_counts[-1])
            chunk.pages.append(
                Page(
                    position=position + first,
                    n_bytes=chunk.n_bytes - first,
                    first_row=page.entries.start * rows.repeats,
                    n_nulls=n_nulls,
                    text_bytes=encoder.count_text(page),
                    extremes=encoder.find_extremes(page) if leaf.has_statistics else None,
                )
            )
            chunk.n_values += n_values
            counts += page_counts
        return chunk

    def _add_page(
        self, chunk: Chunk, type_: int, number: int, own_header: StructWriter, body: Buffer
    ) -> None:
        """Append a page, with the field of PageHeader that its type needs."""
        n_unpacked = memoryview(body).nbytes
        packed = self._codec.compress(body)
        header = (
            StructWriter()
            .add_integer(1, type_)
            .add_integer(2, n_unpacked)
            .add_integer(3, packed.size)
            .add_struct(number, own_header.finish())
            .finish()
        )
        if max(n_unpacked, packed.size) > _MAX_PAGE_BYTES:
            raise ValueError(
                f"{n_unpacked} bytes in a page of {chunk.leaf.path[0]}, Parquet takes 2^31 - 1."
            )
        chunk.data += (header, packed)
        chunk.n_bytes += len(header) + packed.size
        chunk.n_unpacked_bytes += len(header) + n_unpacked


def _cut(rows: Rows, max_rows: int | None) -> list[PageRange]:
    """Return the pages of rows: each has whole entries, one at least."""
    n, n_cells = rows.n_entries, max(1, _PAGE_BITS // rows.encoder.cell_bits)
    max_entries = n if max_rows is None else max(1, max_rows // rows.repeats)
    if rows.lengths is None:
        starts = range(0, n, min(n_cells, max_entries))
        stops = [*starts[1:], n]
        return [PageRange(slice(a, b), slice(a, b)) for a, b in zip(starts, stops, strict=True)]
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(rows.lengths, out=offsets[1:])
    pages, first = [], 0
    while first < n:
        last = int(np.searchsorted(offsets, offsets[first] + n_cells, side="right")) - 1
        last = min(n, first + max_entries, max(first + 1, last))
        pages.append(PageRange(slice(first, last), slice(int(offsets[first]), int(offsets[last]))))
        first = last
    return pages


def _encode_levels(leaf: Leaf, rows: Rows, page: PageRange) -> tuple[bytes, np.ndarray]:
    """Return the levels of a page, and how often each definition level occurs."""
    counts = np.zeros(leaf.max_definition + 1, np.int64)
    valid = None if rows.valid is None else rows.valid[page.cells]
    if valid is not None and valid.all():
        valid = None
    if rows.lengths is not None:
        return _encode_list_levels(leaf, rows.lengths[page.entries], rows.repeats, valid, counts)
    n_entries = page.entries.stop - page.entries.start
    n_valid = n_entries if valid is None else int(np.count_nonzero(valid))
    counts[-1] = n_valid * rows.repeats
    if not leaf.max_definition:
        return b"", counts
    counts[0] = (n_entries - n_valid) * rows.repeats
    if valid is None or not n_valid:
        return _measure(encode_run(int(valid is None), n_entries * rows.repeats, 1)), counts
    return _measure(*encode_hybrid(valid.astype(np.int32), rows.repeats, 1)), counts


def _encode_list_levels(
    leaf: Leaf, lengths: np.ndarray, repeats: int, valid: np.ndarray | None, counts: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """Return the levels of lists: repetition, then definition.

    A level is a cell, or an empty list. Repetition is 0 where a list starts, else 1.
    """
    n_empty = len(lengths) - int(np.count_nonzero(lengths))
    n_cells = int(lengths.sum(dtype=np.int64))
    n_levels = (n_cells + n_empty) * repeats
    n_groups = -(-n_levels // 8)
    starts, filled = np.full(n_groups, 255, np.uint8), np.full(n_groups, 255, np.uint8)
    cells.mark_lists(lengths, repeats, starts, filled)
    repetitions = _measure(encode_varint(n_groups << 1 | 1), starts)
    n_nulls = 0 if valid is None else len(valid) - int(np.count_nonzero(valid))
    highest, width = leaf.max_definition, leaf.max_definition.bit_length()
    counts[int(leaf.is_nullable)] += n_empty * repeats
    counts[-1] += n_cells * repeats - n_nulls
    if n_nulls:
        counts[-2] += n_nulls
    if not n_empty and valid is None:
        return repetitions + _measure(encode_run(highest, n_levels, width)), counts
    if highest == 1:
        return repetitions + _measure(encode_varint(n_groups << 1 | 1), filled), counts
    is_cell = np.unpackbits(filled, count=n_levels, bitorder="little").view(np.bool_)
    levels = np.full(n_levels, int(leaf.is_nullable), np.int32)
    levels[is_cell] = highest if valid is None else highest - ~valid
    return repetitions + _measure(*encode_hybrid(levels, 1, width)), counts


def _measure(*buffers: Buffer) -> bytes:
    """Return buffers joined, after their length in four bytes."""
    data = b"".join(buffers)
    return len(data).to_bytes(4, "little") + data
