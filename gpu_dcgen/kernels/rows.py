"""Row kernels that lay columns out as rows and hash them for the content digest (D22).

Hashes are uint64 all along: numba makes a float of a uint64 and an int64. A list or text is hashed
once, however many rows repeat it; only its hash is mixed with the position of each row.
"""

from __future__ import annotations

import numpy as np

from . import kernel_helper, row_kernel
from .rng import fold, mix

SPAN = 256  # rows that one call of `add_rows` sums up

# "position" and "length" in ASCII: row numbers and lengths are mixed with these, so that they do
# not hash like values.
POSITION = np.uint64(0x706F736974696F6E)
LENGTH = np.uint64(0x6C656E677468)
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)


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


@row_kernel
def mix_values(row, values, out):
    """Hash an integer mod 2^64 into out[row]."""
    out[row] = mix(np.uint64(values[row]))


@row_kernel
def hash_codes(row, codes, hashes, null_hash, out):
    """Look up the hash of a code into out[row]; a negative code is null."""
    code = codes[row]
    out[row] = hashes[code] if code >= 0 else null_hash


@row_kernel
def add_rows(span, positions, hashes, repeats, out):
    """Sum the digests of the rows SPAN * span .. SPAN * span + SPAN - 1 into out[span].

    `positions` are mixed row positions; each hash is that of `repeats` adjacent rows.
    """
    row, stop = span * SPAN, min(span * SPAN + SPAN, positions.shape[0])
    entry, total = row // repeats, np.uint64(0)
    until = (entry + 1) * repeats
    while row < stop:
        while row < min(until, stop):
            total += mix(positions[row] ^ hashes[entry])
            row += 1
        entry += 1
        until += repeats
    out[span] = total


@kernel_helper
def _fnv(h, byte):
    return (h ^ np.uint64(byte)) * FNV_PRIME
