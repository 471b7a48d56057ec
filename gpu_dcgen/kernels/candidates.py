"""Lists of candidates: the best by score of what the sources offer (D13).

A row is a list of candidates of hard negatives, of an item at a snapshot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .draws import are_siblings
from .sources import (
    BUYERS_MASK,
    BUYERS_SHIFT,
    FIXED_ONE,
    GROUP_SHIFT,
    PRICE_SHIFT,
    SOURCE_MASK,
    pool_candidates,
    select_lane,
)

SCORE_SHIFT = 18  # from a product of two numbers in units of 1 / FIXED_ONE to a score
SCORE_ONE = 1 << 14  # 1.0 in the fixed point of scores

_PART_MASK = (1 << 17) - 1  # of a part of packed features
_ITEM_BITS = 32  # of a key that candidates are sorted by
_MAX_SCORED_BUYERS = 8  # more buyers of a candidate add nothing to its score
_NO_FRACTION = 4503599627370496.0  # 2^52: a float64 this large holds whole numbers only
_MAX_SCORE = (1 << 15) - 1  # scores are int16
_SCORE_ORDER = 1 << 20  # above every score
_NO_KEY = 1 << 62  # above every key by score


class CandidateLists(NamedTuple):
    """The lists that are made, by (product group, item)."""

    length: Any  # (n,) int32
    own_first: Any  # (n,) int16  the run of the item's own product group
    own_stop: Any  # (n,) int16
    item: Any  # (n, width) int32
    source: Any  # (n, width) int8  code into `sources.SOURCES`
    score: Any  # (n, width) int16  in units of 1 / SCORE_ONE
    rank: Any  # (n, width) int16  among the item's neighbors, -1 for none


@kernel_helper
def _round_half_even(x):
    """Round x in 0..2^51 to the nearest integer, halves to even.

    The addition rounds. x must be exact, because a GPU may fuse its product with the addition.
    """
    return np.int64((x + _NO_FRACTION) - _NO_FRACTION)


@kernel_helper
def _score(candidate, own_features, features, settings, pool):
    """Return a candidate's score in units of 1 / SCORE_ONE."""
    own_price = (own_features >> PRICE_SHIFT) & _PART_MASK
    price = (features >> PRICE_SHIFT) & _PART_MASK
    is_unknown = own_price == 0 or price == 0
    nearness = FIXED_ONE // 2 if is_unknown else FIXED_ONE - abs(own_price - price)
    similarity = _round_half_even(np.float64(pool.cosine[candidate]) * FIXED_ONE)
    n_buyers = np.int64((pool.state[candidate] >> BUYERS_SHIFT) & BUYERS_MASK)
    score = (
        settings.similarity_weight * similarity
        + settings.collaborative_weight
        * min(np.int64(_MAX_SCORED_BUYERS), n_buyers)
        * (FIXED_ONE // _MAX_SCORED_BUYERS)
        + settings.price_weight * nearness
        - settings.popularity_weight * (features & _PART_MASK)
    )
    return min(np.int64(_MAX_SCORE), (score + (1 << (SCORE_SHIFT - 1))) >> SCORE_SHIFT)


@kernel_helper
def _score_all(item, k, n_pool, tables, settings, pool):
    """Score the candidates that are allowed; returns their number.

    Their keys are in `order` too.
    """
    features, n_allowed = tables.snapshots.packed_features[k], 0
    own_features = features[item]
    for candidate in range(np.uint64(n_pool)):
        j = pool.item[candidate]
        pool.score_key[candidate] = _NO_KEY
        if j != item and not are_siblings(tables.product_code, item, j):
            score = _score(candidate, own_features, features[np.uint64(j)], settings, pool)
            key = ((_SCORE_ORDER - score) << _ITEM_BITS) | j
            pool.score[candidate] = score
            pool.score_key[candidate] = key
            pool.order[np.uint64(n_allowed)] = key
            n_allowed += 1
    return n_allowed


@kernel_helper
def _find_nth(keys, n, wanted):
    """Return the wanted-th smallest of n distinct keys (Hoare 1961); the keys change places."""
    low, high = 0, n - 1
    while low < high:
        pivot, left, right = keys[(low + high) >> 1], low, high
        while left <= right:
            while keys[left] < pivot:
                left += 1
            while keys[right] > pivot:
                right -= 1
            if left <= right:
                swapped = keys[left]
                keys[left] = keys[right]
                keys[right] = swapped
                left += 1
                right -= 1
        if wanted - 1 <= right:
            high = right
        elif wanted - 1 >= left:
            low = left
        else:
            break
    return keys[wanted - 1]


@kernel_helper
def _select(k, last, n_pool, tables, pool):
    """Select the candidates up to a key by score; returns their number.

    Their keys by (product group, item) are in `order`, and the candidates of these in `place`.
    """
    features, n_selected = tables.snapshots.packed_features[k], np.uint64(0)
    for candidate in range(np.uint64(n_pool)):
        j = np.uint64(pool.item[candidate])
        pool.order[n_selected] = (features[j] >> GROUP_SHIFT << _ITEM_BITS) | np.int64(j)
        pool.place[n_selected] = candidate
        n_selected += np.uint64(1) if pool.score_key[candidate] <= last else np.uint64(0)
    return n_selected


@kernel_helper
def _write_list(row, n_selected, own_group, pool, lists):
    """Write the selected candidates in the order of their keys.

    A key's position is the number of lower ones.
    """
    own_first, own_stop = 0, 0
    for number in range(n_selected):
        key, candidate = pool.order[number], np.uint64(pool.place[number])
        position, group = np.uint64(0), key >> _ITEM_BITS
        for other in range(n_selected):
            position += np.uint64(1) if pool.order[other] < key else np.uint64(0)
        own_first += 1 if group < own_group else 0
        own_stop += 1 if group <= own_group else 0
        lists.item[row, position] = pool.item[candidate]
        lists.source[row, position] = pool.state[candidate] & SOURCE_MASK
        lists.score[row, position] = pool.score[candidate]
        lists.rank[row, position] = pool.rank[candidate]
    lists.length[row], lists.own_first[row], lists.own_stop[row] = n_selected, own_first, own_stop


@row_kernel(scratch=True, min_rows=64)
def list_candidates(row, lane, items, k, tables, settings, pools, lists):
    """List the best candidates of items[row] at snapshot k (D13)."""
    pool, item = select_lane(pools, lane), items[row]
    n_pool = pool_candidates(item, k, tables, settings, pool)
    n_allowed = _score_all(item, k, n_pool, tables, settings, pool)
    last, width = np.int64(_NO_KEY - 1), lists.item.shape[1]
    if n_allowed > width:
        last = _find_nth(pool.order, n_allowed, width)
    n_selected = _select(k, last, n_pool, tables, pool)
    own_group = tables.snapshots.packed_features[k, item] >> GROUP_SHIFT
    _write_list(row, n_selected, own_group, pool, lists)


@row_kernel(min_rows=256)
def copy_list(row, lists, offsets, target):
    """Copy a list to `target`, to lie end to end from offsets[row] (n+1,) int64."""
    target.length[row] = lists.length[row]
    target.own_first[row], target.own_stop[row] = lists.own_first[row], lists.own_stop[row]
    first = np.uint64(offsets[row])
    for position in range(np.uint64(lists.length[row])):
        target.item[first + position] = lists.item[row, position]
        target.source[first + position] = lists.source[row, position]
        target.score[first + position] = lists.score[row, position]
        target.rank[first + position] = lists.rank[row, position]
