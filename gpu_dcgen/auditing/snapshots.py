"""Item features as of the snapshots (D6) and the items on sale (D11), counted anew for each snapshot."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from .log import DAY, Log

PRICE_CATEGORIES = ("Q1", "Q2", "Q3", "Q4")
_LOW_BITS = 20  # prices are summed in two halves, each exact as float64


def price_edges(log: Log) -> tuple[int, ...]:
    """Nearest-rank 1st, 25th, 50th, 75th and 99th percentiles of the prices of a log, in units; () without prices."""
    if log.units is None:
        return ()
    ranked = np.sort(log.units)
    return tuple(
        int(ranked[math.ceil(Fraction(percent, 100) * len(ranked)) - 1])
        for percent in (1, 25, 50, 75, 99)
    )


class Snapshots:
    """What was known of each item at S_k = midnight of the first day + k x snapshot_days, for the snapshots of one window.

    `log` holds nothing from the window's end on, so nothing here can know of it.
    """

    def __init__(self, log: Log, edges: tuple[int, ...], start: int, end: int, config: Any) -> None:
        self.log, self.edges, self.config = log, edges, config
        self.origin = log.first_time // DAY * DAY
        self.step = config.features.snapshot_days * DAY
        self.first = (start - self.origin) // self.step
        n = (end - 1 - self.origin) // self.step - self.first + 1
        self._by_time = np.argsort(log.time, kind="stable")
        self._times = log.time[self._by_time]
        self.popularity = np.zeros((n, log.n_items), dtype=np.float32)
        self.price = np.full((n, log.n_items), math.nan, dtype=np.float32)
        self.category = np.full((n, log.n_items), -1, dtype=np.int8)
        self.on_sale = np.ones((n, log.n_items), dtype=bool)
        last_days = None if log.units is None else _LastDays(log)
        for k in range(n):
            instant = self.origin + (self.first + k) * self.step
            rows = self._rows(instant, config.features.popularity_days)
            counts = np.bincount(log.item[rows], minlength=log.n_items)
            self.popularity[k] = _log_scaled(counts)
            if last_days is not None:
                sums, n_sold = last_days.before(instant)
                recent = counts > 0
                sums[recent], n_sold[recent] = (
                    _sums(log.item[rows], log.units[rows], log.n_items)[recent],
                    counts[recent],
                )
                self._set_prices(k, sums, n_sold)
            if config.negative_sampling.corpus == "live":
                live = self._rows(instant, config.negative_sampling.live_days)
                self.on_sale[k] = np.bincount(log.item[live], minlength=log.n_items) > 0

    def at(self, time: Any) -> Any:
        """Rows of the tables for times: the latest snapshot that is not after each."""
        return (time - self.origin) // self.step - self.first

    def _rows(self, instant: int, days: int) -> np.ndarray:
        low, high = np.searchsorted(self._times, [instant - days * DAY, instant])
        return self._by_time[low:high]

    def _set_prices(self, k: int, sums: np.ndarray, counts: np.ndarray) -> None:
        low, *quartiles, high = self.edges
        known = counts > 0
        mean = sums[known] / counts[known]
        scaled = (
            np.clip((mean - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(len(mean))
        )
        self.price[k, known] = scaled.astype(np.float32)
        self.category[k, known] = sum((mean > edge).astype(np.int8) for edge in quartiles)


def _log_scaled(counts: np.ndarray) -> np.ndarray:
    most = counts.max()
    if most == 0:
        return np.zeros(len(counts), dtype=np.float32)
    logs = np.log1p(np.arange(most + 1, dtype=np.float64)).astype(np.float32).astype(np.float64)
    return (logs[counts] / logs[most]).astype(np.float32)


def _sums(cell: np.ndarray, units: np.ndarray, n: int) -> np.ndarray:
    """Exact sums of units (int64) by cell."""
    high = np.bincount(cell, weights=(units >> _LOW_BITS).astype(np.float64), minlength=n)
    low = np.bincount(
        cell, weights=(units & ((1 << _LOW_BITS) - 1)).astype(np.float64), minlength=n
    )
    return (high.astype(np.int64) << _LOW_BITS) + low.astype(np.int64)


class _LastDays:
    """Sum and number of prices on each item's last day of sale before an instant; instants rise."""

    def __init__(self, log: Log) -> None:
        n_days = int(log.time.max()) // DAY + 1
        cells, place = np.unique(
            log.time // DAY * log.n_items + log.item, return_inverse=True
        )  # by day, then item
        self._day, self._item = cells // log.n_items, cells % log.n_items
        self._sum, self._count = _sums(place, log.units, len(cells)), np.bincount(place)
        self._starts = np.searchsorted(self._day, np.arange(n_days + 1))
        self._done = 0
        self._sums, self._counts = np.zeros(log.n_items, np.int64), np.zeros(log.n_items, np.int64)

    def before(self, instant: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies of both, (I,) int64; instants are midnights."""
        stop = int(self._starts[min(instant // DAY, len(self._starts) - 1)])
        cells = np.arange(self._done, stop)[::-1]  # the latest first
        items, latest = np.unique(self._item[cells], return_index=True)
        self._sums[items], self._counts[items] = (
            self._sum[cells[latest]],
            self._count[cells[latest]],
        )
        self._done = max(stop, self._done)
        return self._sums.copy(), self._counts.copy()
