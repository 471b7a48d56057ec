"""What a Parquet file claims to hold, read without Arrow and held against the file's size: before a claim costs memory.

Arrow ends the process on some footers and believes what pages say of their size, so a small file could ask for any amount
of memory. Here the footer and the pages' headers are walked in plain Python, in Thrift's compact protocol; names and
numbers of fields are those of the format's parquet.thrift.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterable

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_TAIL = struct.Struct("<I4s")  # length of the footer, magic
_HEADER_BYTES = 512  # of a page read at first; statistics of long texts need more
_MOST_HEADER_BYTES = 1 << 24
_DEEPEST = 24  # structs in structs; parquet.thrift needs a handful

# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)
_INTEGERS = (_I16, _I32, _I64)

_OPTIONAL, _REPEATED = 1, 2  # FieldRepetitionType; 0 is required
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)


class FooterError(ValueError):
    """A file that is no Parquet file, or says of itself what cannot be; the text is the reason alone."""


@dataclass(frozen=True)
class Chunk:
    """A column's values in one row group."""

    n_values: int  # nulls included
    n_nulls: int | None  # None where the file does not say
    first: int  # the place of its first page in the file
    packed_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True)
class Footer:
    """The row groups of a file: rows, and the chunks of its flat columns."""

    n_rows: int
    groups: tuple[dict[str, Chunk], ...]
    data_end: int  # where pages end and the footer begins

    def null_throughout(self, name: str) -> bool:
        """Whether the file says that a flat column holds nulls only."""
        chunks = [group.get(name) for group in self.groups]
        return all(chunk is not None and chunk.n_nulls == chunk.n_values for chunk in chunks)

    def unpacked_bytes(self, names: Iterable[str]) -> int:
        """Bytes of the columns' pages, unpacked."""
        names = set(names)
        return sum(
            chunk.unpacked_bytes
            for group in self.groups
            for name, chunk in group.items()
            if name in names
        )


def read_footer(path: Path) -> Footer:
    """Read and check a file's footer. FooterError where it contradicts itself or the file's size; OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(_MAGIC) + _TAIL.size:
            raise FooterError(f"it has {size} bytes, fewer than any Parquet file")
        file.seek(size - _TAIL.size)
        length, magic = _TAIL.unpack(file.read())
        if magic != _MAGIC:
            raise FooterError(
                "it is encrypted"
                if magic == _ENCRYPTED
                else f"it ends in {magic!r}, not in {_MAGIC!r}"
            )
        data_end = size - _TAIL.size - length
        if data_end < len(_MAGIC):
            raise FooterError(f"its footer claims {length} bytes of the file's {size}")
        file.seek(data_end)
        fields = _parsed(file.read(length))
    levels = _flat_columns(_list(fields, 2))
    groups = tuple(_group(group, levels, data_end) for group in _list(fields, 4))
    n_rows, n_found = (
        _count(fields, 3, "rows"),
        sum(_count(group, 3, "rows") for group in _list(fields, 4)),
    )
    if n_rows != n_found:
        raise FooterError(f"its footer claims {n_rows} rows, and {n_found} in its row groups")
    return Footer(n_rows, groups, data_end)


def check_pages(path: Path, footer: Footer, names: Iterable[str]) -> None:
    """FooterError where the pages of the named columns hold other values, or unpack to more bytes, than the footer says."""
    with path.open("rb") as file:
        for number, group in enumerate(footer.groups):
            for name in names:
                if name in group:
                    _check_chunk(file, group[name], f"column {name!r} of row group {number}")


def _check_chunk(file: BinaryIO, chunk: Chunk, where: str) -> None:
    place, end, n_values, unpacked = chunk.first, chunk.first + chunk.packed_bytes, 0, 0
    while n_values < chunk.n_values:
        if place >= end:
            raise FooterError(
                f"{where} has {n_values} values in its pages, its footer claims {chunk.n_values}"
            )
        header, length = _page_header(file, place, end)
        place += length + _count(header, 3, "bytes of a page")
        unpacked += length + _count(header, 2, "bytes of a page")
        if place > end:
            raise FooterError(f"{where} has a page beyond its end")
        if unpacked > chunk.unpacked_bytes:
            raise FooterError(
                f"{where} unpacks to more than the {chunk.unpacked_bytes} bytes that its footer claims"
            )
        detail = {_DATA_PAGE: 5, _DATA_PAGE_V2: 8}.get(header.get(1))
        if detail is not None:
            n_values += _count(_struct(header, detail), 1, "values of a page")
        elif header.get(1) == _DICTIONARY_PAGE:
            n_entries, n_bytes = (
                _count(_struct(header, 7), 1, "values of a page"),
                _count(header, 2, "bytes of a page"),
            )
            if n_entries > max(n_bytes, chunk.n_values):
                raise FooterError(
                    f"{where} has a dictionary of {n_entries} entries in {n_bytes} bytes"
                )
    if n_values != chunk.n_values:
        raise FooterError(
            f"{where} has {n_values} values in its pages, its footer claims {chunk.n_values}"
        )


def _page_header(file: BinaryIO, place: int, end: int) -> tuple[dict[int, Any], int]:
    """The header at `place`, and its length."""
    n_bytes = _HEADER_BYTES
    while True:
        file.seek(place)
        data = file.read(min(n_bytes, end - place))
        reader = _Reader(data)
        try:
            return reader.struct(0), reader.place
        except FooterError:
            if len(data) < n_bytes or n_bytes >= _MOST_HEADER_BYTES:
                raise
            n_bytes *= 8


def _flat_columns(elements: list[Any]) -> dict[str, int]:
    """Name -> highest definition level of the columns that are not nested: those right below the schema's root."""
    columns, place = {}, 1
    if not elements:
        raise FooterError("its footer has no schema")
    for _ in range(_of(elements[0], 5, int, 0)):
        if place >= len(elements):
            raise FooterError("its schema breaks off")
        element = elements[place]
        repetition = _of(element, 3, int, 0)
        if not _of(element, 5, int, 0) and repetition != _REPEATED:
            columns[_text(element, 4)] = int(repetition == _OPTIONAL)
        place = _after(elements, place, 0)
    return columns


def _after(elements: list[Any], place: int, depth: int) -> int:
    """The place behind an element of the schema and all below it."""
    if depth > _DEEPEST or place >= len(elements):
        raise FooterError("its schema breaks off or is nested too deeply")
    n_children = _of(elements[place], 5, int, 0)
    place += 1
    for _ in range(n_children):
        place = _after(elements, place, depth + 1)
    return place


def _group(group: dict[int, Any], levels: dict[str, int], data_end: int) -> dict[str, Chunk]:
    n_rows, chunks = _count(group, 3, "rows"), {}
    for column in _list(group, 1):
        about = _struct(column, 3)
        if 8 in column or 9 in column:
            raise FooterError("it is encrypted")
        path = _list(about, 3)
        name = _decoded(path[0]) if len(path) == 1 else None
        if name not in levels:
            continue
        chunk = _chunk(about)
        if chunk.n_values != n_rows:
            raise FooterError(f"column {name!r} claims {chunk.n_values} values for {n_rows} rows")
        if (
            n_rows
            and not len(_MAGIC) <= chunk.first <= chunk.first + chunk.packed_bytes <= data_end
        ):
            raise FooterError(f"column {name!r} claims bytes that lie outside of the file's pages")
        for field, n_levels in (
            (2, 1),
            (3, levels[name] + 1),
        ):  # SizeStatistics: Arrow ends the process on other lengths
            if len(_list(_of(about, 16, dict, {}), field)) not in (0, n_levels):
                raise FooterError(
                    f"column {name!r} has a histogram of levels that it does not have"
                )
        chunks[name] = chunk
    return chunks


def _chunk(about: dict[int, Any]) -> Chunk:
    pages, dictionary, n_nulls = about.get(9), about.get(11), _of(about, 12, dict, {}).get(3)
    pages = pages if isinstance(pages, int) else -1
    return Chunk(
        n_values=_count(about, 5, "values"),
        n_nulls=n_nulls if isinstance(n_nulls, int) else None,
        first=dictionary if isinstance(dictionary, int) and 0 < dictionary < pages else pages,
        packed_bytes=_count(about, 7, "bytes"),
        unpacked_bytes=_count(about, 6, "bytes"),
    )


def _count(fields: dict[int, Any], number: int, what: str) -> int:
    value = _of(fields, number, int, -1)
    if value < 0:
        raise FooterError(f"it claims {value} {what}")
    return value


def _struct(fields: dict[int, Any], number: int) -> dict[int, Any]:
    return _of(fields, number, dict, {})


def _list(fields: dict[int, Any], number: int) -> list[Any]:
    return _of(fields, number, list, [])


def _text(fields: dict[int, Any], number: int) -> str:
    return _decoded(_of(fields, number, bytes, b""))


def _of(fields: Any, number: int, kind: type, default: Any) -> Any:
    value = fields.get(number, default) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise FooterError(f"field {number} is no {kind.__name__}")
    return value


def _decoded(name: Any) -> str:
    try:
        return name.decode("utf-8")
    except (AttributeError, UnicodeDecodeError):
        raise FooterError(f"a column's name, {name!r:.60}, is not UTF-8") from None


def _parsed(data: bytes) -> dict[int, Any]:
    return _Reader(data).struct(0)


class _Reader:
    """Reads structs of the compact protocol as {field number: value}."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise FooterError("it is nested too deeply")
        fields, number = {}, 0
        while announced := self._byte():
            step = announced >> 4
            number = number + step if step else self._zigzag()
            fields[number] = self._value(announced & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_LIST, _SET):
            return self._values(depth)
        if kind in (_BYTE, _DOUBLE):
            return self._bytes(1 if kind == _BYTE else 8)
        raise FooterError(f"it has a field of type {kind}")

    def _values(self, depth: int) -> list[Any]:
        header = self._byte()
        n, kind = header >> 4, header & 0x0F
        n = self._varint() if n == 15 else n
        if n > len(self.data) - self.place:  # each takes a byte at least
            raise FooterError(f"it claims a list of {n}")
        kind = _BYTE if kind in (_TRUE, _FALSE) else kind
        return [self._value(kind, depth) for _ in range(n)]

    def _bytes(self, n: int) -> bytes:
        self.place += n
        if self.place > len(self.data):
            raise FooterError("it breaks off")
        return self.data[self.place - n : self.place]

    def _byte(self) -> int:
        if self.place >= len(self.data):
            raise FooterError("it breaks off")
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value, shift = 0, 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise FooterError("it has a number of more than 64 bits")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
