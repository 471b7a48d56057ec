"""Write structs in Thrift's compact protocol: Parquet's page headers and footers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

# Types of the compact protocol. A boolean field has its value in its type.
TRUE, FALSE, BYTE, I16, I32, I64 = range(1, 7)
BINARY, LIST, STRUCT = 8, 9, 12

_SHORT_DELTA = 15  # the largest step between field numbers that a field's header holds
_SHORT_LIST = 14  # the most elements that a list's header holds


class StructWriter:
    """Builds one struct, field by field in rising order of their numbers.

    A value of None leaves its field out.
    """

    def __init__(self) -> None:
        self._data, self._previous = bytearray(), 0

    def add_integer(self, number: int, value: int | None, type_: int = I32) -> Self:
        """Add a field of type I16, I32 or I64."""
        if value is not None:
            self._begin_field(number, type_)
            self._data += encode_integer(value)
        return self

    def add_byte(self, number: int, value: int) -> Self:
        """Add an 8-bit integer."""
        self._begin_field(number, BYTE)
        self._data.append(value & 0xFF)
        return self

    def add_bool(self, number: int, value: bool) -> Self:
        """Add a boolean."""
        self._begin_field(number, TRUE if value else FALSE)
        return self

    def add_binary(self, number: int, value: bytes | None) -> Self:
        """Add bytes or UTF-8 text."""
        if value is not None:
            self._begin_field(number, BINARY)
            self._data += encode_binary(value)
        return self

    def add_struct(self, number: int, value: bytes | None) -> Self:
        """Add a struct that is finished."""
        if value is not None:
            self._begin_field(number, STRUCT)
            self._data += value
        return self

    def add_list(self, number: int, type_: int, elements: Sequence[bytes] | None) -> Self:
        """Add a list of elements of one type that are encoded already."""
        if elements is not None:
            self._begin_field(number, LIST)
            if len(elements) <= _SHORT_LIST:
                self._data.append(len(elements) << 4 | type_)
            else:
                self._data.append(0xF0 | type_)
                self._data += encode_varint(len(elements))
            self._data += b"".join(elements)
        return self

    def finish(self) -> bytes:
        """Return the struct."""
        return bytes(self._data) + b"\0"

    def _begin_field(self, number: int, type_: int) -> None:
        delta = number - self._previous
        self._previous = number
        if not 0 < delta <= _SHORT_DELTA:
            raise ValueError(f"field {number} after field {number - delta}.")
        self._data.append(delta << 4 | type_)


EMPTY = StructWriter().finish()  # a struct without fields, which marks a choice of a union
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def encode_varint(value: int) -> bytes:
    """Return an integer of 0 or more, seven bits a byte."""
    if value < 0x80:
        return _ONE_BYTE[value]
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def encode_integer(value: int) -> bytes:
    """Return a signed 64-bit integer in zigzag order: 0, -1, 1, -2, ..."""
    return encode_varint(value << 1 ^ value >> 63)


def encode_binary(value: bytes) -> bytes:
    """Return bytes after their length."""
    return encode_varint(len(value)) + value


def encode_booleans(values: Sequence[bool]) -> list[bytes]:
    """Return booleans as the elements of a list, of type TRUE."""
    return [b"\1" if value else b"\2" for value in values]
