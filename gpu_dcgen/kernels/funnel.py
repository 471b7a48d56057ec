"""Row kernel that says of one positive what became of each candidate for its hard negatives (D13): outside the hot path."""

from __future__ import annotations

import numba

from . import row_kernel
from .draws import owns, siblings
from .pool import (
    FALLBACK,
    GROUP_SHIFT,
    ITEM,
    N_HARD,
    OWN_CAP,
    SOURCE_MASK,
    STATE,
    offer_collaborative,
    offer_crossing,
    offer_neighbors,
)
from .rng import fold

OUTCOMES = ("not_on_sale", "owned", "sibling", "over_cap", "outscored", "chosen")
_NOT_ON_SALE, _OWNED, _SIBLING, _OVER_CAP, _OUTSCORED, _CHOSEN = range(len(OUTCOMES))


@numba.njit(cache=True)
def _is_among(j, chosen, n_chosen):
    found = False
    for slot in range(n_chosen):
        found |= chosen[slot] == j
    return found


@row_kernel(scratch=True)
def trace_candidates(
    row,
    lane,
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
    cells,
    cell_offsets,
    on_sale,
    any_item,
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
    buyers,
    negatives,
    source,
    fates,
):
    """fates[row] (sources, OUTCOMES) int32: candidates by the first source that offered them, and by what became of them.

    The pool is `mine_hard`'s but for one thing: the sources read `any_item` (I,) bool for what is on sale, which says that
    everything is. A candidate has the first fate that holds. negatives, source: what `mine_hard` wrote. Scratch is its too.
    """
    u, i, t, k = user[row], item[row], time[row], snapshot[row]
    known, place, pool = facts[k], places[lane], pools[lane]
    own_group = (known[i] >> GROUP_SHIFT) - 1
    n_pool = offer_collaborative(
        u,
        i,
        moment[row],
        since[row],
        position[row],
        any_item,
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
    first, category = corpus_offsets[k], price_category[k, i]
    n_pool = offer_crossing(
        n_pool,
        key,
        own_group,
        category,
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
        any_item,
        limits,
        bounds,
        neighbor_item,
        neighbor_similarity,
        place,
        pool,
        pairs[lane],
    )

    n_chosen, n_own = 0, 0
    while n_chosen < limits[N_HARD] and source[row, n_chosen] != FALLBACK:
        n_own += 1 if (known[negatives[row, n_chosen]] >> GROUP_SHIFT) - 1 == own_group else 0
        n_chosen += 1
    for offered in range(FALLBACK):
        for fate in range(fates.shape[2]):
            fates[row, offered, fate] = 0
    for candidate in range(n_pool):
        j = pool[ITEM, candidate]
        place[j] = 0
        if not on_sale[k, j]:
            fate = _NOT_ON_SALE
        elif owns(u, j, end, owned_offsets, owned_item, owned_since):
            fate = _OWNED
        elif siblings(product_code, i, j):
            fate = _SIBLING
        elif _is_among(j, negatives[row], n_chosen):
            fate = _CHOSEN
        elif n_own >= limits[OWN_CAP] and (known[j] >> GROUP_SHIFT) - 1 == own_group:
            fate = _OVER_CAP
        else:
            fate = _OUTSCORED
        fates[row, pool[STATE, candidate] & SOURCE_MASK, fate] += 1
