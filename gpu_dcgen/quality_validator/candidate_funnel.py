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
from ..kernels.funnel import OUTCOMES, CandidateTrace, trace_candidates
from ..kernels.pool import FALLBACK, SOURCES
from ..negative_sampler import gather_positives, prepare_mining
from ..preparation.splits import SplitPlan
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
    xp = backend.xp
    picked = _sampled(group, results, config, backend)
    n = int(picked.shape[0])
    n_candidates = xp.zeros((n, len(POOLED), len(OUTCOMES)), dtype=xp.int32)
    if n:
        row, copy = group.row[picked], group.positives.copy[group.rows][picked]
        positives = gather_positives(row, copy, group.positives.window_end, results)
        mining = prepare_mining(row, positives, results, config, backend)
        trace = CandidateTrace(
            every_item=xp.ones(results.interactions.n_items, dtype=bool),
            item=group.negatives.item[picked],
            source=group.negatives.source[picked],
            n_candidates=n_candidates,
        )
        backend.for_each(trace_candidates, n, *mining, trace, lanes=mining.n_lanes)
    n_positives = xp.full(1, n, dtype=xp.int64)
    return xp.concatenate([n_positives, n_candidates.astype(xp.int64).sum(axis=0).reshape(-1)])


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
