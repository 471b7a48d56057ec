"""Sort integers stably by radix, each thread counting and moving a range of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from .backend import NumpyBackend

MAX_NARROW = 1 << 31  # rows: fewer have positions of 32 bits
_DIGIT_BITS = 11  # counts and write positions of one thread stay in its first-level cache
_DIGITS = 1 << _DIGIT_BITS
_MIN_KEYS = 1 << 16  # fewer are sorted by NumPy


class _KeyedRows(NamedTuple):
    """Keys beside the rows that they belong to."""

    keys: np.ndarray  # (n,) int64; (0,) where they are not needed any more
    rows: np.ndarray  # (n,) int32 or int64; (0,) while the keys are in their original order


def stable_argsort(backend: NumpyBackend, keys: np.ndarray, n_bits: int) -> np.ndarray:
    """Return the stable order (n,) of `keys` (n,) int64, all in 0..2^n_bits - 1.

    It is int32 for fewer than 2^31 keys, else int64. The keys are overwritten. Memory: two arrays
    of keys, that of the caller among them, and two of rows.
    """
    n = len(keys)
    row_type = np.int32 if n < MAX_NARROW else np.int64
    if n < _MIN_KEYS:
        return np.argsort(keys, kind="stable").astype(row_type)
    shifts = range(0, n_bits, _DIGIT_BITS)
    no_keys, no_rows = np.empty(0, np.int64), np.empty(0, row_type)
    source, free = _KeyedRows(keys, no_rows), _KeyedRows(no_keys, no_rows)
    for turn, shift in enumerate(shifts):
        # Passes write to two buffers in turn. The first reads no rows, and the last writes no keys.
        rows = free.rows if len(free.rows) else np.empty(n, row_type)
        if turn == len(shifts) - 1:
            target = _KeyedRows(no_keys, rows)
        else:
            target = _KeyedRows(free.keys if len(free.keys) else np.empty(n, np.int64), rows)
        _sort_by_digit(backend, source, target, shift)
        source, free = target, source
    return source.rows


def _sort_by_digit(
    backend: NumpyBackend, source: _KeyedRows, target: _KeyedRows, shift: int
) -> None:
    """Sort keys and rows from `source` to `target` by the digit at `shift`."""
    n, n_parts = len(source.keys), backend.n_threads
    bounds = [n * part // n_parts for part in range(n_parts + 1)]
    counts = np.zeros((n_parts, _DIGITS), np.int64)

    def count(part: int) -> None:
        _count_digits(source.keys, bounds[part], bounds[part + 1], shift, counts[part])

    backend.in_parts(count, n_parts)
    # Keys of one digit follow each other in the order of the parts that they come from.
    by_digit = counts.T.ravel()
    positions = (np.cumsum(by_digit) - by_digit).reshape(_DIGITS, n_parts).T.copy()

    def move(part: int) -> None:
        _move_keys(source, target, bounds[part], bounds[part + 1], shift, positions[part])

    backend.in_parts(move, n_parts)


@numba.njit(nogil=True, cache=True)
def _count_digits(keys, start, stop, shift, counts):
    for position in range(start, stop):
        counts[(keys[position] >> shift) & (_DIGITS - 1)] += 1


@numba.njit(nogil=True, cache=True)
def _move_keys(source, target, start, stop, shift, positions):
    """Move keys start..stop-1 and their rows to the next positions of their digits."""
    # Fields are read once: reading them in the loop counts references to their arrays each time.
    keys, rows, target_keys, target_rows = source.keys, source.rows, target.keys, target.rows
    has_rows, has_keys = len(rows) > 0, len(target_keys) > 0
    for position in range(start, stop):
        key = keys[position]
        digit = (key >> shift) & (_DIGITS - 1)
        at = positions[digit]
        positions[digit] = at + 1
        if has_keys:
            target_keys[at] = key
        target_rows[at] = rows[position] if has_rows else position
