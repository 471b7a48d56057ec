"""Timestamps of a Parquet file marked as local time, which libcudf's writer of row groups marks as UTC without a choice.

Arrow reads the one as `timestamp[ns]`, the other as `timestamp[ns, tz=UTC]`, whatever the Arrow schema in the file says. The
mark is one bit of the footer, `TimestampType.isAdjustedToUTC`; Thrift's compact protocol keeps a boolean in the byte that
announces the field, so nothing moves. Field numbers are those of the format's parquet.thrift.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")  # length of the footer, magic

# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)

_SCHEMA = 2  # FileMetaData.schema: a list of SchemaElement
_MARK = (
    10,
    8,
    1,
)  # SchemaElement.logicalType, LogicalType.TIMESTAMP, TimestampType.isAdjustedToUTC


def mark_timestamps_local(path: Path) -> int:
    """Mark every timestamp column of the file as local time; the number of columns that were marked as UTC.

    ValueError where the file does not end as a Parquet file does.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL.size))
        tail = file.read()
        if len(tail) < _TAIL.size or tail[-len(_MAGIC) :] != _MAGIC:
            raise ValueError(f"{path}: ends in {tail!r}, which no Parquet file does.")
        length, _ = _TAIL.unpack(tail)
        start = file.seek(size - _TAIL.size - length)
        footer = file.read(length)
        places = _Reader(footer).utc_marks()
        for place in places:
            file.seek(start + place)
            file.write(bytes([footer[place] & 0xF0 | _FALSE]))
    return len(places)


class _Reader:
    """Walks the bytes of a FileMetaData in the compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def utc_marks(self) -> list[int]:
        """Where the fields stand that say of a timestamp column that it is UTC."""
        places: list[int] = []
        for _, number, kind in self._fields():
            if number == _SCHEMA:
                n_elements, _ = self._list_header()
                for _ in range(n_elements):
                    self._visit(_MARK, places)
                break
            self._skip(kind)
        return places

    def _visit(self, path: tuple[int, ...], places: list[int]) -> None:
        """Pass a struct, and note where the field at the end of `path` is true."""
        for place, number, kind in self._fields():
            if number != path[0]:
                self._skip(kind)
            elif len(path) > 1:
                self._visit(path[1:], places)
            elif kind == _TRUE:
                places.append(place)

    def _fields(self) -> Iterator[tuple[int, int, int]]:
        """Place, number and type of each field of a struct; whoever takes one passes its value."""
        number = 0
        while announced := self._byte():
            place, step = self._at - 1, announced >> 4
            number = number + step if step else self._zigzag()
            yield place, number, announced & 0x0F

    def _skip(self, kind: int) -> None:
        if kind in (_I16, _I32, _I64):
            self._varint()
        elif kind in (_BYTE, _DOUBLE):
            self._at += 1 if kind == _BYTE else 8
        elif kind == _BINARY:
            length = self._varint()  # moves on by itself
            self._at += length
        elif kind in (_LIST, _SET):
            n_elements, kind_of_elements = self._list_header()
            for _ in range(n_elements):
                self._skip(_BYTE if kind_of_elements in (_TRUE, _FALSE) else kind_of_elements)
        elif kind == _STRUCT:
            for _, _, kind_of_field in self._fields():
                self._skip(kind_of_field)
        elif kind not in (_TRUE, _FALSE):  # no map is in parquet.thrift
            raise ValueError(f"a Parquet footer with a field of type {kind} at byte {self._at}.")

    def _list_header(self) -> tuple[int, int]:
        header = self._byte()
        return (header >> 4 if header >> 4 < 15 else self._varint()), header & 0x0F

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value, shift = 0, 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
