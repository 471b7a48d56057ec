"""Row kernels that prove a finished group before it is written, and count what gates ask of it: one row is one group."""

from __future__ import annotations

import numba

from . import row_kernel
from .draws import owns, siblings

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

ALIKE_PAIRS, SAME_KIND, UNPRICED = range(3)  # of `measured`


@numba.njit(cache=True)
def ever_buys(user, item, owned_offsets, owned_item, owned_since):
    """Whether the user buys the item at any time in the log."""
    return owns(user, item, 0x7FFFFFFFFFFFFFFF, owned_offsets, owned_item, owned_since)


@row_kernel
def check_group(
    row,
    group_item,
    group_row,
    snapshot,
    history_start,
    history_length,
    window_start,
    window_end,
    n_hard,
    log_user,
    log_item,
    log_time,
    on_sale,
    product_code,
    owned_offsets,
    owned_item,
    owned_since,
    group,
    place,
    price,
    violations,
    later,
    measured,
):
    """violations[row] int32: a bit for each of VIOLATIONS that the group breaks; beside it, counts of its negatives.

    group_item (n, 1 + negatives) int32, the positive first; group_row (n,) int64 the positive's interaction.
    group, place (I,) int32: each item's product group and department.
    later (n, 1 + negatives) int8: 1 where the user buys the negative after the window.
    measured (n, 3) int32: pairs of negatives of one place, negatives of the positive's product group and place, items
    without a known price.
    """
    n_items, width = on_sale.shape[1], group_item.shape[1]
    positive = group_row[row]
    u, t = log_user[positive], log_time[positive]
    i = log_item[positive]
    found = alike = same_kind = unpriced = 0
    for slot in range(width):
        j = group_item[row, slot]
        later[row, slot] = 0
        if j < 0 or j >= n_items:
            found |= UNKNOWN_ITEM
            continue
        for earlier in range(slot):
            other = group_item[row, earlier]
            if other == j:
                found |= _TWICE
            if earlier > 0 and 0 <= other < n_items and place[other] == place[j]:
                alike += 1
        known = price[snapshot[row], j]
        if known != known:
            unpriced += 1
        if not on_sale[snapshot[row], j]:
            found |= _NOT_ON_SALE
        if slot > 0:
            if place[j] == place[i] and group[j] == group[i]:
                same_kind += 1
            if ever_buys(u, j, owned_offsets, owned_item, owned_since):
                if owns(u, j, window_end, owned_offsets, owned_item, owned_since):
                    found |= _OWNED
                else:
                    later[row, slot] = 1
        if 0 < slot <= n_hard and siblings(product_code, i, j):
            found |= _SIBLING
    if group_item[row, 0] != i or t < window_start or t >= window_end:
        found |= _WINDOW
    last = history_start[row] + history_length[row] - 1
    if history_length[row] > 0 and (
        log_user[history_start[row]] != u or log_user[last] != u or log_time[last] >= t
    ):
        found |= _HISTORY
    violations[row] = found
    measured[row, ALIKE_PAIRS] = alike
    measured[row, SAME_KIND] = same_kind
    measured[row, UNPRICED] = unpriced
