"""Read structs in Thrift's compact protocol: Parquet's footers and page headers.

Bytes may be hostile: every length is checked against what is left before it is used, and structs
nest to a limit, so that a small file costs little memory and no recursion error.
"""

from __future__ import annotations

from typing import Union

MAX_DEPTH = 24  # of structs in structs and lists in lists; parquet.thrift needs a handful
MAX_INTEGER_BITS = 64

STOP = 0  # the header that ends a struct
# Types of the compact protocol. A boolean field has its value in its type.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

Value = Union[int, bool, bytes, "list[Value]", "Struct"]
Struct = dict[int, Value]  # by field number


class ThriftError(ValueError):
    """Bytes that are not a valid struct; the text is the reason alone."""


class CompactReader:
    """Reads values one after the other from `position` on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def read_struct(self, depth: int = 0) -> Struct:
        """Read a struct to its end; ThriftError where it is not valid."""
        if depth > MAX_DEPTH:
            raise ThriftError("it is nested too deeply")
        fields: Struct = {}
        number, type_ = self.read_field_header(0)
        while type_ != STOP:
            fields[number] = self.read_value(type_, depth)
            number, type_ = self.read_field_header(number)
        return fields

    def read_field_header(self, previous: int) -> tuple[int, int]:
        """Read number and type of the field after the field `previous`; STOP ends a struct.

        The type is in the byte at `position`; the field's value follows the header.
        """
        header = self._read_byte()
        if header == STOP:
            return previous, STOP
        delta, type_ = header >> 4, header & 0x0F
        if type_ == STOP:
            raise ThriftError(f"it has a field of type {STOP}")
        return previous + delta if delta else self._read_integer(), type_

    def read_value(self, type_: int, depth: int = 0) -> Value:
        """Read a value of a type, in a struct at `depth`."""
        if type_ in (I16, I32, I64):
            return self._read_integer()
        if type_ == BINARY:
            return self._read_bytes(self._read_varint())
        if type_ == STRUCT:
            return self.read_struct(depth + 1)
        if type_ in (TRUE, FALSE):
            return type_ == TRUE
        if type_ in (LIST, SET):
            if depth > MAX_DEPTH:
                raise ThriftError("it is nested too deeply")
            n, element = self.read_list_header()
            # Lists of lists count as nesting too; structs count themselves.
            is_nested = element in (LIST, SET)
            return [self.read_value(element, depth + is_nested) for _ in range(n)]
        if type_ in (BYTE, DOUBLE):
            return self._read_bytes(1 if type_ == BYTE else 8)
        # parquet.thrift has no map.
        raise ThriftError(f"it has a field of type {type_}")

    def read_list_header(self) -> tuple[int, int]:
        """Read the number of a list's elements and their type; in lists, booleans are bytes."""
        header = self._read_byte()
        n, type_ = header >> 4, header & 0x0F
        n = self._read_varint() if n == 15 else n
        if n > len(self.data) - self.position:  # each element takes a byte at least
            raise ThriftError(f"it claims a list of {n}")
        return n, BYTE if type_ in (TRUE, FALSE) else type_

    def _read_bytes(self, n: int) -> bytes:
        self.position += n
        if self.position > len(self.data):
            raise ThriftError("it breaks off")
        return self.data[self.position - n : self.position]

    def _read_byte(self) -> int:
        if self.position >= len(self.data):
            raise ThriftError("it breaks off")
        self.position += 1
        return self.data[self.position - 1]

    def _read_varint(self) -> int:
        value, shift = 0, 0
        while (byte := self._read_byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift >= MAX_INTEGER_BITS:
                raise ThriftError("it has a number of more than 64 bits")
        return value | byte << shift

    def _read_integer(self) -> int:
        value = self._read_varint()
        return value >> 1 ^ -(value & 1)  # zigzag
