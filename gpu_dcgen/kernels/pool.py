"""The candidate pool of one positive: three sources of hard negatives, each item once (D13).

A pool lives in one lane of scratch: `pool` (3, width) int32 holds, by candidate, its item, its state and its product
group; `place` (items,) int16 is a candidate's position + 1 by item (the configuration allows 18,408), zero where the item
is not pooled; `pair` (width + 1,) float32 is a candidate's similarity, -1 for none, and last what is written of items that
are no candidates. A state packs the first of SOURCES that offered the candidate (2 bits), how many buyers brought it in
(14 bits), and the number of the last of them, from 1. Every offer returns the pool's size. What is on sale comes as a table
of its own, (items,) bool: it is asked for at every purchase that is met, and stays in the cache.
"""

from __future__ import annotations

import numba
import numpy as np

from .draws import first_not_before, gallop
from .rng import below, draw

SOURCES = ("item_cf", "collaborative", "category_crossing", "fallback")
ITEM_CF, COLLABORATIVE, CATEGORY_CROSSING, FALLBACK = 0, 1, 2, 3
ITEM, STATE, GROUP = range(3)  # of `pool`
SOURCE_MASK, BUYER, BUYERS_SHIFT, BUYERS_MASK, LAST_SHIFT = (
    3,
    1 << 2,
    2,
    (1 << 14) - 1,
    16,
)  # of a state
FIXED_ONE = 1 << 16  # 1.0 in the fixed point of weights and scores

# What a snapshot knows of an item, beside whether it is on sale, in one int64, so that scoring a
# candidate costs one read: its
# popularity in 0..FIXED_ONE, its normalized price + 1 in the same units (0 unknown), its product
# group + 1.
PRICE_SHIFT, GROUP_SHIFT = 17, 34
PART_MASK = (1 << 17) - 1
RANK_SHIFT, ITEM_MASK = (
    32,
    (1 << 32) - 1,
)  # a moment is the rank of a purchase's time among all times, above its item
# steps that are walked before they are doubled: a buyer's later purchases up to the moment are 4 on
# average
_FEW = 6
MOST_BESIDE = 255  # rows of the same user before and after a purchase are counted up to this

# Positions in the `limits` array of `mine_hard` (int64).
LIMITS = (
    "n_hard",
    "own_group_cap",
    "item_cf_top_k",
    "buyers",
    "buyer_items",
    "category_draws",
    "w_similarity",
    "w_collaborative",
    "w_price",
    "w_popularity",
    "w_diversity",
    "by_percentile",
    "band_from",
    "band_to",
    "band_of",
)
(
    N_HARD,
    OWN_CAP,
    TOP_K,
    BUYERS,
    BUYER_ITEMS,
    DRAWS,
    W_SIM,
    W_CO,
    W_PRICE,
    W_POP,
    W_DIVERSITY,
    BY_PERCENTILE,
    BAND_FROM,
    BAND_TO,
    BAND_OF,
) = range(len(LIMITS))


@numba.njit(cache=True)
def _offer(j, source, n_pool, place, pool):
    """Position of item j in the lane's pool, appended as offered by `source` if new. A branch would be mispredicted."""
    j = np.uint32(j)
    at = np.int64(place[j])
    candidate = np.uint64(at - 1 if at > 0 else n_pool)
    before = pool[STATE, candidate]  # read in any case: a choice between values needs no branch
    place[j] = candidate + 1
    pool[ITEM, candidate] = j
    pool[STATE, candidate] = before if at > 0 else np.int32(source)
    return np.int64(candidate)


@numba.njit(cache=True)
def _last_before(moments, first, position, moment):
    """Last position from `first` up to `position` with moments[...] < moment, else first - 1; near `position`, in most cases."""
    step = 1
    while position - step >= first and moments[position - step] >= moment:
        step *= 2
    return first_not_before(moments, max(first, position - step), position, moment) - 1


@numba.njit(cache=True)
def _scan(moments, start, stop, moment):
    """`first_not_before` over start..stop for an answer most often a few steps on, with fewer wrong predictions than `gallop`."""
    near = min(stop, start + _FEW)
    while start < near and moments[np.uint64(start)] < moment:
        start += 1
    return start if start < near else gallop(moments, start, stop, moment)


@numba.njit(cache=True)
def offer_collaborative(
    u,
    i,
    moment,
    since,
    position,
    on_sale,
    limits,
    moments,
    user_offsets,
    item_offsets,
    buyer_row,
    buyer_user,
    buyer_rank,
    buyer_before,
    buyer_after,
    buyers,
    place,
    pool,
):
    """Pool what the latest other buyers of i bought since `since` and before `moment`; returns the pool's size.

    `position` is the positive's own among the purchases of i. First the buyers are found, then their purchases are read:
    the reads, far apart in memory, then wait side by side.
    """
    n_buyers, touched, first = 0, np.int64(0), item_offsets[i]
    position = _last_before(buyer_rank, first, position, moment >> RANK_SHIFT)
    while position >= first and n_buyers < limits[BUYERS]:
        buyer = buyer_user[position]
        known = buyer == u
        for b in range(n_buyers):  # to the end, so that it vectorizes
            known |= buyers[0, b] == buyer
        if not known:
            buyers[0, n_buyers] = buyer
            buyers[1, n_buyers] = position - first
            n_buyers += 1
        position -= 1
    for b in range(n_buyers):
        row = buyer_row[first + buyers[1, b]]
        touched ^= moments[row] ^ moments[min(row + _FEW, moments.shape[0] - 1)]
    buyers[1, n_buyers] = touched & 1  # kept, so that the reads above are

    n_pool = 0
    for b in range(n_buyers):
        position = first + buyers[1, b]
        row, end = buyer_row[position], np.int64(buyer_after[position])
        end = row + end if end < MOST_BESIDE else user_offsets[buyers[0, b] + 1]
        other = _scan(moments, row, end, moment) - 1
        least = max(row - buyer_before[position], other + 1 - limits[BUYER_ITEMS])
        while other >= least and moments[np.uint64(other)] >= since:
            j = np.uint32(moments[np.uint64(other)] & ITEM_MASK)
            if j != i and on_sale[j]:
                candidate = _offer(j, COLLABORATIVE, n_pool, place, pool)
                n_pool = max(n_pool, candidate + 1)
                state = pool[STATE, candidate]
                brought = ((state & ((1 << LAST_SHIFT) - 1)) | ((b + 1) << LAST_SHIFT)) + BUYER
                pool[STATE, candidate] = state if state >> LAST_SHIFT == b + 1 else brought
            other -= 1
    return n_pool


@numba.njit(cache=True)
def offer_crossing(
    n_pool, key, group, category, n_groups, limits, first, cells, cell_offsets, place, pool
):
    """Pool seeded draws from the items on sale in the price category and another product group."""
    base = (category + 1) * (n_groups + 1)
    low, high = cell_offsets[base], cell_offsets[base + n_groups + 1]
    own, own_stop = cell_offsets[base + group + 1], cell_offsets[base + group + 2]
    n_others = (high - low) - (own_stop - own)
    if n_others > 0:
        for counter in range(limits[DRAWS]):
            position = low + below(draw(key, counter), n_others)
            position += own_stop - own if position >= own else 0
            candidate = _offer(cells[first + position], CATEGORY_CROSSING, n_pool, place, pool)
            n_pool = max(n_pool, candidate + 1)
    return n_pool


@numba.njit(cache=True)
def _first_at_most(similarity, low, high, bound):
    """First position in low..high with similarity[position] <= bound; similarities fall over the range."""
    while low < high:
        middle = (low + high) >> 1
        if similarity[middle] > bound:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def offer_neighbors(
    n_pool,
    start,
    stop,
    on_sale,
    limits,
    bounds,
    neighbor_item,
    neighbor_similarity,
    place,
    pool,
    pair,
):
    """Pool the first neighbors in the band, and note the similarity of every pooled item that is a neighbor."""
    if limits[BY_PERCENTILE]:
        first = start + limits[BAND_FROM] * (stop - start) // limits[BAND_OF]
        last = start + limits[BAND_TO] * (stop - start) // limits[BAND_OF]
    else:
        first = _first_at_most(neighbor_similarity, start, stop, bounds[1])
        last = _first_at_most(neighbor_similarity, first, stop, bounds[0])
    for position in range(first, min(last, first + limits[TOP_K])):
        j = np.uint32(neighbor_item[position])
        if on_sale[j]:
            candidate = _offer(j, ITEM_CF, n_pool, place, pool)
            n_pool = max(n_pool, candidate + 1)
            pool[STATE, candidate] &= ~SOURCE_MASK  # ITEM_CF is 0
    for candidate in range(n_pool):
        pair[candidate] = -1.0
    items, similarities, beside = (
        neighbor_item[start:stop],
        neighbor_similarity[start:stop],
        len(pair) - 1,
    )
    for position in range(
        len(items)
    ):  # without a branch: what is not pooled is noted beside the candidates
        at = np.int64(place[np.uint32(items[position])])
        pair[np.uint64(at - 1 if at > 0 else beside)] = similarities[position]
    return n_pool
