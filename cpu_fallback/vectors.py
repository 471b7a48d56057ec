"""Most similar rows of a sparse matrix on the host: accumulate, filter, select, in one compiled pass (D9, D10)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

COUNT_BITS = 21  # a packed accumulator holds weight sum << 21 | common users
_WEIGHT_SHIFT, _ITEM_MASK = 32, 0xFFFFFFFF  # of a user's cell: weight << 32 | item
_ONE_BITS = 0x3F800000  # of the float32 1.0
_BATCH = 64  # buyers whose reads wait side by side
_FEW = 8  # items are gone through one by one while fewer than 1 in _FEW are touched
_BELOW = 1 - 1e-6  # under the last kept similarity by more than its rounding


@numba.njit(nogil=True, cache=True)
def _select(keys, n, k):
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
def _add_products(
    first,
    last,
    item_user,
    item_weight,
    user_offsets,
    user_cell,
    packed,
    sums,
    commons,
    touched,
    runs,
):
    """Add to sums and commons what the buyers item_user[first:last] of an item have in common with every item.

    Lists those items in `touched` while they are few, and returns how many are listed.

    Buyers are taken in batches: the ends of their runs are found and the first cells read before any is used, so that
    reads far apart in memory wait side by side.
    """
    n_touched = 0
    while first < last:
        n, ahead = min(_BATCH, last - first), np.int64(0)
        for b in range(n):
            user = item_user[first + b]
            runs[0, b], runs[1, b] = user_offsets[user], user_offsets[user + 1]
        for b in range(n):
            ahead ^= user_cell[runs[0, b]]
        runs[2, 0] = ahead  # kept, so that the reads above are
        for b in range(n):
            weight, listed = np.int64(item_weight[first + b]), n_touched * _FEW < len(sums)
            for q in range(runs[0, b], runs[1, b]):
                j = user_cell[q] & _ITEM_MASK
                product = weight * (user_cell[q] >> _WEIGHT_SHIFT)
                if listed:
                    touched[n_touched] = j
                    n_touched += (sums[j] if packed else commons[j]) == 0
                if packed:
                    sums[j] += (product << COUNT_BITS) | 1
                else:
                    sums[j] += product
                    commons[j] += 1
        first += n
    return n_touched


@numba.njit(nogil=True, cache=True)
def _forget(keys, first, last, packed, sums, commons):
    for position in range(first, last):
        j = np.int64(keys[position] & np.uint64(_ITEM_MASK))
        sums[j] = 0
        if not packed:
            commons[j] = 0


@numba.njit(nogil=True, cache=True)
def _collect(i, roots, min_common, top_k, packed, sums, commons, touched, keys, bits, scores):
    """Gather the keys of the items with enough common users, at most 2 * top_k of them at a time; returns how many are left.

    Whenever the room is full the best `top_k` stay. From then on an item that is clearly below the last of them is passed
    over without a division. The sums of all that do not stay are cleared. Where many items are touched, all are gone through
    in their order, which is faster than jumping from one to the next.
    """
    n_items, room = len(roots), min(len(keys), 2 * top_k)
    count_mask = (np.int64(1) << COUNT_BITS) - 1
    n, bound, few = 0, 0.0, len(touched) * _FEW < n_items
    for position in range(len(touched) if few else n_items):
        j = np.int64(touched[position]) if few else position
        common = sums[j] & count_mask if packed else np.int64(commons[j])
        if common < min_common:
            sums[j] = 0
            if not packed:
                commons[j] = 0
            continue
        dot = sums[j] >> COUNT_BITS if packed else sums[j]
        if dot > 0 and j != i and np.float64(dot) >= bound * roots[j]:
            if n == room:
                _select(keys[:n], n, top_k)
                last = np.uint64(0)
                for rank in range(top_k):
                    last = max(last, keys[rank])
                _forget(keys, top_k, n, packed, sums, commons)
                n = top_k
                bits[0] = np.uint32(np.uint64(_ONE_BITS) - (last >> np.uint64(32)))
                bound = np.float64(scores[0]) * roots[i] * _BELOW
            scores[0] = np.float32(
                min(1.0, np.float64(dot) / (roots[i] * roots[j]))
            )  # at least 2^-62
            keys[n] = (np.uint64(_ONE_BITS - bits[0]) << np.uint64(32)) | np.uint64(j)
            n += 1
        else:
            sums[j] = 0
            if not packed:
                commons[j] = 0
    if n > top_k:
        _select(keys[:n], n, top_k)
        _forget(keys, top_k, n, packed, sums, commons)
        n = top_k
    return n


@numba.njit(nogil=True, cache=True)
def _neighbors(
    first,
    last,
    out_row,
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
    touched,
    keys,
    runs,
    bits,
    scores,
    lengths,
    items,
    similarities,
    common_users,
):
    """Items first..last-1 into rows out_row.. of the outputs. Scratch: sums (I,) int64 and commons (I,) int32 all zero, touched
    (I + 1,) int32, keys (I,) uint64, runs (3, _BATCH) int64; `scores` (1,) float32, `bits` its uint32 view."""
    count_mask = (np.int64(1) << COUNT_BITS) - 1
    for i in range(first, last):
        n_touched = _add_products(
            item_offsets[i],
            item_offsets[i + 1],
            item_user,
            item_weight,
            user_offsets,
            user_cell,
            packed,
            sums,
            commons,
            touched,
            runs,
        )
        n_kept = _collect(
            i,
            roots,
            min_common,
            top_k,
            packed,
            sums,
            commons,
            touched[:n_touched],
            keys,
            bits,
            scores,
        )
        chosen = keys[:n_kept]
        chosen.sort()
        row = out_row + i - first
        lengths[row] = n_kept
        for rank in range(n_kept):
            j = np.int64(chosen[rank] & np.uint64(_ITEM_MASK))
            bits[0] = np.uint32(np.uint64(_ONE_BITS) - (chosen[rank] >> np.uint64(32)))
            items[row, rank] = j
            similarities[row, rank] = scores[0]
            common_users[row, rank] = sums[j] & count_mask if packed else commons[j]
        _forget(keys, 0, n_kept, packed, sums, commons)


@numba.njit(nogil=True, cache=True)
def _end_to_end(lengths, rows, out):
    at = 0
    for row in range(len(lengths)):
        out[at : at + lengths[row]] = rows[row, : lengths[row]]
        at += lengths[row]


def similarity_block(
    backend: Any,
    first: int,
    last: int,
    by_item: Any,
    by_user: Any,
    norms: np.ndarray,
    *,
    min_common: int,
    top_k: int,
    packed: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The `top_k` most similar items of each item in first..last-1, by falling similarity, then rising item (D10).

    by_item = (offsets int64, user int32, weight int32), by_user = (offsets int64, cells int64: weight << 32 | item): the
    weighted matrix both ways; norms (I,) int64 sums of squares. Returns lengths (rows,) int32 and, laid end to end, item
    int32, similarity float32 and common users int32.
    """
    n_items, n_rows = len(norms), last - first
    width = min(top_k, n_items)
    lengths = np.empty(n_rows, np.int32)
    items = np.empty((n_rows, width), np.int32)
    similarities = np.empty((n_rows, width), np.float32)
    common_users = np.empty((n_rows, width), np.int32)
    roots = np.sqrt(norms.astype(np.float64))
    scratch: dict[int, tuple] = {}

    def work(start: int, stop: int, lane: int) -> None:
        if lane not in scratch:
            scores = np.zeros(1, np.float32)
            scratch[lane] = (
                np.zeros(n_items, np.int64),
                np.zeros(n_items, np.int32),
                np.empty(n_items + 1, np.int32),
                np.empty(n_items, np.uint64),
                np.empty((3, _BATCH), np.int64),
                scores.view(np.uint32),
                scores,
            )
        _neighbors(
            first + start,
            first + stop,
            start,
            *by_item,
            *by_user,
            roots,
            min_common,
            top_k,
            packed,
            *scratch[lane],
            lengths,
            items,
            similarities,
            common_users,
        )

    backend.in_chunks(work, n_rows, least=16)
    found = []
    for rows in (items, similarities, common_users):
        found.append(np.empty(int(lengths.sum()), rows.dtype))
        _end_to_end(lengths, rows, found[-1])
    return lengths, *found
