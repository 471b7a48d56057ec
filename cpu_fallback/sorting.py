"""Stable order of integers by radix: passes over digits, each thread counting and moving a stretch of its own."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_DIGIT_BITS = 11  # counts and write positions of one thread stay in its first-level cache
_DIGITS = 1 << _DIGIT_BITS
_LEAST_KEYS = 1 << 16  # fewer are sorted by NumPy


@numba.njit(nogil=True, cache=True)
def _count(keys, start, stop, shift, counts):
    for position in range(start, stop):
        counts[(keys[position] >> shift) & (_DIGITS - 1)] += 1


@numba.njit(nogil=True, cache=True)
def _move(keys, rows, numbered, start, stop, shift, at, out_keys, out_rows):
    """Keys start..stop-1 and their rows to the places that their digits have; rows not yet `numbered` are positions."""
    for position in range(start, stop):
        key = keys[position]
        digit = (key >> shift) & (_DIGITS - 1)
        place = at[digit]
        at[digit] = place + 1
        out_keys[place] = key
        out_rows[place] = rows[position] if numbered else position


def stable_order(backend: Any, keys: np.ndarray, n_bits: int) -> np.ndarray:
    """The stable order (n,) int64 of `keys` (n,) int64, all in 0..2^n_bits - 1."""
    n = len(keys)
    if n < _LEAST_KEYS:
        return np.argsort(keys, kind="stable")
    narrow = np.int32 if n < 1 << 31 else np.int64
    rows = np.empty(0, narrow)
    free_keys, free_rows = (
        [np.empty(n, np.int64) for _ in "ab"],
        [np.empty(n, narrow) for _ in "ab"],
    )
    shifts = range(0, n_bits, _DIGIT_BITS)
    for turn, shift in enumerate(shifts):
        out_rows = free_rows[turn % 2] if shift < shifts[-1] else np.empty(n, np.int64)
        _sort_by_digit(backend, keys, rows, shift, free_keys[turn % 2], out_rows)
        keys, rows = free_keys[turn % 2], out_rows
    return rows


def _sort_by_digit(
    backend: Any,
    keys: np.ndarray,
    rows: np.ndarray,
    shift: int,
    out_keys: np.ndarray,
    out_rows: np.ndarray,
) -> None:
    """One pass: keys and rows to `out_keys` and `out_rows`, by the digit at `shift`; rows () are the keys' own positions."""
    n, n_parts = len(keys), backend.n_threads
    bounds = [n * part // n_parts for part in range(n_parts + 1)]
    counts = np.zeros((n_parts, _DIGITS), np.int64)
    backend.in_parts(
        lambda part: _count(keys, bounds[part], bounds[part + 1], shift, counts[part]), n_parts
    )
    in_order = (
        counts.T.ravel()
    )  # keys of a digit stand together, in the order of the parts that they come from
    at = (np.cumsum(in_order) - in_order).reshape(_DIGITS, n_parts).T.copy()

    def move(part: int) -> None:
        _move(
            keys,
            rows,
            len(rows) > 0,
            bounds[part],
            bounds[part + 1],
            shift,
            at[part],
            out_keys,
            out_rows,
        )

    backend.in_parts(move, n_parts)
