"""Filter the purchases (D4, D5), cut the time axis (D7), and find what was known when."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from ..config import FilteringConfig, SplitConfig, to_fraction
from ..errors import InputError
from .hashes import hash_texts
from .input_columns import MAX_INT64, NS_PER_DAY, CodedColumn
from .input_files import NAME_THE_FOLDER
from .input_tables import AcceptedTables, Views
from .texts import Vocabulary

DAY = NS_PER_DAY
THURSDAY = 3  # 1970-01-01, counted from Monday
PRICE_UNITS = 2**20  # prices are compared and averaged as whole multiples of 2^-20
END_OF_TIME = MAX_INT64


def find_weekday(days: np.ndarray) -> np.ndarray:
    """Return the weekday of days since 1970, 0 for Monday."""
    return (days + THURSDAY) % 7


@dataclass(frozen=True)
class Cuts:
    """Train is first <= t < cut1, val cut1 <= t < cut2, test cut2 <= t <= last; in ns.

    With strategy `leave_last` both cuts come after the last time: all splits have the whole log.
    """

    first: int
    cut1: int
    cut2: int
    last: int

    @property
    def starts(self) -> tuple[int, int, int]:
        """The start of each split's window."""
        is_divided = self.cut1 <= self.last
        return (self.first, self.cut1, self.cut2) if is_divided else (self.first,) * 3

    @property
    def ends(self) -> tuple[int, int, int]:
        """The end of each split's window, exclusive."""
        return self.cut1, self.cut2, self.last + 1

    def find_window(self, time: np.ndarray) -> np.ndarray:
        """Return the window of each time: int8, 0 train, 1 val, 2 test."""
        return (time >= self.cut1).astype(np.int8) + (time >= self.cut2)


def find_cuts(time: np.ndarray, split: SplitConfig) -> Cuts:
    """Cut the time axis over all accepted rows, duplicates included."""
    first, last = int(time.min()), int(time.max())
    if split.strategy == "leave_last":
        return Cuts(first, last + 1, last + 1, last)
    if split.cuts is not None:
        cut1, cut2 = split.cuts
        return Cuts(first, cut1, cut2, last)
    shares = (
        to_fraction(split.train_share),
        to_fraction(split.train_share) + to_fraction(split.val_share),
    )
    if split.windows == "rows":
        ranked = np.sort(time)
        cut1, cut2 = (
            int(ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))]) for share in shares
        )
    else:
        cut1, cut2 = (math.ceil(first + share * (last - first)) for share in shares)
    return Cuts(first, cut1, cut2, last)


@dataclass(frozen=True)
class PurchaseLog:
    """Purchases by (user, time, item); users and items are positions among the remaining ids."""

    user: np.ndarray  # (E,) int32
    item: np.ndarray  # (E,) int32
    time: np.ndarray  # (E,) int64
    price: np.ndarray | None  # (E,) float64
    channel: np.ndarray  # (E,) int8  -1 unknown
    user_ids: pa.Array
    item_ids: pa.Array
    # (I,) int64  from 1: by the window of the item's first purchase, then by id
    item_index: np.ndarray
    age: np.ndarray  # (U,) int64  -1 unknown
    user_columns: dict[str, CodedColumn]
    item_columns: dict[str, CodedColumn]
    views: Views | None  # of the remaining users and items
    dropped: dict[str, int]  # collapsed, cold_user, cold_item
    first_time: int  # of all accepted rows

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def before(self, end: int) -> PurchaseLog:
        """Return the log as it was known just before `end`; its users and items stay."""
        rows = np.flatnonzero(self.time < end)
        if len(rows) == len(self.time) and self.views is None:
            return self
        views = self.views
        if views is not None:
            is_known = views.time < end
            views = Views(views.user[is_known], views.item[is_known], views.time[is_known])
        price = None if self.price is None else self.price[rows]
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "time", "channel")}
        return replace(self, **columns, price=price, views=views)

    @cached_property
    def users(self) -> Vocabulary:
        """The ids of the users, to find texts among them."""
        return Vocabulary(self.user_ids)

    @cached_property
    def items(self) -> Vocabulary:
        """The ids of the items, to find texts among them."""
        return Vocabulary(self.item_ids)

    def make_pair_keys(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return one number for each pair, user x n_items + item: (n,) int64."""
        return user.astype(np.int64) * self.n_items + item

    @cached_property
    def user_key(self) -> np.ndarray:
        """The numbers that key the draws of users: (U,) uint64."""
        return hash_texts(self.user_ids)

    @cached_property
    def item_key(self) -> np.ndarray:
        """The numbers that key the draws of items: (I,) uint64."""
        return hash_texts(self.item_ids)

    @cached_property
    def price_units(self) -> np.ndarray | None:
        """Prices in whole units of 2^-20, halves to even: (E,) int64."""
        return None if self.price is None else np.rint(self.price * PRICE_UNITS).astype(np.int64)

    @cached_property
    def user_offsets(self) -> np.ndarray:
        """The rows of user u are user_offsets[u] to user_offsets[u + 1]: (U + 1,) int64."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    @property
    def _row_type(self) -> type[np.signedinteger]:
        """The type of numbers of rows."""
        return np.int32 if len(self.user) < 1 << 31 else np.int64

    @cached_property
    def _starts_basket(self) -> np.ndarray:
        starts = np.ones(len(self.user), dtype=bool)
        starts[1:] = (self.user[1:] != self.user[:-1]) | (self.time[1:] != self.time[:-1])
        return starts

    @cached_property
    def basket(self) -> np.ndarray:
        """Number of each row's (user, time) among all such pairs, from 0: (E,) int32 or int64."""
        return np.cumsum(self._starts_basket, dtype=self._row_type) - 1

    @cached_property
    def basket_start(self) -> np.ndarray:
        """The first row of each row's user and time: (E,) int32 or int64.

        The user's rows before it are what was known at that time (D6).
        """
        return np.flatnonzero(self._starts_basket).astype(self._row_type)[self.basket]

    @property
    def n_before(self) -> np.ndarray:
        """Purchases of the row's user strictly before the row's time: (E,) int64."""
        return self.basket_start - self.user_offsets[self.user]

    @cached_property
    def _n_by_channel(self) -> dict[int, np.ndarray]:
        """For each known channel, how many of the first n rows have it: (E + 1,)."""
        known = [int(channel) for channel in np.unique(self.channel) if channel >= 0]
        counts = {channel: np.zeros(len(self.user) + 1, self._row_type) for channel in known}
        for channel, n_until in counts.items():
            np.cumsum(self.channel == channel, out=n_until[1:])
        return counts

    def preferred_channel(self, row: np.ndarray) -> np.ndarray:
        """Return the most frequent known channel before each row's basket: (n,) int64.

        The lower id where channels tie; -1 where none is known.
        """
        best, n_best = np.full(len(row), -1), np.zeros(len(row), dtype=np.int64)
        start, stop = self.user_offsets[self.user[row]], self.basket_start[row]
        for channel, n_until in self._n_by_channel.items():
            n = n_until[stop] - n_until[start]
            best, n_best = np.where(n > n_best, channel, best), np.maximum(n, n_best)
        return best

    @cached_property
    def owned_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs user x n_items + item, sorted, and the time of each pair's first purchase."""
        key = self.make_pair_keys(self.user, self.item)
        # A user's rows are sorted by time, so the first row of a pair is its earliest.
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        return key[first], self.time[order][first]

    def owned_since(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return when users first bought items, END_OF_TIME where they never did: (n,) int64."""
        keys, since = self.owned_pairs
        wanted = self.make_pair_keys(user, item)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, since[place], END_OF_TIME)

    @cached_property
    def _basket_index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distinct times, sorted keys of baskets, and sorted keys of rows."""
        times = np.unique(self.time)
        starts = np.flatnonzero(self._starts_basket)
        moment = np.searchsorted(times, self.time[starts])
        key = self.user[starts].astype(np.int64) * len(times) + moment
        return times, key, self.make_pair_keys(self.basket, self.item)

    def find_rows(self, user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return the row of each (user, time, item), -1 where there is none: (n,) int64."""
        times, basket_key, row_key = self._basket_index
        moment = np.minimum(np.searchsorted(times, time), len(times) - 1)
        wanted = user.astype(np.int64) * len(times) + moment
        basket = np.minimum(np.searchsorted(basket_key, wanted), len(basket_key) - 1)
        exists = (times[moment] == time) & (basket_key[basket] == wanted)
        exists &= (user >= 0) & (item >= 0)
        wanted = self.make_pair_keys(basket, item)
        row = np.minimum(np.searchsorted(row_key, wanted), len(row_key) - 1)
        return np.where(exists & (row_key[row] == wanted), row, -1)


def build_log(tables: AcceptedTables, cuts: Cuts, filtering: FilteringConfig) -> PurchaseLog:
    """Collapse equal (user, item, time), then drop rare users and items until none is left.

    With `filtering.counts: window`, the purchases of each window are filtered together with
    those that remain of earlier windows. InputError if no purchase remains.
    """
    order = _sort_rows(tables)
    user, item, time = tables.user[order], tables.item[order], tables.time[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (user[1:] != user[:-1]) | (time[1:] != time[:-1]) | (item[1:] != item[:-1])
    starts = np.flatnonzero(is_first)
    user, item, time = user[starts], item[starts], time[starts]
    price = None if tables.price is None else np.maximum.reduceat(tables.price[order], starts)
    # The smallest known channel of each group: ids are below 128, and -1 is 255 without its sign.
    channel = tables.channel[order]
    channel = np.minimum.reduceat(channel.view(np.uint8), starts).view(np.int8)
    dropped = {"collapsed": len(order) - len(starts), "cold_user": 0, "cold_item": 0}

    layer = np.zeros(len(time), dtype=np.int8)
    if filtering.counts == "window":
        layer = cuts.find_window(time)
    rows = np.zeros(0, dtype=np.int64)
    for window in range(3):
        candidates = np.flatnonzero(layer == window)
        rows = np.append(rows, _drop_rare(candidates, rows, user, item, filtering, dropped))
    rows = np.sort(rows)
    if not len(rows):
        raise InputError(
            f"transactions: no purchase is left after the dataset's filters.\n{NAME_THE_FOLDER}"
        )
    users, items = np.unique(user[rows]), np.unique(item[rows])
    item = np.searchsorted(items, item[rows]).astype(np.int32)
    return PurchaseLog(
        user=np.searchsorted(users, user[rows]).astype(np.int32),
        item=item,
        time=time[rows],
        price=None if price is None else price[rows],
        channel=channel[rows],
        user_ids=tables.user_ids.take(pa.array(users)),
        item_ids=tables.item_ids.take(pa.array(items)),
        item_index=_number_items(item, time[rows], len(items), cuts),
        age=tables.age[users],
        user_columns={name: column.take(users) for name, column in tables.user_columns.items()},
        item_columns={name: column.take(items) for name, column in tables.item_columns.items()},
        views=_select_views(tables.views, users, items),
        dropped=dropped,
        first_time=int(tables.time.min()),
    )


def _sort_rows(tables: AcceptedTables) -> np.ndarray:
    """Return the rows by user, time and item, equal ones in any order: (T,) int64."""
    times = np.unique(tables.time)
    n_items, n_moments = len(tables.item_ids), len(times)
    if len(tables.user_ids) * n_moments * n_items > MAX_INT64:
        return np.lexsort((tables.item, tables.time, tables.user))
    # One number a row is sorted several times as fast as three.
    key = np.searchsorted(times, tables.time)
    key += tables.user.astype(np.int64) * n_moments
    key *= n_items
    key += tables.item
    return np.argsort(key)


def _drop_rare(
    rows: np.ndarray,
    earlier_rows: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    filtering: FilteringConfig,
    dropped: dict[str, int],
) -> np.ndarray:
    """Return what remains of `rows`; `earlier_rows` count, too, but always remain."""
    n_rows = -1
    while n_rows != len(rows):
        n_rows = len(rows)
        for reason, codes, minimum in (
            ("cold_user", user, filtering.min_user_interactions),
            ("cold_item", item, filtering.min_item_interactions),
        ):
            counts = np.bincount(codes[np.append(earlier_rows, rows)], minlength=1)
            is_frequent = counts[codes[rows]] >= minimum
            dropped[reason] += int((~is_frequent).sum())
            rows = rows[is_frequent]
    return rows


def _number_items(item: np.ndarray, time: np.ndarray, n_items: int, cuts: Cuts) -> np.ndarray:
    """Assign item indices from 1, by the window of the first purchase, then by id."""
    first = np.full(n_items, END_OF_TIME)
    np.minimum.at(first, item, time)
    index = np.empty(n_items, dtype=np.int64)
    index[np.argsort(cuts.find_window(first), kind="stable")] = np.arange(1, n_items + 1)
    return index


def _select_views(views: Views | None, users: np.ndarray, items: np.ndarray) -> Views | None:
    """Select the views of these users and items, and number both from 0."""
    if views is None:
        return None
    is_known = np.isin(views.user, users) & np.isin(views.item, items)
    return Views(
        np.searchsorted(users, views.user[is_known]).astype(np.int32),
        np.searchsorted(items, views.item[is_known]).astype(np.int32),
        views.time[is_known],
    )
