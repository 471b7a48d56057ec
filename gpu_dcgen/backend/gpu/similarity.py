"""Find the most similar rows of a sparse matrix, a thread block an item (D9, D10).

A block takes the next item, adds up its products with every other item in a row of accumulators of
its own (integer atomics: exact, in any order), collects the items with enough common users, selects
the `top_k` best by a radix search for the last of their keys, sorts them, and leaves its
accumulators zero for the next item. Keys and their order are those of `cpu_fallback.vectors`:
0x3F800000 - bits of the float32 similarity above the item, so both backends select the same pairs.
Only numba is imported here, so that the kernel compiles where there is no CuPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from cpu_fallback.vectors import (
    COUNT_BITS,
    COUNT_MASK,
    ITEM_MASK,
    ONE_BITS,
    WEIGHT_SHIFT,
    Limits,
    empty_neighbor_rows,
    kernel_matrix,
)

from ...kernels import map_arrays
from ..protocol import Array, MatrixByItemAndUser
from . import launch

BLOCK_THREADS = 256
# That run at a time: their threads take 71 to 80 registers, of 65,536 a multiprocessor.
BLOCKS_PER_MULTIPROCESSOR = 3
# Scratch for each item in a block's row: sums, common users, keys, candidates, similarities.
ITEM_BYTES = 32
_WARP = 32
_DIGIT_BITS = 8
_DIGITS = 1 << _DIGIT_BITS
_KEY_BITS = 64
_MAX_KEY = (1 << 62) + ((1 << 62) - 1)  # sorts after every key


class _Queue(NamedTuple):
    """The items of a launch in the order in which blocks take them."""

    rows: Any  # (n,) int64
    n_taken: Any  # (1,) int64


class _Scratch(NamedTuple):
    """Working memory, a row a block; in a block, its own row."""

    sums: Any  # (blocks, I) int64  zero between items
    common_users: Any  # (blocks, I), or (1, 1) if packed, int32  zero between items
    candidates: Any  # (blocks, I) int32
    similarities: Any  # (blocks, I) float32
    keys: Any  # (blocks, I) int64
    selected: Any  # (blocks, P) int64  P: a power of two, at least `top_k`


@dataclass(frozen=True)
class Grid:
    """How the kernel is launched, and the arrays it is launched with."""

    xp: Any  # cupy, or numpy where the kernel is compiled for the host
    n_blocks: int  # at most: items that are processed at the same time
    block_threads: int = BLOCK_THREADS
    # Returns an array of `xp` as numba takes it.
    as_argument: Callable[[Any], Any] = lambda array: array


def find_similar_items(
    grid: Grid, first: int, last: int, matrix: MatrixByItemAndUser, limits: Limits
) -> tuple[Array, Array, Array, Array]:
    """Run `cpu_fallback.vectors.find_similar_items` on the device; arrays of `xp` in and out."""
    xp, n_items, n_rows = grid.xp, int(matrix.norms.shape[0]), last - first
    width, n_blocks = min(limits.top_k, n_items), min(grid.n_blocks, n_rows)
    rows = empty_neighbor_rows(n_rows, width, xp)
    n_users = xp.diff(matrix.item_offsets[first : last + 1])
    # Items with many users come first, so that no block ends with a long one alone.
    queue = _Queue(xp.argsort(-n_users, kind="stable"), xp.zeros(1, dtype=xp.int64))
    scratch = _allocate_scratch(n_blocks, n_items, width, limits.packed, xp)
    arguments = (first, queue, kernel_matrix(matrix, xp), limits, scratch, rows)
    find_neighbors[n_blocks, grid.block_threads](
        *(map_arrays(grid.as_argument, argument) for argument in arguments)
    )
    is_used = xp.arange(width) < rows.lengths[:, None]
    items, similarities, common_users = (column[is_used] for column in rows[1:])
    return rows.lengths, items, similarities, common_users


def _allocate_scratch(n_blocks: int, n_items: int, width: int, packed: bool, xp: Any) -> _Scratch:
    return _Scratch(
        sums=xp.zeros((n_blocks, n_items), dtype=xp.int64),
        common_users=xp.zeros((1, 1) if packed else (n_blocks, n_items), dtype=xp.int32),
        candidates=xp.empty((n_blocks, n_items), dtype=xp.int32),
        similarities=xp.empty((n_blocks, n_items), dtype=xp.float32),
        keys=xp.empty((n_blocks, n_items), dtype=xp.int64),
        selected=xp.empty((n_blocks, 1 << (width - 1).bit_length()), dtype=xp.int64),
    )


@cuda.jit(device=True)
def _cosine(dot, root, other_root):
    """Cosine in (0, 1], rounded once from float64."""
    return np.float32(min(1.0, np.float64(dot) / (root * other_root)))


@cuda.jit(device=True)
def _read_sums(item, packed, scratch):
    """Sum of products and number of common users with `item`."""
    if packed:
        return scratch.sums[item] >> COUNT_BITS, scratch.sums[item] & COUNT_MASK
    return scratch.sums[item], np.int64(scratch.common_users[item])


@cuda.jit(device=True)
def _clear_sums(item, packed, scratch):
    scratch.sums[item] = 0
    if not packed:
        scratch.common_users[item] = 0


@cuda.jit(device=True)
def _add_products(item, matrix, packed, scratch):
    """Add up products of one item: a warp a user, a thread one of the user's items."""
    warp, thread = cuda.threadIdx.x // _WARP, cuda.threadIdx.x % _WARP
    start, stop = matrix.item_offsets[item], matrix.item_offsets[item + 1]
    for position in range(start + warp, stop, cuda.blockDim.x // _WARP):
        user = matrix.item_user[position]
        weight = np.int64(matrix.item_weight[position])
        begin, end = matrix.user_offsets[user], matrix.user_offsets[user + 1]
        for entry in range(begin + thread, end, _WARP):
            cell = matrix.user_cell[entry]
            other, product = cell & ITEM_MASK, weight * (cell >> WEIGHT_SHIFT)
            if packed:
                cuda.atomic.add(scratch.sums, other, (product << COUNT_BITS) | 1)
            else:
                cuda.atomic.add(scratch.sums, other, product)
                cuda.atomic.add(scratch.common_users, other, 1)


@cuda.jit(device=True)
def _collect_candidates(item, roots, limits, scratch, counters):
    """Collect the items with enough common users in any order; clear the sums of the others.

    Counts them in counters[0].
    """
    for other in range(cuda.threadIdx.x, roots.shape[0], cuda.blockDim.x):
        dot, common = _read_sums(other, limits.packed, scratch)
        if common >= limits.min_common_users and dot > 0 and other != item:
            position = cuda.atomic.add(counters, 0, 1)
            scratch.candidates[position] = other
            scratch.similarities[position] = _cosine(dot, roots[item], roots[other])
        elif common > 0:
            _clear_sums(other, limits.packed, scratch)


@cuda.jit(device=True)
def _write_keys(n, scratch):
    """Write the sort keys of n candidates: falling similarity, then rising item."""
    bits = scratch.similarities.view(np.int32)
    for position in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        rank = np.int64(ONE_BITS) - bits[position]
        scratch.keys[position] = (rank << 32) | scratch.candidates[position]


@cuda.jit(device=True)
def _find_last_key(keys, n, top_k, histogram, state):
    """Find the top_k-th smallest of n keys, digit by digit from the highest: state[0].

    During the search, `state` holds the digits that are known, how many keys that begin with them
    are selected, and the shift of the last digit.
    """
    thread, width = cuda.threadIdx.x, cuda.blockDim.x
    if thread == 0:
        state[0], state[1], state[2] = 0, top_k, _KEY_BITS
    cuda.syncthreads()
    while state[2] > 0:
        shift, prefix = state[2] - _DIGIT_BITS, state[0]
        for digit in range(thread, _DIGITS, width):
            histogram[digit] = 0
        cuda.syncthreads()
        for position in range(thread, n, width):
            if (keys[position] >> shift) >> _DIGIT_BITS == prefix:
                cuda.atomic.add(histogram, (keys[position] >> shift) & (_DIGITS - 1), 1)
        cuda.syncthreads()
        if thread == 0:
            digit, left = 0, state[1]
            while histogram[digit] < left:
                left -= histogram[digit]
                digit += 1
            state[0], state[1], state[2] = (prefix << _DIGIT_BITS) | digit, left, shift
        cuda.syncthreads()


@cuda.jit(device=True)
def _select_sorted(n, n_selected, last, scratch, counters):
    """Write the keys up to `last` to `selected` and sort them; counts them in counters[1]."""
    thread, width = cuda.threadIdx.x, cuda.blockDim.x
    for position in range(thread, n, width):
        if scratch.keys[position] <= last:
            scratch.selected[cuda.atomic.add(counters, 1, 1)] = scratch.keys[position]
    size = 1
    while size < n_selected:
        size <<= 1
    for position in range(n_selected + thread, size, width):
        scratch.selected[position] = _MAX_KEY
    cuda.syncthreads()
    _sort(scratch.selected, size)


@cuda.jit(device=True)
def _sort(keys, width):
    """Bitonic sort of keys[:width], a power of two."""
    size = 2
    while size <= width:
        step = size >> 1
        while step > 0:
            for low in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                high = low ^ step
                if high > low and (keys[low] > keys[high]) == ((low & size) == 0):
                    keys[low], keys[high] = keys[high], keys[low]
            cuda.syncthreads()
            step >>= 1
        size <<= 1


@cuda.jit(device=True)
def _write_row(row, item, n_selected, roots, packed, scratch, rows):
    """Write the selected neighbors of an item to its row of the output."""
    for rank in range(cuda.threadIdx.x, n_selected, cuda.blockDim.x):
        other = scratch.selected[rank] & ITEM_MASK
        dot, common = _read_sums(other, packed, scratch)
        rows.items[row, rank] = other
        rows.similarities[row, rank] = _cosine(dot, roots[item], roots[other])
        rows.common_users[row, rank] = common
    if cuda.threadIdx.x == 0:
        rows.lengths[row] = n_selected


@cuda.jit(cache=launch.CAN_CACHE)
def find_neighbors(first, queue, matrix, limits, scratch, rows):
    """Write the neighbors of items first + queue.rows[...] to their rows of the output."""
    counters = cuda.shared.array(2, np.int32)  # candidates, selected keys
    position = cuda.shared.array(1, np.int64)  # in the queue
    histogram = cuda.shared.array(_DIGITS, np.int32)
    state = cuda.shared.array(3, np.int64)
    block, packed = cuda.blockIdx.x, limits.packed
    own = _Scratch(
        scratch.sums[block],
        scratch.common_users[0 if packed else block],
        scratch.candidates[block],
        scratch.similarities[block],
        scratch.keys[block],
        scratch.selected[block],
    )
    while True:
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            position[0] = cuda.atomic.add(queue.n_taken, 0, 1)
            counters[0] = 0
            counters[1] = 0
        cuda.syncthreads()
        if position[0] >= queue.rows.shape[0]:
            return
        row = queue.rows[position[0]]
        item = first + row
        _add_products(item, matrix, packed, own)
        cuda.syncthreads()
        _collect_candidates(item, matrix.roots, limits, own, counters)
        cuda.syncthreads()
        n = counters[0]
        _write_keys(n, own)
        cuda.syncthreads()
        n_selected, last = min(n, limits.top_k), np.int64(_MAX_KEY)
        if n > limits.top_k:
            _find_last_key(own.keys, n, limits.top_k, histogram, state)
            last = state[0]
        _select_sorted(n, n_selected, last, own, counters)
        _write_row(row, item, n_selected, matrix.roots, packed, own, rows)
        cuda.syncthreads()
        for at in range(cuda.threadIdx.x, n, cuda.blockDim.x):
            _clear_sums(own.candidates[at], packed, own)
