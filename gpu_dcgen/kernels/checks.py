"""Row kernels that prove a finished group before it is written: one row is one group."""

from __future__ import annotations

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
_RANGE, _TWICE, _OWNED, _NOT_ON_SALE, _WINDOW, _HISTORY, _SIBLING = (1 << bit for bit in range(len(VIOLATIONS)))


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
    violations,
):
    """violations[row] int32: a bit for each of VIOLATIONS that the group breaks.

    group_item (n, 1 + negatives) int32, the positive first; group_row (n,) int64 the positive's interaction.
    """
    n_items, width = on_sale.shape[1], group_item.shape[1]
    positive = group_row[row]
    u, t = log_user[positive], log_time[positive]
    found = 0
    for slot in range(width):
        j = group_item[row, slot]
        if j < 0 or j >= n_items:
            found |= _RANGE
            continue
        for earlier in range(slot):
            if group_item[row, earlier] == j:
                found |= _TWICE
        if not on_sale[snapshot[row], j]:
            found |= _NOT_ON_SALE
        if slot > 0 and owns(u, j, window_end, owned_offsets, owned_item, owned_since):
            found |= _OWNED
        if 0 < slot <= n_hard and siblings(product_code, log_item[positive], j):
            found |= _SIBLING
    if group_item[row, 0] != log_item[positive] or t < window_start or t >= window_end:
        found |= _WINDOW
    last = history_start[row] + history_length[row] - 1
    if history_length[row] > 0 and (log_user[history_start[row]] != u or log_user[last] != u or log_time[last] >= t):
        found |= _HISTORY
    violations[row] = found
