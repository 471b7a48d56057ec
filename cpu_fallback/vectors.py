"""Find the most similar rows of a sparse matrix in one compiled pass (D9, D10)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

COUNT_BITS = 21  # a packed accumulator holds weight sum << 21 | common users
COUNT_MASK = (1 << COUNT_BITS) - 1
WEIGHT_SHIFT, ITEM_MASK = 32, 0xFFFFFFFF  # of a cell of a user (weight << 32 | item) and of a key
ONE_BITS = 0x3F800000  # the bits of float32 1.0; those of smaller similarities are smaller
_BATCH_USERS = 64  # users; their cells are fetched from memory at the same time
# Touched items are listed while they are fewer than 1 in 8: beyond that, a pass over all items in
# their order is faster than jumping from one to the next.
_MIN_SPARSITY = 8
_BOUND_MARGIN = 1 - 1e-6  # more than the rounding of a similarity


class Matrix(NamedTuple):
    """A `MatrixByItemAndUser` as kernels take it."""

    item_offsets: Any  # (I+1,) int64
    item_user: Any  # (N,) int32
    item_weight: Any  # (N,) int32
    user_offsets: Any  # (U+1,) int64
    user_cell: Any  # (N,) int64: weight << 32 | item
    roots: Any  # (I,) float64  square roots of the sums of squared weights


class Limits(NamedTuple):
    """Which items are neighbors, and the form of the accumulators."""

    min_common_users: int
    top_k: int
    packed: bool  # sums and common users share one int64


class NeighborRows(NamedTuple):
    """Neighbors of n items, `top_k` wide: row r holds lengths[r] of them."""

    lengths: Any  # (n,) int32
    items: Any  # (n, width) int32
    similarities: Any  # (n, width) float32
    common_users: Any  # (n, width) int32


class _Scratch(NamedTuple):
    """Working memory of a thread; sums and common_users are zero between items."""

    sums: np.ndarray  # (I,) int64
    common_users: np.ndarray  # (I,) int32
    touched: np.ndarray  # (I + 1,) int32
    keys: np.ndarray  # (I,) uint64
    cell_ranges: np.ndarray  # (3, _BATCH_USERS) int64
    similarity: np.ndarray  # (1,) float32
    bits: np.ndarray  # (1,) uint32, a view of `similarity`


def kernel_matrix(matrix: Any, xp: Any) -> Matrix:
    """Return the arrays of a `MatrixByItemAndUser` with the roots of its norms."""
    return Matrix(
        matrix.item_offsets,
        matrix.item_user,
        matrix.item_weight,
        matrix.user_offsets,
        matrix.user_cell,
        xp.sqrt(matrix.norms.astype(xp.float64)),
    )


def empty_neighbor_rows(n_rows: int, width: int, xp: Any) -> NeighborRows:
    """Allocate the output of `n_rows` items with up to `width` neighbors each."""
    return NeighborRows(
        xp.empty(n_rows, dtype=xp.int32),
        xp.empty((n_rows, width), dtype=xp.int32),
        xp.empty((n_rows, width), dtype=xp.float32),
        xp.empty((n_rows, width), dtype=xp.int32),
    )


def find_similar_items(
    backend: Any, first: int, last: int, matrix: Any, min_common_users: int, top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the `top_k` most similar items of each item in first..last-1 (D10).

    `matrix` is a `gpu_dcgen.backend.protocol.MatrixByItemAndUser`. Returns lengths (rows,) int32
    and, concatenated, item int32, similarity float32 and common users int32, by falling similarity,
    then rising item.
    """
    n_items, n_rows = len(matrix.norms), last - first
    arrays, limits = kernel_matrix(matrix, np), Limits(min_common_users, top_k, matrix.packed)
    rows = empty_neighbor_rows(n_rows, min(top_k, n_items), np)
    scratch: dict[int, _Scratch] = {}

    def find(start: int, stop: int, lane: int) -> None:
        if lane not in scratch:
            scratch[lane] = _allocate_scratch(n_items)
        _find_neighbors(first, start, stop, arrays, limits, scratch[lane], rows)

    backend.in_chunks(find, n_rows, min_rows=16)
    items, similarities, common_users = (
        _concatenate_rows(rows.lengths, column) for column in rows[1:]
    )
    return rows.lengths, items, similarities, common_users


def _allocate_scratch(n_items: int) -> _Scratch:
    similarity = np.zeros(1, np.float32)
    return _Scratch(
        sums=np.zeros(n_items, np.int64),
        common_users=np.zeros(n_items, np.int32),
        touched=np.empty(n_items + 1, np.int32),
        keys=np.empty(n_items, np.uint64),
        cell_ranges=np.empty((3, _BATCH_USERS), np.int64),
        similarity=similarity,
        bits=similarity.view(np.uint32),
    )


def _concatenate_rows(lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    values = np.empty(int(lengths.sum()), rows.dtype)
    _copy_rows(lengths, rows, values)
    return values


@numba.njit(nogil=True, cache=True)
def select_smallest(keys, n, k):
    """Bring the k smallest of keys[:n] to the front, in any order (quickselect, middle pivot)."""
    low, high = 0, n - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        left, right = low, high
        while left <= right:
            while keys[left] < pivot:
                left += 1
            while keys[right] > pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if k - 1 <= right:
            high = right
        elif k - 1 >= left:
            low = left
        else:
            return


@numba.njit(nogil=True, cache=True)
def _read_sums(item, packed, sums, common_users):
    """Sum of products and number of common users with `item`."""
    if packed:
        return sums[item] >> COUNT_BITS, sums[item] & COUNT_MASK
    return sums[item], np.int64(common_users[item])


@numba.njit(nogil=True, cache=True)
def _clear_sums(item, packed, sums, common_users):
    sums[item] = 0
    if not packed:
        common_users[item] = 0


@numba.njit(nogil=True, cache=True)
def _clear_keys(first, last, packed, scratch):
    """Clear the sums of the items that keys[first:last] stand for."""
    keys, sums, common_users = scratch.keys, scratch.sums, scratch.common_users
    for position in range(first, last):
        item = np.int64(keys[position] & np.uint64(ITEM_MASK))
        _clear_sums(item, packed, sums, common_users)


@numba.njit(nogil=True, cache=True)
def _add_products(first, last, matrix, packed, scratch):
    """Add what the users item_user[first:last] of an item have in common with every item.

    Lists those items in `touched` while they are few, and returns how many are listed.

    Users are taken in batches: the ranges of their cells are looked up and the first cells read
    before any is used, so that the waits for distant memory overlap.
    """
    sums, common_users, touched = scratch.sums, scratch.common_users, scratch.touched
    ranges, user_cell, user_offsets = scratch.cell_ranges, matrix.user_cell, matrix.user_offsets
    item_user, item_weight = matrix.item_user, matrix.item_weight
    n_touched = 0
    while first < last:
        n, fetched = min(_BATCH_USERS, last - first), np.int64(0)
        for b in range(n):
            user = item_user[first + b]
            ranges[0, b], ranges[1, b] = user_offsets[user], user_offsets[user + 1]
        for b in range(n):
            fetched ^= user_cell[ranges[0, b]]
        ranges[2, 0] = fetched  # stored, so that the compiler does not drop the reads above
        for b in range(n):
            weight = np.int64(item_weight[first + b])
            is_listed = n_touched * _MIN_SPARSITY < len(sums)
            for q in range(ranges[0, b], ranges[1, b]):
                j = user_cell[q] & ITEM_MASK
                product = weight * (user_cell[q] >> WEIGHT_SHIFT)
                if is_listed:
                    touched[n_touched] = j
                    n_touched += (sums[j] if packed else common_users[j]) == 0
                if packed:
                    sums[j] += (product << COUNT_BITS) | 1
                else:
                    sums[j] += product
                    common_users[j] += 1
        first += n
    return n_touched


@numba.njit(nogil=True, cache=True)
def _select_best(n, limits, scratch):
    """Keep the `top_k` smallest of n keys, clear the sums of the others, return `top_k`."""
    select_smallest(scratch.keys[:n], n, limits.top_k)
    _clear_keys(limits.top_k, n, limits.packed, scratch)
    return limits.top_k


@numba.njit(nogil=True, cache=True)
def _collect_keys(i, n_touched, roots, limits, scratch):
    """Write the keys of item i's neighbors, the `top_k` best at the end, and return how many.

    At most 2 * top_k keys are held. When they are full, the `top_k` best stay, and from then on
    an item clearly below the last of them is skipped without a division. The sums of all items
    that do not stay are cleared.
    """
    # Fields are read once: reading them in the loop counts references to their arrays each time.
    keys, sums, common_users = scratch.keys, scratch.sums, scratch.common_users
    touched, similarity, bits = scratch.touched, scratch.similarity, scratch.bits
    min_common_users, packed = limits.min_common_users, limits.packed
    n_items, room = len(roots), min(len(keys), 2 * limits.top_k)
    is_listed = n_touched * _MIN_SPARSITY < n_items
    n, bound = 0, 0.0
    for position in range(n_touched if is_listed else n_items):
        j = np.int64(touched[position]) if is_listed else position
        dot, common = _read_sums(j, packed, sums, common_users)
        if common < min_common_users or dot <= 0 or j == i or np.float64(dot) < bound * roots[j]:
            _clear_sums(j, packed, sums, common_users)
            continue
        if n == room:
            n = _select_best(n, limits, scratch)
            last = np.uint64(0)
            for rank in range(n):
                last = max(last, keys[rank])
            bits[0] = np.uint32(np.uint64(ONE_BITS) - (last >> np.uint64(32)))
            bound = np.float64(similarity[0]) * roots[i] * _BOUND_MARGIN
        # At least 2^-62, so that the bits of a similarity are those of a normal number.
        similarity[0] = np.float32(min(1.0, np.float64(dot) / (roots[i] * roots[j])))
        keys[n] = (np.uint64(ONE_BITS - bits[0]) << np.uint64(32)) | np.uint64(j)
        n += 1
    return _select_best(n, limits, scratch) if n > limits.top_k else n


@numba.njit(nogil=True, cache=True)
def _find_neighbors(first, start, stop, matrix, limits, scratch, rows):
    """Write the neighbors of items first + start .. first + stop - 1 to their rows."""
    item_offsets, roots, packed = matrix.item_offsets, matrix.roots, limits.packed
    sums, common_users = scratch.sums, scratch.common_users
    similarity, bits = scratch.similarity, scratch.bits
    for row in range(start, stop):
        i = first + row
        n_touched = _add_products(item_offsets[i], item_offsets[i + 1], matrix, packed, scratch)
        n = _collect_keys(i, n_touched, roots, limits, scratch)
        keys = scratch.keys[:n]
        keys.sort()
        rows.lengths[row] = n
        items, similarities = rows.items[row], rows.similarities[row]
        row_common_users = rows.common_users[row]
        for rank in range(n):
            j = np.int64(keys[rank] & np.uint64(ITEM_MASK))
            bits[0] = np.uint32(np.uint64(ONE_BITS) - (keys[rank] >> np.uint64(32)))
            items[rank] = j
            similarities[rank] = similarity[0]
            row_common_users[rank] = _read_sums(j, packed, sums, common_users)[1]
        _clear_keys(0, n, packed, scratch)


@numba.njit(nogil=True, cache=True)
def _copy_rows(lengths, rows, values):
    """Copy the first lengths[r] elements of each row r to `values`, one row after the other."""
    at = 0
    for row in range(len(lengths)):
        values[at : at + lengths[row]] = rows[row, : lengths[row]]
        at += lengths[row]
