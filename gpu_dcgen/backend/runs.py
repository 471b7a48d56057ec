"""Count, sort and index runs of equal values with functions that NumPy and CuPy share.

CuPy sorts only stably, repeats only by a host count and scatters duplicates in any order, so none
of these is used here. Arrays are those of `xp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .protocol import Array, Backend


def sort_order(backend: Backend, keys: Sequence[tuple[Array, int]]) -> Array:
    """Return the stable order (n,) int64 by several integer keys, most significant first.

    Each key is `(values, size)` with 0 <= values < size. Keys are packed into as few int64 as hold
    them, which are sorted from the least significant one to the most.
    """
    xp = backend.xp
    packs: list[Array] = []
    widths: list[int] = []  # bits
    for values, size in reversed(keys):
        width = max(1, (size - 1).bit_length())
        if not packs or widths[-1] + width > 63:
            packs.append(values.astype(xp.int64))
            widths.append(width)
        else:
            packs[-1] += values.astype(xp.int64) << widths[-1]
            widths[-1] += width
    order = backend.stable_argsort(packs[0], widths[0])
    for pack, width in zip(packs[1:], widths[1:], strict=True):
        order = order[backend.stable_argsort(pack[order], width)]
    return order


def run_starts(xp: Any, *keys: Array) -> Array:
    """Return (n,) bool: whether a row begins a run of equal keys. Rows are sorted by the keys."""
    n = keys[0].shape[0]
    starts = xp.ones(n, dtype=bool)
    if n > 1:
        starts[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            starts[1:] |= key[1:] != key[:-1]
    return starts


def run_offsets(xp: Any, codes: Array, n_codes: int) -> Array:
    """Return offsets (n_codes + 1,) int64 of each code's run in sorted `codes`.

    Codes that are absent have empty runs.
    """
    return xp.searchsorted(codes, xp.arange(n_codes + 1, dtype=codes.dtype)).astype(xp.int64)


def search_ordered(xp: Any, values: Array, order: Array, bounds: Array) -> Array:
    """Return the first position (m,) int64 in `order` with a value of at least each bound.

    values[order] must rise; a binary search reads few of them.
    """
    low = xp.zeros(bounds.shape[0], dtype=xp.int64)
    size = int(order.shape[0])
    for width in reversed([1 << bit for bit in range(size.bit_length())]):
        last = xp.minimum(low + width, size) - 1
        is_lower = (low + width <= size) & (values[order[last]] < bounds)
        low = xp.where(is_lower, low + width, low)
    return low


def count_codes(xp: Any, codes: Array, n_codes: int) -> Array:
    """Return how often each code 0..n_codes-1 occurs: (n_codes,) int64."""
    if codes.shape[0] == 0:  # CuPy's bincount refuses an empty array
        return xp.zeros(n_codes, dtype=xp.int64)
    return xp.bincount(codes, minlength=n_codes).astype(xp.int64, copy=False)


def offsets_from_lengths(xp: Any, lengths: Array) -> Array:
    """Return offsets (m + 1,) int64 of concatenated runs of `lengths`."""
    offsets = xp.zeros(lengths.shape[0] + 1, dtype=xp.int64)
    offsets[1:] = xp.cumsum(lengths.astype(xp.int64, copy=False))
    return offsets


def run_maxima(xp: Any, values: Array, first: Array) -> Array:
    """Return the largest value of each run that begins at `first`.

    Made for short runs (copies of one line, purchases of one item): it takes as many steps as the
    longest run has elements, each over the runs that are at least as long.
    """
    n = int(values.shape[0])
    lengths = xp.diff(xp.concatenate([first, xp.full(1, n, dtype=first.dtype)]))
    maxima = values[first]
    step = 1
    longer = xp.nonzero(lengths > step)[0]
    while longer.shape[0]:
        maxima[longer] = xp.maximum(maxima[longer], values[first[longer] + step])
        step += 1
        longer = longer[lengths[longer] > step]
    return maxima


def repeat_index(xp: Any, lengths: Array) -> Array:
    """Return the run (sum of lengths,) int64 of each element of concatenated runs."""
    ends = xp.cumsum(lengths)
    n_total = int(ends[-1]) if lengths.shape[0] else 0
    return xp.searchsorted(ends, xp.arange(n_total, dtype=ends.dtype), side="right")
