"""Sources of candidates for hard negatives: what each offers to an item's pool (D13).

A row is a list of candidates; its lane's pool holds each item once. What is on sale comes as a
table of its own, (I,) bool: it is read for every purchase that is met, and stays in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .draws import is_owned
from .rng import below, draw, fold

SOURCES = ("item_cf", "collaborative", "viewed", "category_crossing", "fallback")
ITEM_CF, COLLABORATIVE, VIEWED, CATEGORY_CROSSING, FALLBACK = 0, 1, 2, 3, 4

# A candidate's state packs the first of SOURCES that offered it (2 bits: no candidate is of
# `fallback`), how many buyers bought or viewed it (14 bits), and the number of the last of those
# who bought it, from 1.
SOURCE_MASK, BUYER, BUYERS_SHIFT, BUYERS_MASK, LAST_SHIFT = 3, 1 << 2, 2, (1 << 14) - 1, 16

# What a snapshot knows of an item, besides whether it is on sale, packed into an int64, so that
# scoring a candidate takes one read: popularity in 0..FIXED_ONE, normalized price + 1 in the same
# units (0 unknown), product group + 1.
FIXED_ONE = 1 << 16  # 1.0 in the fixed point of weights, similarities, prices and popularity
PRICE_SHIFT, GROUP_SHIFT = 17, 34

_HASH = np.uint64(2654435761)  # 2^32 / the golden ratio: spreads neighboring numbers
_LOW = np.uint64(0xFFFFFFFF)


class CandidateSettings(NamedTuple):
    """The settings of candidates as numbers; weights in units of 1 / FIXED_ONE."""

    max_neighbors: int  # offered by item_cf
    max_buyers: int
    max_items_per_buyer: int
    max_views_per_buyer: int  # 0 where the log has no views
    n_category_draws: int
    similarity_weight: int
    collaborative_weight: int
    price_weight: int
    popularity_weight: int
    by_percentile: bool  # whether the band is of percentiles or of similarities
    band_first: int  # the band's percentiles as fractions of `band_denominator`
    band_last: int
    band_denominator: int
    similarity_above: float  # the band's similarities, rounded to float32 where they are compared
    similarity_up_to: float
    crossing_key: Any  # uint64  seeds the draws of category_crossing
    hash_shift: int  # 32 - log2 of `CandidatePools.slot`'s length


class Purchases(NamedTuple):
    """The purchases before a snapshot, as lists of candidates are made from them.

    All by item, and by user those of the last days.
    """

    item_start: Any  # (I,) int64  each item's first buyer in `buyer`
    item_stop: Any  # (I,) int64  behind its last buyer before the snapshot
    buyer: Any  # (E,) int32  users in (item, time, user) order
    recent_offsets: Any  # (U+1,) int64  each user's run in `recent_item`
    recent_item: Any  # (R,) int32  in (user, time, item) order


class RecentViews(NamedTuple):
    """What users viewed in the days before a snapshot: items on sale that they had not bought."""

    offsets: Any  # (U+1,) int64  each user's run in `item`
    item: Any  # (V,) int32  distinct, by the user's latest view, then item


class NeighborLists(NamedTuple):
    """Each item's neighbors by falling similarity, then rising item."""

    offsets: Any  # (I+1,) int64
    item: Any  # (E,) int32
    similarity: Any  # (E,) float32


class SnapshotTables(NamedTuple):
    """What each item snapshot knows of the items."""

    on_sale: Any  # (K, I) bool
    packed_features: Any  # (K, I) int64  popularity, price and product group (`GROUP_SHIFT`)
    price_category: Any  # (K, I) int8  0..3, -1 unknown


class CandidateTables(NamedTuple):
    """Everything that candidates at a snapshot are found in."""

    corpus: Any  # Corpus
    product_code: Any  # (I,) int32  items of one code are siblings; -1 unknown
    item_key: Any  # (I,) uint64  seeds draws
    purchases: Purchases
    views: RecentViews
    neighbors: NeighborLists
    snapshots: SnapshotTables


class CandidatePools(NamedTuple):
    """Scratch space, a lane each; a lane's part is the pool of one list.

    W candidates at most, B buyers at most, H a power of two of at least 2 W. `slot` is a hash
    table, zero between rows.
    """

    slot: Any  # (lanes, H) int32  number of a candidate + 1, 0 if free
    place: Any  # (lanes, W) int32  each candidate's slot; then the candidate of each key in `order`
    item: Any  # (lanes, W) int32
    state: Any  # (lanes, W) int32  packed as described above
    score: Any  # (lanes, W) int32
    rank: Any  # (lanes, W) int32  among the item's neighbors, -1 for none
    cosine: Any  # (lanes, W) float32  similarity with the item, 0 where they are not neighbors
    score_key: Any  # (lanes, W) int64  a key by falling score, then item
    order: Any  # (lanes, W) int64  keys of the candidates that are selected or sorted
    buyer_user: Any  # (lanes, B) int32


@kernel_helper
def select_lane(pools, lane):
    """Return a lane's part of the pools, every field with one dimension less."""
    return CandidatePools(
        pools.slot[lane],
        pools.place[lane],
        pools.item[lane],
        pools.state[lane],
        pools.score[lane],
        pools.rank[lane],
        pools.cosine[lane],
        pools.score_key[lane],
        pools.order[lane],
        pools.buyer_user[lane],
    )


@kernel_helper
def _find_slot(item, settings, pool):
    """Return the slot of an item, or the free slot where it belongs."""
    mask = np.uint64(pool.slot.shape[0] - 1)
    slot = ((np.uint64(item) * _HASH) & _LOW) >> np.uint64(settings.hash_shift)
    while pool.slot[slot] != 0 and pool.item[np.uint64(pool.slot[slot] - 1)] != item:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel_helper
def _offer(item, source, n_pool, settings, pool):
    """Return the number of an item in the pool; a new one is appended for `source`."""
    slot = _find_slot(item, settings, pool)
    if pool.slot[slot] != 0:
        return np.int64(pool.slot[slot]) - 1
    pool.slot[slot] = n_pool + 1
    pool.place[n_pool] = slot
    pool.item[n_pool] = item
    pool.state[n_pool] = source
    pool.rank[n_pool] = -1
    pool.cosine[n_pool] = np.float32(0.0)
    return np.int64(n_pool)


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
def _offer_neighbors(item, on_sale, neighbors, settings, pool):
    """Pool the first neighbors in the band; returns the size of the pool."""
    start, stop = neighbors.offsets[item], neighbors.offsets[item + 1]
    if settings.by_percentile:
        first = start + settings.band_first * (stop - start) // settings.band_denominator
        last = start + settings.band_last * (stop - start) // settings.band_denominator
    else:
        highest = np.float32(settings.similarity_up_to)
        lowest = np.float32(settings.similarity_above)
        first = _first_at_most(neighbors.similarity, start, stop, highest)
        last = _first_at_most(neighbors.similarity, first, stop, lowest)
    n_pool = 0
    for position in range(first, min(last, first + settings.max_neighbors)):
        j = neighbors.item[position]
        if on_sale[j]:
            candidate = _offer(j, ITEM_CF, n_pool, settings, pool)
            n_pool = max(n_pool, candidate + 1)
    return n_pool


@kernel_helper
def _find_buyers(item, purchases, settings, pool):
    """Note the latest buyers of the item before the snapshot; returns their number."""
    first, position = purchases.item_start[item], purchases.item_stop[item] - 1
    n_buyers = 0
    while position >= first and n_buyers < settings.max_buyers:
        buyer = purchases.buyer[position]
        is_known = False
        for b in range(n_buyers):  # to the end, so that the loop vectorizes
            is_known |= pool.buyer_user[b] == buyer
        if not is_known:
            pool.buyer_user[n_buyers] = buyer
            n_buyers += 1
        position -= 1
    return n_buyers


@kernel_helper
def _offer_collaborative(item, n_buyers, n_pool, on_sale, purchases, settings, pool):
    """Pool what the latest buyers of the item bought in the days before the snapshot."""
    for b in range(n_buyers):
        buyer = pool.buyer_user[b]
        first, stop = purchases.recent_offsets[buyer], purchases.recent_offsets[buyer + 1]
        for position in range(max(first, stop - settings.max_items_per_buyer), stop):
            j = purchases.recent_item[position]
            if j != item and on_sale[j]:
                candidate = _offer(j, COLLABORATIVE, n_pool, settings, pool)
                n_pool = max(n_pool, candidate + 1)
                state = pool.state[candidate]
                if state >> LAST_SHIFT != b + 1:
                    counted = (state & ((1 << LAST_SHIFT) - 1)) | ((b + 1) << LAST_SHIFT)
                    pool.state[candidate] = counted + BUYER
    return n_pool


@kernel_helper
def _offer_viewed(n_buyers, n_pool, views, settings, pool):
    """Pool what the latest buyers of the item viewed in those days and had not bought.

    A buyer names no item twice, and none that the same buyer offered by a purchase.
    """
    for b in range(n_buyers):
        buyer = pool.buyer_user[b]
        first, stop = views.offsets[buyer], views.offsets[buyer + 1]
        for position in range(max(first, stop - settings.max_views_per_buyer), stop):
            candidate = _offer(views.item[position], VIEWED, n_pool, settings, pool)
            n_pool = max(n_pool, candidate + 1)
            pool.state[candidate] += BUYER
    return n_pool


@kernel_helper
def _offer_crossing(item, k, n_pool, tables, settings, pool):
    """Pool draws from the items on sale in the price category and another product group."""
    corpus = tables.corpus
    group = tables.snapshots.packed_features[k, item] >> GROUP_SHIFT  # + 1
    category, n_groups = tables.snapshots.price_category[k, item] + 1, corpus.n_groups + 1
    first, offsets = corpus.offsets[k], corpus.cell_offsets[k]
    low, high = offsets[category * n_groups], offsets[(category + 1) * n_groups]
    own, own_stop = offsets[category * n_groups + group], offsets[category * n_groups + group + 1]
    n_others = (high - low) - (own_stop - own)
    if n_others > 0:
        key = fold(fold(settings.crossing_key, tables.item_key[item]), k)
        for counter in range(settings.n_category_draws):
            position = low + below(draw(key, counter), n_others)
            position += own_stop - own if position >= own else 0
            j = corpus.cell_item[first + position]
            candidate = _offer(j, CATEGORY_CROSSING, n_pool, settings, pool)
            n_pool = max(n_pool, candidate + 1)
    return n_pool


@kernel_helper
def _note_ranks(item, neighbors, settings, pool):
    """Note the rank of every pooled neighbor, in the band or not."""
    start, stop = np.uint64(neighbors.offsets[item]), np.uint64(neighbors.offsets[item + 1])
    for position in range(start, stop):
        slot = _find_slot(neighbors.item[position], settings, pool)
        if pool.slot[slot] != 0:
            candidate = np.uint64(pool.slot[slot] - 1)
            pool.rank[candidate] = position - start
            pool.cosine[candidate] = neighbors.similarity[position]


@kernel_helper
def pool_candidates(item, k, tables, settings, pool):
    """Pool what all sources offer for an item at snapshot k; returns the number of candidates."""
    on_sale, purchases = tables.snapshots.on_sale[k], tables.purchases
    n_pool = _offer_neighbors(item, on_sale, tables.neighbors, settings, pool)
    n_buyers = _find_buyers(item, purchases, settings, pool)
    n_pool = _offer_collaborative(item, n_buyers, n_pool, on_sale, purchases, settings, pool)
    if settings.max_views_per_buyer > 0:
        n_pool = _offer_viewed(n_buyers, n_pool, tables.views, settings, pool)
    n_pool = _offer_crossing(item, k, n_pool, tables, settings, pool)
    _note_ranks(item, tables.neighbors, settings, pool)
    for candidate in range(np.uint64(n_pool)):
        pool.slot[np.uint64(pool.place[candidate])] = 0
    return n_pool


@row_kernel
def mark_open_views(row, user, item, instant, on_sale, ownership, is_open):
    """Mark views of items on sale that their user had not bought before `instant` (ns)."""
    j = item[row]
    is_open[row] = on_sale[j] and not is_owned(user[row], j, instant, ownership)
