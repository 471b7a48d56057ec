"""The candidate pool of one positive: three sources of hard negatives, each item once (D13).

A pool lives in one lane of scratch: `pool` (lanes, 6, width) int32 holds, by candidate, its item, its cell in `table`, the
buyers who brought it in, the last of them, the first of SOURCES that offered it, and its product group;
`table` (lanes, power of two) int32 finds candidates by item, as position + 1. Every offer returns the pool's size.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from ..rng import below, draw
from .draws import first_not_before, gallop

SOURCES = ("item_cf", "collaborative", "category_crossing", "fallback")
ITEM_CF, COLLABORATIVE, CATEGORY_CROSSING, FALLBACK = 0, 1, 2, 3

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
    "table_mask",
    "by_percentile",
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
    TABLE_MASK,
    BY_PERCENTILE,
) = range(len(LIMITS))


@numba.njit(cache=True)
def _offer(j, lane, n_pool, mask, table, pool):
    """Position of item j in the lane's pool, appended if new (`pool[lane, 0]` holds items)."""
    h = ((np.int64(j) * 2654435761) >> 15) & mask
    while True:
        position = table[lane, h] - 1
        if position < 0:
            table[lane, h] = n_pool + 1
            pool[lane, 0, n_pool] = j
            pool[lane, 1, n_pool] = h
            pool[lane, 2, n_pool] = 0  # buyers who brought it in
            pool[lane, 3, n_pool] = -1  # the last of them
            pool[lane, 4, n_pool] = FALLBACK  # source
            return n_pool
        if pool[lane, 0, position] == j:
            return position
        h = (h + 1) & mask


@numba.njit(cache=True)
def _find(j, lane, mask, table, pool):
    h = ((np.int64(j) * 2654435761) >> 15) & mask
    while True:
        position = table[lane, h] - 1
        if position < 0 or pool[lane, 0, position] == j:
            return position
        h = (h + 1) & mask


@numba.njit(cache=True)
def offer_collaborative(
    lane, u, i, t, on_sale, limits, time, item, user_offsets, item_offsets, buyer_row, buyer_user, buyer_time, buyers, table, pool
):
    """Pool what the latest other buyers of i bought in the days before t; returns the pool's size."""
    n_pool, n_buyers = 0, 0
    position = first_not_before(buyer_time, item_offsets[i], item_offsets[i + 1], t) - 1
    while position >= item_offsets[i] and n_buyers < limits[BUYERS]:
        buyer = buyer_user[position]
        known = buyer == u
        for b in range(n_buyers):
            if buyers[lane, b] == buyer:
                known = True
                break
        if not known:
            buyers[lane, n_buyers] = buyer
            stop = gallop(time, buyer_row[position], user_offsets[buyer + 1], t)
            for row in range(max(user_offsets[buyer], stop - limits[BUYER_ITEMS]), stop):
                j = item[row]
                if j != i and time[row] >= t - limits[BUYER_WINDOW] and on_sale[j]:
                    candidate = _offer(j, lane, n_pool, limits[TABLE_MASK], table, pool)
                    n_pool = max(n_pool, candidate + 1)
                    pool[lane, 4, candidate] = COLLABORATIVE
                    if pool[lane, 3, candidate] != n_buyers:
                        pool[lane, 3, candidate] = n_buyers
                        pool[lane, 2, candidate] += 1
            n_buyers += 1
        position -= 1
    return n_pool


@numba.njit(cache=True)
def offer_crossing(lane, n_pool, key, group, category, n_groups, limits, first, cells, cell_offsets, table, pool):
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
            candidate = _offer(cells[first + position], lane, n_pool, limits[TABLE_MASK], table, pool)
            n_pool = max(n_pool, candidate + 1)
            if pool[lane, 4, candidate] > CATEGORY_CROSSING:
                pool[lane, 4, candidate] = CATEGORY_CROSSING
    return n_pool


@numba.njit(cache=True)
def offer_neighbors(lane, n_pool, start, stop, on_sale, limits, bounds, neighbor_item, neighbor_similarity, table, pool, pair):
    """Pool the neighbors in the band, and note the similarity of every pooled item that is a neighbor."""
    for candidate in range(n_pool):
        pair[lane, candidate] = -1.0
    n_band = 0
    low, high = bounds[2] * (stop - start), bounds[3] * (stop - start)
    for position in range(start, stop):
        j, similarity = neighbor_item[position], neighbor_similarity[position]
        if limits[BY_PERCENTILE]:
            rank = position - start
            in_band = math.floor(low) <= rank < math.floor(high)
        else:
            in_band = bounds[0] < similarity <= bounds[1]
        if in_band and n_band < limits[TOP_K]:
            n_band += 1
            if on_sale[j]:
                candidate = _offer(j, lane, n_pool, limits[TABLE_MASK], table, pool)
                n_pool = max(n_pool, candidate + 1)
                pool[lane, 4, candidate] = ITEM_CF
                pair[lane, candidate] = similarity
        else:
            candidate = _find(j, lane, limits[TABLE_MASK], table, pool)
            if candidate >= 0:
                pair[lane, candidate] = similarity
    return n_pool
