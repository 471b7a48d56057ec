"""The order of an epoch in which each batch lies within a single item snapshot (D14).

The groups of a window are sorted by snapshot. Those of one snapshot are shuffled and cut into as
few batches of at most `batch_size` as possible, which are equally large but for one group; a
snapshot with few positives in the window makes one small batch. The batches of a window are then
shuffled, the largest last, so that the end of an epoch can be shared by many ranks.

The row groups of a window are a function of the seed alone. An epoch permutes the windows, the
groups of each snapshot and the batches, so that every epoch has equally many batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .order import (
    BATCHES,
    GROUPS,
    ROW_GROUPS,
    WINDOWS,
    EpochOrder,
    cut_windows,
    deal,
    group_by_item,
    permute,
)


@dataclass(frozen=True)
class SnapshotOrder(EpochOrder):
    """The order of one epoch, and its batches."""

    snapshots: tuple[np.ndarray, ...]  # (n_groups,) int32 for each row group

    def order_window(self, window: int, items: np.ndarray | None = None) -> np.ndarray:
        """Order the groups of a window, batch by batch: (n,) int64 into its row groups."""
        snapshot, sizes = self._count_snapshots(window)
        n = len(snapshot)
        if self.is_shuffled:
            order = permute(n, self.seed, GROUPS, self.epoch, window)
        else:
            order = np.arange(n)
        if items is not None:
            order = group_by_item(order, items, self.seed, self.epoch)
        order = order[np.argsort(snapshot[order], kind="stable")]
        batch_sizes = _cut_pieces(sizes, self.batch_size)
        batch = np.repeat(np.arange(len(batch_sizes)), batch_sizes)
        if items is not None:
            ends = np.cumsum(sizes)
            for start, end in zip(ends - sizes, ends, strict=True):
                order[start:end] = deal(order[start:end], batch[start:end])
        place = np.empty(len(batch_sizes), dtype=np.int64)
        place[self._order_batches(window, batch_sizes)] = np.arange(len(batch_sizes))
        return order[np.argsort(place[batch], kind="stable")]

    def list_batch_bounds(self) -> np.ndarray:
        """Return the positions at which batches begin, and the end: (n_batches + 1,) int64."""
        sizes = []
        for window in range(len(self.windows)):
            cut = _cut_pieces(self._count_snapshots(window)[1], self.batch_size)
            sizes.append(cut[self._order_batches(window, cut)])
        return np.concatenate([[0], np.cumsum(np.concatenate(sizes))])

    def _count_snapshots(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the snapshots of a window's groups, and the number of groups of each snapshot."""
        snapshot = np.concatenate([self.snapshots[number] for number in self.windows[window]])
        return snapshot, np.unique(snapshot, return_counts=True)[1]

    def _order_batches(self, window: int, sizes: np.ndarray) -> np.ndarray:
        """Order the batches of a window, the largest last: (n_batches,) int64."""
        if not self.is_shuffled:
            return np.arange(len(sizes))
        order = permute(len(sizes), self.seed, BATCHES, self.epoch, window)
        largest = np.argmax(sizes[order])
        return np.append(np.delete(order, largest), order[largest])


def make_snapshot_order(
    snapshots: tuple[np.ndarray, ...],
    seed: int,
    epoch: int,
    *,
    shuffle: bool,
    window: int,
    batch_size: int,
) -> SnapshotOrder:
    """Order an epoch in batches of one snapshot each.

    Args:
        snapshots: The snapshot of each group, by row group.
        seed: Seed of the order.
        epoch: Number of the epoch; each has its own order.
        shuffle: False for the order of the file, cut where the snapshot changes.
        window: Number of row groups that are mixed at a time.
        batch_size: Positives per batch, at most.
    """
    sizes = [len(each) for each in snapshots]
    numbers = permute(len(sizes), seed, ROW_GROUPS).tolist() if shuffle else list(range(len(sizes)))
    size = window if shuffle else 1
    members = [tuple(numbers[at : at + size]) for at in range(0, len(numbers), size)]
    if shuffle:
        members = [members[number] for number in permute(len(members), seed, WINDOWS, epoch)]
    windows, starts = cut_windows(members, sizes)
    return SnapshotOrder(windows, starts, seed, epoch, shuffle, batch_size, snapshots)


def deal_batches(
    bounds: np.ndarray, position: int, rank: int, n_ranks: int, *, drop_last: bool
) -> Iterator[tuple[slice, int]]:
    """Yield the groups of `rank` in each round from `position` on, and the end of the round.

    A round is one batch for each rank. The batches that are left for the last round are halved,
    the largest first, until each rank has a part. (Only where that round has fewer groups than
    ranks, some ranks take the same groups, so that none has an empty batch.)

    Args:
        bounds: As of `SnapshotOrder.list_batch_bounds`.
        position: Position of the first group; the beginning of a batch.
        rank: Number of this process.
        n_ranks: Number of the processes that share the batches.
        drop_last: Whether to leave out a last round with fewer batches than ranks.
    """
    bounds = bounds[np.searchsorted(bounds, position) :]
    n_full, rest = divmod(len(bounds) - 1, n_ranks)
    for first in range(0, n_full * n_ranks, n_ranks):
        start, end = bounds[first + rank : first + rank + 2].tolist()
        yield slice(start, end), int(bounds[first + n_ranks])
    if rest and not drop_last:
        parts = _halve(bounds[-rest - 1 :].tolist(), n_ranks)
        yield parts[rank % len(parts)], int(bounds[-1])


def count_dealt_rounds(n_batches: int, n_ranks: int, *, drop_last: bool) -> int:
    """Count the batches that each rank takes of `n_batches`."""
    return n_batches // n_ranks if drop_last else -(-n_batches // n_ranks)


def _cut_pieces(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut pieces of these sizes into equal batches: (n_batches,) int64 sizes, piece by piece."""
    batches = [
        np.diff(np.arange(n_batches + 1) * size // n_batches)
        for size, n_batches in zip(sizes, -(-sizes // batch_size), strict=True)
    ]
    return np.concatenate(batches)


def _halve(bounds: list[int], n_parts: int) -> list[slice]:
    """Halve the largest of adjacent ranges until there are `n_parts`, or none has two groups."""
    while len(bounds) <= n_parts:
        sizes = np.diff(bounds)
        largest = int(np.argmax(sizes))
        if sizes[largest] < 2:
            break
        bounds.insert(largest + 1, bounds[largest] + int(sizes[largest]) // 2)
    return [slice(*pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]
