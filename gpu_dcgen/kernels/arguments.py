"""NamedTuples of arrays that travel together as one argument of row kernels.

Letters in shapes: E interactions, U users, I items, K item snapshots, G product groups, n rows of
a kernel. Fields are arrays of the backend, numbers of the host, or NamedTuples of these.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Log(NamedTuple):
    """Interactions in (user, time, item) order."""

    user: Any  # (E,) int32
    item: Any  # (E,) int32
    time: Any  # (E,) int64  nanoseconds


class Ownership(NamedTuple):
    """Distinct items of each user, rising, and when each was first bought."""

    offsets: Any  # (U+1,) int64  each user's run in the two arrays below
    item: Any  # (N,) int32
    since: Any  # (N,) int64  nanoseconds


class Corpus(NamedTuple):
    """Items on sale at each item snapshot, in two orders."""

    offsets: Any  # (K+1,) int64  each snapshot's run in the two arrays below
    item: Any  # (C,) int32  rising within a snapshot
    cell_item: Any  # (C,) int32  by (price category, product group, item), unknown ones first
    # (K, 5 * (G + 1) + 1) int32  runs of `cell_item` within a snapshot, by
    # (price category + 1) * (G + 1) + product group + 1
    cell_offsets: Any
    n_groups: int  # G


class DrawTables(NamedTuple):
    """What decides which items may be drawn as negatives of a positive (D12)."""

    corpus: Corpus
    ownership: Ownership
    product_code: Any  # (I,) int32  items of one code are siblings; -1 unknown


class PositiveRows(NamedTuple):
    """Positives that negatives are drawn for. Users and items are codes; keys seed the draws."""

    user: Any  # (n,) int32
    item: Any  # (n,) int32
    time: Any  # (n,) int64  nanoseconds
    copy: Any  # (n,) int32
    snapshot: Any  # (n,) int64  number of the item snapshot
    user_key: Any  # (n,) uint64
    item_key: Any  # (n,) uint64
    window_end: int  # nanoseconds: purchases from here on are unknown (D8)


class MiningRows(NamedTuple):
    """Positives to mine hard negatives for, and the places of their items' earlier buyers."""

    positives: PositiveRows
    since: Any  # (n,) int64  `PurchaseIndex.time_item_key` of the first purchases that count
    before: Any  # (n,) int64  the same of the first purchases that no longer count
    position: Any  # (n,) int32  the positive's own position among all purchases by item


class PurchaseIndex(NamedTuple):
    """All purchases by user and by item, to look up what the buyers of an item bought.

    Rows by user are in (user, time, item) order, buyers in (item, time, user) order. A time-item
    key is the rank of a purchase's time among all times, above its item (`pool.RANK_SHIFT`).
    """

    time_item_key: Any  # (E,) int64  by user
    user_offsets: Any  # (U+1,) int64  each user's rows
    item_offsets: Any  # (I+1,) int64  each item's run in the arrays below
    buyer_row: Any  # (E,) int64  row of the purchase by user
    buyer_user: Any  # (E,) int32
    buyer_time_rank: Any  # (E,) int32
    n_rows_before: Any  # (E,) uint8  rows of the same user before this one, at most 255
    n_rows_after: Any  # (E,) uint8  from this one to the user's last, at most 255


class NeighborLists(NamedTuple):
    """Each item's neighbors by falling similarity, then rising item."""

    offsets: Any  # (I+1,) int64
    item: Any  # (E,) int32
    similarity: Any  # (E,) float32


class SnapshotTables(NamedTuple):
    """What each item snapshot knows of the items, as mining reads it."""

    on_sale: Any  # (K, I) bool
    packed_features: Any  # (K, I) int64  popularity, price and product group (`pool.GROUP_SHIFT`)
    price_category: Any  # (K, I) int8  0..3, -1 unknown


class MiningTables(NamedTuple):
    """Everything that hard negatives are mined from (D13)."""

    draws: DrawTables
    purchases: PurchaseIndex
    neighbors: NeighborLists
    snapshots: SnapshotTables
