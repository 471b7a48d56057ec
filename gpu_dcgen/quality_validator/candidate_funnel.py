"""Where hard negatives come from: the candidates of a seeded sample of positives, counted by source and by fate (D13).

Mining is the build's bottleneck, so nothing is counted there. A positive (user, item, time, copy) is looked at again when
the highest b bits of its hash are zero, hash = key(seed, FUNNEL_SAMPLE, user, item, time, copy) of `rng` and b the greatest
of 0..6 that leaves n >> b >= 4096 of the build's n positives: about one in 2^b, the same ones in blocks of any size.
"""

from __future__ import annotations

from typing import Any

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..kernels import rng
from ..kernels.funnel import OUTCOMES, trace_candidates
from ..kernels.pool import FALLBACK, RANK_SHIFT, SOURCES
from ..negative_sampler import mining_scratch
from ..preparation.splits import SplitPlan
from ..preparation.windows import DAY
from ..samples import Group, StageResults

POOLED = SOURCES[:FALLBACK]  # the sources that offer candidates
_MOST_BITS = 6
_ENOUGH_POSITIVES = 4096  # shares of what they are offered are then known to about a point


def sampled_bits(plan: SplitPlan) -> int:
    """b of the sample: one positive in 2^b is looked at."""
    n_positives = sum(len(positives) for positives in plan.positives)
    return max(
        bits
        for bits in range(_MOST_BITS + 1)
        if bits == 0 or n_positives >> bits >= _ENOUGH_POSITIVES
    )


def count_candidates(
    group: Group, results: StageResults, config: DatasetConfig, backend: Backend
) -> Array:
    """(1 + POOLED x OUTCOMES,) int64: how many of the block's positives were looked at, then their candidates by source and fate."""
    xp, log, settings = backend.xp, results.interactions, config.negative_sampling
    sources, snapshots, neighbors = results.sources, results.features.snapshots, results.neighbors
    picked = _sampled(group, results, config, backend)
    n = int(picked.shape[0])
    fates = xp.zeros((n, len(POOLED), len(OUTCOMES)), dtype=xp.int32)
    if n:
        row = group.row[picked]
        time = log.time[row]
        lanes, (places, pools, pairs, _, buyers) = mining_scratch(sources, log.n_items, backend)
        backend.for_each(
            trace_candidates,
            n,
            rng.purpose_key(config.seed, rng.CATEGORY_CROSSING),
            sources.limits,
            sources.bounds,
            log.user_key[group.user[picked]],
            log.item_key[group.item[picked, 0]],
            group.user[picked],
            group.item[picked, 0],
            time,
            group.positives.copy[group.rows][picked],
            group.negatives.snapshot[picked],
            group.positives.window_end,
            sources.moments[row] >> RANK_SHIFT << RANK_SHIFT,
            xp.searchsorted(sources.times, time - settings.collaborative_days * DAY).astype(
                xp.int64
            )
            << RANK_SHIFT,
            sources.position[row],
            sources.moments,
            log.user_offsets,
            log.item_offsets,
            log.by_item,
            sources.buyer_user,
            sources.buyer_rank,
            sources.buyer_before,
            sources.buyer_after,
            neighbors.offsets,
            neighbors.item,
            neighbors.similarity,
            snapshots.corpus.offsets,
            snapshots.corpus.cell_item,
            snapshots.corpus.cell_offsets,
            snapshots.on_sale,
            xp.ones(log.n_items, dtype=bool),
            sources.facts,
            snapshots.price_category,
            snapshots.corpus.n_groups,
            log.item_columns["product_code"].codes,
            *results.features.ownership,
            places,
            pools,
            pairs,
            buyers,
            group.negatives.item[picked],
            group.negatives.source[picked],
            fates,
            lanes=lanes,
        )
    looked_at = xp.full(1, n, dtype=xp.int64)
    return xp.concatenate([looked_at, fates.astype(xp.int64).sum(axis=0).reshape(-1)])


def _sampled(group: Group, results: StageResults, config: DatasetConfig, backend: Backend) -> Array:
    """Positions in the block of the positives that are looked at."""
    xp, bits = backend.xp, sampled_bits(results.plan)
    if not bits:
        return xp.arange(group.row.shape[0], dtype=xp.int64)
    log, copy = results.interactions, group.positives.copy[group.rows]
    of = (log.user_key[group.user], log.item_key[group.item[:, 0]], log.time[group.row], copy)
    hashed = rng.purpose_key(config.seed, rng.FUNNEL_SAMPLE)
    for values in of:
        hashed = rng.fold_array(hashed, values)
    return xp.nonzero(hashed >> xp.uint64(64 - bits) == 0)[0]


def describe_candidates(counted: list[int], plan: SplitPlan) -> dict[str, Any]:
    """`count_candidates`, summed over the blocks, with names (`quality_report`)."""
    by_source = {}
    for k, source in enumerate(POOLED):
        fates = dict(
            zip(OUTCOMES, counted[1 + k * len(OUTCOMES) : 1 + (k + 1) * len(OUTCOMES)], strict=True)
        )
        by_source[source] = {"offered": sum(fates.values()), **fates}
    return {"positives": counted[0], "one_in": 1 << sampled_bits(plan), "by_source": by_source}
