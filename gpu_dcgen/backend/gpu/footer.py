"""Mark timestamps of a Parquet file as local time.

libcudf's writer of row groups always marks them as UTC. Arrow reads local time as `timestamp[ns]`
and UTC as `timestamp[ns, tz=UTC]`, whatever the Arrow schema in the file says. The mark is one bit
of the footer, `TimestampType.isAdjustedToUTC`: Thrift's compact protocol keeps a boolean in the
byte of the field's header, so nothing moves. Field numbers are those of parquet.thrift.
"""

from __future__ import annotations

import struct
from pathlib import Path

from ...thrift import FALSE, STOP, TRUE, CompactReader

_MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")  # length of the footer, magic
_SCHEMA = 2  # FileMetaData.schema: a list of SchemaElement
# SchemaElement.logicalType, LogicalType.TIMESTAMP, TimestampType.isAdjustedToUTC
_UTC_MARK = (10, 8, 1)


def mark_timestamps_local(path: Path) -> int:
    """Mark every timestamp column as local time; return how many were marked as UTC.

    ValueError if the file does not end as a Parquet file does, or its footer is not valid.
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
        positions = _find_utc_marks(CompactReader(footer))
        for position in positions:
            file.seek(start + position)
            file.write(bytes([footer[position] & 0xF0 | FALSE]))
    return len(positions)


def _find_utc_marks(reader: CompactReader) -> list[int]:
    """Return the positions of the field headers that mark a timestamp column as UTC."""
    positions: list[int] = []
    number, type_ = reader.read_field_header(0)
    while type_ != STOP and number != _SCHEMA:
        reader.read_value(type_)
        number, type_ = reader.read_field_header(number)
    if type_ == STOP:
        return positions
    n_elements, _ = reader.read_list_header()
    for _ in range(n_elements):
        _visit(reader, _UTC_MARK, positions, 1)
    return positions


def _visit(reader: CompactReader, path: tuple[int, ...], positions: list[int], depth: int) -> None:
    """Read a struct, and note the position of the field at the end of `path` if it is true."""
    number = 0
    while True:
        position = reader.position
        number, type_ = reader.read_field_header(number)
        if type_ == STOP:
            return
        if number != path[0]:
            reader.read_value(type_, depth)
        elif len(path) > 1:
            _visit(reader, path[1:], positions, depth + 1)
        elif type_ == TRUE:
            positions.append(position)
