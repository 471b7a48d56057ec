"""Row kernel that checks a finished group before it is written; a row is a group."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .arguments import Log, Ownership
from .draws import (
    ItemFilter,
    are_siblings,
    is_owned,
    mark_owned,
    may_be_owned,
    select_filter,
)
from .item_states import is_on_sale, is_priced

VIOLATIONS = (
    "item out of the vocabulary",
    "item twice in a group",
    "negative that the user bought before the window's end",
    "item not on sale at the snapshot",
    "positive outside its window",
    "history not strictly before the positive",
    "sibling of the positive among the hard negatives",
)
UNKNOWN_ITEM, _TWICE, _OWNED, _NOT_ON_SALE, _WINDOW, _HISTORY, _SIBLING = (
    1 << bit for bit in range(len(VIOLATIONS))
)
SAME_PLACE_PAIRS, SAME_KIND, UNPRICED = range(3)  # columns of `GroupChecks.measured`
_END_OF_TIME = 0x7FFFFFFFFFFFFFFF
_NO_PLACE = -2  # -1 is the place of items without one


class GroupRows(NamedTuple):
    """Finished groups: the positive, then its hard and its random negatives."""

    item: Any  # (n, 1 + negatives) int32
    row: Any  # (n,) int64  the positive's interaction
    snapshot: Any  # (n,) int64
    history_start: Any  # (n,) int64  the history's first interaction
    history_length: Any  # (n,) int32
    n_hard: int
    window_start: int  # nanoseconds
    window_end: int


class CheckTables(NamedTuple):
    """What groups are checked against."""

    log: Log
    ownership: Ownership
    product_code: Any  # (I,) int32
    product_group: Any  # (I,) int32
    place: Any  # (I,) int32  department, or what stands in for it
    state: Any  # (K, I) uint64  `item_states`, by snapshot


class GroupChecks(NamedTuple):
    """What is found of each group."""

    violations: Any  # (n,) int32  a bit for each of VIOLATIONS
    later_bought: Any  # (n, 1 + negatives) int8  1: bought by the user after the window
    # (n, 3) int32  pairs of negatives of one place; negatives of the positive's product group and
    # place; items without a known price
    measured: Any


class CheckScratch(NamedTuple):
    """Scratch space, a lane each."""

    items: ItemFilter  # of the user's items
    place: Any  # (lanes, 1 + negatives) int32  each negative's place, _NO_PLACE for other items


@row_kernel(scratch=True)
def check_group(row, lane, groups, tables, scratch, checks):
    """Find the rules that a group violates, and count what the gates ask of its negatives."""
    items, places = select_filter(scratch.items, lane), scratch.place[lane]
    states, place, product_group = tables.state, tables.place, tables.product_group
    n_items, width = states.shape[1], groups.item.shape[1]
    k, positive = groups.snapshot[row], groups.row[row]
    user, i = tables.log.user[positive], tables.log.item[positive]
    own_place, own_group = place[i], product_group[i]
    mark_owned(user, tables.ownership, items)
    violations = n_same_kind = n_unpriced = 0
    for slot in range(np.uint64(width)):
        j = groups.item[row, slot]
        checks.later_bought[row, slot] = 0
        places[slot] = _NO_PLACE
        if j < 0 or j >= n_items:
            violations |= UNKNOWN_ITEM
            continue
        state = states[k, j]
        if not is_priced(state):
            n_unpriced += 1
        if not is_on_sale(state):
            violations |= _NOT_ON_SALE
        if slot > 0:
            places[slot] = place[j]
            if place[j] == own_place and product_group[j] == own_group:
                n_same_kind += 1
            if may_be_owned(j, items) and is_owned(user, j, _END_OF_TIME, tables.ownership):
                if is_owned(user, j, groups.window_end, tables.ownership):
                    violations |= _OWNED
                else:
                    checks.later_bought[row, slot] = 1
        if 0 < slot <= groups.n_hard and are_siblings(tables.product_code, i, j):
            violations |= _SIBLING
    if _has_repetition(groups.item[row], n_items):
        violations |= _TWICE
    time = tables.log.time[positive]
    if groups.item[row, 0] != i or time < groups.window_start or time >= groups.window_end:
        violations |= _WINDOW
    if not _is_earlier(row, user, time, groups, tables.log):
        violations |= _HISTORY
    checks.violations[row] = violations
    checks.measured[row, SAME_PLACE_PAIRS] = _count_same_place(places)
    checks.measured[row, SAME_KIND] = n_same_kind
    checks.measured[row, UNPRICED] = n_unpriced


@kernel_helper
def _has_repetition(items, n_items):
    """Return whether a known item occurs twice. The inner loop vectorizes."""
    n_known = n_equal = 0
    for slot in range(np.uint64(items.shape[0])):
        j = items[slot]
        if j >= 0 and j < n_items:
            n_known += 1
            for other in range(np.uint64(items.shape[0])):
                n_equal += items[other] == j
    return n_equal > n_known


@kernel_helper
def _count_same_place(places):
    """Count the pairs of one place. The inner loop vectorizes."""
    n_known = n_equal = 0
    for slot in range(np.uint64(places.shape[0])):
        if places[slot] != _NO_PLACE:
            n_known += 1
            for other in range(np.uint64(places.shape[0])):
                n_equal += places[other] == places[slot]
    return (n_equal - n_known) // 2


@kernel_helper
def _is_earlier(row, user, time, groups, log):
    """Return whether a group's history is the user's own, and strictly before `time`."""
    if groups.history_length[row] <= 0:
        return True
    first = groups.history_start[row]
    last = first + groups.history_length[row] - 1
    return log.user[first] == user and log.user[last] == user and log.time[last] < time
