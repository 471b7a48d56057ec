"""Stage 3: compute what was known at each time: ownership, item snapshots, items on sale.

See D6 (features as of a time), D8 (price edges of the train window), D11 (the corpus).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..backend.lanes import allocate_lanes
from ..backend.protocol import Array, Backend
from ..backend.runs import (
    chunks,
    count_codes,
    find_positions,
    find_run_starts,
    gather,
    offsets_from_lengths,
    position_type,
    search_ordered,
    sort_order,
)
from ..config import DatasetConfig
from ..errors import InputError
from ..kernels.arguments import Corpus, Ownership
from ..kernels.gather import find_day_starts, mark_later
from ..kernels.users import preferred_channels
from .interactions import Interactions
from .windows import DAY, format_time

PRICE_UNIT = 1 << 20  # prices are summed and compared in integer units of 2^-20
PRICE_CATEGORIES = 4
_MAX_SUM = 1 << 62  # units of one item's sales: their sums stay within int64


@dataclass(frozen=True)
class ItemSnapshots:
    """State of each item at the midnights S_k = origin + k * step.

    It is computed from interactions before S_k alone. A sample at time t uses
    k = (t - origin) // step, for its positive and its negatives alike (D6).
    """

    origin: int  # nanoseconds: midnight of the first day
    step: int  # nanoseconds
    corpus: Corpus  # the items on sale
    group: Array  # (I,) int32  product group, -1 null
    popularity: Array  # (K, I) float32  log-scaled sales of the last `popularity_days`, 0..1
    price: Array  # (K, I) float32  normalized price 0..1, NaN unknown
    price_category: Array  # (K, I) int8  0..3 for Q1..Q4, -1 unknown
    on_sale: Array  # (K, I) bool

    def number_of(self, time: Array) -> Array:
        """Return the snapshot k (n,) int64 that a sample at each `time` (n,) int64 uses."""
        return (time - self.origin) // self.step


@dataclass(frozen=True)
class AsOfFeatures:
    """What was known as of a time: per interaction, per (user, item) pair, per item snapshot."""

    preferred_channel: Array  # (E,) int8  the user's most frequent channel strictly before, -1 none
    is_repurchase: Array  # (E,) bool  the user had bought the item strictly before
    ownership: Ownership  # distinct items of each user, and when each was first bought
    units: list[int]  # (P,) each distinct price in units of 2^-20; [] without prices
    # p1, p25, p50, p75, p99 of the train window in units; () without prices
    price_edges: tuple[int, ...]
    # nanoseconds: time of the latest purchase that the edges are computed from
    edges_known_until: int | None
    snapshots: ItemSnapshots
    warnings: tuple[str, ...]


def compute_features(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> AsOfFeatures:
    """Compute everything that samples look up as of their time.

    Price edges come from interactions before `cut1` alone (D8); everything else from interactions
    strictly before its own time. Raises InputError where no interaction is before `cut1`.
    """
    if not bool((interactions.time < cut1).any()):
        raise InputError(
            "transactions: no interaction is left in the train window, before "
            f"{format_time(cut1)}, of {interactions.n_rows} in all.\n"
            "Lower filtering.min_user_interactions or filtering.min_item_interactions, cut later "
            "(split.train_share, split.val_from), or use a longer log."
        )
    is_repurchase, ownership = _find_first_purchases(interactions, backend)
    # `round` rounds half to even.
    units = [round(price * PRICE_UNIT) for price in interactions.prices.tolist()]
    edges, edges_known_until = _compute_price_edges(interactions, units, cut1, backend)
    return AsOfFeatures(
        preferred_channel=_find_preferred_channels(interactions, backend),
        is_repurchase=is_repurchase,
        ownership=ownership,
        units=units,
        price_edges=edges,
        edges_known_until=edges_known_until,
        snapshots=_build_snapshots(interactions, units, edges, config, backend),
        warnings=_list_warnings(edges, config),
    )


def _find_preferred_channels(interactions: Interactions, backend: Backend) -> Array:
    """Return each user's most frequent channel strictly before each interaction (E,) int8."""
    xp = backend.xp
    preferred = xp.empty(interactions.n_rows, dtype=xp.int8)
    seen = allocate_lanes(backend, interactions.n_users, seen=(128, xp.int32))["seen"]
    backend.for_each(
        preferred_channels,
        interactions.n_users,
        interactions.user_offsets,
        interactions.basket_start,
        interactions.channel,
        seen,
        preferred,
        lanes=int(seen.shape[0]),
    )
    return preferred


def _find_first_purchases(interactions: Interactions, backend: Backend) -> tuple[Array, Ownership]:
    """Return whether each interaction repeats an earlier one (E,) bool, and the ownership."""
    xp, log = backend.xp, interactions
    # Rows by item and time, sorted stably by user: (user, item, time).
    user = gather(backend, log.user, log.by_item)
    order = gather(backend, log.by_item, sort_order(backend, [(user, log.n_users)]))
    del user
    first = find_positions(xp, find_run_starts(backend, order, log.user, log.item))
    n_owned = int(first.shape[0])
    is_repurchase = xp.empty(log.n_rows, dtype=bool)
    backend.for_each(mark_later, n_owned, log.time, order, first, is_repurchase)
    row = gather(backend, order, first)
    del order, first
    counts = count_codes(xp, gather(backend, log.user, row), log.n_users)
    item, since = gather(backend, log.item, row), gather(backend, log.time, row)
    return is_repurchase, Ownership(offsets_from_lengths(xp, counts), item, since)


def _list_warnings(edges: tuple[int, ...], config: DatasetConfig) -> tuple[str, ...]:
    warnings = []
    if len(set(edges[1:4])) < len(edges[1:4]):
        warnings.append(
            "prices: two quartiles of the train window's prices are equal, so a price category is "
            "empty (D6)"
        )
    if config.negative_sampling.corpus == "all":
        warnings.append(
            "negative_sampling.corpus: all draws items that were not on sale, and their features "
            "can give the label away (D11)"
        )
    return tuple(warnings)


def _compute_price_edges(
    interactions: Interactions, units: list[int], cut1: int, backend: Backend
) -> tuple[tuple[int, ...], int | None]:
    """Return percentiles of the prices paid before cut1, in units, and the time of the last.

    The 1st, 25th, 50th, 75th and 99th, by nearest rank.
    """
    if not units:
        return (), None
    xp = backend.xp
    counts, known_until = xp.zeros(len(units), dtype=xp.int64), interactions.first_time
    for rows in chunks(interactions.n_rows):
        time = interactions.time[rows]
        is_known = time < cut1
        counts += count_codes(xp, interactions.price[rows][is_known], len(units))
        if bool(is_known.any()):
            known_until = max(known_until, int(time[is_known].max()))
    below = xp.cumsum(counts)
    n = int(below[-1])
    ranks = [math.ceil(Fraction(percent, 100) * n) for percent in (1, 25, 50, 75, 99)]
    codes = backend.to_host(xp.searchsorted(below, backend.from_host(ranks)))
    return tuple(units[code] for code in codes.tolist()), known_until


def _build_snapshots(
    interactions: Interactions,
    units: list[int],
    edges: tuple[int, ...],
    config: DatasetConfig,
    backend: Backend,
) -> ItemSnapshots:
    """Compute each snapshot in turn, counting each interaction once."""
    xp = backend.xp
    n_items, step = interactions.n_items, config.features.snapshot_days * DAY
    origin = interactions.first_time // DAY * DAY
    n_snapshots = (interactions.last_time - origin) // step + 1
    group = interactions.item_columns["product_group"]
    n_groups = len(group.values)

    prices = _MeanPrices(interactions, units, edges, backend) if units else None
    item_by_time = gather(backend, interactions.item, interactions.by_time)
    sales = _SalesCounter(xp, item_by_time, n_items)
    sales_before_popularity = _SalesCounter(xp, item_by_time, n_items)
    sales_before_live = _SalesCounter(xp, item_by_time, n_items)

    def rows_before(back_days: int) -> list[int]:
        """Return for each snapshot the number of interactions before S_k - back_days."""
        times = backend.from_host([origin + k * step - back_days * DAY for k in range(n_snapshots)])
        places = search_ordered(xp, interactions.time, interactions.by_time, times)
        return backend.to_host(places).tolist()

    n_known = rows_before(0)
    n_unpopular = rows_before(config.features.popularity_days)
    n_stale = rows_before(config.negative_sampling.live_days)
    logarithms = _tabulate_logarithms(interactions, n_known, n_unpopular, backend)
    popularity = xp.zeros((n_snapshots, n_items), dtype=xp.float32)
    price = xp.full((n_snapshots, n_items), math.nan, dtype=xp.float32)
    category = xp.full((n_snapshots, n_items), -1, dtype=xp.int8)
    on_sale = xp.ones((n_snapshots, n_items), dtype=bool)
    width = (PRICE_CATEGORIES + 1) * (n_groups + 1)
    cell_offsets = xp.empty((n_snapshots, width + 1), dtype=xp.int32)
    corpora, cells, sizes = [], [], [0]
    for k in range(n_snapshots):
        sold = sales.count(n_known[k])
        sold_before = sales_before_popularity.count(n_unpopular[k])
        popularity[k] = _log_scale(sold - sold_before, logarithms, xp)
        if prices is not None:
            price[k], category[k] = prices.as_of(sold, sold_before)
        if config.negative_sampling.corpus == "live":
            on_sale[k] = sold - sales_before_live.count(n_stale[k]) > 0
        items = xp.nonzero(on_sale[k])[0].astype(xp.int32)
        cell = (category[k][items].astype(xp.int32) + 1) * (n_groups + 1) + group.codes[items] + 1
        order = xp.argsort(cell, kind="stable")
        bounds = xp.searchsorted(cell[order], xp.arange(width + 1, dtype=xp.int32))
        cell_offsets[k] = bounds.astype(xp.int32)
        corpora.append(items)
        cells.append(items[order])
        sizes.append(sizes[-1] + int(items.shape[0]))
    return ItemSnapshots(
        origin=origin,
        step=step,
        popularity=popularity,
        price=price,
        price_category=category,
        on_sale=on_sale,
        corpus=Corpus(
            offsets=backend.from_host(sizes).astype(xp.int64),
            item=xp.concatenate(corpora),
            cell_item=xp.concatenate(cells),
            cell_offsets=cell_offsets,
            n_groups=n_groups,
        ),
        group=group.codes,
    )


class _SalesCounter:
    """Interactions per item among the first n rows by time, for rising n."""

    def __init__(self, xp: Any, item_by_time: Array, n_items: int) -> None:
        self._xp, self._item, self._n_items = xp, item_by_time, n_items
        self._n_rows = 0
        self._counts: Array = xp.zeros(n_items, dtype=xp.int64)

    def count(self, n_rows: int) -> Array:
        """Return the interactions per item (I,) int64 among the first `n_rows`."""
        if n_rows > self._n_rows:
            self._counts = self._counts + count_codes(
                self._xp, self._item[self._n_rows : n_rows], self._n_items
            )
            self._n_rows = n_rows
        return self._counts


def _tabulate_logarithms(
    interactions: Interactions, n_known: list[int], n_unpopular: list[int], backend: Backend
) -> Array:
    """Return log(1 + n) as float64 for each count of sales that popularity may meet.

    An item's sales between a snapshot's two places, of K each, are at most all of its own, and at
    most all rows there.
    """
    n_rows = max(known - unpopular for known, unpopular in zip(n_known, n_unpopular, strict=True))
    max_sales = min(int(backend.xp.diff(interactions.item_offsets).max()), n_rows)
    return round_table([math.log1p(n) for n in range(max_sales + 1)], backend)


def _log_scale(sales: Array, logarithms: Array, xp: Any) -> Array:
    """Return log1p(sales) / log1p(the largest sales) as float32, 0 without sales.

    `logarithms` (n,) float64 are those of 1 + sales for 0..n-1 sales.
    """
    max_sales = int(sales.max())
    if max_sales == 0:
        return xp.zeros(sales.shape[0], dtype=xp.float32)
    return (logarithms[sales] / logarithms[max_sales]).astype(xp.float32)


def round_table(table: list[float], backend: Backend) -> Array:
    """Return a host table (n,) as float64 rounded to the 24 bits of a float32.

    So that the last bit of a platform's libm does not matter.
    """
    xp = backend.xp
    return backend.from_host(table).astype(xp.float32).astype(xp.float64)


class _MeanPrices:
    """Mean price of each item over a run of its rows, by prefix sums in (item, time) order."""

    def __init__(
        self, interactions: Interactions, units: list[int], edges: tuple[int, ...], backend: Backend
    ) -> None:
        xp = self._xp = backend.xp
        log, n = interactions, interactions.n_rows
        unit_of = backend.from_host(units).astype(xp.int64)
        self._sum_before = xp.zeros(n + 1, dtype=xp.int64)  # sums may wrap; differences do not
        sums = xp.zeros(log.n_items, dtype=xp.float64)
        for rows in chunks(n):
            by_item = log.by_item[rows]
            paid = gather(backend, unit_of, gather(backend, log.price, by_item))
            item, weights = gather(backend, log.item, by_item), paid.astype(xp.float64)
            sums += xp.bincount(item, weights=weights, minlength=log.n_items)
            before = self._sum_before[rows.start]
            self._sum_before[rows.start + 1 : rows.stop + 1] = before + xp.cumsum(paid)
        if (max_sum := float(sums.max())) >= _MAX_SUM:
            raise InputError(
                f"transactions: the prices paid for one item sum to {max_sum / PRICE_UNIT:.3g}; "
                f"only up to {_MAX_SUM / PRICE_UNIT:.3g} are summed exactly.\n"
                "Give prices in a larger unit: divide the column by 1000."
            )
        # The first sale of the same day, of each sale by item and time.
        self._day_start = xp.empty(n, dtype=position_type(xp, n))
        backend.for_each(
            find_day_starts,
            log.n_items,
            log.item_offsets,
            log.by_item,
            log.time,
            DAY,
            self._day_start,
        )
        self._first = interactions.item_offsets[:-1]
        self._edges = edges

    def as_of(self, sold: Array, sold_before: Array) -> tuple[Array, Array]:
        """Return normalized prices (I,) float32, NaN unknown, and categories (I,) int8 (D6).

        `sold` (I,) int64 counts each item's sales before the snapshot, `sold_before` (I,) int64
        those before the window that ends at it. A price is the mean over the window's sales;
        without any, over the sales of the last day that has some.
        """
        xp = self._xp
        low, _, _, _, high = self._edges
        stop = self._first + sold
        last_day = self._day_start[xp.maximum(stop - 1, 0)]
        start = xp.where(sold > sold_before, self._first + sold_before, last_day)
        is_known = sold > 0
        n_sales = xp.where(is_known, stop - start, 1)
        total = self._sum_before[stop] - self._sum_before[xp.where(is_known, start, stop)]
        mean = total / n_sales
        scaled = (
            xp.clip((mean - low) / (high - low), 0.0, 1.0)
            if high > low
            else xp.zeros(mean.shape[0])
        )
        category = xp.zeros(mean.shape[0], dtype=xp.int8)
        for edge in self._edges[1:4]:
            category += (mean > edge).astype(xp.int8)
        price = xp.where(is_known, scaled, math.nan).astype(xp.float32)
        return price, xp.where(is_known, category, -1).astype(xp.int8)
