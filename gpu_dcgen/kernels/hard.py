"""Row kernel that mines hard negatives: one row is one positive (D13)."""

from __future__ import annotations

import math

import numba
import numpy as np

from ..rng import below, draw, fold
from . import row_kernel
from .draws import draw_from_corpus, first_not_before, owns, siblings

SOURCES = ("item_cf", "collaborative", "category_crossing", "fallback")
_ITEM_CF, _COLLABORATIVE, _CATEGORY_CROSSING, _FALLBACK = 0, 1, 2, 3
_DEAD = -(1 << 62)
_ONE = 65536  # 1.0 in 16-bit fixed point

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
    _N_HARD,
    _OWN_CAP,
    _TOP_K,
    _BUYERS,
    _BUYER_ITEMS,
    _BUYER_WINDOW,
    _DRAWS,
    _W_SIM,
    _W_CO,
    _W_PRICE,
    _W_POP,
    _W_DIVERSITY,
    _TABLE_MASK,
    _BY_PERCENTILE,
) = range(len(LIMITS))


@numba.njit(cache=True)
def rounded(x):
    """x >= 0 rounded to the nearest integer, halves to even, in exact operations."""
    whole = math.floor(x)
    rest = x - whole
    n = np.int64(whole)
    if rest > 0.5 or (rest == 0.5 and n & 1):
        n += 1
    return n


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
            pool[lane, 4, n_pool] = _FALLBACK  # source
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
def _offer_collaborative(
    lane, u, i, t, on_sale, limits, time, item, user_offsets, item_offsets, buyer_row, buyer_user, buyer_time, buyers, table, pool
):
    """Pool what the latest other buyers of i bought in the days before t; returns the pool's size."""
    n_pool, n_buyers = 0, 0
    position = first_not_before(buyer_time, item_offsets[i], item_offsets[i + 1], t) - 1
    while position >= item_offsets[i] and n_buyers < limits[_BUYERS]:
        buyer = buyer_user[position]
        known = buyer == u
        for b in range(n_buyers):
            if buyers[lane, b] == buyer:
                known = True
                break
        if not known:
            buyers[lane, n_buyers] = buyer
            stop = first_not_before(time, buyer_row[position], user_offsets[buyer + 1], t)
            for row in range(max(user_offsets[buyer], stop - limits[_BUYER_ITEMS]), stop):
                j = item[row]
                if j != i and time[row] >= t - limits[_BUYER_WINDOW] and on_sale[j]:
                    candidate = _offer(j, lane, n_pool, limits[_TABLE_MASK], table, pool)
                    n_pool = max(n_pool, candidate + 1)
                    pool[lane, 4, candidate] = _COLLABORATIVE
                    if pool[lane, 3, candidate] != n_buyers:
                        pool[lane, 3, candidate] = n_buyers
                        pool[lane, 2, candidate] += 1
            n_buyers += 1
        position -= 1
    return n_pool


@numba.njit(cache=True)
def _offer_crossing(lane, n_pool, key, group, category, n_groups, limits, first, cells, cell_offsets, table, pool):
    """Pool seeded draws from the items on sale in the price category and another product group."""
    base = (category + 1) * (n_groups + 1)
    low, high = cell_offsets[base], cell_offsets[base + n_groups + 1]
    own, own_stop = cell_offsets[base + group + 1], cell_offsets[base + group + 2]
    n_others = (high - low) - (own_stop - own)
    if n_others > 0:
        for counter in range(limits[_DRAWS]):
            position = low + below(draw(key, counter), n_others)
            if position >= own:
                position += own_stop - own
            candidate = _offer(cells[first + position], lane, n_pool, limits[_TABLE_MASK], table, pool)
            n_pool = max(n_pool, candidate + 1)
            if pool[lane, 4, candidate] > _CATEGORY_CROSSING:
                pool[lane, 4, candidate] = _CATEGORY_CROSSING
    return n_pool


@numba.njit(cache=True)
def _offer_neighbors(lane, n_pool, start, stop, on_sale, limits, bounds, neighbor_item, neighbor_similarity, table, pool, pair):
    """Pool the neighbors in the band, and note the similarity of every pooled item that is a neighbor."""
    for candidate in range(n_pool):
        pair[lane, candidate] = -1.0
    n_band = 0
    low, high = bounds[2] * (stop - start), bounds[3] * (stop - start)
    for position in range(start, stop):
        j, similarity = neighbor_item[position], neighbor_similarity[position]
        if limits[_BY_PERCENTILE]:
            rank = position - start
            in_band = math.floor(low) <= rank < math.floor(high)
        else:
            in_band = bounds[0] < similarity <= bounds[1]
        if in_band and n_band < limits[_TOP_K]:
            n_band += 1
            if on_sale[j]:
                candidate = _offer(j, lane, n_pool, limits[_TABLE_MASK], table, pool)
                n_pool = max(n_pool, candidate + 1)
                pool[lane, 4, candidate] = _ITEM_CF
                pair[lane, candidate] = similarity
        else:
            candidate = _find(j, lane, limits[_TABLE_MASK], table, pool)
            if candidate >= 0:
                pair[lane, candidate] = similarity
    return n_pool


@numba.njit(cache=True)
def _fixed_price(price):
    return rounded(np.float64(price) * _ONE) if price == price else np.int64(-1)


@numba.njit(cache=True)
def _score_pool(lane, n_pool, i, limits, popularity, price, pool, pair, score):
    mine = _fixed_price(price[i])
    for candidate in range(n_pool):
        j = pool[lane, 0, candidate]
        theirs = _fixed_price(price[j])
        near = _ONE // 2 if mine < 0 or theirs < 0 else _ONE - abs(mine - theirs)
        similar = rounded(np.float64(pair[lane, candidate]) * _ONE) if pair[lane, candidate] > 0 else np.int64(0)
        score[lane, candidate] = (
            limits[_W_SIM] * similar
            + limits[_W_CO] * (min(np.int64(8), np.int64(pool[lane, 2, candidate])) << 13)
            + limits[_W_PRICE] * near
            - limits[_W_POP] * rounded(np.float64(popularity[j]) * _ONE)
        )


@numba.njit(cache=True)
def _best(lane, n_pool, skipped_group, group, pool, score):
    """The pool's best living candidate outside one group (-2: none skipped), smaller item on ties; -1 when there is none."""
    best = -1
    for candidate in range(n_pool):
        value = score[lane, candidate]
        if value > _DEAD and (best < 0 or value >= score[lane, best]):
            j = pool[lane, 0, candidate]
            if group[j] != skipped_group and (best < 0 or value > score[lane, best] or j < pool[lane, 0, best]):
                best = candidate
    return best


@row_kernel(scratch=True)
def mine_hard(
    row,
    lane,
    fallback_key,
    crossing_key,
    limits,
    bounds,
    user,
    item,
    time,
    copy,
    snapshot,
    end,
    log_item,
    log_time,
    user_offsets,
    item_offsets,
    buyer_row,
    buyer_user,
    buyer_time,
    neighbor_offsets,
    neighbor_item,
    neighbor_similarity,
    corpus_offsets,
    corpus,
    cells,
    cell_offsets,
    on_sale,
    popularity,
    price,
    price_category,
    group,
    n_groups,
    product_code,
    owned_offsets,
    owned_item,
    owned_since,
    table,
    pool,
    pair,
    score,
    buyers,
    negatives,
    source,
    similarity,
    relaxed,
):
    """Choose the hard negatives of one positive: pool three sources, score, pick greedily for diversity (D13).

    Written: negatives[row, :n_hard] int32, source[row] int8 into SOURCES, similarity[row] float32 of the pair (-1 where
    it has none), relaxed[row] int32 picks beyond the cap on the own product group. Scratch, a row a lane: table (power
    of two), pool (5, width), pair, score, buyers; `table` is all zero between rows. Owned items and siblings are
    looked up only for candidates that would be chosen.
    """
    u, i, t, k = user[row], item[row], time[row], snapshot[row]
    n_hard = limits[_N_HARD]
    n_pool = _offer_collaborative(
        lane,
        u,
        i,
        t,
        on_sale[k],
        limits,
        log_time,
        log_item,
        user_offsets,
        item_offsets,
        buyer_row,
        buyer_user,
        buyer_time,
        buyers,
        table,
        pool,
    )
    key = fold(fold(fold(fold(crossing_key, u), i), t), copy[row])
    first = corpus_offsets[k]
    n_pool = _offer_crossing(
        lane, n_pool, key, group[i], price_category[k, i], n_groups, limits, first, cells, cell_offsets[k], table, pool
    )
    start, stop = neighbor_offsets[i], neighbor_offsets[i + 1]
    n_pool = _offer_neighbors(
        lane, n_pool, start, stop, on_sale[k], limits, bounds, neighbor_item, neighbor_similarity, table, pool, pair
    )
    _score_pool(lane, n_pool, i, limits, popularity[k], price[k], pool, pair, score)

    n_chosen, n_own, n_relaxed = 0, 0, 0
    while n_chosen < n_hard:
        capped = n_own >= limits[_OWN_CAP]
        best = _best(lane, n_pool, group[i] if capped else -2, group, pool, score)
        if best < 0 and capped:
            best = _best(lane, n_pool, -2, group, pool, score)
        if best < 0:
            break
        j = pool[lane, 0, best]
        score[lane, best] = _DEAD
        if siblings(product_code, i, j) or owns(u, j, end, owned_offsets, owned_item, owned_since):
            continue
        if group[j] == group[i]:
            n_relaxed += 1 if capped else 0
            n_own += 1
        for candidate in range(n_pool):
            if score[lane, candidate] > _DEAD and group[pool[lane, 0, candidate]] == group[j]:
                score[lane, candidate] -= limits[_W_DIVERSITY] * _ONE
        negatives[row, n_chosen] = j
        source[row, n_chosen] = pool[lane, 4, best]
        similarity[row, n_chosen] = pair[lane, best]
        n_chosen += 1
    relaxed[row] = n_relaxed
    for candidate in range(n_pool):
        table[lane, pool[lane, 1, candidate]] = 0

    if n_chosen < n_hard:
        key = fold(fold(fold(fold(fallback_key, u), i), t), copy[row])
        draw_from_corpus(
            n_chosen,
            n_hard,
            key,
            i,
            u,
            end,
            first,
            corpus_offsets[k + 1] - first,
            corpus,
            negatives[row],
            True,
            owned_offsets,
            owned_item,
            owned_since,
            product_code,
        )
        for slot in range(n_chosen, n_hard):
            source[row, slot] = _FALLBACK
            similarity[row, slot] = -1.0
            for position in range(start, stop):
                if neighbor_item[position] == negatives[row, slot]:
                    similarity[row, slot] = neighbor_similarity[position]
