"""Compare the splits of a build: distributions, windows, shares and users (D7, D8, D20)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.schema import SPLITS
from ..preparation.splits import positive_users, wanted_shares
from ..samples import StageResults
from .distances import ks_p, total_variation

_PAIRS = tuple(combinations(range(len(SPLITS)), 2))


def compare_splits(
    tallies: list[dict[str, list[int]]], categories: list[list[int]]
) -> dict[str, float | None]:
    """Compute the largest distances between two splits: total variation, and p of KS tests."""

    def widest(vectors: list[list[int]]) -> float | None:
        distances = [total_variation(vectors[a], vectors[b]) for a, b in _PAIRS]
        known = [distance for distance in distances if distance is not None]
        return max(known) if len(known) == len(distances) else None

    def smallest(test: Callable[[list[int], list[int]], float | None]) -> float | None:
        values = [test(categories[a], categories[b]) for a, b in _PAIRS]
        known = [p for p in values if p is not None]
        return min(known) if len(known) == len(values) else None

    return {
        "category_consistency": widest(categories),
        "category_ks_p": smallest(ks_p),
        "category_share_ks_p": smallest(_ks_p_of_shares),
        "user_activity_distribution": widest([tally["activity"] for tally in tallies]),
        "price_distribution": widest([tally["price"] for tally in tallies]),
    }


def _ks_p_of_shares(a: list[int], b: list[int]) -> float | None:
    """Compute p of the KS test with the categories' shares as samples."""
    shares = [Counter(n / sum(counted) for n in counted) for counted in (a, b)]
    steps = sorted(shares[0].keys() | shares[1].keys())
    return ks_p([shares[0][step] for step in steps], [shares[1][step] for step in steps])


def measure_splits(
    results: StageResults, config: DatasetConfig, backend: Backend
) -> dict[str, float | None]:
    """Compute the gates' values on windows, shares, users and knowledge of the future."""
    windows, is_disjoint = results.plan.windows, config.split.is_disjoint
    train, val, test = positive_users(results.interactions, results.plan, backend)
    wanted = [float(share) for share in wanted_shares(config.split)]
    spans = [
        end - start
        for start, end in zip(
            windows.starts, (windows.cut1, windows.cut2, windows.last), strict=True
        )
    ]
    shares = [results.plan.shares[split]["share"] for split in SPLITS]
    return {
        "temporal_periods": None
        if windows.is_whole
        else max(abs(span / sum(spans) - w) for span, w in zip(spans, wanted, strict=True)),
        "positive_shares": max(abs(share - w) for share, w in zip(shares, wanted, strict=True))
        if is_disjoint
        else None,
        "split_size": (smallest := min(len(p) for p in results.plan.positives)),
        "split_share": min(shares),
        "split_floor": smallest,
        "no_future_knowledge": _future_knowledge(results),
        "no_user_overlap": int((train & val | train & test | val & test).sum())
        if is_disjoint
        else None,
    }


def _future_knowledge(results: StageResults) -> int:
    """Count the sources of values that know of purchases after the window they may use (D8).

    Similarities and price edges record the latest purchase that went into them, not the cut that
    they were asked to stop at.
    """
    windows, plan = results.plan.windows, results.plan
    latest_used = (results.neighbors.known_until, results.features.edges_known_until)
    n_beyond = sum(latest is not None and latest >= windows.cut1 for latest in latest_used)
    return n_beyond + sum(
        p.window_end != end for p, end in zip(plan.positives, windows.ends, strict=True)
    )
