"""Most similar rows of a sparse matrix on the device: a thread block an item (D9, D10).

A block takes the next item, adds up its products with every other item in a row of accumulators of its own (integer
atomics: exact, in any order), keeps those with enough common users, selects the `top_k` best by a radix search for
the last key that is kept, sorts them, and leaves its accumulators zero for the next item. Keys and their order are
those of `cpu_fallback.vectors`: 0x3F800000 - bits of the float32 similarity above the item, so both machines keep the
same pairs. Only numba is named here, so that its CUDA simulator runs this file too.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from numba import cuda

BLOCK_THREADS = 256
# of scratch for each item in a block's row: sums, commons, keys, candidates, scores
ITEM_BYTES = 32
_WARP = 32
_COUNT_BITS = 21  # a packed accumulator holds weight sum << 21 | common users
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_ONE_BITS = 0x3F800000  # of the float32 1.0
_WEIGHT_SHIFT, _ITEM_MASK = 32, 0xFFFFFFFF  # of a user's cell, and of a key: item below
_DIGIT_BITS = 8
_DIGITS = 1 << _DIGIT_BITS
_KEY_BITS = 64
_NEVER = (1 << 62) + ((1 << 62) - 1)  # sorts behind every key


@cuda.jit(device=True)
def _similarity(dot, root, other_root):
    """Cosine in (0, 1], rounded once from float64."""
    return np.float32(min(1.0, np.float64(dot) / (root * other_root)))


@cuda.jit(device=True)
def _add_products(
    start, stop, item_user, item_weight, user_offsets, user_cell, packed, sums, commons
):
    """sums[j] and commons[j] of one item: a warp a buyer, a thread one of the buyer's items."""
    warp, thread = cuda.threadIdx.x // _WARP, cuda.threadIdx.x % _WARP
    for position in range(start + warp, stop, cuda.blockDim.x // _WARP):
        user = item_user[position]
        weight = np.int64(item_weight[position])
        for entry in range(user_offsets[user] + thread, user_offsets[user + 1], _WARP):
            other, product = (
                user_cell[entry] & _ITEM_MASK,
                weight * (user_cell[entry] >> _WEIGHT_SHIFT),
            )
            if packed:
                cuda.atomic.add(sums, other, (product << _COUNT_BITS) | 1)
            else:
                cuda.atomic.add(sums, other, product)
                cuda.atomic.add(commons, other, 1)


@cuda.jit(device=True)
def _collect(item, roots, min_common, packed, sums, commons, candidates, scores, n_found):
    """Gather the items with enough common users, in any order, with their similarity; clear the sums of all others."""
    for other in range(cuda.threadIdx.x, roots.shape[0], cuda.blockDim.x):
        dot, common = sums[other], np.int64(0)
        if packed:
            dot, common = dot >> _COUNT_BITS, dot & _COUNT_MASK
        else:
            common = np.int64(commons[other])
        if common >= min_common and dot > 0 and other != item:
            place = cuda.atomic.add(n_found, 0, 1)
            candidates[place] = other
            scores[place] = _similarity(dot, roots[item], roots[other])
        elif common > 0:
            sums[other] = 0
            if not packed:
                commons[other] = 0


@cuda.jit(device=True)
def _last_kept(keys, n, top_k, histogram, state):
    """Find the top_k-th smallest key, digit by digit from the highest: state[0].

    While it is sought, `state` holds the digits found, how many keys that begin with them are kept, and their shift.
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


@cuda.jit
def neighbors_of_items(
    first,
    order,
    turn,
    item_offsets,
    item_user,
    item_weight,
    user_offsets,
    user_cell,
    roots,
    min_common,
    top_k,
    packed,
    sums,
    commons,
    candidates,
    scores,
    keys,
    chosen,
    lengths,
    items,
    similarities,
    common_users,
):
    """Neighbors of items first + order[...]: row by row of lengths (n,), items, similarities, common_users (n, width).

    Scratch, a row a block: sums (blocks, I) int64 and commons (blocks, I; 1 if packed) int32 all zero before and after,
    candidates (blocks, I) int32, scores (blocks, I) float32, keys (blocks, I) int64, chosen (blocks, P) int64 for P a
    power of two, at least `top_k`. `turn` (1,) int64 counts the items taken from `order`.
    """
    n_found = cuda.shared.array(2, np.int32)  # candidates, chosen
    taken = cuda.shared.array(1, np.int64)
    histogram = cuda.shared.array(_DIGITS, np.int32)
    state = cuda.shared.array(3, np.int64)
    block, thread, width = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    while True:
        cuda.syncthreads()
        if thread == 0:
            taken[0] = cuda.atomic.add(turn, 0, 1)
            n_found[0] = 0
            n_found[1] = 0
        cuda.syncthreads()
        if taken[0] >= order.shape[0]:
            return
        row = order[taken[0]]
        item = first + row
        my_sums, my_commons = sums[block], commons[0 if packed else block]
        _add_products(
            item_offsets[item],
            item_offsets[item + 1],
            item_user,
            item_weight,
            user_offsets,
            user_cell,
            packed,
            my_sums,
            my_commons,
        )
        cuda.syncthreads()
        _collect(
            item,
            roots,
            min_common,
            packed,
            my_sums,
            my_commons,
            candidates[block],
            scores[block],
            n_found,
        )
        cuda.syncthreads()
        n = n_found[0]
        bits = scores[block].view(np.int32)
        for position in range(thread, n, width):
            keys[block, position] = ((np.int64(_ONE_BITS) - bits[position]) << 32) | candidates[
                block, position
            ]
        cuda.syncthreads()
        n_kept, last = min(n, top_k), np.int64(_NEVER)
        if n > top_k:
            _last_kept(keys[block], n, top_k, histogram, state)
            last = state[0]
        for position in range(thread, n, width):
            if keys[block, position] <= last:
                chosen[block, cuda.atomic.add(n_found, 1, 1)] = keys[block, position]
        size = 1
        while size < n_kept:
            size <<= 1
        for position in range(n_kept + thread, size, width):
            chosen[block, position] = _NEVER
        cuda.syncthreads()
        _sort(chosen[block], size)
        for rank in range(thread, n_kept, width):
            other = chosen[block, rank] & _ITEM_MASK
            dot = my_sums[other] >> _COUNT_BITS if packed else my_sums[other]
            items[row, rank] = other
            similarities[row, rank] = _similarity(dot, roots[item], roots[other])
            common_users[row, rank] = my_sums[other] & _COUNT_MASK if packed else my_commons[other]
        if thread == 0:
            lengths[row] = n_kept
        cuda.syncthreads()
        for position in range(thread, n, width):
            other = candidates[block, position]
            my_sums[other] = 0
            if not packed:
                my_commons[other] = 0


def similarity_block(
    xp: Any,
    n_blocks: int,
    first: int,
    last: int,
    by_item: Any,
    by_user: Any,
    norms: Any,
    *,
    min_common: int,
    top_k: int,
    packed: bool,
    block_threads: int = BLOCK_THREADS,
    hand_over: Callable[[Any], Any] = lambda array: array,
) -> tuple[Any, Any, Any, Any]:
    """`cpu_fallback.vectors.similarity_block` on the device, with `n_blocks` items at a time: arrays of `xp` in and out.

    `hand_over` makes an argument of numba's of an array of `xp`.
    """
    n_items, n_rows = int(norms.shape[0]), last - first
    width, n_blocks = min(top_k, n_items), min(n_blocks, n_rows)
    lengths = xp.empty(n_rows, dtype=xp.int32)
    items = xp.empty((n_rows, width), dtype=xp.int32)
    similarities = xp.empty((n_rows, width), dtype=xp.float32)
    common_users = xp.empty((n_rows, width), dtype=xp.int32)
    n_buyers = xp.diff(by_item[0][first : last + 1])
    arguments = (
        first,
        xp.argsort(
            -n_buyers, kind="stable"
        ),  # the dearest first: no block is left alone with one at the end
        xp.zeros(1, dtype=xp.int64),
        *by_item,
        *by_user,
        xp.sqrt(norms.astype(xp.float64)),
        min_common,
        top_k,
        packed,
        xp.zeros((n_blocks, n_items), dtype=xp.int64),
        xp.zeros((1, 1) if packed else (n_blocks, n_items), dtype=xp.int32),
        xp.empty((n_blocks, n_items), dtype=xp.int32),
        xp.empty((n_blocks, n_items), dtype=xp.float32),
        xp.empty((n_blocks, n_items), dtype=xp.int64),
        xp.empty((n_blocks, 1 << (width - 1).bit_length()), dtype=xp.int64),
        lengths,
        items,
        similarities,
        common_users,
    )
    neighbors_of_items[n_blocks, block_threads](*map(hand_over, arguments))
    kept = xp.arange(width) < lengths[:, None]
    return lengths, items[kept], similarities[kept], common_users[kept]
