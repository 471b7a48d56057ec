"""Sort texts by their bytes, eight at a time as a number.

Arrow compares texts where they lie: each comparison waits for memory twice.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa

from .encodings import Strings

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_WIDTH = 8  # bytes of a word


def sort_texts(texts: pa.Array) -> np.ndarray:
    """Return the places (n,) int64 of texts by code point, which is the order of their bytes.

    None is null; equal ones are in any order.
    """
    offsets, text = Strings.from_arrow(texts)
    order, start = np.arange(len(texts)), _count_common(offsets, text)
    # Of texts that are equal so far: their places in the order, and their run of equal ones.
    tied, run = order.copy(), np.zeros(len(texts), dtype=np.int64)
    while len(tied):
        rows = order[tied]
        lengths = offsets[rows + 1] - offsets[rows]
        is_end = bool((lengths <= start).all())  # but for zeros at their ends they are equal
        keys = lengths if is_end else _read_words(rows, start, offsets, text)
        within = np.argsort(keys) if run[-1] == 0 else np.lexsort((keys, run))
        order[tied] = rows[within]
        if is_end:
            break
        keys, run, start = keys[within], run[within], start + _WIDTH
        is_same = (run[1:] == run[:-1]) & (keys[1:] == keys[:-1])
        is_tied = np.append(is_same, False) | np.append(False, is_same)
        run = np.append(0, np.cumsum(~is_same))[is_tied]
        tied = tied[is_tied]
    return order


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
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
