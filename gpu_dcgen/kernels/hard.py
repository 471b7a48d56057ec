"""Row kernel that mines hard negatives: one row is one positive (D13)."""

from __future__ import annotations

import math

import numba
import numpy as np

from ..rng import fold
from . import row_kernel
from .draws import draw_from_corpus, owns, siblings
from .pool import (
    FALLBACK,
    N_HARD,
    OWN_CAP,
    W_CO,
    W_DIVERSITY,
    W_POP,
    W_PRICE,
    W_SIM,
    offer_collaborative,
    offer_crossing,
    offer_neighbors,
)

_ONE = 65536  # 1.0 in 16-bit fixed point


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
            limits[W_SIM] * similar
            + limits[W_CO] * (min(np.int64(8), np.int64(pool[lane, 2, candidate])) << 13)
            + limits[W_PRICE] * near
            - limits[W_POP] * rounded(np.float64(popularity[j]) * _ONE)
        )


@numba.njit(cache=True)
def _before(lane, a, b, pool, score):
    """Whether candidate a is offered before b: the higher score, then the smaller item."""
    if score[lane, a] != score[lane, b]:
        return score[lane, a] > score[lane, b]
    return pool[lane, 0, a] < pool[lane, 0, b]


@numba.njit(cache=True)
def _sift(lane, at, n_heap, heap, pool, score):
    """Move the heap's entry at `at` down to its place."""
    moving = heap[lane, at]
    while 2 * at + 1 < n_heap:
        child = 2 * at + 1
        if child + 1 < n_heap and _before(lane, heap[lane, child + 1], heap[lane, child], pool, score):
            child += 1
        if not _before(lane, heap[lane, child], moving, pool, score):
            break
        heap[lane, at] = heap[lane, child]
        at = child
    heap[lane, at] = moving


@numba.njit(cache=True)
def _best(lane, n_ready, skipped_group, group, ready, pool, score):
    """Position in `ready` of the best candidate outside one group (-2: none skipped); -1 when there is none."""
    best = -1
    for position in range(n_ready):
        candidate = ready[lane, position]
        allowed = group[pool[lane, 0, candidate]] != skipped_group
        if allowed and (best < 0 or _before(lane, candidate, ready[lane, best], pool, score)):
            best = position
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
    heap,
    ready,
    negatives,
    source,
    similarity,
    relaxed,
):
    """Choose the hard negatives of one positive: pool three sources, score, pick greedily for diversity (D13).

    Written: negatives[row, :n_hard] int32, source[row] int8 into SOURCES, similarity[row] float32 of the pair (-1 where
    it has none), relaxed[row] int32 picks beyond the cap on the own product group. Scratch, a row a lane: table (power
    of two), pool (5, width), pair, score, buyers, heap, ready; `table` is all zero between rows. Owned items and siblings are
    looked up only for candidates that would be chosen.
    """
    u, i, t, k = user[row], item[row], time[row], snapshot[row]
    n_hard = limits[N_HARD]
    n_pool = offer_collaborative(
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
    n_pool = offer_crossing(
        lane, n_pool, key, group[i], price_category[k, i], n_groups, limits, first, cells, cell_offsets[k], table, pool
    )
    start, stop = neighbor_offsets[i], neighbor_offsets[i + 1]
    n_pool = offer_neighbors(
        lane, n_pool, start, stop, on_sale[k], limits, bounds, neighbor_item, neighbor_similarity, table, pool, pair
    )
    _score_pool(lane, n_pool, i, limits, popularity[k], price[k], pool, pair, score)

    # Scores only fall (by diversity), so a heap yields candidates in the order in which they can still be the best;
    # those that are free to be chosen wait in `ready` with their score of the moment.
    for candidate in range(n_pool):
        heap[lane, candidate] = candidate
    for at in range(n_pool // 2 - 1, -1, -1):
        _sift(lane, at, n_pool, heap, pool, score)
    n_heap, n_ready, n_chosen, n_own, n_relaxed = n_pool, 0, 0, 0, 0
    while n_chosen < n_hard:
        capped = n_own >= limits[OWN_CAP]
        skipped = group[i] if capped else -2
        best = _best(lane, n_ready, skipped, group, ready, pool, score)
        while n_heap > 0 and (best < 0 or _before(lane, heap[lane, 0], ready[lane, best], pool, score)):
            candidate = heap[lane, 0]
            n_heap -= 1
            heap[lane, 0] = heap[lane, n_heap]
            _sift(lane, 0, n_heap, heap, pool, score)
            j = pool[lane, 0, candidate]
            if siblings(product_code, i, j) or owns(u, j, end, owned_offsets, owned_item, owned_since):
                continue
            for slot in range(n_chosen):
                if group[negatives[row, slot]] == group[j]:
                    score[lane, candidate] -= limits[W_DIVERSITY] * _ONE
            ready[lane, n_ready] = candidate
            if group[j] != skipped and (best < 0 or _before(lane, candidate, ready[lane, best], pool, score)):
                best = n_ready
            n_ready += 1
        if best < 0 and capped:
            best = _best(lane, n_ready, -2, group, ready, pool, score)
        if best < 0:
            break
        candidate = ready[lane, best]
        n_ready -= 1
        ready[lane, best] = ready[lane, n_ready]
        j = pool[lane, 0, candidate]
        if group[j] == group[i]:
            n_relaxed += 1 if capped else 0
            n_own += 1
        for position in range(n_ready):
            if group[pool[lane, 0, ready[lane, position]]] == group[j]:
                score[lane, ready[lane, position]] -= limits[W_DIVERSITY] * _ONE
        negatives[row, n_chosen] = j
        source[row, n_chosen] = pool[lane, 4, candidate]
        similarity[row, n_chosen] = pair[lane, candidate]
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
            source[row, slot] = FALLBACK
            similarity[row, slot] = -1.0
            for position in range(start, stop):
                if neighbor_item[position] == negatives[row, slot]:
                    similarity[row, slot] = neighbor_similarity[position]
