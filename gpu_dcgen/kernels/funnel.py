"""Count the outcomes of a positive's candidates: a row kernel outside the hot path (D13)."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import kernel_helper, row_kernel
from .draws import are_siblings, is_owned
from .pool import FALLBACK, GROUP_SHIFT, SOURCE_MASK, pool_candidates, select_lane

OUTCOMES = ("not_on_sale", "owned", "sibling", "over_cap", "outscored", "chosen")
_NOT_ON_SALE, _OWNED, _SIBLING, _OVER_CAP, _OUTSCORED, _CHOSEN = range(len(OUTCOMES))


class CandidateTrace(NamedTuple):
    """What `trace_candidates` reads of the negatives of n positives, and what it writes."""

    every_item: Any  # (I,) bool  all true
    item: Any  # (n, hard + random) int32  `HardNegatives.item`
    source: Any  # (n, hard) int8  `HardNegatives.source`
    # (n, sources, OUTCOMES) int32  candidates by the first source that offered them
    n_candidates: Any


@kernel_helper
def _is_among(item, chosen, n_chosen):
    is_found = False
    for slot in range(n_chosen):
        is_found |= chosen[slot] == item
    return is_found


@kernel_helper
def _find_outcome(item, row, positives, tables, chosen, n_chosen, is_over_cap):
    """Return the first outcome that holds for a candidate."""
    if not tables.snapshots.on_sale[positives.snapshot[row], item]:
        return _NOT_ON_SALE
    if is_owned(positives.user[row], item, positives.window_end, tables.draws.ownership):
        return _OWNED
    if are_siblings(tables.draws.product_code, positives.item[row], item):
        return _SIBLING
    if _is_among(item, chosen, n_chosen):
        return _CHOSEN
    return _OVER_CAP if is_over_cap else _OUTSCORED


@row_kernel(scratch=True)
def trace_candidates(row, lane, rows, tables, settings, pools, trace):
    """Count a positive's candidates by source and outcome.

    The pool is that of `mine_hard`, except that the sources read `trace.every_item` for what is
    on sale.
    """
    positives, pool = rows.positives, select_lane(pools, lane)
    features = tables.snapshots.packed_features[positives.snapshot[row]]
    own_group = (features[positives.item[row]] >> GROUP_SHIFT) - 1
    n_pool = pool_candidates(row, rows, trace.every_item, tables, settings, pool)

    n_chosen, n_own = 0, 0
    while n_chosen < settings.n_hard and trace.source[row, n_chosen] != FALLBACK:
        group = (features[trace.item[row, n_chosen]] >> GROUP_SHIFT) - 1
        n_own += 1 if group == own_group else 0
        n_chosen += 1
    for source in range(FALLBACK):
        for outcome in range(len(OUTCOMES)):
            trace.n_candidates[row, source, outcome] = 0
    for candidate in range(n_pool):
        j = pool.item[candidate]
        pool.position[j] = 0
        is_own_group = (features[j] >> GROUP_SHIFT) - 1 == own_group
        is_over_cap = is_own_group and n_own >= settings.max_own_group
        chosen = trace.item[row]
        outcome = _find_outcome(j, row, positives, tables, chosen, n_chosen, is_over_cap)
        trace.n_candidates[row, pool.state[candidate] & SOURCE_MASK, outcome] += 1
