"""Sort texts by their bytes, eight at a time as a number.

Arrow compares texts where they lie: each comparison waits for memory twice.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from .encodings import Strings

_WIDTH = 8  # bytes of a word


def sort_texts(texts: pa.Array) -> np.ndarray:
    """Return the places (n,) int64 of texts by code point, which is the order of their bytes.

    None is null; equal ones are in any order.
    """
    offsets, text = Strings.from_arrow(texts)
    start = _count_common(offsets, text)
    keys = _read_words(np.arange(len(texts)), start, offsets, text)
    order = np.argsort(keys)
    keys = keys[order]
    # Of texts that are equal so far: their places in the order, and their run of equal ones.
    tied, run = _find_ties(keys[1:] == keys[:-1])
    del keys
    while len(tied):
        rows, start = order[tied], start + _WIDTH
        lengths = offsets[rows + 1] - offsets[rows]
        is_end = bool((lengths <= start).all())  # but for zeros at their ends they are equal
        keys = lengths if is_end else _read_words(rows, start, offsets, text)
        within = np.lexsort((keys, run))
        order[tied] = rows[within]
        if is_end:
            break
        keys, run = keys[within], run[within]
        still, run = _find_ties((run[1:] == run[:-1]) & (keys[1:] == keys[:-1]))
        tied = tied[still]
    return order


def _find_ties(is_same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what equals its neighbor (m,) int64, and the number of its run of equal ones.

    is_same (n - 1,) bool: whether each of n but the last equals the next.
    """
    is_tied = np.append(is_same, False) | np.append(False, is_same)
    tied = np.flatnonzero(is_tied)
    return tied, np.append(0, np.cumsum(~is_same))[tied]


@numba.njit(nogil=True, cache=True)
def _count_common(offsets, text):
    """Return how many bytes all texts begin with."""
    n_common = 0 if len(offsets) == 1 else offsets[1] - offsets[0]
    for row in range(1, len(offsets) - 1):
        n_common = min(n_common, offsets[row + 1] - offsets[row])
        for at in range(n_common):
            if text[offsets[row] + at] != text[offsets[0] + at]:
                n_common = at
                break
    return n_common


@numba.njit(nogil=True, cache=True)
def _read_words(rows, start, offsets, text):
    """Return the bytes start..start + 7 of texts as uint64 (n,), zeros where a text has ended."""
    words = np.empty(len(rows), np.uint64)
    for number in range(len(rows)):
        first, stop = offsets[rows[number]] + start, offsets[rows[number] + 1]
        word = np.uint64(0)
        for at in range(first, first + _WIDTH):
            word = word << np.uint64(8) | np.uint64(text[at] if at < stop else 0)
        words[number] = word
    return words
