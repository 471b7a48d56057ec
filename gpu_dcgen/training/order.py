"""The order of an epoch: a pure function of (seed, epoch, position), whoever reads.

An epoch permutes the row groups, takes them in windows of a fixed number, and permutes the groups
within each window. (A permutation of all groups would need each row group for nearly every batch.)
Batches are cut from this one sequence in rounds; a round gives one batch to each rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_MASK = (1 << 64) - 1
# Purposes of random numbers. The mixer is that of gpu_dcgen.kernels.rng, for arrays only and
# without numba.
ROW_GROUPS, GROUPS, ITEMS, NEGATIVES, WINDOWS, BATCHES, HARD_NEGATIVES = range(1, 8)


def mix(x: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finalizer to uint64 numbers, as `rng.mix`; returns a new array."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def make_key(*values: int) -> np.ndarray:
    """Fold the values into one key, as `rng.key`: (1,) uint64."""
    key = np.zeros(1, dtype=np.uint64)
    for place, value in enumerate(values):
        number = np.uint64(value & _MASK)
        key = mix(key ^ number) if place else mix(np.full(1, number))
    return key


def permute(n: int, *values: int) -> np.ndarray:
    """Return 0..n-1 in the order of random numbers that `values` determine: (n,) int64."""
    random = mix(make_key(*values) ^ mix(np.arange(n, dtype=np.uint64)))
    return np.argsort(random, kind="stable")


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch."""

    windows: tuple[tuple[int, ...], ...]  # numbers of the row groups of each window
    starts: tuple[int, ...]  # (n_windows + 1) position of each window's first group, then the end
    seed: int
    epoch: int
    is_shuffled: bool
    batch_size: int  # groups per batch, over which equal items are dealt

    @property
    def n_groups(self) -> int:
        """Number of groups in the epoch."""
        return self.starts[-1]

    def find_window(self, position: int) -> int:
        """Return the window of the group at `position`."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1

    def order_window(self, window: int, items: np.ndarray | None = None) -> np.ndarray | None:
        """Order the groups of a window: (n,) int64 into its row groups laid end to end.

        None stands for the order of the file. With `items` (n,), the item of each positive, groups
        are dealt out so that equal items fall into different batches, as far as the window has
        enough of them.
        """
        if not self.is_shuffled:
            return None
        n = self.starts[window + 1] - self.starts[window]
        order = permute(n, self.seed, GROUPS, self.epoch, window)
        if items is None:
            return order
        by_item = group_by_item(order, items, self.seed, self.epoch)
        # A batch may begin before the window.
        return deal(by_item, (self.starts[window] + np.arange(n)) // self.batch_size)


def make_epoch_order(
    sizes: list[int], seed: int, epoch: int, *, shuffle: bool, window: int, batch_size: int = 1
) -> EpochOrder:
    """Order an epoch.

    Args:
        sizes: Number of groups of each row group.
        seed: Seed of the order.
        epoch: Number of the epoch; each has its own order.
        shuffle: False for the order of the file.
        window: Number of row groups that are mixed at a time.
        batch_size: Groups per batch, for `EpochOrder.order_window` with items.
    """
    numbers = list(range(len(sizes)))
    if shuffle:
        numbers = permute(len(sizes), seed, ROW_GROUPS, epoch).tolist()
    window = window if shuffle else 1
    members = [tuple(numbers[at : at + window]) for at in range(0, len(numbers), window)]
    windows, starts = cut_windows(members, sizes)
    return EpochOrder(windows, starts, seed, epoch, shuffle, batch_size)


def cut_windows(
    members: list[tuple[int, ...]], sizes: list[int]
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Return windows of these row groups, and `EpochOrder.starts`, by the row groups' sizes."""
    counts = [sum(sizes[number] for number in numbers) for numbers in members]
    return tuple(members), (0, *np.cumsum(counts, dtype=np.int64).tolist())


def group_by_item(order: np.ndarray, items: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Reorder groups so that equal items are side by side, the items in a random order."""
    salt = make_key(seed, ITEMS, epoch)
    return order[np.argsort(mix(salt ^ items[order].astype(np.uint64)), kind="stable")]


def deal(groups: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Deal groups to batches like cards, so that neighbors in `groups` get different batches.

    `batch` is the batch of each place, never falling: (n,) int64.
    """
    n = len(groups)
    batch_start = np.concatenate([[0], np.flatnonzero(np.diff(batch)) + 1])
    seat = np.arange(n) - np.repeat(batch_start, np.diff(np.append(batch_start, n)))
    dealt = np.empty(n, dtype=np.int64)
    # First seats of all batches, then second seats, ...
    dealt[np.lexsort((batch, seat))] = groups
    return dealt


def count_rounds(n_groups: int, batch_size: int, n_ranks: int, *, drop_last: bool) -> int:
    """Count the batches that each rank takes from `n_groups` groups.

    Without `drop_last` the remainder is spread evenly over the ranks: as a last round, or, when not
    every rank would get a group, on top of the round before.
    """
    n_full, rest = divmod(n_groups, batch_size * n_ranks)
    if drop_last:
        return n_full
    return n_full + (rest >= n_ranks or (n_full == 0 and rest > 0))


def list_rounds(
    position: int, n_groups: int, batch_size: int, rank: int, n_ranks: int, *, drop_last: bool
) -> Iterator[tuple[slice, int]]:
    """Yield `slice_round` of each round from `position` on."""
    n_rounds = count_rounds(n_groups - position, batch_size, n_ranks, drop_last=drop_last)
    for _ in range(n_rounds):
        rows, position = slice_round(
            position, n_groups, batch_size, rank, n_ranks, drop_last=drop_last
        )
        yield rows, position


def slice_round(
    position: int, n_groups: int, batch_size: int, rank: int, n_ranks: int, *, drop_last: bool
) -> tuple[slice, int]:
    """Return the groups of `rank` in the round that begins at `position`, and the round's end.

    Fewer groups than ranks remain only when an epoch is resumed with more ranks than it began with.
    Every rank takes all of them then: none has an empty batch, and the mean of equal gradients is
    that of the groups taken once.
    """
    n_left = n_groups - position
    if n_left < n_ranks and not drop_last:
        return slice(position, n_groups), n_groups
    if drop_last or count_rounds(n_left, batch_size, n_ranks, drop_last=False) > 1:
        start = position + rank * batch_size
        return slice(start, start + batch_size), position + n_ranks * batch_size
    start, end = (position + r * n_left // n_ranks for r in (rank, rank + 1))
    return slice(start, end), n_groups
