"""The candidate pool of one positive: three sources of hard negatives, each item once (D13).

A pool lives in one lane of scratch: `pool` (lanes, 5, width) int32 holds, by candidate, its item, the buyers who brought
it in, the last of them, the first of SOURCES that offered it, and its product group; `place` (lanes, items) int16 is
a candidate's position + 1 by item (the configuration allows 18,408), zero where the item is not pooled. Every offer
returns the pool's size.
"""

from __future__ import annotations

import numba
import numpy as np

from ..rng import below, draw
from .draws import first_not_before, gallop

SOURCES = ("item_cf", "collaborative", "category_crossing", "fallback")
ITEM_CF, COLLABORATIVE, CATEGORY_CROSSING, FALLBACK = 0, 1, 2, 3
ITEM, N_BUYERS, LAST_BUYER, SOURCE, GROUP = range(5)  # of `pool`
FIXED_ONE = 1 << 16  # 1.0 in the fixed point of weights and scores

# What a snapshot knows of an item in one int64, so that a candidate costs one read: whether it is on sale, its popularity
# in 0..FIXED_ONE, its normalized price + 1 in the same units (0 unknown), its product group + 1.
ON_SALE, POPULARITY_SHIFT, PRICE_SHIFT, GROUP_SHIFT = 1, 1, 18, 35
PART_MASK = (1 << 17) - 1
MOST_BESIDE = 255  # rows of the same user before and after a purchase are counted up to this

# Positions in the `limits` array of `mine_hard` (int64).
LIMITS = (
    "n_hard",
    "own_group_cap",
    "item_cf_top_k",
    "buyers",
    "buyer_items",
    "buyer_window",
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
    BUYER_WINDOW,
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
def _offer(j, lane, n_pool, place, pool):
    """Position of item j in the lane's pool, appended if new."""
    candidate = np.int64(place[lane, j]) - 1
    if candidate < 0:
        candidate = n_pool
        place[lane, j] = n_pool + 1
        pool[lane, ITEM, n_pool] = j
        pool[lane, N_BUYERS, n_pool] = 0
        pool[lane, LAST_BUYER, n_pool] = -1
        pool[lane, SOURCE, n_pool] = FALLBACK
    return candidate


@numba.njit(cache=True)
def offer_collaborative(
    lane,
    u,
    i,
    t,
    facts,
    limits,
    time,
    item,
    user_offsets,
    item_offsets,
    buyer_row,
    buyer_user,
    buyer_time,
    buyer_before,
    buyer_after,
    buyers,
    place,
    pool,
):
    """Pool what the latest other buyers of i bought in the days before t; returns the pool's size.

    First the buyers are found, then their purchases are read: the reads, far apart in memory, then wait side by side.
    """
    n_buyers, touched = 0, np.int64(0)
    position = first_not_before(buyer_time, item_offsets[i], item_offsets[i + 1], t) - 1
    while position >= item_offsets[i] and n_buyers < limits[BUYERS]:
        buyer = buyer_user[position]
        known = buyer == u
        for b in range(n_buyers):  # to the end, so that it vectorizes
            known |= buyers[lane, 0, b] == buyer
        if not known:
            row = buyer_row[position]
            buyers[lane, 0, n_buyers] = buyer
            buyers[lane, 1, n_buyers] = position - item_offsets[i]
            touched += time[row] + item[row]
            n_buyers += 1
        position -= 1
    buyers[lane, 1, n_buyers] = touched & 1  # kept, so that the reads above are

    n_pool = 0
    for b in range(n_buyers):
        position = item_offsets[i] + buyers[lane, 1, b]
        row, end = buyer_row[position], np.int64(buyer_after[position])
        end = row + end if end < MOST_BESIDE else user_offsets[buyers[lane, 0, b] + 1]
        other = gallop(time, row, end, t) - 1
        first = max(row - buyer_before[position], other + 1 - limits[BUYER_ITEMS])
        while other >= first and time[other] >= t - limits[BUYER_WINDOW]:
            j = item[other]
            if j != i and facts[j] & ON_SALE:
                candidate = _offer(j, lane, n_pool, place, pool)
                n_pool = max(n_pool, candidate + 1)
                pool[lane, SOURCE, candidate] = COLLABORATIVE
                if pool[lane, LAST_BUYER, candidate] != b:
                    pool[lane, LAST_BUYER, candidate] = b
                    pool[lane, N_BUYERS, candidate] += 1
            other -= 1
    return n_pool


@numba.njit(cache=True)
def offer_crossing(lane, n_pool, key, group, category, n_groups, limits, first, cells, cell_offsets, place, pool):
    """Pool seeded draws from the items on sale in the price category and another product group."""
    base = (category + 1) * (n_groups + 1)
    low, high = cell_offsets[base], cell_offsets[base + n_groups + 1]
    own, own_stop = cell_offsets[base + group + 1], cell_offsets[base + group + 2]
    n_others = (high - low) - (own_stop - own)
    if n_others > 0:
        for counter in range(limits[DRAWS]):
            position = low + below(draw(key, counter), n_others)
            if position >= own:
                position += own_stop - own
            candidate = _offer(cells[first + position], lane, n_pool, place, pool)
            n_pool = max(n_pool, candidate + 1)
            if pool[lane, SOURCE, candidate] > CATEGORY_CROSSING:
                pool[lane, SOURCE, candidate] = CATEGORY_CROSSING
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
def offer_neighbors(lane, n_pool, start, stop, facts, limits, bounds, neighbor_item, neighbor_similarity, place, pool, pair):
    """Pool the first neighbors in the band, and note the similarity of every pooled item that is a neighbor."""
    if limits[BY_PERCENTILE]:
        first = start + limits[BAND_FROM] * (stop - start) // limits[BAND_OF]
        last = start + limits[BAND_TO] * (stop - start) // limits[BAND_OF]
    else:
        first = _first_at_most(neighbor_similarity, start, stop, bounds[1])
        last = _first_at_most(neighbor_similarity, first, stop, bounds[0])
    for position in range(first, min(last, first + limits[TOP_K])):
        j = neighbor_item[position]
        if facts[j] & ON_SALE:
            candidate = _offer(j, lane, n_pool, place, pool)
            n_pool = max(n_pool, candidate + 1)
            pool[lane, SOURCE, candidate] = ITEM_CF
    for candidate in range(n_pool):
        pair[lane, candidate] = -1.0
    for position in range(start, stop):
        at = place[lane, neighbor_item[position]]
        if at > 0:
            pair[lane, at - 1] = neighbor_similarity[position]
    return n_pool
