"""Copy, count and compare the cells of columns: compiled loops of the Parquet encoder.

A cell is a value, or an element of a list. Fixed-width cells go by as bits, so that a loop is
compiled once a width. `text` and `offsets` are strings as Arrow holds them.
"""

from __future__ import annotations

import numba
import numpy as np

_FIRST_SLOTS = 1 << 10  # of a hash table that grows
_HASH_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / golden ratio (Knuth's multiplicative hashing)
_NO_CODE = np.int32(-1)


@numba.njit(nogil=True, cache=True)
def repeat_cells(cells, out):
    """Write each cell into its row of `out`, (n, repeats)."""
    for k in range(len(cells)):
        for copy in range(out.shape[1]):
            out[k, copy] = cells[k]


@numba.njit(nogil=True, cache=True)
def copy_lists(cells, starts, lengths, repeats, out):
    """Write the lists cells[starts[e] : starts[e] + lengths[e]], each `repeats` times."""
    at = 0
    for entry in range(len(starts)):
        start, length = starts[entry], lengths[entry]
        # Indices into slices are never negative, which compilers see: one that might be is tested.
        source = cells[start : start + length]
        for _ in range(repeats):
            target = out[at : at + length]
            for k in range(length):
                target[k] = source[k]
            at += length


@numba.njit(nogil=True, cache=True)
def mark_lists(lengths, repeats, starts, filled):
    """Clear the bits of levels at which lists start (`starts`) and are empty (`filled`)."""
    at, n_empty = 0, 0
    for entry in range(len(lengths)):
        length = lengths[entry]
        for _ in range(repeats):
            starts[at >> 3] &= ~(1 << (at & 7))
            if length == 0:
                filled[at >> 3] &= ~(1 << (at & 7))
                n_empty += 1
                at += 1
            at += length
    return n_empty


@numba.njit(nogil=True, cache=True)
def write_strings(codes, offsets, text, out):
    """Write strings, each after its length in four bytes."""
    at = 0
    for k in range(len(codes)):
        source = text[offsets[codes[k]] : offsets[codes[k] + 1]]
        length = len(source)
        target = out[at : at + 4 + length]
        for byte in range(4):
            target[byte] = length >> 8 * byte & 255
        for byte in range(length):
            target[4 + byte] = source[byte]
        at += 4 + length


@numba.njit(nogil=True, cache=True)
def sum_lengths(codes, lengths):
    """Return the sum of the lengths that codes index; negative codes count nothing."""
    total = 0
    for k in range(len(codes)):
        total += lengths[codes[k]] if codes[k] >= 0 else 0
    return total


@numba.njit(nogil=True, cache=True)
def _is_less(a, b, offsets, text):
    start, other = offsets[a], offsets[b]
    length, other_length = offsets[a + 1] - start, offsets[b + 1] - other
    for k in range(min(length, other_length)):
        if text[start + k] != text[other + k]:
            return text[start + k] < text[other + k]
    return length < other_length


@numba.njit(nogil=True, cache=True)
def find_extreme_strings(codes, offsets, text):
    """Return the codes of the least and the greatest string by their bytes; -1 without any."""
    least, greatest, previous = -1, -1, -1
    for k in range(len(codes)):
        code = codes[k]
        if code < 0 or code == previous:
            continue
        previous = code
        if least < 0:
            least, greatest = code, code
        elif _is_less(code, least, offsets, text):
            least = code
        elif _is_less(greatest, code, offsets, text):
            greatest = code
    return least, greatest


@numba.njit(nogil=True, cache=True)
def _find_slot(bits, slot_bits, slot_codes):
    """Return the slot of a hash table that has these bits, or the free one where they belong."""
    mask = np.uint64(len(slot_codes) - 1)
    # The upper half of a product is the best mixed.
    slot = np.uint64(bits) * np.uint64(_HASH_FACTOR) >> np.uint64(32) & mask
    while slot_codes[slot] != _NO_CODE and slot_bits[slot] != bits:
        slot = slot + np.uint64(1) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def number_cells(bits, codes, distinct):
    """Write the number of each cell's value, in order of first occurrence, and the values.

    Returns how many values there are; -1 if they are more than `distinct` has room for.
    """
    slot_codes = np.full(_FIRST_SLOTS, _NO_CODE)
    slot_bits = np.empty(_FIRST_SLOTS, bits.dtype)
    n = 0
    for k in range(len(bits)):
        slot = _find_slot(bits[k], slot_bits, slot_codes)
        codes[k] = slot_codes[slot]
        if codes[k] != _NO_CODE:
            continue
        if n == len(distinct):
            return -1
        codes[k] = n
        distinct[n] = bits[k]
        slot_bits[slot], slot_codes[slot] = bits[k], n
        n += 1
        if 2 * n > len(slot_codes):  # a fuller table makes searches long
            slot_codes = np.full(2 * len(slot_codes), _NO_CODE)
            slot_bits = np.empty(len(slot_codes), bits.dtype)
            for code in range(n):
                slot = _find_slot(distinct[code], slot_bits, slot_codes)
                slot_bits[slot], slot_codes[slot] = distinct[code], code
    return n
