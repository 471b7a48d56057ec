"""Sort integers stably by radix, each thread counting and moving a range of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from .backend import NumpyBackend

_DIGIT_BITS = 11  # counts and write positions of one thread stay in its first-level cache
_DIGITS = 1 << _DIGIT_BITS
_MIN_KEYS = 1 << 16  # fewer are sorted by NumPy


class _KeyedRows(NamedTuple):
    """Keys beside the rows that they belong to."""

    keys: np.ndarray  # (n,) int64
    rows: np.ndarray  # (n,) int32 or int64; (0,) while the keys are in their original order


def stable_argsort(backend: NumpyBackend, keys: np.ndarray, n_bits: int) -> np.ndarray:
    """Return the stable order (n,) int64 of `keys` (n,) int64, all in 0..2^n_bits - 1."""
    n = len(keys)
    if n < _MIN_KEYS:
        return np.argsort(keys, kind="stable")
    row_type = np.int32 if n < 1 << 31 else np.int64
    source = _KeyedRows(keys, np.empty(0, row_type))
    # Passes write to two buffers in turn; the last one writes the result.
    buffers = [_KeyedRows(np.empty(n, np.int64), np.empty(n, row_type)) for _ in range(2)]
    shifts = range(0, n_bits, _DIGIT_BITS)
    for turn, shift in enumerate(shifts):
        target = buffers[turn % 2]
        if shift == shifts[-1]:
            target = _KeyedRows(target.keys, np.empty(n, np.int64))
        _sort_by_digit(backend, source, target, shift)
        source = target
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
    has_rows = len(rows) > 0
    for position in range(start, stop):
        key = keys[position]
        digit = (key >> shift) & (_DIGITS - 1)
        at = positions[digit]
        positions[digit] = at + 1
        target_keys[at] = key
        target_rows[at] = rows[position] if has_rows else position
