"""Most similar rows of a sparse matrix on the host: accumulate, filter, select, in one compiled pass (D9, D10)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

COUNT_BITS = 21  # a packed accumulator holds weight sum << 21 | common users


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
def _neighbors(
    first,
    last,
    out_row,
    by_item_offsets,
    by_item_user,
    by_item_weight,
    by_user_offsets,
    by_user_item,
    by_user_weight,
    roots,
    min_common,
    top_k,
    packed,
    sums,
    commons,
    touched,
    keys,
    bits,
    scores,
    lengths,
    items,
    similarities,
    common_users,
):
    """Items first..last-1 into rows out_row.. of the outputs. Scratch: sums (I,) int64 and commons (I,) int32 all zero,
    touched (I / 64,) bool all false, keys (I,) uint64; `scores` (1,) float32 and `bits` its uint32 view."""
    n_items = len(roots)
    count_mask = (np.int64(1) << COUNT_BITS) - 1
    for i in range(first, last):
        for p in range(by_item_offsets[i], by_item_offsets[i + 1]):
            u = by_item_user[p]
            weight = np.int64(by_item_weight[p])
            if packed:
                for q in range(by_user_offsets[u], by_user_offsets[u + 1]):
                    j = by_user_item[q]
                    sums[j] += ((weight * by_user_weight[q]) << COUNT_BITS) | 1
                    touched[j >> 6] = True
            else:
                for q in range(by_user_offsets[u], by_user_offsets[u + 1]):
                    j = by_user_item[q]
                    sums[j] += weight * by_user_weight[q]
                    commons[j] += 1
                    touched[j >> 6] = True
        n = 0
        for tile in range(len(touched)):
            if not touched[tile]:
                continue
            touched[tile] = False
            for j in range(tile << 6, min(n_items, (tile + 1) << 6)):
                if packed:
                    common, dot = sums[j] & count_mask, sums[j] >> COUNT_BITS
                else:
                    common, dot = np.int64(commons[j]), sums[j]
                if common >= min_common and dot > 0 and j != i:
                    scores[0] = np.float32(min(1.0, np.float64(dot) / (roots[i] * roots[j])))  # at least 2^-62
                    keys[n] = (np.uint64(0x3F800000 - bits[0]) << np.uint64(32)) | np.uint64(j)
                    n += 1
                else:
                    sums[j] = 0
                    commons[j] = 0
        n_kept = min(n, top_k)
        candidates = keys[:n]
        if n > top_k:
            # the keys hold the items; their sums are cleared after the common users have been read
            _select(candidates, n, top_k)
        chosen = keys[:n_kept]
        chosen.sort()
        row = out_row + i - first
        lengths[row] = n_kept
        for rank in range(n_kept):
            j = np.int64(chosen[rank] & np.uint64(0xFFFFFFFF))
            bits[0] = np.uint32(np.uint64(0x3F800000) - (chosen[rank] >> np.uint64(32)))
            items[row, rank] = j
            similarities[row, rank] = scores[0]
            common_users[row, rank] = sums[j] & count_mask if packed else commons[j]
        for position in range(n):
            j = np.int64(candidates[position] & np.uint64(0xFFFFFFFF))
            sums[j] = 0
            commons[j] = 0


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

    by_item = (offsets int64, user int32, weight int32), by_user = (offsets int64, item int32, weight int32): the weighted
    matrix both ways; norms (I,) int64 sums of squares. Returns lengths (rows,) int32 and, laid end to end, item int32,
    similarity float32 and common users int32.
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
                np.zeros((n_items >> 6) + 1, np.bool_),
                np.empty(n_items, np.uint64),
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
    kept = np.arange(width) < lengths[:, None]
    return lengths, items[kept], similarities[kept], common_users[kept]
