"""Content digest of one column (D22), from plain Python values."""

from __future__ import annotations

import struct
from typing import Any, Iterable

from .rng import MASK, mix

NULL_HASH = 0x6E756C6C
FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
# "position" and "length": what a row number or a length is mixed with, so that neither
POSITION = 0x706F736974696F6E
LENGTH = 0x6C656E677468  # can stand for a value


def fnv1a(text: str) -> int:
    """FNV-1a, 64 bits, over the UTF-8 bytes."""
    h = FNV_OFFSET
    for byte in text.encode("utf-8"):
        h = ((h ^ byte) * FNV_PRIME) & MASK
    return h


def value_hash(value: Any, kind: str) -> int:
    """Hash of one value. Kinds: int, bool, timestamp (int nanoseconds), float32, float64, string,
    list<kind>.
    """
    if value is None:
        return NULL_HASH
    if kind.startswith("list<") and kind.endswith(">"):
        h = mix(len(value) ^ LENGTH)
        for element in value:
            h = mix(h ^ value_hash(element, kind[5:-1]))
        return h
    if kind in ("int", "bool", "timestamp"):
        return mix(int(value) & MASK)
    if kind == "float32":
        return mix(struct.unpack("<I", struct.pack("<f", value))[0])
    if kind == "float64":
        return mix(struct.unpack("<Q", struct.pack("<d", value))[0])
    if kind == "string":
        return mix(fnv1a(value))
    raise ValueError(f"value_hash: unknown kind {kind!r}")


def digest(values: Iterable[Any], kind: str) -> str:
    """Digest of a whole file's column as 16 hex digits: the sum mod 2^64 of mix(mix(row ^ POSITION)
    ^ hash(value)).
    """
    total = sum(
        mix(mix(row ^ POSITION) ^ value_hash(value, kind)) for row, value in enumerate(values)
    )
    return f"{total & MASK:016x}"
