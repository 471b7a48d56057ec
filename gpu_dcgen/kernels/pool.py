"""The candidate pool of a positive: three sources of hard negatives, each item once (D13).

Each offer adds items of one source to a lane's `CandidatePools` and returns the size of the pool.
What is on sale comes as a table of its own, (I,) bool: it is read for every purchase that is met,
and stays in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper
from .draws import first_not_before, fold_positive, gallop
from .rng import below, draw

SOURCES = ("item_cf", "collaborative", "category_crossing", "fallback")
ITEM_CF, COLLABORATIVE, CATEGORY_CROSSING, FALLBACK = 0, 1, 2, 3
FIXED_ONE = 1 << 16  # 1.0 in the fixed point of weights and scores

# A candidate's state packs the first of SOURCES that offered it (2 bits), how many buyers bought
# it (14 bits), and the number of the last of these buyers, from 1.
SOURCE_MASK, BUYER, BUYERS_SHIFT, BUYERS_MASK, LAST_SHIFT = 3, 1 << 2, 2, (1 << 14) - 1, 16

# What a snapshot knows of an item, besides whether it is on sale, packed into an int64, so that
# scoring a candidate takes one read: popularity in 0..FIXED_ONE, normalized price + 1 in the same
# units (0 unknown), product group + 1.
PRICE_SHIFT, GROUP_SHIFT = 17, 34
PART_MASK = (1 << 17) - 1

# A time-item key is the rank of a purchase's time among all times, above its item.
RANK_SHIFT, ITEM_MASK = 32, (1 << 32) - 1

# Steps walked before they double: the median number of a buyer's later purchases is 4.
_N_SINGLE_STEPS = 6
MAX_COUNTED_ROWS = 255  # rows of a user before and after a purchase are counted up to this


class MiningSettings(NamedTuple):
    """The settings of hard negatives as numbers; weights in units of 1 / FIXED_ONE."""

    n_hard: int
    max_own_group: int  # hard negatives of the positive's own product group
    max_neighbors: int  # offered by item_cf
    max_buyers: int
    max_items_per_buyer: int
    n_category_draws: int
    similarity_weight: int
    collaborative_weight: int
    price_weight: int
    popularity_weight: int
    diversity_weight: int
    by_percentile: bool  # whether the band is of percentiles or of similarities
    band_first: int  # the band's percentiles as fractions of `band_denominator`
    band_last: int
    band_denominator: int
    similarity_above: float  # the band's similarities, rounded to float32 where they are compared
    similarity_up_to: float
    crossing_key: Any  # uint64  seeds the draws of category_crossing
    fallback_key: Any  # uint64  seeds the draws that fill up


class CandidatePools(NamedTuple):
    """Scratch space of mining, a lane each; a lane's part is the pool of one positive.

    I items, W candidates at most, B buyers at most. `position` is zero between rows.
    """

    position: Any  # (lanes, I) int16  an item's position in the pool + 1, 0 if not pooled
    item: Any  # (lanes, W) int32  of each candidate
    state: Any  # (lanes, W) int32  packed as described above
    group: Any  # (lanes, W) int32  product group
    score: Any  # (lanes, W) int64
    # (lanes, W + 1) float32  with the positive, -1 for none; the last cell takes what is written
    # of items that are not candidates
    similarity: Any
    buyer_user: Any  # (lanes, B + 1) int32
    buyer_position: Any  # (lanes, B + 1) int32  in the item's run of buyers


@kernel_helper
def select_lane(pools, lane):
    """Return a lane's part of the pools, every field with one dimension less."""
    return CandidatePools(
        pools.position[lane],
        pools.item[lane],
        pools.state[lane],
        pools.group[lane],
        pools.score[lane],
        pools.similarity[lane],
        pools.buyer_user[lane],
        pools.buyer_position[lane],
    )


@kernel_helper
def pool_candidates(row, rows, on_sale, tables, settings, pool):
    """Pool what the three sources offer a positive; returns the number of candidates."""
    positives = rows.positives
    item, k = positives.item[row], positives.snapshot[row]
    n_pool = offer_collaborative(row, rows, on_sale, tables.purchases, settings, pool)
    key = fold_positive(settings.crossing_key, row, positives)
    group = (tables.snapshots.packed_features[k, item] >> GROUP_SHIFT) - 1
    cell = (
        tables.snapshots.price_category[k, item] + 1,
        group + 1,
        tables.draws.corpus.n_groups + 1,
    )
    n_pool = offer_crossing(n_pool, key, k, cell, tables.draws.corpus, settings, pool)
    return offer_neighbors(n_pool, item, on_sale, tables.neighbors, settings, pool)


@kernel_helper
def _offer(item, source, n_pool, pool):
    """Return the position of an item in the pool; a new one is appended for `source`."""
    item = np.uint32(item)
    position = np.int64(pool.position[item])
    candidate = np.uint64(position - 1 if position > 0 else n_pool)
    # Read in any case: choosing between values needs no branch, which would be mispredicted.
    state = pool.state[candidate]
    pool.position[item] = candidate + 1
    pool.item[candidate] = item
    pool.state[candidate] = state if position > 0 else np.int32(source)
    return np.int64(candidate)


@kernel_helper
def _last_before(times, first, position, time):
    """Return the last position in first..position with times[...] < time, else first - 1.

    It is expected near `position`.
    """
    step = 1
    while position - step >= first and times[position - step] >= time:
        step *= 2
    return first_not_before(times, max(first, position - step), position, time) - 1


@kernel_helper
def _scan(keys, start, stop, key):
    """Search like `first_not_before`, for a position that is mostly a few steps from `start`.

    Fewer branches are mispredicted than by `gallop`.
    """
    near = min(stop, start + _N_SINGLE_STEPS)
    while start < near and keys[np.uint64(start)] < key:
        start += 1
    return start if start < near else gallop(keys, start, stop, key)


@kernel_helper
def _find_buyers(row, rows, purchases, settings, pool):
    """Note the latest other buyers of the positive's item before it; returns their number."""
    user, item = rows.positives.user[row], rows.positives.item[row]
    buyer_user, first = purchases.buyer_user, purchases.item_offsets[item]
    n_buyers, rank = 0, rows.before[row] >> RANK_SHIFT
    position = _last_before(purchases.buyer_time_rank, first, rows.position[row], rank)
    while position >= first and n_buyers < settings.max_buyers:
        buyer = buyer_user[position]
        is_known = buyer == user
        for b in range(n_buyers):  # to the end, so that the loop vectorizes
            is_known |= pool.buyer_user[b] == buyer
        if not is_known:
            pool.buyer_user[n_buyers] = buyer
            pool.buyer_position[n_buyers] = position - first
            n_buyers += 1
        position -= 1
    return n_buyers


@kernel_helper
def offer_collaborative(row, rows, on_sale, purchases, settings, pool):
    """Pool what the latest other buyers of the positive's item bought in its window."""
    item, since, before = rows.positives.item[row], rows.since[row], rows.before[row]
    keys, first = purchases.time_item_key, purchases.item_offsets[item]
    n_buyers = _find_buyers(row, rows, purchases, settings, pool)

    # Their purchases are far apart in memory. Reading of each first has the reads overlap; the
    # sum is stored, so that the compiler keeps them.
    touched = np.int64(0)
    for b in range(n_buyers):
        at = purchases.buyer_row[first + pool.buyer_position[b]]
        touched ^= keys[at] ^ keys[min(at + _N_SINGLE_STEPS, keys.shape[0] - 1)]
    pool.buyer_position[n_buyers] = touched & 1

    n_pool = 0
    for b in range(n_buyers):
        position = first + pool.buyer_position[b]
        at, n_after = purchases.buyer_row[position], np.int64(purchases.n_rows_after[position])
        is_counted = n_after < MAX_COUNTED_ROWS
        end = at + n_after if is_counted else purchases.user_offsets[pool.buyer_user[b] + 1]
        last = _scan(keys, at, end, before) - 1
        lowest = max(
            at - purchases.n_rows_before[position], last + 1 - settings.max_items_per_buyer
        )
        while last >= lowest and keys[np.uint64(last)] >= since:
            j = np.uint32(keys[np.uint64(last)] & ITEM_MASK)
            if j != item and on_sale[j]:
                candidate = _offer(j, COLLABORATIVE, n_pool, pool)
                n_pool = max(n_pool, candidate + 1)
                state = pool.state[candidate]
                counted = ((state & ((1 << LAST_SHIFT) - 1)) | ((b + 1) << LAST_SHIFT)) + BUYER
                pool.state[candidate] = state if state >> LAST_SHIFT == b + 1 else counted
            last -= 1
    return n_pool


@kernel_helper
def offer_crossing(n_pool, key, snapshot, cell, corpus, settings, pool):
    """Pool draws from the items on sale in the price category and another product group.

    `cell`: price category + 1, product group + 1, the number of product groups + 1.
    """
    category, group, n_groups = cell
    first, offsets = corpus.offsets[snapshot], corpus.cell_offsets[snapshot]
    low, high = offsets[category * n_groups], offsets[(category + 1) * n_groups]
    own, own_stop = offsets[category * n_groups + group], offsets[category * n_groups + group + 1]
    n_others = (high - low) - (own_stop - own)
    if n_others > 0:
        for counter in range(settings.n_category_draws):
            position = low + below(draw(key, counter), n_others)
            position += own_stop - own if position >= own else 0
            item = corpus.cell_item[first + position]
            candidate = _offer(item, CATEGORY_CROSSING, n_pool, pool)
            n_pool = max(n_pool, candidate + 1)
    return n_pool


@kernel_helper
def _first_at_most(similarity, low, high, bound):
    """Return the first position in low..high with similarity <= bound; they fall there."""
    while low < high:
        middle = (low + high) >> 1
        if similarity[middle] > bound:
            low = middle + 1
        else:
            high = middle
    return low


@kernel_helper
def offer_neighbors(n_pool, item, on_sale, neighbors, settings, pool):
    """Pool the first neighbors in the band; note the similarity of every pooled neighbor."""
    start, stop = neighbors.offsets[item], neighbors.offsets[item + 1]
    if settings.by_percentile:
        first = start + settings.band_first * (stop - start) // settings.band_denominator
        last = start + settings.band_last * (stop - start) // settings.band_denominator
    else:
        highest = np.float32(settings.similarity_up_to)
        lowest = np.float32(settings.similarity_above)
        first = _first_at_most(neighbors.similarity, start, stop, highest)
        last = _first_at_most(neighbors.similarity, first, stop, lowest)
    for position in range(first, min(last, first + settings.max_neighbors)):
        j = np.uint32(neighbors.item[position])
        if on_sale[j]:
            candidate = _offer(j, ITEM_CF, n_pool, pool)
            n_pool = max(n_pool, candidate + 1)
            pool.state[candidate] &= ~SOURCE_MASK  # ITEM_CF is 0
    for candidate in range(n_pool):
        pool.similarity[candidate] = -1.0
    items, similarities = neighbors.item[start:stop], neighbors.similarity[start:stop]
    spare = len(pool.similarity) - 1
    for position in range(len(items)):  # without a branch: what is not pooled goes to the spare
        pooled = np.int64(pool.position[np.uint32(items[position])])
        candidate = np.uint64(pooled - 1 if pooled > 0 else spare)
        pool.similarity[candidate] = similarities[position]
    return n_pool
