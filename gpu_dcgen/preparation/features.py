"""Stage 3: Interactions -> what was known at each time: ownership, item snapshots, the items on sale (D6, D8, D11)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, offsets_from_lengths, run_offsets, run_starts, sort_order
from ..config.dataset_config import DatasetConfig
from ..errors import InputError
from ..kernels.users import preferred_channels
from .interactions import Interactions
from .windows import DAY, iso

PRICE_UNIT = 1 << 20  # prices are summed and compared in integer units of 2^-20
PRICE_CATEGORIES = 4
_MOST_UNITS = 1 << 62  # of one item's sales: their sums stay within int64


@dataclass(frozen=True)
class Snapshots:
    """What is known about each item at the midnights S_k = origin + k * step, from interactions before S_k alone.

    A sample at time t uses k = (t - origin) // step, for its positive and its negatives alike (D6).
    """

    origin: int  # nanoseconds: midnight of the first day
    step: int  # nanoseconds
    popularity: Array  # (K, I) float32  log-scaled sales of the last `popularity_days`, 0..1
    price: Array  # (K, I) float32  normalized price 0..1, NaN unknown
    price_category: Array  # (K, I) int8  0..3 for Q1..Q4, -1 unknown
    on_sale: Array  # (K, I) bool
    corpus_offsets: Array  # (K+1,) int64  each snapshot's run in the two arrays below
    corpus: Array  # (C,) int32  items on sale, rising within a snapshot
    cells: (
        Array  # (C,) int32  the same items by (price category, product group, item), unknown first
    )
    # (K, 5 * (G + 1) + 1) int32  runs of `cells` within the snapshot, by (category + 1) * (G + 1) +
    # group + 1
    cell_offsets: Array
    group: Array  # (I,) int32  product group, -1 null
    n_groups: int  # G


@dataclass(frozen=True)
class Features:
    """As-of knowledge per interaction, per (user, item) pair and per item snapshot."""

    preferred_channel: Array  # (E,) int8  the user's most frequent channel strictly before, -1 none
    is_repurchase: Array  # (E,) bool  the user had bought the item strictly before
    owned_offsets: Array  # (U+1,) int64  each user's run in the two arrays below
    owned_item: Array  # (N,) int32  distinct items of the user, rising
    owned_since: Array  # (N,) int64  time of the first purchase
    units: Any  # host list (P,) int  each distinct price in units of 2^-20; [] without prices
    price_edges: tuple[
        int, ...
    ]  # p1, p25, p50, p75, p99 of the train window in units; () without prices
    edges_known_until: (
        int | None
    )  # nanoseconds: the time of the latest purchase that they were computed from
    snapshots: Snapshots
    warnings: tuple[str, ...]


def compute_features(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> Features:
    """Build everything that samples look up as of their time.

    Price edges come from interactions before `cut1` alone (D8); all else looks strictly back from its own time. Raises
    InputError where there is no interaction before it.
    """
    if not bool((interactions.time < cut1).any()):
        raise InputError(
            f"transactions: no interaction is left in the train window, before {iso(cut1)}, of {interactions.n_rows} in all.\n"
            "Lower filtering.min_user_interactions or filtering.min_item_interactions, cut later (split.train_share, "
            "split.val_from), or bring a longer log."
        )
    repurchase, owned_offsets, owned_item, owned_since = _ownership(interactions, backend)
    units = [
        round(price * PRICE_UNIT) for price in interactions.prices.tolist()
    ]  # rounds half to even
    edges, edges_known_until = _price_edges(interactions, units, cut1, backend)
    return Features(
        preferred_channel=_preferred_channels(interactions, backend),
        is_repurchase=repurchase,
        owned_offsets=owned_offsets,
        owned_item=owned_item,
        owned_since=owned_since,
        units=units,
        price_edges=edges,
        edges_known_until=edges_known_until,
        snapshots=_take_snapshots(interactions, units, edges, config, backend),
        warnings=_warnings(edges, config),
    )


def _preferred_channels(interactions: Interactions, backend: Backend) -> Array:
    """Each user's most frequent channel strictly before each interaction (E,) int8."""
    xp = backend.xp
    preferred = xp.empty(interactions.n_rows, dtype=xp.int8)
    lanes = backend.lanes(128 * 4)
    seen = xp.empty((lanes, 128), dtype=xp.int32, order=backend.scratch_order)
    backend.for_each(
        preferred_channels,
        interactions.n_users,
        interactions.user_offsets,
        interactions.basket_start,
        interactions.channel,
        seen,
        preferred,
        lanes=lanes,
    )
    return preferred


def _ownership(interactions: Interactions, backend: Backend) -> tuple[Array, Array, Array, Array]:
    """Whether each interaction repeats an earlier one (E,) bool; each user's distinct items and when they were first bought."""
    xp = backend.xp
    # (user, item, time): positions in the rows' own order rise with time within a user, so a stable
    # sort keeps it.
    order = sort_order(
        backend,
        [(interactions.user, interactions.n_users), (interactions.item, interactions.n_items)],
    )
    user, item, time = interactions.user[order], interactions.item[order], interactions.time[order]
    first = run_starts(xp, user, item)
    starts = xp.nonzero(first)[0]
    since = time[starts]
    repurchase = xp.empty(interactions.n_rows, dtype=bool)
    repurchase[order] = time > since[xp.cumsum(first) - 1]
    return repurchase, run_offsets(xp, user[starts], interactions.n_users), item[starts], since


def _warnings(edges: tuple[int, ...], config: DatasetConfig) -> tuple[str, ...]:
    found = []
    if len(set(edges[1:4])) < len(edges[1:4]):
        found.append(
            "prices: two quartiles of the train window's prices are equal, so a price category is empty (D6)"
        )
    if config.negative_sampling.corpus == "all":
        found.append(
            "negative_sampling.corpus: all draws items that were not on sale, whose features can give the label away (D11)"
        )
    return tuple(found)


def _price_edges(
    interactions: Interactions, units: list[int], cut1: int, backend: Backend
) -> tuple[tuple[int, ...], int | None]:
    """Nearest-rank 1st, 25th, 50th, 75th and 99th percentiles of the prices paid before cut1, in units; when the last was."""
    if not units:
        return (), None
    xp = backend.xp
    rows = xp.nonzero(interactions.time < cut1)[0]
    paid = interactions.price[rows]
    below = xp.cumsum(count_codes(xp, paid, len(units)))
    n = int(paid.shape[0])
    ranks = [math.ceil(Fraction(percent, 100) * n) for percent in (1, 25, 50, 75, 99)]
    codes = backend.to_host(xp.searchsorted(below, backend.from_host(ranks)))
    return tuple(units[code] for code in codes.tolist()), int(interactions.time[rows].max())


def _take_snapshots(
    interactions: Interactions,
    units: list[int],
    edges: tuple[int, ...],
    config: DatasetConfig,
    backend: Backend,
) -> Snapshots:
    xp = backend.xp
    n_items, step = interactions.n_items, config.features.snapshot_days * DAY
    origin = interactions.first_time // DAY * DAY
    n_snapshots = (interactions.last_time - origin) // step + 1
    group = interactions.item_columns["product_group"]
    n_groups = len(group.values)

    prices = _PriceRuns(interactions, units, edges, backend) if units else None
    item_by_time = interactions.item[interactions.by_time]
    time_by_time = interactions.time[interactions.by_time]
    sales = _Counter(xp, item_by_time, n_items)
    before_popular = _Counter(xp, item_by_time, n_items)
    before_live = _Counter(xp, item_by_time, n_items)

    def rows_before(back_days: int) -> list[int]:
        """For each snapshot, the number of interactions before S_k - back_days."""
        instants = backend.from_host(
            [origin + k * step - back_days * DAY for k in range(n_snapshots)]
        )
        return backend.to_host(xp.searchsorted(time_by_time, instants)).tolist()

    at_instant = rows_before(0)
    at_popular = rows_before(config.features.popularity_days)
    at_live = rows_before(config.negative_sampling.live_days)
    popularity = xp.zeros((n_snapshots, n_items), dtype=xp.float32)
    price = xp.full((n_snapshots, n_items), math.nan, dtype=xp.float32)
    category = xp.full((n_snapshots, n_items), -1, dtype=xp.int8)
    on_sale = xp.ones((n_snapshots, n_items), dtype=bool)
    width = (PRICE_CATEGORIES + 1) * (n_groups + 1)
    cell_offsets = xp.empty((n_snapshots, width + 1), dtype=xp.int32)
    corpora, cells, sizes = [], [], [0]
    for k in range(n_snapshots):
        sold = sales.up_to(at_instant[k])
        since_popular = before_popular.up_to(at_popular[k])
        recent = sold - since_popular
        popularity[k] = _log_scaled(recent, backend)
        if prices is not None:
            price[k], category[k] = prices.as_of(sold, since_popular)
        if config.negative_sampling.corpus == "live":
            on_sale[k] = sold - before_live.up_to(at_live[k]) > 0
        items = xp.nonzero(on_sale[k])[0].astype(xp.int32)
        cell = (category[k][items].astype(xp.int32) + 1) * (n_groups + 1) + group.codes[items] + 1
        order = xp.argsort(cell, kind="stable")
        cell_offsets[k] = xp.searchsorted(cell[order], xp.arange(width + 1, dtype=xp.int32)).astype(
            xp.int32
        )
        corpora.append(items)
        cells.append(items[order])
        sizes.append(sizes[-1] + int(items.shape[0]))
    return Snapshots(
        origin=origin,
        step=step,
        popularity=popularity,
        price=price,
        price_category=category,
        on_sale=on_sale,
        corpus_offsets=backend.from_host(sizes).astype(xp.int64),
        corpus=xp.concatenate(corpora),
        cells=xp.concatenate(cells),
        cell_offsets=cell_offsets,
        group=group.codes,
        n_groups=n_groups,
    )


class _Counter:
    """Interactions per item among the first n rows by time, for rising n: each row is counted once."""

    def __init__(self, xp: Any, item_by_time: Array, n_items: int) -> None:
        self._xp, self._item, self._n_items = xp, item_by_time, n_items
        self._rows, self._counts = 0, xp.zeros(n_items, dtype=xp.int64)

    def up_to(self, n_rows: int) -> Array:
        if n_rows > self._rows:
            self._counts = self._counts + count_codes(
                self._xp, self._item[self._rows : n_rows], self._n_items
            )
            self._rows = n_rows
        return self._counts


def _log_scaled(sales: Array, backend: Backend) -> Array:
    """log1p(sales) / log1p(the largest sales) as float32, by a table of logarithms rounded to 24 bits."""
    xp = backend.xp
    n_most = int(sales.max())
    if n_most == 0:
        return xp.zeros(sales.shape[0], dtype=xp.float32)
    table = (
        backend.from_host([math.log1p(n) for n in range(n_most + 1)])
        .astype(xp.float32)
        .astype(xp.float64)
    )
    return (table[sales] / table[n_most]).astype(xp.float32)


class _PriceRuns:
    """Mean price of each item over a run of its interactions, by prefix sums in (item, time) order."""

    def __init__(
        self, interactions: Interactions, units: list[int], edges: tuple[int, ...], backend: Backend
    ) -> None:
        xp = self._xp = backend.xp
        by_item = interactions.by_item
        paid = backend.from_host(units).astype(xp.int64)[interactions.price[by_item]]
        most = float(xp.bincount(interactions.item[by_item], weights=paid.astype(xp.float64)).max())
        if most >= _MOST_UNITS:
            raise InputError(
                f"transactions: the prices paid for one item sum to {most / PRICE_UNIT:.3g}; "
                f"only up to {_MOST_UNITS / PRICE_UNIT:.3g} are summed exactly.\n"
                "Give prices in a larger unit: divide the column by 1000."
            )
        self._before = offsets_from_lengths(xp, paid)  # sums may wrap; differences do not
        del paid
        day = interactions.time[by_item] // DAY
        begins = run_starts(xp, interactions.item[by_item], day)
        del day
        self._new_day = xp.cumsum(begins) - 1
        self._day_start = xp.nonzero(begins)[0]
        self._first = interactions.item_offsets[:-1]
        self._edges = edges

    def as_of(self, sold: Array, sold_before_window: Array) -> tuple[Array, Array]:
        """Normalized price (I,) float32 and category (I,) int8 from the window, else from the last known day (D6)."""
        xp = self._xp
        low, _, _, _, high = self._edges
        stop = self._first + sold
        last = xp.maximum(stop - 1, 0)
        last_day = self._day_start[self._new_day[last]]
        start = xp.where(sold > sold_before_window, self._first + sold_before_window, last_day)
        known = sold > 0
        count = xp.where(known, stop - start, 1)
        mean = (self._before[stop] - self._before[xp.where(known, start, stop)]) / count
        scaled = (
            xp.clip((mean - low) / (high - low), 0.0, 1.0)
            if high > low
            else xp.zeros(mean.shape[0])
        )
        category = xp.zeros(mean.shape[0], dtype=xp.int8)
        for edge in self._edges[1:4]:
            category += (mean > edge).astype(xp.int8)
        return xp.where(known, scaled, math.nan).astype(xp.float32), xp.where(
            known, category, -1
        ).astype(xp.int8)
