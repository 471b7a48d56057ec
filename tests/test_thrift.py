"""Values of the compact protocol are read as they were written, and invalid bytes are refused."""

from __future__ import annotations

import pytest

from gpu_dcgen.thrift import BINARY, I32, LIST, STOP, TRUE, CompactReader, ThriftError

# 1: i32 -3, 2: true, 17: binary "ab" (a long field number), 18: list of two i32.
STRUCT_BYTES = bytes([0x15, 5, 0x11, 0x08, 34, 2, *b"ab", 0x19, 0x25, 2, 4, 0])


def test_a_struct_is_read_by_field_number():
    reader = CompactReader(STRUCT_BYTES + b"more")
    assert reader.read_struct() == {1: -3, 2: True, 17: b"ab", 18: [1, 2]}
    assert reader.position == len(STRUCT_BYTES)


def test_headers_are_read_where_they_stand():
    reader, headers, number, type_ = CompactReader(STRUCT_BYTES), [], 0, None
    while type_ != STOP:
        position = reader.position
        number, type_ = reader.read_field_header(number)
        headers.append((position, number, type_))
        if type_ != STOP:
            reader.read_value(type_)
    expected = [(0, 1, I32), (2, 2, TRUE), (3, 17, BINARY), (8, 18, LIST), (12, 18, STOP)]
    assert headers == expected


def test_a_boolean_in_a_list_is_a_byte():
    assert CompactReader(bytes([0x19, 0x21, 1, 2, 0])).read_struct() == {1: [b"\x01", b"\x02"]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "breaks off"),
        (STRUCT_BYTES[:-1], "breaks off"),
        (b"\x18\x05ab", "breaks off"),
        (b"\x18" + b"\xff" * 9 + b"\x01", "breaks off"),
        (b"\x10", "a field of type 0"),
        (b"\x1b\x00", "a field of type 11"),
        (b"\x1d\x00", "a field of type 13"),
        (b"\x16" + b"\x80" * 10, "more than 64 bits"),
        (b"\x19\xf5\xff\xff\xff\xff\x07", "claims a list of 2147483647"),
        (b"\x1c" * 100_000, "nested too deeply"),
        (b"\x19" * 100_000, "nested too deeply"),
        (b"\x19\x1c" * 50_000, "nested too deeply"),
    ],
)
def test_invalid_bytes_are_refused_with_a_reason(data, reason):
    with pytest.raises(ThriftError, match=reason):
        CompactReader(data).read_struct()
