"""The kept purchases (D4, D5), the cuts of the time axis (D7), and what of them was known at an instant (D6, D8)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from .columns import NS_PER_DAY, Category
from .hashes import hash_texts
from .tables import Tables

DAY = NS_PER_DAY
UNIT = 2**20  # prices are compared and averaged in whole 2^-20 units
SPLITS = ("train", "val", "test")


def exact(share: float) -> Fraction:
    """A share as the decimal that was written."""
    return Fraction(str(share))


@dataclass(frozen=True)
class Cuts:
    """Train is first <= t < cut1, val cut1 <= t < cut2, test cut2 <= t <= last; nanoseconds."""

    first: int
    cut1: int
    cut2: int
    last: int

    @property
    def starts(self) -> tuple[int, int, int]:
        return self.first, self.cut1, self.cut2

    @property
    def ends(self) -> tuple[int, int, int]:
        return self.cut1, self.cut2, self.last + 1

    def window(self, time: np.ndarray) -> np.ndarray:
        return (time >= self.cut1).astype(np.int8) + (time >= self.cut2)


def find_cuts(time: np.ndarray, split: Any) -> Cuts:
    """Over all accepted rows, duplicates included."""
    first, last = int(time.min()), int(time.max())
    if split.cuts is not None:
        return Cuts(first, *split.cuts, last)
    shares = exact(split.train_share), exact(split.train_share) + exact(split.val_share)
    if split.windows == "rows":
        ranked = np.sort(time)
        cut1, cut2 = (
            int(ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))]) for share in shares
        )
    else:
        cut1, cut2 = (math.ceil(first + share * (last - first)) for share in shares)
    return Cuts(first, cut1, cut2, last)


@dataclass(frozen=True)
class Log:
    """Purchases by (user, time, item); users and items are positions among the kept ids."""

    user: np.ndarray  # (E,) int64
    item: np.ndarray  # (E,) int64
    time: np.ndarray  # (E,) int64
    price: np.ndarray | None  # (E,) float64
    channel: np.ndarray  # (E,) int64  -1 unknown
    user_ids: pa.Array
    item_ids: pa.Array
    item_index: (
        np.ndarray
    )  # (I,) int64  from 1: by the window of the item's first purchase, then by id
    age: np.ndarray  # (U,) int64
    user_columns: dict[str, Category]
    item_columns: dict[str, Category]
    views: (
        tuple[np.ndarray, np.ndarray, np.ndarray] | None
    )  # user, item, time of kept users and items
    dropped: dict[str, int]  # collapsed, cold_user, cold_item
    first_time: int  # of all accepted rows

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    def before(self, end: int) -> Log:
        """The same shop as it was known just before `end`: users, items and what is fixed about them stay."""
        rows = np.flatnonzero(self.time < end)
        views = (
            None
            if self.views is None
            else tuple(column[self.views[2] < end] for column in self.views)
        )
        price = None if self.price is None else self.price[rows]
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "time", "channel")}
        return replace(self, **columns, price=price, views=views)

    @cached_property
    def user_key(self) -> np.ndarray:
        """What draws for users are keyed by: (U,) uint64."""
        return hash_texts(self.user_ids)

    @cached_property
    def item_key(self) -> np.ndarray:
        return hash_texts(self.item_ids)

    @cached_property
    def units(self) -> np.ndarray | None:
        """Prices in whole 2^-20, halves to even: (E,) int64."""
        return None if self.price is None else np.rint(self.price * UNIT).astype(np.int64)

    @cached_property
    def user_offsets(self) -> np.ndarray:
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    @cached_property
    def _new_basket(self) -> np.ndarray:
        new = np.ones(len(self.user), dtype=bool)
        new[1:] = (self.user[1:] != self.user[:-1]) | (self.time[1:] != self.time[:-1])
        return new

    @cached_property
    def basket(self) -> np.ndarray:
        """Number of each row's (user, time) among all such pairs, from 0: (E,) int64."""
        return np.cumsum(self._new_basket) - 1

    @cached_property
    def basket_start(self) -> np.ndarray:
        """The first row of the same user and time: rows of the user before it are what was known then (D6)."""
        return np.flatnonzero(self._new_basket)[self.basket]

    @property
    def n_before(self) -> np.ndarray:
        """Purchases of the row's user strictly before the row's time: (E,) int64."""
        return self.basket_start - self.user_offsets[self.user]

    @cached_property
    def _seen_channels(self) -> dict[int, np.ndarray]:
        """For each known channel, how many of the first n rows have it: (E+1,) int64."""
        known = [int(channel) for channel in np.unique(self.channel) if channel >= 0]
        return {channel: np.append(0, np.cumsum(self.channel == channel)) for channel in known}

    def preferred_channel(self, row: np.ndarray) -> np.ndarray:
        """The most frequent known channel before each row's basket, the lower id on ties; -1 without any: (n,) int64."""
        best, most = np.full(len(row), -1), np.zeros(len(row), dtype=np.int64)
        start, stop = self.user_offsets[self.user[row]], self.basket_start[row]
        for channel, seen in self._seen_channels.items():
            n = seen[stop] - seen[start]
            best, most = np.where(n > most, channel, best), np.maximum(n, most)
        return best

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Owned pairs as user x n_items + item, rising, and the time of each pair's first purchase."""
        key = self.user * self.n_items + self.item
        order = np.argsort(
            key, kind="stable"
        )  # rows of a user rise in time, so the first of a pair is its earliest
        key = key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        return key[first], self.time[order][first]

    def owned_since(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """When users first bought items: nanoseconds, or the end of time where they did not."""
        keys, since = self.pairs
        wanted = user * self.n_items + item
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, since[place], np.iinfo(np.int64).max)

    @cached_property
    def _baskets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        times = np.unique(self.time)
        starts = np.flatnonzero(self._new_basket)
        key = self.user[starts] * len(times) + np.searchsorted(times, self.time[starts])
        return times, key, self.basket * self.n_items + self.item

    def find(self, user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
        """The row of each (user, time, item), -1 where there is none: (n,) int64."""
        times, basket_key, row_key = self._baskets
        moment = np.minimum(np.searchsorted(times, time), len(times) - 1)
        wanted = user * len(times) + moment
        basket = np.minimum(np.searchsorted(basket_key, wanted), len(basket_key) - 1)
        there = (times[moment] == time) & (basket_key[basket] == wanted) & (user >= 0) & (item >= 0)
        wanted = basket * self.n_items + item
        row = np.minimum(np.searchsorted(row_key, wanted), len(row_key) - 1)
        return np.where(there & (row_key[row] == wanted), row, -1)


def read_log(tables: Tables, cuts: Cuts, filtering: Any) -> Log:
    """Collapse equal (user, item, time), then drop rare users and items until none is left. InputError if nothing is.

    With `filtering.counts: window`, each window's purchases are filtered beside those that are left of earlier ones.
    """
    order = np.lexsort((tables.item, tables.time, tables.user))
    user, item, time = tables.user[order], tables.item[order], tables.time[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (user[1:] != user[:-1]) | (time[1:] != time[:-1]) | (item[1:] != item[:-1])
    starts = np.flatnonzero(first)
    user, item, time = user[starts], item[starts], time[starts]
    price = None if tables.price is None else np.maximum.reduceat(tables.price[order], starts)
    channel = tables.channel[order]
    channel = np.minimum.reduceat(
        np.where(channel < 0, 1000, channel), starts
    )  # the smallest that is known
    channel = np.where(channel == 1000, -1, channel)
    dropped = {"collapsed": len(order) - len(starts), "cold_user": 0, "cold_item": 0}

    layer = (
        cuts.window(time) if filtering.counts == "window" else np.zeros(len(time), dtype=np.int8)
    )
    rows = np.zeros(0, dtype=np.int64)
    for window in range(3):
        rows = np.append(
            rows, _not_rare(np.flatnonzero(layer == window), rows, user, item, filtering, dropped)
        )
    rows = np.sort(rows)
    if not len(rows):
        raise InputError(
            "transactions: no purchase is left after the dataset's filters.\nBring the tables of the build."
        )
    users, items = np.unique(user[rows]), np.unique(item[rows])
    return Log(
        user=np.searchsorted(users, user[rows]),
        item=np.searchsorted(items, item[rows]),
        time=time[rows],
        price=None if price is None else price[rows],
        channel=channel[rows],
        user_ids=tables.user_ids.take(pa.array(users)),
        item_ids=tables.item_ids.take(pa.array(items)),
        item_index=_numbered(np.searchsorted(items, item[rows]), time[rows], len(items), cuts),
        age=tables.age[users],
        user_columns={name: column.take(users) for name, column in tables.user_columns.items()},
        item_columns={name: column.take(items) for name, column in tables.item_columns.items()},
        views=_kept_views(tables.views, users, items),
        dropped=dropped,
        first_time=int(tables.time.min()),
    )


def _not_rare(
    fresh: np.ndarray,
    settled: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    filtering: Any,
    dropped: dict[str, int],
) -> np.ndarray:
    """What is left of `fresh` rows beside `settled` ones, which count and stay."""
    n_rows = -1
    while n_rows != len(fresh):
        n_rows = len(fresh)
        for reason, codes, least in (
            ("cold_user", user, filtering.min_user_interactions),
            ("cold_item", item, filtering.min_item_interactions),
        ):
            stay = np.bincount(codes[np.append(settled, fresh)], minlength=1)[codes[fresh]] >= least
            dropped[reason] += int((~stay).sum())
            fresh = fresh[stay]
    return fresh


def _numbered(item: np.ndarray, time: np.ndarray, n_items: int, cuts: Cuts) -> np.ndarray:
    first = np.full(n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, item, time)
    index = np.empty(n_items, dtype=np.int64)
    index[np.argsort(cuts.window(first), kind="stable")] = np.arange(1, n_items + 1)
    return index


def _kept_views(
    views: tuple[np.ndarray, np.ndarray, np.ndarray] | None, users: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    if views is None:
        return None
    user, item, time = views
    kept = np.isin(user, users) & np.isin(item, items)
    return np.searchsorted(users, user[kept]), np.searchsorted(items, item[kept]), time[kept]
