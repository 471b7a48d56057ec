"""Row kernel that mines hard negatives: one row is one positive (D13)."""

from __future__ import annotations

import numba
import numpy as np

from . import row_kernel
from .draws import draw_from_corpus, owns, siblings
from .pool import (
    BUYERS_MASK,
    BUYERS_SHIFT,
    FALLBACK,
    FIXED_ONE,
    GROUP,
    GROUP_SHIFT,
    ITEM,
    N_HARD,
    OWN_CAP,
    PART_MASK,
    PRICE_SHIFT,
    SOURCE_MASK,
    STATE,
    W_CO,
    W_DIVERSITY,
    W_POP,
    W_PRICE,
    W_SIM,
    offer_collaborative,
    offer_crossing,
    offer_neighbors,
)
from .rng import fold

_ENOUGH_BUYERS = 8  # more buyers who brought a candidate in add nothing to its score
_NO_FRACTION = 4503599627370496.0  # 2^52: a float64 this large holds whole numbers only
_BEYOND_CAP = 1 << 50  # taken off scores that may be chosen only when no others are left
_DEAD = -(1 << 62)
_NO_ITEM = (1 << 31) - 1  # above every item


@numba.njit(cache=True)
def rounded(x):
    """x in 0..2^51 rounded to the nearest integer, halves to even: addition rounds, and both steps are single operations."""
    return np.int64((x + _NO_FRACTION) - _NO_FRACTION)


@numba.njit(cache=True)
def _score_pool(n_pool, i, limits, facts, pool, pair, score):
    mine = (facts[i] >> PRICE_SHIFT) & PART_MASK
    for candidate in range(n_pool):
        known = facts[np.uint32(pool[ITEM, candidate])]
        pool[GROUP, candidate] = (known >> GROUP_SHIFT) - 1
        theirs = (known >> PRICE_SHIFT) & PART_MASK
        near = FIXED_ONE // 2 if mine == 0 or theirs == 0 else FIXED_ONE - abs(mine - theirs)
        similar = (
            rounded(np.float64(pair[candidate]) * FIXED_ONE) if pair[candidate] > 0 else np.int64(0)
        )
        n_buyers = min(
            np.int64(_ENOUGH_BUYERS),
            np.int64((pool[STATE, candidate] >> BUYERS_SHIFT) & BUYERS_MASK),
        )
        score[candidate] = (
            limits[W_SIM] * similar
            + limits[W_CO] * n_buyers * (FIXED_ONE // _ENOUGH_BUYERS)
            + limits[W_PRICE] * near
            - limits[W_POP] * (known & PART_MASK)
        )


@numba.njit(cache=True)
def _best(items, scores, n_pool):
    """The item of the highest score, the smallest on ties; _NO_ITEM when all are dead. Two passes that vectorize."""
    highest = _DEAD >> 1
    for candidate in range(n_pool):
        highest = max(highest, scores[candidate])
    best = np.int32(_NO_ITEM)
    for candidate in range(n_pool):
        best = min(best, items[candidate] if scores[candidate] == highest else np.int32(_NO_ITEM))
    return best


@numba.njit(cache=True)
def _lower(groups, scores, n_pool, group, by):
    for candidate in range(n_pool):
        scores[candidate] -= by if groups[candidate] == group else 0


@row_kernel(scratch=True)
def mine_hard(
    turn,
    lane,
    order,
    fallback_key,
    crossing_key,
    limits,
    bounds,
    user_key,
    item_key,
    user,
    item,
    time,
    copy,
    snapshot,
    end,
    moment,
    since,
    position,
    moments,
    user_offsets,
    item_offsets,
    buyer_row,
    buyer_user,
    buyer_rank,
    buyer_before,
    buyer_after,
    neighbor_offsets,
    neighbor_item,
    neighbor_similarity,
    corpus_offsets,
    corpus,
    cells,
    cell_offsets,
    on_sale,
    facts,
    price_category,
    n_groups,
    product_code,
    owned_offsets,
    owned_item,
    owned_since,
    places,
    pools,
    pairs,
    scores,
    buyers,
    negatives,
    source,
    similarity,
    relaxed,
):
    """Choose the hard negatives of one positive: pool three sources, score, pick greedily for diversity (D13).

    `order` (n,) int64 says which row is whose turn: any permutation gives the same negatives.
    Written: negatives[row, :n_hard] int32, source[row] int8 into SOURCES, similarity[row] float32 of the pair (-1 where
    it has none), relaxed[row] int32 picks beyond the cap on the own product group. Scratch, a row a lane: places, pools,
    pairs, scores, buyers; `places` is all zero between rows. Owned items and siblings are looked up only for candidates
    that would be chosen.
    """
    row = order[turn]
    u, i, t, k = user[row], item[row], time[row], snapshot[row]
    n_hard, known = limits[N_HARD], facts[k]
    place, pool, pair, score = places[lane], pools[lane], pairs[lane], scores[lane]
    own_group = (known[i] >> GROUP_SHIFT) - 1
    n_pool = offer_collaborative(
        u,
        i,
        moment[row],
        since[row],
        position[row],
        on_sale[k],
        limits,
        moments,
        user_offsets,
        item_offsets,
        buyer_row,
        buyer_user,
        buyer_rank,
        buyer_before,
        buyer_after,
        buyers[lane],
        place,
        pool,
    )
    key = fold(fold(fold(fold(crossing_key, user_key[row]), item_key[row]), t), copy[row])
    first = corpus_offsets[k]
    n_pool = offer_crossing(
        n_pool,
        key,
        own_group,
        price_category[k, i],
        n_groups,
        limits,
        first,
        cells,
        cell_offsets[k],
        place,
        pool,
    )
    start, stop = neighbor_offsets[i], neighbor_offsets[i + 1]
    n_pool = offer_neighbors(
        n_pool,
        start,
        stop,
        on_sale[k],
        limits,
        bounds,
        neighbor_item,
        neighbor_similarity,
        place,
        pool,
        pair,
    )
    _score_pool(n_pool, i, limits, known, pool, pair, score)

    items, groups = pool[ITEM], pool[GROUP]
    n_chosen, n_own, n_relaxed = 0, 0, 0
    if limits[OWN_CAP] == 0:
        _lower(groups, score, n_pool, own_group, _BEYOND_CAP)
    while n_chosen < n_hard:
        j = _best(items, score, n_pool)
        if j == _NO_ITEM:
            break
        best = np.int64(place[j]) - 1
        beyond_cap = score[best] < -(_BEYOND_CAP >> 1)
        score[best] = _DEAD
        if siblings(product_code, i, j) or owns(u, j, end, owned_offsets, owned_item, owned_since):
            continue
        _lower(groups, score, n_pool, groups[best], limits[W_DIVERSITY] * FIXED_ONE)
        if groups[best] == own_group:
            n_own += 1
            n_relaxed += 1 if beyond_cap else 0
            if n_own == limits[OWN_CAP]:
                _lower(groups, score, n_pool, own_group, _BEYOND_CAP)
        negatives[row, n_chosen] = j
        source[row, n_chosen] = pool[STATE, best] & SOURCE_MASK
        similarity[row, n_chosen] = pair[best]
        n_chosen += 1
    relaxed[row] = n_relaxed
    for candidate in range(n_pool):
        place[items[candidate]] = 0

    if n_chosen < n_hard:
        key = fold(fold(fold(fold(fallback_key, user_key[row]), item_key[row]), t), copy[row])
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
            source[row, slot] = FALLBACK
            similarity[row, slot] = -1.0
            for position in range(start, stop):
                if neighbor_item[position] == negatives[row, slot]:
                    similarity[row, slot] = neighbor_similarity[position]
