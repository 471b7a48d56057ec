"""Row kernels that lay columns out as rows and hash them for the content digest (D22).

Hashes are uint64 all along: numba makes a float of a uint64 and an int64. A list or text is hashed
once, however many rows repeat it; only its hash is mixed with the position of each row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .item_states import is_priced, popularity_bits, price_bits, price_category
from .rng import fold, mix

SPAN = 256  # rows that one call of `add_rows` sums up

# "position" and "length" in ASCII: row numbers and lengths are mixed with these, so that they do
# not hash like values.
POSITION = np.uint64(0x706F736974696F6E)
LENGTH = np.uint64(0x6C656E677468)
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)


class ItemTables(NamedTuple):
    """What samples say of items."""

    category: Any  # (I, C) int32  the codes of an item side by side
    state: Any  # (K, I) uint64  `item_states`, by snapshot


class ItemColumns(NamedTuple):
    """The same of the w items of n rows."""

    category: Any  # (C, n, w) int32
    popularity: Any  # (n, w) uint32  the bits of a float32
    price: Any  # (n, w) uint32  the bits of a float32, NaN unknown
    has_price: Any  # (n, w) bool
    price_category: Any  # (n, w) int8


@row_kernel(min_rows=512)
def describe_items(row, item, snapshot, tables, columns):
    """Write what the row's snapshot, of (n,) int64, says of its items, of (n, w) int32."""
    at, k = np.uint64(row), np.uint64(snapshot[row])
    for slot in range(np.uint64(item.shape[1])):
        j = np.uint64(item[at, slot])
        for number in range(np.uint64(tables.category.shape[1])):
            columns.category[number, at, slot] = tables.category[j, number]
        state = tables.state[k, j]
        columns.popularity[at, slot] = popularity_bits(state)
        columns.price[at, slot] = price_bits(state)
        columns.has_price[at, slot] = is_priced(state)
        columns.price_category[at, slot] = price_category(state)


@row_kernel
def copy_lists(entry, values, starts, lengths, repeats, offsets, out):
    """Copy values[starts[entry] : + lengths[entry]] to out[offsets[entry]], `repeats` times."""
    at = offsets[entry]
    for _ in range(repeats):
        for k in range(lengths[entry]):
            out[at + k] = values[starts[entry] + k]
        at += lengths[entry]


@row_kernel
def hash_texts(row, offsets, text, out):
    """Hash the bytes text[offsets[row] : offsets[row + 1]] into out[row]: FNV-1a 64, mixed."""
    h = FNV_OFFSET
    for at in range(offsets[row], offsets[row + 1]):
        h = _fnv(h, text[at])
    out[row] = mix(h)


@row_kernel
def hash_sample_ids(group, first_group, start, suffix, offsets, out):
    """Hash the sample ids of a group's rows into out[group] (rows of a group,).

    An id is the split and '-', ten digits, and the slot. `start` is the FNV state after the split
    and '-'; row r ends in the bytes suffix[offsets[r] : offsets[r + 1]].
    """
    h = np.uint64(start)
    place = 1_000_000_000
    while place > 0:
        h = _fnv(h, 48 + (first_group + group) // place % 10)
        place //= 10
    for row in range(offsets.shape[0] - 1):
        end = h
        for at in range(offsets[row], offsets[row + 1]):
            end = _fnv(end, suffix[at])
        out[group, row] = mix(end)


@row_kernel
def hash_lists(row, offsets, hashes, out):
    """Hash a list into out[row], from the hashes offsets[row] : offsets[row + 1]."""
    h = mix(np.uint64(offsets[row + 1] - offsets[row]) ^ LENGTH)
    for at in range(offsets[row], offsets[row + 1]):
        h = fold(h, hashes[at])
    out[row] = h


@row_kernel(min_rows=512)
def hash_slices(four, values, starts, lengths, out):
    """Hash the integers values[starts[e] : + lengths[e]] into out[e], for four entries e.

    An element waits for the hash of the one before. So four lists are hashed side by side, as far
    as the shortest goes.
    """
    last = starts.shape[0] - 1
    a, b = four * 4, min(four * 4 + 1, last)
    c, d = min(four * 4 + 2, last), min(four * 4 + 3, last)
    n_a, n_b = np.uint64(lengths[a]), np.uint64(lengths[b])
    n_c, n_d = np.uint64(lengths[c]), np.uint64(lengths[d])
    h_a, h_b, h_c, h_d = mix(n_a ^ LENGTH), mix(n_b ^ LENGTH), mix(n_c ^ LENGTH), mix(n_d ^ LENGTH)
    at_a, at_b = np.uint64(starts[a]), np.uint64(starts[b])
    at_c, at_d = np.uint64(starts[c]), np.uint64(starts[d])
    n_all = min(min(n_a, n_b), min(n_c, n_d))
    for k in range(n_all):
        h_a = fold(h_a, mix(values[at_a + k]))
        h_b = fold(h_b, mix(values[at_b + k]))
        h_c = fold(h_c, mix(values[at_c + k]))
        h_d = fold(h_d, mix(values[at_d + k]))
    out[a] = _fold_values(h_a, values, at_a + n_all, at_a + n_a)
    out[b] = _fold_values(h_b, values, at_b + n_all, at_b + n_b)
    out[c] = _fold_values(h_c, values, at_c + n_all, at_c + n_c)
    out[d] = _fold_values(h_d, values, at_d + n_all, at_d + n_d)


@kernel_helper
def _fold_values(h, values, first, stop):
    for at in range(first, stop):
        h = fold(h, mix(values[at]))
    return h


@row_kernel
def mix_nullable(row, values, valid, null_hash, out):
    """Hash an integer mod 2^64 into out[row], one that is not valid as null."""
    at = np.uint64(row)
    out[at] = mix(np.uint64(values[at])) if valid[at] else null_hash


@row_kernel
def mix_values(row, values, out):
    """Hash an integer mod 2^64 into out[row]."""
    at = np.uint64(row)  # so that the loop over rows vectorizes
    out[at] = mix(np.uint64(values[at]))


@row_kernel
def hash_codes(row, codes, hashes, null_hash, out):
    """Look up the hash of a code into out[row]; a negative code is null."""
    at = np.uint64(row)
    code = codes[at]
    out[at] = hashes[np.uint64(code)] if code >= 0 else null_hash


@row_kernel
def mix_positions(row, first_row, out):
    """Mix the position of a row in its file, `first_row` + row, into out[row]."""
    at = np.uint64(row)
    out[at] = mix((np.uint64(first_row) + at) ^ POSITION)


@row_kernel
def add_rows(span, positions, hashes, repeats, out):
    """Sum the digests of the rows SPAN * span .. SPAN * span + SPAN - 1 into out[span].

    `positions` are mixed row positions; each hash is that of `repeats` adjacent rows.
    """
    row, stop = span * SPAN, min(span * SPAN + SPAN, positions.shape[0])
    entry, total = row // repeats, np.uint64(0)
    if repeats == 1:
        for at in range(np.uint64(row), np.uint64(stop)):
            total += mix(positions[at] ^ hashes[at])
        row = stop
    while row < stop:
        until = min(entry * repeats + repeats, stop)
        hashed = hashes[entry]
        for at in range(np.uint64(row), np.uint64(until)):
            total += mix(positions[at] ^ hashed)
        row = until
        entry += 1
    out[span] = total


@kernel_helper
def _fnv(h, byte):
    return (h ^ np.uint64(byte)) * FNV_PRIME
