"""Draw the hard negatives of a positive from its list of candidates (D13).

Row kernels; a row is a positive. Systematic sampling (Madow 1949) gives each candidate exactly the
probability that its weight asks for: candidates lie on a line, each as long as its weight times the
number to draw, and points at the distance of the total weight, from a random start, hit them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .arguments import DrawTables, PositiveRows
from .draws import (
    ItemFilter,
    draw_from_corpus,
    fold_positive,
    is_owned,
    mark_owned,
    may_be_owned,
    select_filter,
)
from .logarithms import log_ratio
from .rng import below, draw
from .sources import FALLBACK

PROBABILITY_ONE = 1 << 16  # 1.0 in the fixed point of probabilities
_OTHERS, _OWN, _ALL = 0, 1, 2  # parts of the candidates: of the positive's product group, or not
_NO_ITEM = (1 << 31) - 1  # above every item
_LOWEST = -(1 << 62)  # below every score


class DrawSettings(NamedTuple):
    """The settings of hard negatives as numbers."""

    n_hard: int
    max_own_group: int  # hard negatives of the positive's own product group
    is_greedy: bool
    diversity_weight: int  # in units of 1 / SCORE_ONE
    draw_key: Any  # uint64  seeds the draws from the lists
    fallback_key: Any  # uint64  seeds the draws that fill up


class HardRows(NamedTuple):
    """Positives, and where the lists of their items and snapshots are."""

    positives: PositiveRows
    first: Any  # (n,) int64  a list's run of candidates in `HardTables`
    stop: Any  # (n,) int64
    own_first: Any  # (n,) int16  the run in the list of the positive's own product group
    own_stop: Any  # (n,) int16


class HardTables(NamedTuple):
    """Everything that hard negatives are drawn from."""

    draws: DrawTables
    item: Any  # (C,) int32  candidates, by (product group, item) in each list
    source: Any  # (C,) int8  code into SOURCES
    score: Any  # (C,) int16
    rank: Any  # (C,) int16  among the neighbors of the list's item, -1 for none
    source_weight: Any  # (sources,) int64
    mining_weight: Any  # (I,) int32
    product_group: Any  # (I,) int32  -1 unknown
    neighbors: Any  # NeighborLists
    log_table: Any  # int64  `logarithms.make_table`


class DrawScratch(NamedTuple):
    """Scratch space, a lane each, for lists of W candidates at most, by position in the list."""

    is_free: Any  # (lanes, W) int8  whether it may be drawn
    items: ItemFilter  # of the user's items
    weight: Any  # (lanes, W) int64  0 where it may not be drawn
    is_certain: Any  # (lanes, W) int8
    log_q: Any  # (lanes, W) float32
    chosen: Any  # (lanes, hard) int32  positions that are chosen, in the order of writing


class HardNegatives(NamedTuple):
    """The hard negatives of n positives."""

    item: Any  # (n, hard + random) int32  the first n_hard are written
    source: Any  # (n, hard) int8  code into SOURCES
    similarity: Any  # (n, hard) float32  with the positive, -1 where they are not neighbors
    log_q: Any  # (n, hard) float32  logarithm of the inclusion probability
    n_relaxed: Any  # (n,) int32  choices beyond the cap on the positive's own product group


class Allowed(NamedTuple):
    """The candidates of a list that may be drawn: how many, and their weights."""

    first: Any  # the list's run of candidates
    length: Any
    own_first: Any  # the run in the list of the positive's own product group
    own_stop: Any
    n: Any
    n_own: Any
    total: Any
    own_total: Any
    highest: Any


class DrawPlan(NamedTuple):
    """How many are drawn from which parts, besides those that are certain."""

    has_certain: Any  # bool
    is_split: Any  # bool  whether own and others are drawn separately, else all as one
    n_first: Any  # of own, or of all
    first_weight: Any  # that is left
    n_second: Any  # of others, if own and others are drawn separately
    second_weight: Any
    n_relaxed: Any


@kernel_helper
def _select_lane(scratch, lane):
    """Return a lane's part of the scratch, every field with one dimension less."""
    return DrawScratch(
        scratch.is_free[lane],
        select_filter(scratch.items, lane),
        scratch.weight[lane],
        scratch.is_certain[lane],
        scratch.log_q[lane],
        scratch.chosen[lane],
    )


@kernel_helper
def _mark_free(row, rows, tables, scratch, is_free):
    """Mark the candidates that the user does not own before the window's end.

    A filter tells most apart from the items of the user, without a search.
    """
    positives, ownership, items = rows.positives, tables.draws.ownership, scratch.items
    first, user, end = np.uint64(rows.first[row]), positives.user[row], positives.window_end
    mark_owned(user, ownership, items)
    for at in range(np.uint64(rows.stop[row]) - first):
        j = tables.item[first + at]
        is_free[at] = 1
        if may_be_owned(j, items) and is_owned(user, j, end, ownership):
            is_free[at] = 0


@kernel_helper
def _weigh(row, rows, tables, is_free, weights):
    """Write the weights of a list's candidates, 0 where they may not be drawn."""
    first, length = np.uint64(rows.first[row]), np.uint64(rows.stop[row] - rows.first[row])
    own_first, own_stop = np.uint64(rows.own_first[row]), np.uint64(rows.own_stop[row])
    n, total, highest = np.int64(0), np.int64(0), np.int64(0)
    for c in range(length):
        weight = np.int64(tables.source_weight[np.uint64(tables.source[first + c])])
        weight *= tables.mining_weight[np.uint64(tables.item[first + c])] * is_free[c]
        weights[c] = weight
        n += is_free[c]
        total += weight
        highest = max(highest, weight)
    n_own, own_total = np.int64(0), np.int64(0)
    for c in range(own_first, own_stop):
        n_own += is_free[c]
        own_total += weights[c]
    return Allowed(first, length, own_first, own_stop, n, n_own, total, own_total, highest)


@kernel_helper
def _is_in(c, part, allowed):
    """Return whether a candidate is in a part of those allowed."""
    is_own = allowed.own_first <= c and c < allowed.own_stop
    return part == _ALL or is_own == (part == _OWN)


@kernel_helper
def _settle(part, n_wanted, allowed, scratch):
    """Mark what is drawn for certain; returns how many are left to draw, and the weight left.

    A candidate is certain if its share of the weight is that of a whole draw or more. Once one is
    taken out, the others that were certain still are.
    """
    n_left, total = np.int64(n_wanted), np.int64(0)
    for c in range(allowed.length):
        if _is_in(c, part, allowed):
            scratch.is_certain[c] = 0
            total += scratch.weight[c]
    has_changed = True
    while has_changed:
        has_changed = False
        for c in range(allowed.length):
            weight = scratch.weight[c]
            is_open = weight > 0 and scratch.is_certain[c] == 0 and _is_in(c, part, allowed)
            if is_open and n_left * weight >= total:
                scratch.is_certain[c] = 1
                n_left -= 1
                total -= weight
                has_changed = True
    return n_left, total


@kernel_helper
def _plan_draw(allowed, settings, scratch):
    """Plan the draw from more candidates than are wanted.

    All are one part unless the positive's own product group would get more than its cap.
    """
    zero, cap, n_left = np.int64(0), np.int64(settings.max_own_group), np.int64(settings.n_hard)
    n_own, own_weight, total = zero, allowed.own_total, allowed.total
    has_certain = n_left * allowed.highest >= total
    if has_certain:
        n_left, total = _settle(_ALL, n_left, allowed, scratch)
        own_weight = zero
        for c in range(allowed.own_first, allowed.own_stop):
            n_own += scratch.is_certain[c]
            own_weight += scratch.weight[c] if scratch.is_certain[c] == 0 else 0
    if n_own * total + n_left * own_weight <= cap * total:
        return DrawPlan(has_certain, False, n_left, total, zero, zero, zero)
    n_others = allowed.n - allowed.n_own
    n_own = max(cap, settings.n_hard - n_others)
    own_left, own_weight = _settle(_OWN, n_own, allowed, scratch)
    others_left, others_weight = _settle(_OTHERS, settings.n_hard - n_own, allowed, scratch)
    return DrawPlan(True, True, own_left, own_weight, others_left, others_weight, n_own - cap)


@kernel_helper
def _insert(c, n_chosen, first, tables, chosen):
    """Insert a candidate among those chosen, by falling score, then rising item."""
    slot = n_chosen
    while slot > 0:
        at, other = first + c, first + np.uint64(chosen[slot - 1])
        is_better = tables.score[at] > tables.score[other]
        is_tied = tables.score[at] == tables.score[other]
        if not (is_better or (is_tied and tables.item[at] < tables.item[other])):
            break
        chosen[slot] = chosen[slot - 1]
        slot -= 1
    chosen[slot] = c


@kernel_helper
def _take_certain(is_all, allowed, tables, scratch):
    """Choose the certain candidates, or all that may be drawn; returns their number."""
    n_chosen = 0
    for c in range(allowed.length):
        if scratch.weight[c] > 0 and (is_all or scratch.is_certain[c] != 0):
            scratch.log_q[c] = 0.0
            _insert(c, n_chosen, allowed.first, tables, scratch.chosen)
            n_chosen += 1
    return n_chosen


@kernel_helper
def _draw_part(n_chosen, wanted, plan, key, allowed, tables, scratch):
    """Draw candidates of a part that are not certain; returns the number chosen so far.

    `wanted`: the part, how many of it, and the weight of those not certain.
    """
    part, n_left, total = wanted
    if n_left == 0:
        return n_chosen
    point, end = below(draw(key, 1 if part == _OTHERS else 0), total), np.int64(0)
    for c in range(allowed.length):
        is_certain = plan.has_certain and scratch.is_certain[c] != 0
        if not is_certain and _is_in(c, part, allowed):
            length = n_left * scratch.weight[c]
            end += length
            if point < end:
                scratch.log_q[c] = log_ratio(length, total, tables.log_table)
                _insert(c, n_chosen, allowed.first, tables, scratch.chosen)
                n_chosen += 1
                point += total
    return n_chosen


@kernel_helper
def _draw_sampled(row, allowed, rows, tables, settings, scratch):
    """Draw from more candidates than are wanted; returns the choices beyond the cap."""
    key = fold_positive(settings.draw_key, row, rows.positives)
    plan, n = _plan_draw(allowed, settings, scratch), 0
    if plan.has_certain:
        n = _take_certain(False, allowed, tables, scratch)
    wanted = (_OWN if plan.is_split else _ALL, plan.n_first, plan.first_weight)
    n = _draw_part(n, wanted, plan, key, allowed, tables, scratch)
    wanted = (_OTHERS, plan.n_second, plan.second_weight)
    _draw_part(n, wanted, plan, key, allowed, tables, scratch)
    return plan.n_relaxed


@kernel_helper
def _find_best(part, allowed, tables, scratch):
    """Return the candidate of a part with the highest value, the smallest item on ties; or -1.

    Values are in `DrawScratch.weight`; what may not be chosen is marked as certain.
    """
    best, highest, smallest = np.int64(-1), np.int64(_LOWEST), np.int64(_NO_ITEM)
    for c in range(allowed.length):
        if scratch.is_certain[c] == 0 and _is_in(c, part, allowed):
            value, j = scratch.weight[c], np.int64(tables.item[allowed.first + c])
            if value > highest or (value == highest and j < smallest):
                best, highest, smallest = np.int64(c), value, j
    return best


@kernel_helper
def _choose_greedily(allowed, tables, settings, scratch):
    """Choose candidates one by one for score and diversity; returns choices beyond the cap."""
    groups, first = tables.product_group, allowed.first
    for c in range(allowed.length):
        scratch.is_certain[c] = 1 if scratch.weight[c] == 0 else 0
        scratch.weight[c] = tables.score[first + c]
    n_own, n_relaxed = np.int64(0), np.int64(0)
    for n_chosen in range(min(allowed.n, settings.n_hard)):
        is_capped = n_own >= settings.max_own_group
        best = _find_best(_OTHERS if is_capped else _ALL, allowed, tables, scratch)
        if best < 0:
            best = _find_best(_OWN, allowed, tables, scratch)
            n_relaxed += 1
        group = groups[tables.item[first + np.uint64(best)]]
        n_own += 1 if _is_in(np.uint64(best), _OWN, allowed) else 0
        for c in range(allowed.length):
            is_same = groups[tables.item[first + c]] == group
            scratch.weight[c] -= settings.diversity_weight if is_same else 0
        scratch.is_certain[best] = 1
        scratch.log_q[best] = 0.0
        scratch.chosen[n_chosen] = best
    return n_relaxed


@kernel_helper
def _fill_up(row, n_chosen, positives, tables, settings, items, negatives):
    """Draw the hard negatives that the list was too short for from the corpus."""
    key, corpus = fold_positive(settings.fallback_key, row, positives), tables.draws.corpus
    chosen, k = negatives.item[row, : settings.n_hard], positives.snapshot[row]
    draw_from_corpus(chosen, n_chosen, key, row, positives, tables.draws, True, items)
    n_items, neighbors = corpus.offsets[k + 1] - corpus.offsets[k], tables.neighbors
    item = positives.item[row]
    log_q = log_ratio(np.int64(settings.n_hard - n_chosen), n_items, tables.log_table)
    for slot in range(n_chosen, settings.n_hard):
        negatives.source[row, slot] = FALLBACK
        negatives.log_q[row, slot] = log_q
        negatives.similarity[row, slot] = -1.0
        for position in range(neighbors.offsets[item], neighbors.offsets[item + 1]):
            if neighbors.item[position] == chosen[slot]:
                negatives.similarity[row, slot] = neighbors.similarity[position]


@row_kernel(scratch=True)
def mine_hard(row, lane, rows, tables, settings, scratch, negatives):
    """Draw the hard negatives of a positive from the list of its item and snapshot."""
    own, positives, n_relaxed = _select_lane(scratch, lane), rows.positives, np.int64(0)
    _mark_free(row, rows, tables, own, own.is_free)
    allowed = _weigh(row, rows, tables, own.is_free, own.weight)
    n_chosen = min(allowed.n, settings.n_hard)
    if settings.is_greedy:
        n_relaxed = _choose_greedily(allowed, tables, settings, own)
    elif allowed.n <= settings.n_hard:
        _take_certain(True, allowed, tables, own)
    else:
        n_relaxed = _draw_sampled(row, allowed, rows, tables, settings, own)
    negatives.n_relaxed[row] = n_relaxed
    start = tables.neighbors.offsets[positives.item[row]]
    for slot in range(n_chosen):
        at = allowed.first + np.uint64(own.chosen[slot])
        rank, similarity = tables.rank[at], np.float32(-1.0)
        if rank >= 0:
            similarity = tables.neighbors.similarity[start + rank]
        negatives.item[row, slot] = tables.item[at]
        negatives.source[row, slot] = tables.source[at]
        negatives.similarity[row, slot] = similarity
        negatives.log_q[row, slot] = own.log_q[own.chosen[slot]]
    if n_chosen < settings.n_hard:
        _fill_up(row, n_chosen, positives, tables, settings, own.items, negatives)


@row_kernel(scratch=True)
def mark_free_candidates(row, lane, rows, tables, scratch, is_free):
    """Mark the candidates that a positive's user does not own: is_free (n, W) int8."""
    _mark_free(row, rows, tables, _select_lane(scratch, lane), is_free[row])


class Probabilities(NamedTuple):
    """The probability of each candidate of n positives; in unused cells item and value are 0."""

    is_free: Any  # (n, W) int8  of `mark_free_candidates`
    item: Any  # (n, W) int64
    value: Any  # (n, W) float64  whole numbers in units of 1 / PROBABILITY_ONE


@row_kernel(scratch=True)
def find_probabilities(row, lane, rows, tables, settings, scratch, probabilities):
    """Find the probabilities with which `mine_hard` draws a positive's candidates."""
    own, zero = _select_lane(scratch, lane), np.int64(0)
    allowed = _weigh(row, rows, tables, probabilities.is_free[row], own.weight)
    is_all = allowed.n <= settings.n_hard
    plan = DrawPlan(False, False, zero, np.int64(1), zero, zero, zero)
    if not is_all:
        plan = _plan_draw(allowed, settings, own)
    for c in range(allowed.length):
        is_others = plan.is_split and _is_in(c, _OTHERS, allowed)
        n_left = plan.n_second if is_others else plan.n_first
        total, value = plan.second_weight if is_others else plan.first_weight, zero
        if own.weight[c] > 0 and (is_all or (plan.has_certain and own.is_certain[c] != 0)):
            value = np.int64(PROBABILITY_ONE)
        elif n_left > 0:
            share = np.uint64(n_left * own.weight[c] * PROBABILITY_ONE)
            value = np.int64(share // np.uint64(total))
        probabilities.item[row, c] = tables.item[allowed.first + c]
        probabilities.value[row, c] = value
    for c in range(allowed.length, np.uint64(probabilities.item.shape[1])):
        probabilities.item[row, c] = 0
        probabilities.value[row, c] = 0
