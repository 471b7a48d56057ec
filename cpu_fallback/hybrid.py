"""Encode integers as Parquet does levels and indices, and lengths of strings.

The hybrid of runs and packed bits: a run of equal integers is a header and the integer; packed bits
are groups of eight integers of `width` bits, the lowest bits first. DELTA_BINARY_PACKED: blocks of
differences, in packed bits of their own width for each 32.
"""

from __future__ import annotations

import numba
import numpy as np

from .thrift import encode_varint

_BLOCK_VALUES, _MINIBLOCKS = 128, 4  # of DELTA_BINARY_PACKED
_MINIBLOCK_VALUES = _BLOCK_VALUES // _MINIBLOCKS
_HEADER_BYTES = 40  # at most: four varints
# At most: the smallest difference, and widths of the miniblocks.
_BLOCK_HEADER_BYTES = 10 + _MINIBLOCKS


def encode_hybrid(values: np.ndarray, repeats: int, width: int) -> list[bytes | np.ndarray]:
    """Encode integers of 1 to 31 bits, int32, each `repeats` times.

    All as runs, or all as packed bits, whichever is shorter. Returns buffers.
    """
    n = len(values) * repeats
    if not n:
        return []
    value_bytes = -(-width // 8)
    n_runs = int(_count_runs(values))
    n_groups = -(-n // 8)
    # A run of up to 63 has a header of one byte.
    if n_runs * (value_bytes + 1 + (repeats > 63)) <= n_groups * width:
        runs = np.empty(n_runs * (value_bytes + 5), np.uint8)
        return [runs[: _write_runs(values, repeats, value_bytes, runs)]]
    packed: np.ndarray
    if width == 1:
        bits = values.astype(np.bool_)
        packed = np.packbits(np.repeat(bits, repeats) if repeats > 1 else bits, bitorder="little")
    else:
        words = np.empty(-(-n_groups * width // 8), np.uint64)
        _pack_bits(values, repeats, width, words)
        packed = words.view(np.uint8)[: n_groups * width]
    return [encode_varint(n_groups << 1 | 1), packed]


def encode_run(value: int, n: int, width: int) -> bytes:
    """Encode `n` times the same integer."""
    return encode_varint(n << 1) + value.to_bytes(-(-width // 8), "little")


def encode_delta(values: np.ndarray) -> np.ndarray:
    """Encode int32 integers as DELTA_BINARY_PACKED."""
    n_blocks = -(-len(values) // _BLOCK_VALUES)
    # Differences of int32 take 33 bits.
    block_bytes = _BLOCK_HEADER_BYTES + _BLOCK_VALUES * 33 // 8
    out = np.empty(_HEADER_BYTES + n_blocks * block_bytes, np.uint8)
    return out[: _write_deltas(values, out)]


@numba.njit(nogil=True, cache=True)
def _count_runs(values):
    n_runs = 1
    for k in range(1, len(values)):
        n_runs += values[k] != values[k - 1]
    return n_runs


@numba.njit(nogil=True, cache=True)
def _write_varint(value, out, at):
    while value >= 128:
        out[at] = value & 127 | 128
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@numba.njit(nogil=True, cache=True)
def _write_runs(values, repeats, value_bytes, out):
    at, k, n = 0, 0, len(values)
    while k < n:
        value, first = values[k], k
        while k < n and values[k] == value:
            k += 1
        at = _write_varint((k - first) * repeats << 1, out, at)
        for _ in range(value_bytes):
            out[at] = value & 255
            value >>= 8
            at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _pack_bits(values, repeats, width, words):
    # Types are explicit: numba makes floats of mixed signed and unsigned integers.
    step, word_bits = np.uint64(width), np.uint64(64)
    held, shift, at = np.uint64(0), np.uint64(0), 0
    for k in range(len(values)):
        value = np.uint64(values[k])
        for _ in range(repeats):
            held |= value << shift
            shift += step
            if shift >= word_bits:
                words[at] = held
                at += 1
                shift -= word_bits
                held = value >> (step - shift)
    for k in range(at, len(words)):  # the last group is filled up with zeros
        words[k] = held
        held = np.uint64(0)


@numba.njit(nogil=True, cache=True)
def _write_deltas(values, out):
    n = len(values)
    at = _write_varint(_BLOCK_VALUES, out, 0)
    at = _write_varint(_MINIBLOCKS, out, at)
    at = _write_varint(n, out, at)
    first = np.int64(values[0]) if n else np.int64(0)
    at = _write_varint(first << 1 ^ first >> 63, out, at)
    deltas = np.empty(_BLOCK_VALUES, np.uint64)
    for start in range(1, n, _BLOCK_VALUES):
        stop = min(n, start + _BLOCK_VALUES)
        least = np.int64(values[start]) - np.int64(values[start - 1])
        for k in range(start + 1, stop):
            least = min(least, np.int64(values[k]) - np.int64(values[k - 1]))
        for k in range(start, stop):
            deltas[k - start] = np.int64(values[k]) - np.int64(values[k - 1]) - least
        deltas[stop - start :] = 0
        at = _write_varint(least << 1 ^ least >> 63, out, at)
        widths, at = at, at + _MINIBLOCKS
        for block in range(_MINIBLOCKS):
            first_delta = block * _MINIBLOCK_VALUES
            # Miniblocks after the last value have a width but no bytes.
            if first_delta >= stop - start:
                out[widths + block] = 0
                continue
            every = np.uint64(0)
            for k in range(first_delta, first_delta + _MINIBLOCK_VALUES):
                every |= deltas[k]
            width = 0
            while every >> np.uint64(width):
                width += 1
            out[widths + block] = width
            at = _pack_miniblock(deltas, first_delta, width, out, at)
    return at


@numba.njit(nogil=True, cache=True)
def _pack_miniblock(deltas, first, width, out, at):
    # At most 7 bits are held when 33 are added.
    held, shift = np.uint64(0), np.uint64(0)
    for k in range(first, first + _MINIBLOCK_VALUES):
        held |= deltas[k] << shift
        shift += np.uint64(width)
        while shift >= np.uint64(8):
            out[at] = held & np.uint64(255)
            held >>= np.uint64(8)
            shift -= np.uint64(8)
            at += 1
    return at
