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
