"""Compute item features as of each snapshot (D6) and the items on sale then (D11)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import overload

import numpy as np

from ..config import DatasetConfig
from .purchase_log import DAY, PurchaseLog

LOW_BITS = 20  # prices are summed in two halves, each of which float64 holds exactly


def find_price_edges(log: PurchaseLog) -> tuple[int, ...]:
    """Return the 1st, 25th, 50th, 75th and 99th percentile of prices, in units.

    Percentiles are by nearest rank; () for a log without prices.
    """
    if log.price_units is None:
        return ()
    ranked = np.sort(log.price_units)
    return tuple(
        int(ranked[math.ceil(Fraction(percent, 100) * len(ranked)) - 1])
        for percent in (1, 25, 50, 75, 99)
    )


class ItemSnapshots:
    """What was known of each item at the snapshots of one window.

    Snapshot k is taken at midnight of the first day + k x `snapshot_days`. `log` ends with the
    window, so no value can depend on a later purchase. Rows of the tables are the S snapshots
    that the window uses, from number `first`.
    """

    popularity: np.ndarray  # (S, I) float32  in 0..1
    price: np.ndarray  # (S, I) float32  in 0..1, NaN unknown
    category: np.ndarray  # (S, I) int8  price category, -1 unknown
    on_sale: np.ndarray  # (S, I) bool

    def __init__(
        self,
        log: PurchaseLog,
        edges: tuple[int, ...],
        start: int,
        end: int,
        config: DatasetConfig,
    ) -> None:
        self._edges = edges
        self.origin = log.first_time // DAY * DAY
        self.step = config.features.snapshot_days * DAY
        self.first = (start - self.origin) // self.step
        n = (end - 1 - self.origin) // self.step - self.first + 1
        self._by_time = np.argsort(log.time)  # rows of one time in any order
        self._times = log.time[self._by_time]
        self.popularity = np.zeros((n, log.n_items), dtype=np.float32)
        self.price = np.full((n, log.n_items), math.nan, dtype=np.float32)
        self.category = np.full((n, log.n_items), -1, dtype=np.int8)
        self.on_sale = np.ones((n, log.n_items), dtype=bool)
        price_units = log.price_units
        last_days = None if price_units is None else _LastDays(log.n_items)
        for k in range(n):
            instant = self.instant(k)
            rows = self._rows_before(instant, config.features.popularity_days)
            counts = np.bincount(log.item[rows], minlength=log.n_items)
            self.popularity[k] = _scale_logarithms(counts)
            if price_units is not None and last_days is not None:
                # Recent sales give the price; without them, those of the last day of sale.
                last_days.add(self._times, self._by_time, instant, log.item, price_units)
                sums, n_sold = last_days.sums.copy(), last_days.counts.copy()
                is_recent = counts > 0
                recent_sums = _sum_exactly(log.item[rows], price_units[rows], log.n_items)
                sums[is_recent], n_sold[is_recent] = recent_sums[is_recent], counts[is_recent]
                self._set_prices(k, sums, n_sold)
            if config.negative_sampling.corpus == "live":
                live = self._rows_before(instant, config.negative_sampling.live_days)
                self.on_sale[k] = np.bincount(log.item[live], minlength=log.n_items) > 0
        del self._by_time, self._times  # as long as the log

    @overload
    def at(self, time: int) -> int: ...

    @overload
    def at(self, time: np.ndarray) -> np.ndarray: ...

    def at(self, time: int | np.ndarray) -> int | np.ndarray:
        """Return the tables' row for each time: that of the latest snapshot not after it."""
        return (time - self.origin) // self.step - self.first

    def instant(self, row: int) -> int:
        """Return when the snapshot of a row of the tables was taken, in ns."""
        return self.origin + (self.first + row) * self.step

    def _rows_before(self, instant: int, days: int) -> np.ndarray:
        """Return the rows of the log in the `days` before an instant."""
        low, high = np.searchsorted(self._times, [instant - days * DAY, instant])
        return self._by_time[low:high]

    def _set_prices(self, k: int, sums: np.ndarray, counts: np.ndarray) -> None:
        low, *quartiles, high = self._edges
        is_known = counts > 0
        mean = sums[is_known] / counts[is_known]
        scaled = (
            np.clip((mean - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(len(mean))
        )
        self.price[k, is_known] = scaled.astype(np.float32)
        self.category[k, is_known] = np.sum([mean > edge for edge in quartiles], axis=0)


def _scale_logarithms(counts: np.ndarray) -> np.ndarray:
    """Return log(1 + count) over its maximum, as float32."""
    highest = counts.max()
    if highest == 0:
        return np.zeros(len(counts), dtype=np.float32)
    logs = np.log1p(np.arange(highest + 1, dtype=np.float64)).astype(np.float32).astype(np.float64)
    return (logs[counts] / logs[highest]).astype(np.float32)


def _sum_exactly(cell: np.ndarray, units: np.ndarray, n: int) -> np.ndarray:
    """Sum whole numbers by cell, exactly: (n,) int64."""
    high = np.bincount(cell, weights=(units >> LOW_BITS).astype(np.float64), minlength=n)
    low = np.bincount(cell, weights=(units & ((1 << LOW_BITS) - 1)).astype(np.float64), minlength=n)
    return (high.astype(np.int64) << LOW_BITS) + low.astype(np.int64)


class _LastDays:
    """Sum and number of prices on each item's last day of sale before an instant: (I,) int64."""

    def __init__(self, n_items: int) -> None:
        self.sums, self.counts = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
        self._n_done = 0

    def add(
        self,
        times: np.ndarray,
        by_time: np.ndarray,
        instant: int,
        items: np.ndarray,
        price_units: np.ndarray,
    ) -> None:
        """Add the sales until an instant; these are midnights that rise from call to call.

        times (E,) int64, sorted, are those of the rows `by_time` of items and price_units.
        """
        stop = int(np.searchsorted(times, instant))
        rows, day = by_time[self._n_done : stop], times[self._n_done : stop] // DAY
        item = items[rows]
        last_day = np.full(len(self.sums), -1)
        last_day[item] = day  # days rise, and the last of equal items stays
        is_last = day == last_day[item]
        item, rows = item[is_last], rows[is_last]
        counts = np.bincount(item, minlength=len(self.sums))
        sums, is_sold = _sum_exactly(item, price_units[rows], len(self.sums)), counts > 0
        self.sums[is_sold], self.counts[is_sold] = sums[is_sold], counts[is_sold]
        self._n_done = stop
