"""Row kernel that checks a finished group before it is written; a row is a group."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import kernel_helper, row_kernel
from .arguments import Log, Ownership
from .draws import are_siblings, is_owned

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
    on_sale: Any  # (K, I) bool
    price: Any  # (K, I) float32  NaN unknown


class GroupChecks(NamedTuple):
    """What is found of each group."""

    violations: Any  # (n,) int32  a bit for each of VIOLATIONS
    later_bought: Any  # (n, 1 + negatives) int8  1: bought by the user after the window
    # (n, 3) int32  pairs of negatives of one place; negatives of the positive's product group and
    # place; items without a known price
    measured: Any


@row_kernel
def check_group(row, groups, tables, checks):
    """Find the rules that a group violates, and count what the gates ask of its negatives."""
    on_sale, place, product_group = tables.on_sale, tables.place, tables.product_group
    n_items, width = on_sale.shape[1], groups.item.shape[1]
    k, positive = groups.snapshot[row], groups.row[row]
    user, i = tables.log.user[positive], tables.log.item[positive]
    violations = n_same_place = n_same_kind = n_unpriced = 0
    for slot in range(width):
        j = groups.item[row, slot]
        checks.later_bought[row, slot] = 0
        if j < 0 or j >= n_items:
            violations |= UNKNOWN_ITEM
            continue
        for earlier_slot in range(slot):
            other = groups.item[row, earlier_slot]
            if other == j:
                violations |= _TWICE
            if earlier_slot > 0 and 0 <= other < n_items and place[other] == place[j]:
                n_same_place += 1
        price = tables.price[k, j]
        if price != price:
            n_unpriced += 1
        if not on_sale[k, j]:
            violations |= _NOT_ON_SALE
        if slot > 0:
            if place[j] == place[i] and product_group[j] == product_group[i]:
                n_same_kind += 1
            if is_owned(user, j, _END_OF_TIME, tables.ownership):
                if is_owned(user, j, groups.window_end, tables.ownership):
                    violations |= _OWNED
                else:
                    checks.later_bought[row, slot] = 1
        if 0 < slot <= groups.n_hard and are_siblings(tables.product_code, i, j):
            violations |= _SIBLING
    time = tables.log.time[positive]
    if groups.item[row, 0] != i or time < groups.window_start or time >= groups.window_end:
        violations |= _WINDOW
    if not _is_earlier(row, user, time, groups, tables.log):
        violations |= _HISTORY
    checks.violations[row] = violations
    checks.measured[row, SAME_PLACE_PAIRS] = n_same_place
    checks.measured[row, SAME_KIND] = n_same_kind
    checks.measured[row, UNPRICED] = n_unpriced


@kernel_helper
def _is_earlier(row, user, time, groups, log):
    """Return whether a group's history is the user's own, and strictly before `time`."""
    if groups.history_length[row] <= 0:
        return True
    first = groups.history_start[row]
    last = first + groups.history_length[row] - 1
    return log.user[first] == user and log.user[last] == user and log.time[last] < time
