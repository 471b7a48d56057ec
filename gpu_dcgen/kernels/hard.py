"""Row kernel that mines hard negatives; a row is a positive (D13)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .draws import are_siblings, draw_from_corpus, fold_positive, is_owned
from .pool import (
    BUYERS_MASK,
    BUYERS_SHIFT,
    FALLBACK,
    FIXED_ONE,
    GROUP_SHIFT,
    PART_MASK,
    PRICE_SHIFT,
    SOURCE_MASK,
    pool_candidates,
    select_lane,
)

_MAX_SCORED_BUYERS = 8  # more buyers of a candidate add nothing to its score
_NO_FRACTION = 4503599627370496.0  # 2^52: a float64 this large holds whole numbers only
_BEYOND_CAP = 1 << 50  # taken off scores that may be chosen only when no others are left
_REMOVED = -(1 << 62)  # the score of a candidate that is chosen or not allowed
_NO_ITEM = (1 << 31) - 1  # above every item


class HardNegatives(NamedTuple):
    """The hard negatives of n positives, in order of choice."""

    item: Any  # (n, hard + random) int32  the first n_hard are written
    source: Any  # (n, hard) int8  code into SOURCES
    similarity: Any  # (n, hard) float32  with the positive, -1 where they are not neighbors
    n_relaxed: Any  # (n,) int32  choices beyond the cap on the positive's own product group


@kernel_helper
def round_half_even(x):
    """Round x in 0..2^51 to the nearest integer, halves to even.

    The addition rounds; both steps are single operations.
    """
    return np.int64((x + _NO_FRACTION) - _NO_FRACTION)


@kernel_helper
def _score_pool(n_pool, item, features, settings, pool):
    """Score the candidates, and note their product groups."""
    own_price = (features[item] >> PRICE_SHIFT) & PART_MASK
    for candidate in range(n_pool):
        packed = features[np.uint32(pool.item[candidate])]
        pool.group[candidate] = (packed >> GROUP_SHIFT) - 1
        price = (packed >> PRICE_SHIFT) & PART_MASK
        is_unknown = own_price == 0 or price == 0
        nearness = FIXED_ONE // 2 if is_unknown else FIXED_ONE - abs(own_price - price)
        cosine = pool.similarity[candidate]
        similarity = round_half_even(np.float64(cosine) * FIXED_ONE) if cosine > 0 else np.int64(0)
        n_buyers = min(
            np.int64(_MAX_SCORED_BUYERS),
            np.int64((pool.state[candidate] >> BUYERS_SHIFT) & BUYERS_MASK),
        )
        pool.score[candidate] = (
            settings.similarity_weight * similarity
            + settings.collaborative_weight * n_buyers * (FIXED_ONE // _MAX_SCORED_BUYERS)
            + settings.price_weight * nearness
            - settings.popularity_weight * (packed & PART_MASK)
        )


@kernel_helper
def _find_best(n_pool, pool):
    """Return the item of the highest score, the smallest on ties; _NO_ITEM if all are removed.

    Two passes, which vectorize.
    """
    items, scores = pool.item, pool.score
    highest = _REMOVED >> 1
    for candidate in range(n_pool):
        highest = max(highest, scores[candidate])
    best = np.int32(_NO_ITEM)
    for candidate in range(n_pool):
        best = min(best, items[candidate] if scores[candidate] == highest else np.int32(_NO_ITEM))
    return best


@kernel_helper
def _lower_group(n_pool, group, amount, pool):
    """Lower the scores of a product group's candidates."""
    groups, scores = pool.group, pool.score
    for candidate in range(n_pool):
        scores[candidate] -= amount if groups[candidate] == group else 0


@kernel_helper
def _choose(row, n_pool, positives, tables, settings, pool, negatives):
    """Choose candidates one by one for score and diversity; returns their number.

    Ownership and siblings are looked up only for a candidate that would be chosen.
    """
    user, item, k = positives.user[row], positives.item[row], positives.snapshot[row]
    own_group = (tables.snapshots.packed_features[k, item] >> GROUP_SHIFT) - 1
    n_chosen, n_own, n_relaxed = 0, 0, 0
    if settings.max_own_group == 0:
        _lower_group(n_pool, own_group, _BEYOND_CAP, pool)
    while n_chosen < settings.n_hard:
        j = _find_best(n_pool, pool)
        if j == _NO_ITEM:
            break
        best = np.int64(pool.position[j]) - 1
        is_beyond_cap = pool.score[best] < -(_BEYOND_CAP >> 1)
        pool.score[best] = _REMOVED
        if are_siblings(tables.draws.product_code, item, j) or is_owned(
            user, j, positives.window_end, tables.draws.ownership
        ):
            continue
        group = pool.group[best]
        _lower_group(n_pool, group, settings.diversity_weight * FIXED_ONE, pool)
        if group == own_group:
            n_own += 1
            n_relaxed += 1 if is_beyond_cap else 0
            if n_own == settings.max_own_group:
                _lower_group(n_pool, own_group, _BEYOND_CAP, pool)
        negatives.item[row, n_chosen] = j
        negatives.source[row, n_chosen] = pool.state[best] & SOURCE_MASK
        negatives.similarity[row, n_chosen] = pool.similarity[best]
        n_chosen += 1
    negatives.n_relaxed[row] = n_relaxed
    return n_chosen


@kernel_helper
def _fill_up(row, n_chosen, positives, tables, settings, negatives):
    """Draw the hard negatives that the pool was too small for from the corpus."""
    key = fold_positive(settings.fallback_key, row, positives)
    chosen = negatives.item[row, : settings.n_hard]
    draw_from_corpus(chosen, n_chosen, key, row, positives, tables.draws, True)
    neighbors, item = tables.neighbors, positives.item[row]
    for slot in range(n_chosen, settings.n_hard):
        negatives.source[row, slot] = FALLBACK
        negatives.similarity[row, slot] = -1.0
        for position in range(neighbors.offsets[item], neighbors.offsets[item + 1]):
            if neighbors.item[position] == chosen[slot]:
                negatives.similarity[row, slot] = neighbors.similarity[position]


@row_kernel(scratch=True)
def mine_hard(turn, lane, order, rows, tables, settings, pools, negatives):
    """Mine the hard negatives of a positive: pool three sources, score, choose (D13).

    `order` (n,) int64 says which row has this turn: every permutation gives the same negatives.
    """
    row = order[turn]
    pool, positives = select_lane(pools, lane), rows.positives
    k = positives.snapshot[row]
    n_pool = pool_candidates(row, rows, tables.snapshots.on_sale[k], tables, settings, pool)
    features = tables.snapshots.packed_features[k]
    _score_pool(n_pool, positives.item[row], features, settings, pool)
    n_chosen = _choose(row, n_pool, positives, tables, settings, pool, negatives)
    for candidate in range(n_pool):
        pool.position[pool.item[candidate]] = 0
    if n_chosen < settings.n_hard:
        _fill_up(row, n_chosen, positives, tables, settings, negatives)
