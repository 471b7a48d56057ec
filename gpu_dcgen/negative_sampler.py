"""Stage 7: a block of positives -> its hard and random negatives (D12, D13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .backend.protocol import Array, Backend
from .backend.runs import run_starts
from .config import DatasetConfig, to_fraction
from .kernels import rng
from .kernels.draws import draw_random
from .kernels.hard import mine_hard
from .kernels.pool import FIXED_ONE, GROUP_SHIFT, LIMITS, MOST_BESIDE, PRICE_SHIFT, RANK_SHIFT
from .preparation.features import AsOfFeatures, ItemSnapshots
from .preparation.interactions import Interactions
from .preparation.splits import Positives
from .preparation.windows import DAY
from .similarity_computer.compute import Neighbors


@dataclass(frozen=True)
class NegativeSources:
    """What sampling reads beside the stages' results, made once for all blocks."""

    buyer_user: Array  # (E,) int32  users in (item, time, user) order
    buyer_rank: Array  # (E,) int32  of that purchase's time
    buyer_before: Array  # (E,) uint8  rows of the same user before that purchase, at most 255
    buyer_after: Array  # (E,) uint8  from that purchase to the end of the user's rows, at most 255
    position: Array  # (E,) int32  of each interaction in that order
    # (E,) int64  rank of each interaction's time among all times, above its item (`kernels.pool`)
    moments: Array
    times: Array  # (T,) int64  all times, rising
    facts: Array  # (K, I) int64  what a snapshot knows of an item (`kernels.pool`)
    limits: Array  # (15,) int64  `kernels.pool.LIMITS`
    bounds: Array  # (2,) float64  similarity above, up to
    pool_width: int  # most candidates of one positive


@dataclass(frozen=True)
class Negatives:
    """Negatives of a block of positives: the hard ones in order of choice, then the random ones in order drawn."""

    item: Array  # (n, hard + random) int32
    source: Array  # (n, hard) int8  code into `kernels.pool.SOURCES`
    # (n, hard) float32  of the pair with the positive, -1 where it is not among its neighbors
    similarity: Array
    relaxed: Array  # (n,) int32  hard ones taken beyond the cap on the positive's own product group
    snapshot: Array  # (n,) int64  the item snapshot of the group


def prepare_sources(
    interactions: Interactions, features: AsOfFeatures, config: DatasetConfig, backend: Backend
) -> NegativeSources:
    """Lay out buyers by item, pack the snapshots' facts, and turn the settings into the kernels' integers."""
    xp, settings = backend.xp, config.negative_sampling
    pool_width = (
        settings.item_cf_top_k
        + settings.collaborative_buyers * settings.collaborative_items
        + settings.category_draws
    )
    score = settings.score
    denominator = math.lcm(*(to_fraction(share).denominator for share in settings.percentile_range))
    values = {
        "n_hard": settings.hard_negatives_per_positive,
        "own_group_cap": math.floor(
            to_fraction(settings.diversity_threshold) * settings.hard_negatives_per_positive
        ),
        "item_cf_top_k": settings.item_cf_top_k,
        "buyers": settings.collaborative_buyers,
        "buyer_items": settings.collaborative_items,
        "category_draws": settings.category_draws,
        "w_similarity": round(score.similarity * FIXED_ONE),
        "w_collaborative": round(score.collaborative * FIXED_ONE),
        "w_price": round(score.price * FIXED_ONE),
        "w_popularity": round(score.popularity * FIXED_ONE),
        "w_diversity": round(score.diversity * FIXED_ONE),
        "by_percentile": int(settings.hard_band == "percentile"),
        "band_from": int(to_fraction(settings.percentile_range[0]) * denominator),
        "band_to": int(to_fraction(settings.percentile_range[1]) * denominator),
        "band_of": denominator,
    }
    band = backend.from_host([settings.similarity_threshold, settings.similarity_ceiling])
    band = band.astype(xp.float32).astype(xp.float64)  # compared with float32 similarities
    user, rows = interactions.user, xp.arange(interactions.n_rows, dtype=xp.int64)
    before = xp.minimum(rows - interactions.user_offsets[user], MOST_BESIDE).astype(xp.uint8)
    after = xp.minimum(interactions.user_offsets[user + 1] - rows, MOST_BESIDE).astype(xp.uint8)
    rank, times = _time_ranks(interactions, xp)
    position = xp.empty(interactions.n_rows, dtype=xp.int32)
    position[interactions.by_item] = rows.astype(xp.int32)
    return NegativeSources(
        buyer_user=user[interactions.by_item],
        buyer_rank=rank[interactions.by_item],
        buyer_before=before[interactions.by_item],
        buyer_after=after[interactions.by_item],
        position=position,
        moments=(rank.astype(xp.int64) << RANK_SHIFT) | interactions.item,
        times=times,
        facts=_pack_facts(features.snapshots, xp),
        limits=backend.from_host([values[name] for name in LIMITS]).astype(xp.int64),
        bounds=band,
        pool_width=pool_width,
    )


def _time_ranks(interactions: Interactions, xp: Any) -> tuple[Array, Array]:
    """The rank (E,) int32 of each interaction's time among all distinct times, and those (T,) int64."""
    time = interactions.time[interactions.by_time]
    starts = run_starts(xp, time)
    rank = xp.empty(interactions.n_rows, dtype=xp.int32)
    rank[interactions.by_time] = (xp.cumsum(starts) - 1).astype(xp.int32)
    return rank, time[starts]


def _pack_facts(snapshots: ItemSnapshots, xp: Any) -> Array:
    """(K, I) int64 of `kernels.pool`; a snapshot at a time, so that what is computed on the way stays small."""
    facts = xp.empty(snapshots.on_sale.shape, dtype=xp.int64)
    group = (snapshots.group.astype(xp.int64) + 1) << GROUP_SHIFT
    for k in range(facts.shape[0]):
        known = snapshots.price[k] == snapshots.price[k]
        price = (
            xp.where(known, _fixed(xp.where(known, snapshots.price[k], 0), xp) + 1, 0)
            << PRICE_SHIFT
        )
        facts[k] = group | price | _fixed(snapshots.popularity[k], xp)
    return facts


def _fixed(share: Array, xp: Any) -> Array:
    """Shares in 0..1 in units of 1 / FIXED_ONE, int64."""
    return xp.rint(share.astype(xp.float64) * FIXED_ONE).astype(xp.int64)


def sample_negatives(
    positives: Positives,
    rows: slice,
    interactions: Interactions,
    features: AsOfFeatures,
    neighbors: Neighbors,
    sources: NegativeSources,
    config: DatasetConfig,
    backend: Backend,
) -> Negatives:
    """Draw the negatives of positives[rows]: on sale at the group's snapshot, never bought by the user before the window's end.

    Hard ones come first, so that the random ones can keep clear of them. Each draw depends on the seed and its
    positive alone.
    """
    xp, settings = backend.xp, config.negative_sampling
    row, copy = positives.row[rows], positives.copy[rows]
    n, n_hard = int(row.shape[0]), settings.hard_negatives_per_positive
    user, item, time = interactions.user[row], interactions.item[row], interactions.time[row]
    user_key, item_key = interactions.user_key[user], interactions.item_key[item]
    snapshots = features.snapshots
    snapshot = (time - snapshots.origin) // snapshots.step
    code = interactions.item_columns["product_code"].codes
    negatives = xp.empty((n, n_hard + settings.random_negatives_per_positive), dtype=xp.int32)
    source = xp.empty((n, n_hard), dtype=xp.int8)
    similarity = xp.empty((n, n_hard), dtype=xp.float32)
    relaxed = xp.zeros(n, dtype=xp.int32)
    owned = features.ownership
    if n_hard:
        lanes, scratch = mining_scratch(sources, interactions.n_items, backend)
        moment = sources.moments[row] >> RANK_SHIFT << RANK_SHIFT
        since = (
            xp.searchsorted(sources.times, time - settings.collaborative_days * DAY).astype(
                xp.int64
            )
            << RANK_SHIFT
        )
        backend.for_each(
            mine_hard,
            n,
            xp.argsort(
                item, kind="stable"
            ),  # positives of one item meet the same neighbors and buyers: they stay in the cache
            rng.purpose_key(config.seed, rng.FALLBACK_NEGATIVE),
            rng.purpose_key(config.seed, rng.CATEGORY_CROSSING),
            sources.limits,
            sources.bounds,
            user_key,
            item_key,
            user,
            item,
            time,
            copy,
            snapshot,
            positives.window_end,
            moment,
            since,
            sources.position[row],
            sources.moments,
            interactions.user_offsets,
            interactions.item_offsets,
            interactions.by_item,
            sources.buyer_user,
            sources.buyer_rank,
            sources.buyer_before,
            sources.buyer_after,
            neighbors.offsets,
            neighbors.item,
            neighbors.similarity,
            *snapshots.corpus[:-1],
            snapshots.on_sale,
            sources.facts,
            snapshots.price_category,
            snapshots.corpus.n_groups,
            code,
            *owned,
            *scratch,
            negatives,
            source,
            similarity,
            relaxed,
            lanes=lanes,
        )
    backend.for_each(
        draw_random,
        n,
        rng.purpose_key(config.seed, rng.RANDOM_NEGATIVE),
        n_hard,
        user_key,
        item_key,
        user,
        item,
        time,
        copy,
        snapshot,
        positives.window_end,
        snapshots.corpus.offsets,
        snapshots.corpus.item,
        *owned,
        code,
        negatives,
    )
    return Negatives(negatives, source, similarity, relaxed, snapshot)


def mining_scratch(
    sources: NegativeSources, n_items: int, backend: Backend
) -> tuple[int, tuple[Array, ...]]:
    """The number of lanes, and places, pools, pairs, scores, buyers of `mine_hard`: one row a lane."""
    xp, width = backend.xp, max(1, sources.pool_width)
    n_buyers = max(1, int(sources.limits[LIMITS.index("buyers")]))
    lanes = backend.lanes(2 * n_items + (3 * 4 + 8) * width + 4 * (width + 1) + 8 * (n_buyers + 1))
    order = backend.scratch_order
    return lanes, (
        xp.zeros((lanes, n_items), dtype=xp.int16, order=order),
        xp.empty((lanes, 3, width), dtype=xp.int32, order=order),
        xp.empty((lanes, width + 1), dtype=xp.float32, order=order),
        xp.empty((lanes, width), dtype=xp.int64, order=order),
        xp.empty((lanes, 2, n_buyers + 1), dtype=xp.int32, order=order),
    )
