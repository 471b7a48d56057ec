"""List candidates of hard negatives for the items and snapshots of positives (D13)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..backend.halving import split_on_out_of_memory
from ..backend.lanes import allocate_lanes
from ..backend.protocol import Array, Backend
from ..backend.runs import chunks, count_codes, gather, offsets_from_lengths, search_ordered
from ..config import DatasetConfig, NegativeSamplingConfig, to_fraction
from ..kernels import rng
from ..kernels.candidates import CandidateLists, copy_list, list_candidates
from ..kernels.sources import (
    FIXED_ONE,
    GROUP_SHIFT,
    PRICE_SHIFT,
    CandidatePools,
    CandidateSettings,
    CandidateTables,
    NeighborLists,
    Purchases,
    RecentViews,
    SnapshotTables,
)
from ..preparation.features import AsOfFeatures, ItemSnapshots
from ..preparation.interactions import Interactions, Views
from ..preparation.splits import SplitPlan
from ..preparation.windows import DAY
from ..similarity_computer.compute import Neighbors
from .views import find_recent_views, select_views

_BLOCK = 1 << 16  # lists made at a time, at most
_N_LIST_COLUMNS = 3  # the first ones of `CandidateLists`: a value for each list
_CANDIDATE_BYTES = 4 + 1 + 2 + 2  # of a candidate in a block


@dataclass(frozen=True)
class ItemLists:
    """Lists of candidates, one for each item and snapshot that a positive has.

    A list's key is snapshot * number of items + item; its candidates are by (product group, item).
    """

    key: Array  # (L,) int64  rising
    offsets: Array  # (L+1,) int64  each list's run of candidates
    own_first: Array  # (L,) int16  the run in the list of the item's own product group
    own_stop: Array  # (L,) int16
    item: Array  # (C,) int32
    source: Array  # (C,) int8  code into `kernels.sources.SOURCES`
    score: Array  # (C,) int16  in units of 1 / `kernels.candidates.SCORE_ONE`
    rank: Array  # (C,) int16  among the list's item's neighbors, -1 for none


def list_item_candidates(
    interactions: Interactions,
    features: AsOfFeatures,
    neighbors: Neighbors,
    plan: SplitPlan,
    config: DatasetConfig,
    backend: Backend,
) -> ItemLists:
    """List the candidates of every item and snapshot that a positive of `plan` has."""
    xp, snapshots, settings = backend.xp, features.snapshots, config.negative_sampling
    n_snapshots = int(snapshots.on_sale.shape[0])
    has_positive = xp.zeros(interactions.n_items * n_snapshots, dtype=bool)
    for positives in plan.positives if settings.hard_negatives_per_positive else ():
        for part in chunks(len(positives)):
            row = positives.row[part]
            item, time = interactions.item[row], interactions.time[row]
            has_positive[list_key(item, snapshots.number_of(time), interactions.n_items, xp)] = True
    key = xp.nonzero(has_positive)[0].astype(xp.int64)
    del has_positive

    snapshot = key // interactions.n_items
    starts = offsets_from_lengths(xp, count_codes(xp, snapshot, n_snapshots))
    starts = backend.to_host(starts).tolist()
    item = (key - snapshot * interactions.n_items).astype(xp.int32)
    n = int(key.shape[0])
    # Nearly all lists are full. On the host, memory that is not written to is not used.
    listed = _allocate_lists(xp, n, n * settings.candidates)
    at, end = 0, 0
    if n:
        lister = _Lister(interactions, features, neighbors, config, backend)
        for k in range(n_snapshots):
            for block in lister.list_items(item[starts[k] : starts[k + 1]], k):
                at, end = _append(listed, at, end, block, backend)
    offsets = offsets_from_lengths(xp, listed.length)
    columns = (column[:end] for column in listed[_N_LIST_COLUMNS:])
    return ItemLists(key, offsets, listed.own_first, listed.own_stop, *columns)


def _allocate_lists(xp: Any, n: int, *shape: int) -> CandidateLists:
    """Return columns of n lists, and of candidates in the given shape."""
    return CandidateLists(
        length=xp.zeros(n, dtype=xp.int32),
        own_first=xp.empty(n, dtype=xp.int16),
        own_stop=xp.empty(n, dtype=xp.int16),
        item=xp.empty(shape, dtype=xp.int32),
        source=xp.empty(shape, dtype=xp.int8),
        score=xp.empty(shape, dtype=xp.int16),
        rank=xp.empty(shape, dtype=xp.int16),
    )


def _append(
    listed: CandidateLists, at: int, end: int, block: CandidateLists, backend: Backend
) -> tuple[int, int]:
    """Write a block behind `at` lists and `end` candidates; returns how many there are then."""
    xp, n = backend.xp, int(block.length.shape[0])
    offsets = offsets_from_lengths(xp, block.length) + end
    own = (column[at : at + n] for column in listed[:_N_LIST_COLUMNS])
    target = CandidateLists(*own, *listed[_N_LIST_COLUMNS:])
    backend.for_each(copy_list, n, block, offsets, target)
    return at + n, int(offsets[-1])


def list_key(item: Array, snapshot: Array, n_items: int, xp: Any) -> Array:
    """Return the keys (n,) int64 of lists (`ItemLists.key`)."""
    return snapshot * n_items + item.astype(xp.int64)


class _Lister:
    """Makes lists of candidates, snapshot by snapshot."""

    def __init__(
        self,
        interactions: Interactions,
        features: AsOfFeatures,
        neighbors: Neighbors,
        config: DatasetConfig,
        backend: Backend,
    ) -> None:
        snapshots, settings = features.snapshots, config.negative_sampling
        self._log, self._snapshots, self._backend = interactions, snapshots, backend
        self._views = select_views(interactions, settings)
        self._ownership = features.ownership
        self._settings = _convert_settings(settings, self._views is not None, config.seed)
        self._width, self._span = settings.candidates, settings.collaborative_days * DAY
        n_rows = min(_BLOCK, interactions.n_items)
        self._pools = _allocate_pools(n_rows, self._settings, backend)
        size = backend.choose_block_size(_BLOCK, _CANDIDATE_BYTES * self._width)
        self._block_size = min(_BLOCK, size)
        xp = backend.xp
        self._item_stop, self._n_before = interactions.item_offsets[:-1].copy(), 0
        periods = [self._find_period(k) for k in range(int(snapshots.on_sale.shape[0]))]
        bounds = backend.from_host(periods).reshape(-1)
        places = search_ordered(xp, interactions.time, interactions.by_time, bounds)
        self._recent_rows = backend.to_host(places).reshape(-1, 2).tolist()  # runs of `by_time`
        self._tables = CandidateTables(
            corpus=snapshots.corpus,
            product_code=interactions.item_columns["product_code"].codes,
            item_key=interactions.item_key,
            purchases=Purchases(
                item_start=interactions.item_offsets[:-1],
                item_stop=self._item_stop,
                buyer=gather(backend, interactions.user, interactions.by_item),
                recent_offsets=xp.zeros(interactions.n_users + 1, dtype=xp.int64),
                recent_item=xp.empty(0, dtype=xp.int32),
            ),
            views=RecentViews(
                offsets=xp.zeros(interactions.n_users + 1, dtype=xp.int64),
                item=xp.empty(0, dtype=xp.int32),
            ),
            neighbors=NeighborLists(neighbors.offsets, neighbors.item, neighbors.similarity),
            snapshots=SnapshotTables(
                snapshots.on_sale, _pack_features(snapshots, xp), snapshots.price_category
            ),
        )

    def list_items(self, items: Array, k: int) -> Iterator[CandidateLists]:
        """List the candidates of items (n,) int32 at snapshot k; snapshots must rise.

        Yields blocks of lists, each as wide as a list may be.
        """
        n, size = int(items.shape[0]), self._block_size
        tables = self._tables._replace(purchases=self._find_purchases(k))
        if n and self._views is not None:
            tables = tables._replace(views=self._find_views(self._views, k))
        compute = partial(self._list_block, items, k, tables)
        for first in range(0, n, size):
            yield from split_on_out_of_memory(
                compute,
                first,
                min(first + size, n),
                f"candidates at snapshot {k}, lists",
                self._backend,
            )

    def _find_purchases(self, k: int) -> Purchases:
        """Find the purchases before snapshot k, and by user those of the last days."""
        xp, log, (first, stop) = self._backend.xp, self._log, self._recent_rows[k]
        recent = xp.sort(log.by_time[first:stop], kind="stable")  # rows are by (user, time, item)
        item = log.item[recent]
        is_all = first == self._n_before  # none came between the last snapshot and those days
        new = item if is_all else log.item[log.by_time[self._n_before : stop]]
        self._item_stop += count_codes(xp, new, log.n_items)
        self._n_before = stop
        return self._tables.purchases._replace(
            item_stop=self._item_stop,
            recent_offsets=offsets_from_lengths(xp, count_codes(xp, log.user[recent], log.n_users)),
            recent_item=item,
        )

    def _find_views(self, views: Views, k: int) -> RecentViews:
        """Find what users viewed in the last days before snapshot k and had not bought."""
        on_sale, ownership = self._snapshots.on_sale[k], self._ownership
        return find_recent_views(views, self._find_period(k), on_sale, ownership, self._backend)

    def _find_period(self, k: int) -> tuple[int, int]:
        """Return where the last days before snapshot k begin, and where they end."""
        until = self._snapshots.origin + k * self._snapshots.step
        return until - self._span, until

    def _list_block(
        self, items: Array, k: int, tables: CandidateTables, first: int, last: int
    ) -> CandidateLists:
        """List the candidates of items[first:last]."""
        xp, n, width = self._backend.xp, last - first, self._width
        lists = _allocate_lists(xp, n, n, width)
        self._backend.for_each(
            list_candidates,
            n,
            items[first:last],
            k,
            tables,
            self._settings,
            self._pools,
            lists,
            lanes=int(self._pools.slot.shape[0]),
        )
        return lists


def _pack_features(snapshots: ItemSnapshots, xp: Any) -> Array:
    """Return `SnapshotTables.packed_features`, snapshot by snapshot to save memory."""
    packed = xp.empty(snapshots.on_sale.shape, dtype=xp.int64)
    group = (snapshots.group.astype(xp.int64) + 1) << GROUP_SHIFT
    for k in range(packed.shape[0]):
        is_known = snapshots.price[k] == snapshots.price[k]
        price = _to_fixed_point(xp.where(is_known, snapshots.price[k], 0), xp) + 1
        popularity = _to_fixed_point(snapshots.popularity[k], xp)
        packed[k] = group | (xp.where(is_known, price, 0) << PRICE_SHIFT) | popularity
    return packed


def _to_fixed_point(share: Array, xp: Any) -> Array:
    """Return shares 0..1 in units of 1 / FIXED_ONE, int64."""
    return xp.rint(share.astype(xp.float64) * FIXED_ONE).astype(xp.int64)


def _convert_settings(
    settings: NegativeSamplingConfig, has_views: bool, seed: int
) -> CandidateSettings:
    """Return the settings as integers and float64 for the kernel."""
    score, n_viewed = settings.score, settings.viewed_items if has_views else 0
    n_per_buyer = settings.collaborative_items + n_viewed
    n_offers = settings.item_cf_top_k + settings.collaborative_buyers * n_per_buyer
    n_offers += settings.category_draws
    first, last = map(to_fraction, settings.percentile_range)
    denominator = math.lcm(first.denominator, last.denominator)
    return CandidateSettings(
        max_neighbors=settings.item_cf_top_k,
        max_buyers=settings.collaborative_buyers,
        max_items_per_buyer=settings.collaborative_items,
        max_views_per_buyer=n_viewed,
        n_category_draws=settings.category_draws,
        similarity_weight=round(score.similarity * FIXED_ONE),
        collaborative_weight=round(score.collaborative * FIXED_ONE),
        price_weight=round(score.price * FIXED_ONE),
        popularity_weight=round(score.popularity * FIXED_ONE),
        by_percentile=settings.hard_band == "percentile",
        band_first=int(first * denominator),
        band_last=int(last * denominator),
        band_denominator=denominator,
        similarity_above=settings.similarity_threshold,
        similarity_up_to=settings.similarity_ceiling,
        crossing_key=rng.purpose_key(seed, rng.CATEGORY_CROSSING),
        hash_shift=32 - (2 * max(1, n_offers) - 1).bit_length(),
    )


def _allocate_pools(n_rows: int, settings: CandidateSettings, backend: Backend) -> CandidatePools:
    """Return empty pools, as many lanes as the backend runs rows at a time."""
    n_slots, n_buyers = 1 << (32 - settings.hash_shift), max(1, settings.max_buyers)
    width, xp = n_slots // 2, backend.xp
    return CandidatePools(
        **allocate_lanes(
            backend,
            n_rows,
            zeros=("slot",),
            slot=(n_slots, xp.int32),
            place=(width, xp.int32),
            item=(width, xp.int32),
            state=(width, xp.int32),
            score=(width, xp.int32),
            rank=(width, xp.int32),
            cosine=(width, xp.float32),
            score_key=(width, xp.int64),
            order=(width, xp.int64),
            buyer_user=(n_buyers, xp.int32),
        )
    )
