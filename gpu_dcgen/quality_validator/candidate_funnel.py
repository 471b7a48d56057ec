"""Count candidates of hard negatives by source and outcome, on sampled positives (D13).

A positive (user, item, time, copy) is in the sample if the highest b bits of its hash are zero,
hash = key(seed, FUNNEL_SAMPLE, user, item, time, copy) of `rng` and b the greatest of 0..6 that
leaves n >> b >= 4096 of the build's n positives: about one in 2^b, the same ones in blocks of any
size.
"""

from __future__ import annotations

from typing import Any

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..kernels import rng
from ..kernels.funnel import OUTCOMES, CandidateTrace, trace_candidates
from ..kernels.sources import FALLBACK, SOURCES
from ..negative_sampler import (
    find_lists,
    gather_hard_tables,
    gather_positives,
    list_sources,
    select_by_hash,
)
from ..preparation.splits import SplitPlan
from ..samples import Group, StageResults

POOLED = SOURCES[:FALLBACK]  # the sources that offer candidates
_MAX_BITS = 6
_MIN_POSITIVES = 4096  # of the sample: shares of candidates are then known to about a point


def sampled_bits(plan: SplitPlan) -> int:
    """Return b of the sample: one positive in 2^b is looked at."""
    n_positives = sum(len(positives) for positives in plan.positives)
    return max(
        bits for bits in range(_MAX_BITS + 1) if bits == 0 or n_positives >> bits >= _MIN_POSITIVES
    )


def count_candidates(
    group: Group, results: StageResults, config: DatasetConfig, backend: Backend
) -> Array:
    """Count the candidates of the block's sampled positives.

    Returns (1 + POOLED x OUTCOMES,) int64: the number of positives, then their candidates by source
    and outcome.
    """
    xp = backend.xp
    copy, key = group.positives.copy[group.rows], rng.purpose_key(config.seed, rng.FUNNEL_SAMPLE)
    bits, log = sampled_bits(results.plan), results.interactions
    picked = select_by_hash(group.row, copy, bits, key, log, backend)
    n = int(picked.shape[0])
    n_candidates = xp.zeros((n, len(POOLED), len(OUTCOMES)), dtype=xp.int32)
    if n:
        row = group.row[picked]
        positives = gather_positives(row, copy[picked], group.positives.window_end, results)
        rows = find_lists(positives, results, backend)
        tables = gather_hard_tables(results, config, backend)
        trace = CandidateTrace(
            item=group.negatives.item[picked],
            n_hard=int(group.negatives.source.shape[1]),
            n_candidates=n_candidates,
        )
        backend.for_each(trace_candidates, n, rows, tables, trace)
    n_positives = xp.full(1, n, dtype=xp.int64)
    return xp.concatenate([n_positives, n_candidates.astype(xp.int64).sum(axis=0).reshape(-1)])


def describe_candidates(counted: list[int], results: StageResults) -> dict[str, Any]:
    """Name the counts of `count_candidates`, summed over the blocks (`quality_report`)."""
    by_source, sources = {}, list_sources(results.interactions)
    for k, source in enumerate(POOLED):
        outcomes = dict(
            zip(OUTCOMES, counted[1 + k * len(OUTCOMES) : 1 + (k + 1) * len(OUTCOMES)], strict=True)
        )
        if source in sources:
            by_source[source] = {"offered": sum(outcomes.values()), **outcomes}
    one_in = 1 << sampled_bits(results.plan)
    return {"positives": counted[0], "one_in": one_in, "by_source": by_source}
