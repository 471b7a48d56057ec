"""Which group comes when: a pure function of (seed, epoch, position), whoever reads and however many they are.

An epoch permutes the row groups, takes them in windows of a fixed number, and permutes the groups within each
window: a permutation of all groups would need each row group for nearly every batch. Batches are cut from this one
sequence in rounds; a round gives each rank a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MASK = (1 << 64) - 1
# What a draw is for; see gpu_dcgen/rng.py, whose mixer this is, for arrays only and without numba.
ROW_GROUPS, GROUPS, ITEMS, NEGATIVES = range(1, 5)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer over uint64, as `rng.mix`; a new array."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key(*values: int) -> np.ndarray:
    """(1,) uint64: the values folded into one, as `rng.key`."""
    folded = np.zeros(1, dtype=np.uint64)
    for place, value in enumerate(values):
        number = np.uint64(value & _MASK)
        folded = mix(folded ^ number) if place else mix(np.full(1, number))
    return folded


def permutation(n: int, *values: int) -> np.ndarray:
    """(n,) int64: 0..n-1 in the order of random numbers that the `values` determine."""
    return np.argsort(mix(key(*values) ^ mix(np.arange(n, dtype=np.uint64))), kind="stable")


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch."""

    windows: tuple[tuple[int, ...], ...]  # numbers of row groups
    firsts: tuple[
        int, ...
    ]  # position of each window's first group, and after the last one their number
    seed: int
    epoch: int
    shuffled: bool

    @property
    def n_groups(self) -> int:
        return self.firsts[-1]

    def window_at(self, position: int) -> int:
        """The window that holds the group at `position`."""
        return int(np.searchsorted(self.firsts, position, side="right")) - 1

    def within(
        self, window: int, item: np.ndarray | None = None, batch: int = 1
    ) -> np.ndarray | None:
        """(n,) int64: the order of a window's groups among those of its row groups laid end to end; None: as they lie.

        With `item`, the (n,) item of each positive, groups are dealt out so that equal ones fall into different
        batches of `batch` groups, as far as there are enough batches in the window.
        """
        if not self.shuffled:
            return None
        n = self.firsts[window + 1] - self.firsts[window]
        order = permutation(n, self.seed, GROUPS, self.epoch, window)
        if item is None:
            return order
        return _deal(order, item, key(self.seed, ITEMS, self.epoch), self.firsts[window], batch)


def epoch_order(
    sizes: list[int], seed: int, epoch: int, *, shuffle: bool, window: int
) -> EpochOrder:
    """The order of an epoch over row groups of the given `sizes` (groups); `window` row groups are mixed at a time."""
    numbers = (
        permutation(len(sizes), seed, ROW_GROUPS, epoch).tolist()
        if shuffle
        else list(range(len(sizes)))
    )
    window = window if shuffle else 1
    windows = tuple(tuple(numbers[at : at + window]) for at in range(0, len(numbers), window))
    counts = [sum(sizes[number] for number in members) for members in windows]
    return EpochOrder(
        windows, (0, *np.cumsum(counts, dtype=np.int64).tolist()), seed, epoch, shuffle
    )


def _deal(
    order: np.ndarray, item: np.ndarray, salt: np.ndarray, first: int, batch: int
) -> np.ndarray:
    """Sort the groups by item (in random order) and deal them to the batches like cards: equal items lie side by side."""
    n = len(order)
    by_item = order[np.argsort(mix(salt ^ item[order].astype(np.uint64)), kind="stable")]
    number = (first + np.arange(n)) // batch  # the batch that each place of the window belongs to
    start = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1])
    seat = np.arange(n) - np.repeat(start, np.diff(np.append(start, n)))
    dealt = np.empty(n, dtype=np.int64)
    dealt[np.lexsort((number, seat))] = (
        by_item  # first seats of all batches, then second seats, ...
    )
    return dealt


def n_rounds(n_groups: int, batch: int, n_ranks: int, *, drop_last: bool) -> int:
    """Batches that each rank takes from `n_groups` groups.

    Without `drop_last` what is left over is spread evenly over the ranks: as a last round, or, when not every rank
    would get a group, on top of the round before.
    """
    full, rest = divmod(n_groups, batch * n_ranks)
    if drop_last:
        return full
    return full + (rest >= n_ranks or (full == 0 and rest > 0))


def round_slice(
    position: int, n_groups: int, batch: int, rank: int, n_ranks: int, *, drop_last: bool
) -> tuple[slice, int]:
    """The groups of `rank` in the round that begins at `position`, and the position after the round.

    Fewer groups than ranks are left only where an epoch goes on with more ranks than it began with. Every rank takes all of
    them then: none has an empty batch, and the mean of equal gradients is that of the groups taken once.
    """
    left = n_groups - position
    if left < n_ranks and not drop_last:
        return slice(position, n_groups), n_groups
    if drop_last or n_rounds(left, batch, n_ranks, drop_last=False) > 1:
        start = position + rank * batch
        return slice(start, start + batch), position + n_ranks * batch
    return slice(
        position + rank * left // n_ranks, position + (rank + 1) * left // n_ranks
    ), n_groups
