"""Read the claims of a Parquet file without Arrow, and check them before they cost memory.

Arrow ends the process on some footers and believes the sizes that pages claim, so a small file
could ask for any amount of memory. Here footers and page headers are read in plain Python and
compared with the file's size. Names and numbers of fields are those of parquet.thrift.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..thrift import CompactReader, Struct, ThriftError, Value

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_TAIL = struct.Struct("<I4s")  # length of the footer, magic
_HEADER_BYTES = 512  # of a page read at first; statistics of long texts need more
_MAX_HEADER_BYTES = 1 << 24
_MAX_SCHEMA_DEPTH = 24

_OPTIONAL, _REPEATED = 1, 2  # FieldRepetitionType; 0 is required
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3  # PageType
# Field numbers of PageHeader for the header of each type of page.
_DATA_HEADER = {_DATA_PAGE: 5, _DATA_PAGE_V2: 8}
_DICTIONARY_HEADER = 7

T = TypeVar("T", int, bytes, list[Value], Struct)


class FooterError(ValueError):
    """A file that is not Parquet or contradicts itself; the text is the reason alone."""


@dataclass(frozen=True)
class Chunk:
    """A column's values in one row group."""

    n_values: int  # nulls included
    n_nulls: int | None  # None where the file does not say
    first: int  # position of its first page in the file
    packed_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True)
class Footer:
    """The row groups of a file: rows, and the chunks of its flat columns."""

    n_rows: int
    groups: tuple[dict[str, Chunk], ...]
    data_end: int  # where pages end and the footer begins

    def is_null_throughout(self, name: str) -> bool:
        """Return whether the file claims that a flat column holds nulls only."""
        chunks = [group.get(name) for group in self.groups]
        return all(chunk is not None and chunk.n_nulls == chunk.n_values for chunk in chunks)

    def unpacked_bytes(self, names: Iterable[str]) -> int:
        """Return the bytes of the columns' pages, unpacked."""
        return sum(self._list_chunk_bytes(names))

    def largest_chunk(self, names: Iterable[str]) -> int:
        """Return the bytes of the largest chunk of the columns, unpacked."""
        return max(self._list_chunk_bytes(names), default=0)

    def _list_chunk_bytes(self, names: Iterable[str]) -> Iterator[int]:
        """Yield the unpacked bytes of each chunk of the columns."""
        selected = set(names)
        for group in self.groups:
            yield from (chunk.unpacked_bytes for name, chunk in group.items() if name in selected)


def read_footer(path: Path) -> Footer:
    """Read and check a file's footer.

    FooterError where it contradicts itself or the file's size; OSError.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(_MAGIC) + _TAIL.size:
            raise FooterError(f"it has {size} bytes, fewer than any Parquet file")
        file.seek(size - _TAIL.size)
        length, magic = _TAIL.unpack(file.read())
        if magic == _ENCRYPTED:
            raise FooterError("it is encrypted")
        if magic != _MAGIC:
            raise FooterError(f"it ends in {magic!r}, not in {_MAGIC!r}")
        data_end = size - _TAIL.size - length
        if data_end < len(_MAGIC):
            raise FooterError(f"its footer claims {length} bytes of the file's {size}")
        file.seek(data_end)
        fields = parse_struct(file.read(length))
    levels = _find_flat_columns(_list(fields, 2))
    row_groups = _list(fields, 4)
    groups = tuple(_read_group(group, levels, data_end) for group in row_groups)
    n_rows = _count(fields, 3, "rows")
    n_in_groups = sum(_count(group, 3, "rows") for group in row_groups)
    if n_rows != n_in_groups:
        raise FooterError(f"its footer claims {n_rows} rows, and {n_in_groups} in its row groups")
    return Footer(n_rows, groups, data_end)


def check_pages(path: Path, footer: Footer, names: Iterable[str]) -> None:
    """Compare the pages of the named columns with the footer.

    FooterError where they hold other values, or unpack to more bytes, than the footer claims.
    """
    with path.open("rb") as file:
        for number, group in enumerate(footer.groups):
            for name in names:
                if name in group:
                    _check_chunk(file, group[name], f"column {name!r} of row group {number}")


def parse_struct(data: bytes) -> Struct:
    """Return the struct that the bytes begin with; FooterError where it is not valid."""
    try:
        return CompactReader(data).read_struct()
    except ThriftError as error:
        raise FooterError(str(error)) from error


def _check_chunk(file: BinaryIO, chunk: Chunk, where: str) -> None:
    position, end, n_values, unpacked = chunk.first, chunk.first + chunk.packed_bytes, 0, 0
    while n_values < chunk.n_values and position < end:
        header, length = _read_page_header(file, position, end)
        page_bytes = _count(header, 2, "bytes of a page")
        position += length + _count(header, 3, "bytes of a page")
        unpacked += length + page_bytes
        if position > end:
            raise FooterError(f"{where} has a page beyond its end")
        if unpacked > chunk.unpacked_bytes:
            raise FooterError(
                f"{where} unpacks to more than the {chunk.unpacked_bytes} bytes "
                "that its footer claims"
            )
        page_type = _optional_int(header, 1)
        if page_type in _DATA_HEADER:
            n_values += _count(_struct(header, _DATA_HEADER[page_type]), 1, "values of a page")
        elif page_type == _DICTIONARY_PAGE:
            n_entries = _count(_struct(header, _DICTIONARY_HEADER), 1, "values of a page")
            if n_entries > max(page_bytes, chunk.n_values):
                raise FooterError(
                    f"{where} has a dictionary of {n_entries} entries in {page_bytes} bytes"
                )
    if n_values != chunk.n_values:
        raise FooterError(
            f"{where} has {n_values} values in its pages, its footer claims {chunk.n_values}"
        )


def _read_page_header(file: BinaryIO, position: int, end: int) -> tuple[Struct, int]:
    """Return the header at `position`, and its length."""
    n_bytes = _HEADER_BYTES
    while True:
        file.seek(position)
        data = file.read(min(n_bytes, end - position))
        reader = CompactReader(data)
        try:
            return reader.read_struct(), reader.position
        except ThriftError as error:
            if len(data) < n_bytes or n_bytes >= _MAX_HEADER_BYTES:
                raise FooterError(str(error)) from error
            n_bytes *= 8


def _find_flat_columns(elements: list[Value]) -> dict[str, int]:
    """Return name -> highest definition level of the columns right below the schema's root."""
    columns: dict[str, int] = {}
    if not elements:
        raise FooterError("its footer has no schema")
    position = 1
    for _ in range(_get(elements[0], 5, int, 0)):
        if position >= len(elements):
            raise FooterError("its schema breaks off")
        element = elements[position]
        repetition = _get(element, 3, int, 0)
        if not _get(element, 5, int, 0) and repetition != _REPEATED:
            columns[_decode_name(_get(element, 4, bytes, b""))] = int(repetition == _OPTIONAL)
        position = _skip_element(elements, position, 0)
    return columns


def _skip_element(elements: list[Value], position: int, depth: int) -> int:
    """Return the position after an element of the schema and all below it."""
    if depth > _MAX_SCHEMA_DEPTH or position >= len(elements):
        raise FooterError("its schema breaks off or is nested too deeply")
    n_children = _get(elements[position], 5, int, 0)
    position += 1
    for _ in range(n_children):
        position = _skip_element(elements, position, depth + 1)
    return position


def _read_group(group: Value, levels: dict[str, int], data_end: int) -> dict[str, Chunk]:
    """Return the chunks of a row group's flat columns, by name."""
    n_rows = _count(group, 3, "rows")
    chunks: dict[str, Chunk] = {}
    for column in _list(group, 1):
        metadata = _struct(column, 3)
        if isinstance(column, dict) and (8 in column or 9 in column):
            raise FooterError("it is encrypted")
        path = _list(metadata, 3)
        name = _decode_name(path[0]) if len(path) == 1 else None
        if name is None or name not in levels:
            continue
        chunk = _read_chunk(metadata)
        if chunk.n_values != n_rows:
            raise FooterError(f"column {name!r} claims {chunk.n_values} values for {n_rows} rows")
        pages_end = chunk.first + chunk.packed_bytes
        if n_rows and not len(_MAGIC) <= chunk.first <= pages_end <= data_end:
            raise FooterError(f"column {name!r} claims bytes that lie outside of the file's pages")
        _check_histograms(metadata, name, levels[name])
        chunks[name] = chunk
    return chunks


def _check_histograms(metadata: Struct, name: str, max_definition_level: int) -> None:
    """Check the lengths of SizeStatistics' histograms: Arrow ends the process on others."""
    statistics = _struct(metadata, 16)
    for number, n_levels in ((2, 1), (3, max_definition_level + 1)):
        if len(_list(statistics, number)) not in (0, n_levels):
            raise FooterError(f"column {name!r} has a histogram of levels that it does not have")


def _read_chunk(metadata: Struct) -> Chunk:
    pages, dictionary = _optional_int(metadata, 9), _optional_int(metadata, 11)
    pages = -1 if pages is None else pages
    has_dictionary = dictionary is not None and 0 < dictionary < pages
    return Chunk(
        n_values=_count(metadata, 5, "values"),
        n_nulls=_optional_int(_struct(metadata, 12), 3),
        first=dictionary if dictionary is not None and has_dictionary else pages,
        packed_bytes=_count(metadata, 7, "bytes"),
        unpacked_bytes=_count(metadata, 6, "bytes"),
    )


def _count(fields: Value, number: int, unit: str) -> int:
    value = _get(fields, number, int, -1)
    if value < 0:
        raise FooterError(f"it claims {value} {unit}")
    return value


def _struct(fields: Value, number: int) -> Struct:
    return _get(fields, number, dict, {})


def _list(fields: Value, number: int) -> list[Value]:
    return _get(fields, number, list, [])


def _optional_int(fields: Struct, number: int) -> int | None:
    value = fields.get(number)
    return value if isinstance(value, int) else None


def _get(fields: Value, number: int, kind: type[T], default: T) -> T:
    value = fields.get(number, default) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise FooterError(f"field {number} is no {kind.__name__}")
    return value


def _decode_name(name: Value) -> str:
    if isinstance(name, bytes):
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError:
            pass
    raise FooterError(f"a column's name, {name!r:.60}, is not UTF-8")
