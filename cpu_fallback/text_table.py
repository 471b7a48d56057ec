"""Number distinct texts in the order in which they appear, by a hash table that grows.

Arrow numbers the texts of an array that it has as a whole. Here a column's texts come a chunk at a
time: those of earlier chunks are neither hashed nor copied again.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa

from .encodings import Strings

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
# A call with arrays would count references to them.
_INLINED: dict[str, Any] = {**_OPTIONS, "forceinline": True}
_FREE = -1  # a slot without a text
_MIN_SLOTS, _MIN_TEXT = 1 << 10, 1 << 14
_BLOCK = 64  # texts that are looked up side by side
_MAX_TEXT = 2**31 - 1  # bytes that the offsets of an Arrow array of strings reach
_PLACE_BITS = np.uint64((1 << 32) - 1)
_ONE, _WORD = np.uint64(1), np.uint64(8)
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


class TextTable:
    """Distinct texts, and where each is among them.

    A slot of the table has 32 bits of a text's hash and its place, so that it is rarely compared
    with another text. At most half of the slots are taken.
    """

    def __init__(self) -> None:
        self._n = 0
        self._slots = np.full(_MIN_SLOTS, _FREE, np.int64)
        self._offsets = np.zeros(_MIN_SLOTS // 2 + 1, np.int64)
        self._text = np.empty(_MIN_TEXT, np.uint8)

    def add(self, texts: pa.Array, is_wanted: np.ndarray) -> np.ndarray:
        """Return the places (n,) int32 of texts (n,), -1 for null and for those not wanted.

        Those that are not there yet are appended.
        """
        if texts.null_count:
            is_wanted = is_wanted & texts.is_valid().to_numpy(zero_copy_only=False)
        strings = Strings.from_arrow(texts)
        places = np.empty(len(texts), np.int32)
        if len(texts):
            self._require_room(len(texts), int(strings.offsets[-1] - strings.offsets[0]))
            self._n = _add_texts(
                strings.offsets,
                strings.text,
                is_wanted,
                self._slots,
                self._offsets,
                self._text,
                self._n,
                places,
            )
        return places

    def to_arrow(self) -> pa.Array:
        """Return the texts by their places, as a string array that shares their bytes.

        ArrowCapacityError where they have 2 GiB or more.
        """
        n_bytes = int(self._offsets[self._n])
        if n_bytes > _MAX_TEXT:
            raise pa.ArrowCapacityError(
                f"{self._n} distinct texts have {n_bytes} bytes, at most {_MAX_TEXT} are possible"
            )
        offsets = self._offsets[: self._n + 1].astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self._text[:n_bytes])]
        return pa.Array.from_buffers(pa.string(), self._n, buffers)

    def _require_room(self, n_texts: int, n_bytes: int) -> None:
        """Let the arrays grow, to twice their size at least, for so many texts more."""
        n_texts, n_bytes = self._n + n_texts, int(self._offsets[self._n]) + n_bytes
        if n_texts >= len(self._offsets):
            self._offsets = _grow(self._offsets, n_texts + 1)
        if n_bytes >= len(self._text):  # an empty text at the end has a place, too
            self._text = _grow(self._text, n_bytes + 1)
        if 2 * n_texts > len(self._slots):
            self._slots = np.full(1 << (2 * n_texts - 1).bit_length(), _FREE, np.int64)
            _fill_slots(self._offsets, self._text, self._n, self._slots)


@numba.njit(**_OPTIONS)
def mark_occurring(indices, n):
    """Mark the entries (n,) bool that rows have, by their indices (m,) int32, -1 for none."""
    occurs = np.zeros(n, np.bool_)
    for row in range(len(indices)):
        if indices[row] >= 0:
            occurs[indices[row]] = True
    return occurs


@numba.njit(**_OPTIONS)
def look_up(table, indices, out):
    """Write what `table` (n,) has at indices (m,) int32 to `out` (m,), which may be these."""
    for row in range(len(indices)):
        index = indices[row]
        out[row] = table[index] if index >= 0 else -1


def _grow(array: np.ndarray, n: int) -> np.ndarray:
    larger = np.empty(max(n, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(**_OPTIONS)
def _add_texts(offsets, text, is_wanted, slots, held_offsets, held, n_held, places):
    """Find the wanted texts, or append them; return how many are held then."""
    hashes, fetched = np.empty(_BLOCK, np.uint64), np.empty(1, np.int64)
    for first in range(0, len(places), _BLOCK):
        stop = min(first + _BLOCK, len(places))
        for entry in range(first, stop):
            start = np.int64(offsets[entry])
            hashes[entry - first] = _hash_text(text, start, np.int64(offsets[entry + 1]) - start)
        fetched[0] = _fetch(hashes[: stop - first], slots, held_offsets, held)[0]
        for entry in range(first, stop):
            if is_wanted[entry]:
                start = np.int64(offsets[entry])
                length = np.int64(offsets[entry + 1]) - start
                h = hashes[entry - first]
                slot = _find_slot(h, text, start, length, slots, held_offsets, held)
                if slots[slot] == _FREE:
                    at = held_offsets[n_held]
                    for k in range(length):
                        held[at + k] = text[start + k]
                    held_offsets[n_held + 1] = at + length
                    slots[slot] = _make_slot(h, n_held)
                    n_held += 1
                places[entry] = _get_place(slots[slot])
            else:
                places[entry] = -1
    return n_held


@numba.njit(**_INLINED)
def _fetch(hashes, slots, held_offsets, held):
    """Read what will be compared with texts of these hashes.

    All come from memory at the same time so, where a search for one text waits for each.
    """
    mask = np.uint64(len(slots) - 1)
    starts = np.empty(len(hashes), np.int64)
    for number in range(len(hashes)):
        starts[number] = slots[hashes[number] & mask]
    for number in range(len(hashes)):
        is_free = starts[number] == _FREE
        starts[number] = held_offsets[0 if is_free else _get_place(starts[number])]
    for number in range(len(hashes)):
        starts[number] = held[starts[number]]
    return starts  # or the compiler would leave the reads out


@numba.njit(**_INLINED)
def _find_slot(h, text, start, length, slots, held_offsets, held):
    """Return the slot that has a text, or the free one for it."""
    mask = np.uint64(len(slots) - 1)
    slot = h & mask
    while slots[slot] != _FREE:
        is_alike = np.uint64(slots[slot]) >> _SHIFT == h >> _SHIFT
        place = _get_place(slots[slot])
        if is_alike and _is_equal(text, start, length, held, held_offsets, place):
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(**_OPTIONS)
def _fill_slots(held_offsets, held, n_held, slots):
    """Enter the held texts, which are distinct, into free slots."""
    mask = np.uint64(len(slots) - 1)
    for place in range(n_held):
        h = _hash_text(held, held_offsets[place], held_offsets[place + 1] - held_offsets[place])
        slot = h & mask
        while slots[slot] != _FREE:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = _make_slot(h, place)


@numba.njit(**_INLINED)
def _make_slot(h, place):
    # A place has 31 bits, so no slot is a free one.
    return np.int64((h >> _SHIFT) << _SHIFT | np.uint64(place))


@numba.njit(**_INLINED)
def _get_place(slot):
    return np.int64(np.uint64(slot) & _PLACE_BITS)


@numba.njit(**_INLINED)
def _hash_text(text, start, length):
    """Hash a text of bytes, eight at a time."""
    at, stop = np.uint64(start), np.uint64(start) + np.uint64(length)
    h = np.uint64(length) * _FACTOR
    while at + _WORD <= stop:
        h = _mix(h ^ _read_word(text, at))
        at += _WORD
    word = np.uint64(0)
    while at < stop:
        word = word << np.uint64(8) | np.uint64(text[at])
        at += _ONE
    return _mix(h ^ word)


@numba.njit(**_INLINED)
def _mix(h):
    h *= _FACTOR
    return h ^ (h >> _SHIFT)


@numba.njit(**_INLINED)
def _read_word(text, at):
    """Read eight bytes, the first of which is the lowest: one load for the compiler."""
    return (
        np.uint64(text[at])
        | np.uint64(text[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(text[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(text[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(text[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(text[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(text[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(text[at + np.uint64(7)]) << np.uint64(56)
    )


@numba.njit(**_INLINED)
def _is_equal(text, start, length, held, held_offsets, place):
    if held_offsets[place + 1] - held_offsets[place] != length:
        return False
    at, other = np.uint64(start), np.uint64(held_offsets[place])
    stop = at + np.uint64(length)
    while at + _WORD <= stop:
        if _read_word(text, at) != _read_word(held, other):
            return False
        at += _WORD
        other += _WORD
    while at < stop:
        if text[at] != held[other]:
            return False
        at += _ONE
        other += _ONE
    return True
