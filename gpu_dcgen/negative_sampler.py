"""Stage 7: draw the hard and random negatives of a block of positives (D12, D13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .backend.protocol import Array, Backend
from .backend.runs import run_starts
from .config import DatasetConfig, NegativeSamplingConfig, to_fraction
from .kernels import rng
from .kernels.arguments import (
    DrawTables,
    MiningRows,
    MiningTables,
    NeighborLists,
    PositiveRows,
    PurchaseIndex,
    SnapshotTables,
)
from .kernels.draws import draw_random
from .kernels.hard import HardNegatives, mine_hard
from .kernels.pool import (
    FIXED_ONE,
    GROUP_SHIFT,
    MAX_COUNTED_ROWS,
    PRICE_SHIFT,
    RANK_SHIFT,
    CandidatePools,
    MiningSettings,
)
from .preparation.features import AsOfFeatures, ItemSnapshots
from .preparation.interactions import Interactions
from .preparation.splits import Positives
from .preparation.windows import DAY
from .similarity_computer.compute import Neighbors


@dataclass(frozen=True)
class MiningIndex:
    """Tables that mining looks up besides the stages' results, built once for all blocks.

    Buyers are in (item, time, user) order, as in `PurchaseIndex`.
    """

    time_item_key: Array  # (E,) int64  `PurchaseIndex.time_item_key` of each interaction
    times: Array  # (T,) int64  all times, rising
    position: Array  # (E,) int32  of each interaction among the buyers
    buyer_user: Array  # (E,) int32
    buyer_time_rank: Array  # (E,) int32  among `times`
    n_rows_before: Array  # (E,) uint8  rows of the same user before the purchase, at most 255
    n_rows_after: Array  # (E,) uint8  from the purchase to the user's last row, at most 255
    packed_features: Array  # (K, I) int64  `SnapshotTables.packed_features`


@dataclass(frozen=True)
class SamplerInputs:
    """The stages' results that negatives are drawn from."""

    interactions: Interactions
    features: AsOfFeatures
    neighbors: Neighbors
    mining_index: MiningIndex


@dataclass(frozen=True)
class Negatives:
    """Negatives of n positives: the hard ones in order of choice, then the random ones."""

    item: Array  # (n, hard + random) int32
    source: Array  # (n, hard) int8  code into `kernels.pool.SOURCES`
    similarity: Array  # (n, hard) float32  with the positive, -1 where they are not neighbors
    n_relaxed: Array  # (n,) int32  hard ones beyond the cap on the positive's own product group
    snapshot: Array  # (n,) int64  number of the positive's item snapshot


def build_mining_index(
    interactions: Interactions, snapshots: ItemSnapshots, backend: Backend
) -> MiningIndex:
    """Lay out the buyers by item, and pack what the snapshots know of each item."""
    xp, by_item = backend.xp, interactions.by_item
    user, rows = interactions.user, xp.arange(interactions.n_rows, dtype=xp.int64)
    before = xp.minimum(rows - interactions.user_offsets[user], MAX_COUNTED_ROWS)
    after = xp.minimum(interactions.user_offsets[user + 1] - rows, MAX_COUNTED_ROWS)
    rank, times = _rank_times(interactions, xp)
    position = xp.empty(interactions.n_rows, dtype=xp.int32)
    position[by_item] = rows.astype(xp.int32)
    return MiningIndex(
        time_item_key=(rank.astype(xp.int64) << RANK_SHIFT) | interactions.item,
        times=times,
        position=position,
        buyer_user=user[by_item],
        buyer_time_rank=rank[by_item],
        n_rows_before=before.astype(xp.uint8)[by_item],
        n_rows_after=after.astype(xp.uint8)[by_item],
        packed_features=_pack_features(snapshots, xp),
    )


def _rank_times(interactions: Interactions, xp: Any) -> tuple[Array, Array]:
    """Return each interaction's rank (E,) int32 among all times, and those times (T,) int64."""
    time = interactions.time[interactions.by_time]
    starts = run_starts(xp, time)
    rank = xp.empty(interactions.n_rows, dtype=xp.int32)
    rank[interactions.by_time] = (xp.cumsum(starts) - 1).astype(xp.int32)
    return rank, time[starts]


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


def sample_negatives(
    positives: Positives,
    rows: slice,
    inputs: SamplerInputs,
    config: DatasetConfig,
    backend: Backend,
) -> Negatives:
    """Draw the negatives of positives[rows].

    They are on sale at the positive's snapshot, and the user does not buy them before the window's
    end. Hard ones come first, so that the random ones avoid them. A draw depends on the seed and
    on its positive alone.
    """
    xp, settings = backend.xp, config.negative_sampling
    row = positives.row[rows]
    block = gather_positives(row, positives.copy[rows], positives.window_end, inputs)
    n, n_hard = int(row.shape[0]), settings.hard_negatives_per_positive
    negatives = HardNegatives(
        item=xp.empty((n, n_hard + settings.random_negatives_per_positive), dtype=xp.int32),
        source=xp.empty((n, n_hard), dtype=xp.int8),
        similarity=xp.empty((n, n_hard), dtype=xp.float32),
        n_relaxed=xp.zeros(n, dtype=xp.int32),
    )
    if n_hard:
        mining = prepare_mining(row, block, inputs, config, backend)
        # Positives of one item share neighbors and buyers, which then stay in the cache.
        order = xp.argsort(block.item, kind="stable")
        backend.for_each(mine_hard, n, order, *mining, negatives, lanes=mining.n_lanes)
    key, tables = rng.purpose_key(config.seed, rng.RANDOM_NEGATIVE), _gather_draw_tables(inputs)
    backend.for_each(draw_random, n, key, n_hard, block, tables, negatives.item)
    return Negatives(*negatives, block.snapshot)


def gather_positives(
    row: Array, copy: Array, window_end: int, inputs: SamplerInputs
) -> PositiveRows:
    """Return the positives at rows (n,) int64 of the interactions, as kernels read them."""
    log = inputs.interactions
    user, item, time = log.user[row], log.item[row], log.time[row]
    return PositiveRows(
        user=user,
        item=item,
        time=time,
        copy=copy,
        snapshot=inputs.features.snapshots.number_of(time),
        user_key=log.user_key[user],
        item_key=log.item_key[item],
        window_end=window_end,
    )


class MiningArguments(NamedTuple):
    """The arguments that the kernels share that mine negatives and trace their candidates."""

    rows: MiningRows
    tables: MiningTables
    settings: MiningSettings
    pools: CandidatePools

    @property
    def n_lanes(self) -> int:
        """Rows that may run at the same time."""
        return int(self.pools.position.shape[0])


def prepare_mining(
    row: Array,
    positives: PositiveRows,
    inputs: SamplerInputs,
    config: DatasetConfig,
    backend: Backend,
) -> MiningArguments:
    """Collect what mining reads for positives at rows (n,) int64, and allocate its scratch."""
    xp, settings = backend.xp, config.negative_sampling
    index = inputs.mining_index
    since = positives.time - settings.collaborative_days * DAY
    rows = MiningRows(
        positives=positives,
        since=xp.searchsorted(index.times, since).astype(xp.int64) << RANK_SHIFT,
        before=index.time_item_key[row] >> RANK_SHIFT << RANK_SHIFT,
        position=index.position[row],
    )
    pools = _allocate_pools(settings, inputs.interactions.n_items, backend)
    converted = _convert_settings(settings, config.seed)
    return MiningArguments(rows, _gather_tables(inputs), converted, pools)


def _gather_draw_tables(inputs: SamplerInputs) -> DrawTables:
    return DrawTables(
        inputs.features.snapshots.corpus,
        inputs.features.ownership,
        inputs.interactions.item_columns["product_code"].codes,
    )


def _gather_tables(inputs: SamplerInputs) -> MiningTables:
    log, index = inputs.interactions, inputs.mining_index
    neighbors, snapshots = inputs.neighbors, inputs.features.snapshots
    return MiningTables(
        draws=_gather_draw_tables(inputs),
        purchases=PurchaseIndex(
            time_item_key=index.time_item_key,
            user_offsets=log.user_offsets,
            item_offsets=log.item_offsets,
            buyer_row=log.by_item,
            buyer_user=index.buyer_user,
            buyer_time_rank=index.buyer_time_rank,
            n_rows_before=index.n_rows_before,
            n_rows_after=index.n_rows_after,
        ),
        neighbors=NeighborLists(neighbors.offsets, neighbors.item, neighbors.similarity),
        snapshots=SnapshotTables(
            snapshots.on_sale, index.packed_features, snapshots.price_category
        ),
    )


def _convert_settings(settings: NegativeSamplingConfig, seed: int) -> MiningSettings:
    """Return the settings as integers and float64 for the kernels."""
    score, n_hard = settings.score, settings.hard_negatives_per_positive
    first, last = map(to_fraction, settings.percentile_range)
    denominator = math.lcm(first.denominator, last.denominator)
    return MiningSettings(
        n_hard=n_hard,
        max_own_group=math.floor(to_fraction(settings.diversity_threshold) * n_hard),
        max_neighbors=settings.item_cf_top_k,
        max_buyers=settings.collaborative_buyers,
        max_items_per_buyer=settings.collaborative_items,
        n_category_draws=settings.category_draws,
        similarity_weight=round(score.similarity * FIXED_ONE),
        collaborative_weight=round(score.collaborative * FIXED_ONE),
        price_weight=round(score.price * FIXED_ONE),
        popularity_weight=round(score.popularity * FIXED_ONE),
        diversity_weight=round(score.diversity * FIXED_ONE),
        by_percentile=settings.hard_band == "percentile",
        band_first=int(first * denominator),
        band_last=int(last * denominator),
        band_denominator=denominator,
        similarity_above=settings.similarity_threshold,
        similarity_up_to=settings.similarity_ceiling,
        crossing_key=rng.purpose_key(seed, rng.CATEGORY_CROSSING),
        fallback_key=rng.purpose_key(seed, rng.FALLBACK_NEGATIVE),
    )


def _allocate_pools(
    settings: NegativeSamplingConfig, n_items: int, backend: Backend
) -> CandidatePools:
    """Return empty pools, as many lanes as the backend runs rows at a time."""
    n_offers = settings.collaborative_buyers * settings.collaborative_items
    width = max(1, n_offers + settings.item_cf_top_k + settings.category_draws)
    n_buyers = max(1, settings.collaborative_buyers)
    # Bytes per entry of the arrays below.
    lane_bytes = 2 * n_items + (3 * 4 + 8) * width + 4 * (width + 1) + 2 * 4 * (n_buyers + 1)
    lanes, xp = backend.count_lanes(lane_bytes), backend.xp

    def allocate(n: int, dtype: Any) -> Array:
        return xp.empty((lanes, n), dtype=dtype, order=backend.scratch_order)

    return CandidatePools(
        position=xp.zeros((lanes, n_items), dtype=xp.int16, order=backend.scratch_order),
        item=allocate(width, xp.int32),
        state=allocate(width, xp.int32),
        group=allocate(width, xp.int32),
        score=allocate(width, xp.int64),
        similarity=allocate(width + 1, xp.float32),
        buyer_user=allocate(n_buyers + 1, xp.int32),
        buyer_position=allocate(n_buyers + 1, xp.int32),
    )
