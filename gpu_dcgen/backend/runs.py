"""Count, sort and index runs of equal values with functions that NumPy and CuPy share.

CuPy sorts only stably, repeats only by a host count and scatters duplicates in any order, so none
of these is used here. Arrays are those of `xp`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..kernels.gather import add_to_key, gather_values, mark_changes
from .protocol import Array, Backend

if TYPE_CHECKING:
    import numpy as np

CHUNK_ROWS = 1 << 22  # that array code works on at a time; bounds the memory of its steps
MAX_NARROW = 1 << 31  # elements: fewer have positions of 32 bits


def chunks(n: int) -> Iterator[slice]:
    """Yield slices of 0..n-1: what is computed from them one by one needs little memory."""
    for start in range(0, n, CHUNK_ROWS):
        yield slice(start, min(n, start + CHUNK_ROWS))


def position_type(xp: Any, n: int) -> Any:
    """Return the dtype of positions 0..n: int32 where it holds them, else int64."""
    return xp.int32 if n < MAX_NARROW else xp.int64


def gather(backend: Backend, values: Array, index: Array) -> Array:
    """Return values[index], (n,) of the values' dtype, for positions (n,) int32 or int64.

    NumPy itself would copy positions of 32 bits to 64.
    """
    gathered = backend.xp.empty(index.shape[0], dtype=values.dtype)
    backend.for_each(gather_values, int(index.shape[0]), values, index, gathered)
    return gathered


def map_in_place(table: Array, codes: Array) -> None:
    """Replace each code (n,) int32 by what `table` has there."""
    for rows in chunks(int(codes.shape[0])):
        codes[rows] = table[codes[rows]]


def find_positions(xp: Any, mask: Array) -> Array:
    """Return the rising positions (m,) int32 or int64 where `mask` (n,) bool is true."""
    parts = [
        (xp.nonzero(mask[rows])[0] + rows.start).astype(position_type(xp, int(mask.shape[0])))
        for rows in chunks(int(mask.shape[0]))
    ]
    if len(parts) == 1:
        return parts[0]
    return xp.concatenate([xp.empty(0, dtype=position_type(xp, int(mask.shape[0]))), *parts])


def sort_order(backend: Backend, keys: Sequence[tuple[Array, int]]) -> Array:
    """Return the stable order (n,) by several integer keys, most significant first.

    Each key is `(values, size)` with 0 <= values < size. Keys are packed into as few int64 as hold
    them, which are sorted from the least significant one to the most. The order is int32 or int64,
    as the backend's `stable_argsort` gives it.
    """
    packs: list[list[tuple[Array, int]]] = []  # values and the bits that they are shifted by
    widths: list[int] = []  # bits
    for values, size in reversed(keys):
        width = max(1, (size - 1).bit_length())
        if not packs or widths[-1] + width > 63:
            packs.append([])
            widths.append(0)
        packs[-1].append((values, widths[-1]))
        widths[-1] += width
    order = backend.stable_argsort(_pack(backend, packs[0]), widths[0])
    for pack, width in zip(packs[1:], widths[1:], strict=True):
        keys_in_order = gather(backend, _pack(backend, pack), order)
        order = gather(backend, order, backend.stable_argsort(keys_in_order, width))
    return order


def _pack(backend: Backend, parts: Sequence[tuple[Array, int]]) -> Array:
    """Return keys (n,) int64 that have each part's values at its bits."""
    n = int(parts[0][0].shape[0])
    packed = backend.xp.zeros(n, dtype=backend.xp.int64)
    for values, shift in parts:
        backend.for_each(add_to_key, n, values, shift, packed)
    return packed


def find_run_starts(backend: Backend, order: Array, *keys: Array) -> Array:
    """Return (n,) bool: whether a place of `order` (n,) begins a run of rows with equal keys."""
    starts = backend.xp.zeros(order.shape[0], dtype=bool)
    for key in keys:
        backend.for_each(mark_changes, int(order.shape[0]), key, order, starts)
    return starts


def run_starts(xp: Any, *keys: Array) -> Array:
    """Return (n,) bool: whether a row begins a run of equal keys. Rows are sorted by the keys."""
    n = keys[0].shape[0]
    starts = xp.ones(n, dtype=bool)
    if n > 1:
        starts[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            starts[1:] |= key[1:] != key[:-1]
    return starts


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
    counts = None  # CuPy's bincount refuses an empty array
    # NumPy's copies the codes to 64 bits.
    for rows in chunks(int(codes.shape[0])):
        counted = xp.bincount(codes[rows], minlength=n_codes).astype(xp.int64, copy=False)
        counts = counted if counts is None else counts + counted
    return xp.zeros(n_codes, dtype=xp.int64) if counts is None else counts


def count_each(xp: Any, columns: Mapping[str, tuple[Array, int]]) -> dict[str, Array]:
    """Return by name how often codes of any shape occur: (n_codes,) int64 of (codes, n_codes).

    They are counted together: CuPy's bincount waits for the device, twice.
    """
    shifted = xp.empty(sum(int(codes.size) for codes, _ in columns.values()), dtype=xp.int64)
    first, places, n_codes = 0, {}, 0
    for name, (codes, n_own) in columns.items():
        stop = first + int(codes.size)
        target = shifted[first:stop].reshape(codes.shape)
        xp.add(codes, n_codes, out=target, dtype=xp.int64)
        places[name] = slice(n_codes, n_codes + n_own)
        first, n_codes = stop, n_codes + n_own
    counts = count_codes(xp, shifted, n_codes)
    return {name: counts[part] for name, part in places.items()}


def bring_to_host(backend: Backend, vectors: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Return vectors of one dtype on the host, by name: one copy, one wait for the device."""
    if not vectors:
        return {}
    values = backend.to_host(backend.xp.concatenate(list(vectors.values())))
    stops = list(accumulate(int(vector.shape[0]) for vector in vectors.values()))
    places = zip(vectors, [0, *stops], stops, strict=False)
    return {name: values[start:stop] for name, start, stop in places}


def offsets_from_lengths(xp: Any, lengths: Array) -> Array:
    """Return offsets (m + 1,) int64 of concatenated runs of `lengths`."""
    offsets = xp.zeros(lengths.shape[0] + 1, dtype=xp.int64)
    offsets[1:] = xp.cumsum(lengths.astype(xp.int64, copy=False))
    return offsets


def repeat_index(xp: Any, lengths: Array) -> Array:
    """Return the run (sum of lengths,) int64 of each element of concatenated runs."""
    ends = xp.cumsum(lengths)
    n_total = int(ends[-1]) if lengths.shape[0] else 0
    return xp.searchsorted(ends, xp.arange(n_total, dtype=ends.dtype), side="right")
