"""Stage 4b: weigh train positives by category, segment and recency, or resample (D18)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..backend.runs import (
    count_codes,
    gather,
    offsets_from_lengths,
    repeat_index,
    run_starts,
    sort_order,
)
from ..config import CategoryBalancingConfig, DatasetConfig
from ..errors import InputError
from ..kernels import rng
from .interactions import Interactions, fold_purchases
from .splits import SplitPlan, measure_shares
from .windows import DAY

SEGMENTS = ("new_users", "active_users", "churned_users")


@dataclass(frozen=True)
class Balance:
    """Weight tables of the train positives.

    A positive's weight is (category x segment) x recency, rounded once to float32.
    """

    # by product group code + 1 (the first is the null group's); 0.0 where absent
    category: tuple[float, ...]
    segment: tuple[float, float, float]  # new, active, churned; 0.0 where empty
    recency: tuple[float, ...]  # by whole days before cut1
    user_segment: Array  # (U,) int8
    info: dict[str, Any]  # samples and shares per segment, before and after
    warnings: tuple[str, ...]


class _Cell(NamedTuple):
    """Number of train positives with one product group, segment and age."""

    group: int  # code + 1
    segment: int
    age: int  # whole days before cut1
    n: int


def compute_balance(
    interactions: Interactions, plan: SplitPlan, settings: CategoryBalancingConfig, backend: Backend
) -> Balance:
    """Compute weights from train positives and interactions before cut1 alone (D8, D18)."""
    cut1 = plan.windows.cut1
    user_segment = _find_user_segments(interactions, cut1, settings.segment_days, backend)
    n_groups = len(interactions.item_columns["product_group"].values) + 1
    n_ages = (cut1 - interactions.first_time) // DAY + 1
    cells = _count_cells(interactions, plan, user_segment, n_ages, backend)
    recency = tuple(2.0 ** (-days / settings.recency_half_life_days) for days in range(n_ages))
    category = _compute_category_weights(cells, n_groups, settings)
    segment, info, warnings = _compute_segment_weights(cells, category, recency, settings)
    return Balance(category, segment, recency, user_segment, info, warnings)


def _find_user_segments(
    interactions: Interactions, cut1: int, days: int, backend: Backend
) -> Array:
    """Return each user's segment as of cut1 (U,) int8: 0 new, 1 active, 2 churned.

    A user first seen at cut1 or later is new.
    """
    xp = backend.xp
    edge = cut1 - days * DAY
    start = interactions.user_offsets[:-1]
    n_before = count_codes(xp, interactions.user[interactions.time < cut1], interactions.n_users)
    first = interactions.time[start]
    last = interactions.time[start + xp.maximum(n_before - 1, 0)]
    return xp.where(first >= edge, 0, xp.where(last < edge, 2, 1)).astype(xp.int8)


def _count_cells(
    interactions: Interactions,
    plan: SplitPlan,
    user_segment: Array,
    n_ages: int,
    backend: Backend,
) -> list[_Cell]:
    """Count the train positives by (product group, segment, age), in this order."""
    xp, rows = backend.xp, plan.positives[0].row
    groups = interactions.item_columns["product_group"]
    group = gather(backend, groups.codes, gather(backend, interactions.item, rows)) + 1
    segment = gather(backend, user_segment, gather(backend, interactions.user, rows))
    age = (plan.windows.cut1 - gather(backend, interactions.time, rows)) // DAY
    code = (group.astype(xp.int64) * len(SEGMENTS) + segment) * n_ages + age
    n_codes = (len(groups.values) + 1) * len(SEGMENTS) * n_ages
    code = gather(backend, code, sort_order(backend, [(code, n_codes)]))
    first = xp.nonzero(run_starts(xp, code))[0]
    n = xp.diff(xp.concatenate([first, xp.full(1, code.shape[0], dtype=first.dtype)]))
    cells = []
    for cell, size in zip(
        backend.to_host(code[first]).tolist(), backend.to_host(n).tolist(), strict=True
    ):
        rest, age_of_cell = divmod(cell, n_ages)
        group_of_cell, segment_of_cell = divmod(rest, len(SEGMENTS))
        cells.append(_Cell(group_of_cell, segment_of_cell, age_of_cell, size))
    return cells


def _compute_category_weights(
    cells: list[_Cell], n_groups: int, settings: CategoryBalancingConfig
) -> tuple[float, ...]:
    """Return inverse shares to the smoothing power, with mean 1 over positives, clipped."""
    samples = [0] * n_groups
    for cell in cells:
        samples[cell.group] += cell.n
    n_all = sum(samples)
    power = settings.smoothing_factor
    mean = math.fsum((n / n_all) ** (1 - power) for n in samples if n)
    return tuple(
        min(settings.max_weight, max(settings.min_weight, (n / n_all) ** -power / mean))
        if n
        else 0.0
        for n in samples
    )


def _compute_segment_weights(
    cells: list[_Cell],
    category: tuple[float, ...],
    recency: tuple[float, ...],
    settings: CategoryBalancingConfig,
) -> tuple[tuple[float, float, float], dict[str, Any], tuple[str, ...]]:
    """Return the segments' weights, their `Balance.info` and warnings.

    The weights bring the segments' shares of category x recency weight to their targets; the
    target of an empty segment is distributed over the others.
    """
    samples = [0, 0, 0]
    terms: list[list[float]] = [[], [], []]
    for group, segment, age, n in cells:
        samples[segment] += n
        terms[segment].append(n * (category[group] * recency[age]))
    masses = [math.fsum(part) for part in terms]
    total = math.fsum(masses)
    reachable = math.fsum(
        target for target, n in zip(settings.target_distribution, samples, strict=True) if n
    )
    weights: list[float] = []
    segments: dict[str, dict[str, float]] = {}
    described: list[str] = []
    for name, target, n, mass in zip(
        SEGMENTS, settings.target_distribution, samples, masses, strict=True
    ):
        share = target / reachable if n and reachable else 0.0
        weights.append((share / (mass / total) if reachable else 1.0) if mass else 0.0)
        segments[name] = {
            "samples": n,
            "share_before": mass / total,
            "share_after": share,
            "target": target,
            "weight": weights[-1],
        }
        faults = []
        if n < settings.min_samples_per_segment:
            faults.append(f"{n:,} train positives, fewer than {settings.min_samples_per_segment:,}")
        if abs(share - target) > settings.balance_threshold * target:
            faults.append(f"a weighted share of {share:.1%}, target {target:.1%}")
        if faults:
            described.append(f"{name} has {' and '.join(faults)}")
    new, active, churned = weights
    warnings = (f"balancing: {'; '.join(described)}",) if described else ()
    return (new, active, churned), {"segments": segments}, warnings


def positive_weights(
    balance: Balance, interactions: Interactions, rows: Array, cut1: int, backend: Backend
) -> Array:
    """Return the weights (n,) float64 of train positives at `rows` of the interactions."""
    xp = backend.xp
    group = interactions.item_columns["product_group"].codes[interactions.item[rows]] + 1
    segment = balance.user_segment[interactions.user[rows]]
    age = (cut1 - interactions.time[rows]) // DAY
    weight = backend.from_host(balance.category).astype(xp.float64)[group]
    weight = weight * backend.from_host(balance.segment).astype(xp.float64)[segment]
    return weight * backend.from_host(balance.recency).astype(xp.float64)[age]


def resample(
    balance: Balance,
    interactions: Interactions,
    plan: SplitPlan,
    config: DatasetConfig,
    backend: Backend,
) -> SplitPlan:
    """Replace each train positive by floor(weight + h) copies, h a seeded uniform number.

    In expectation this has the effect of the weights, without a column of weights.
    """
    xp = backend.xp
    train = plan.positives[0]
    weight = positive_weights(balance, interactions, train.row, plan.windows.cut1, backend)
    key = rng.purpose_key(config.seed, rng.RESAMPLE)
    row = train.row
    key = fold_purchases(key, row, interactions)
    uniform = (key >> xp.uint64(11)).astype(xp.float64) / 2.0**53
    n_copies = xp.floor(weight + uniform).astype(xp.int64)
    source = repeat_index(xp, n_copies)
    copy = xp.arange(source.shape[0], dtype=xp.int64) - offsets_from_lengths(xp, n_copies)[source]
    if not source.shape[0]:
        raise InputError(
            f"balancing: resampling leaves none of {len(train)} train positives: their weights are "
            "all near 0.\n"
            "Raise category_balancing.recency_half_life_days, or use category_balancing.mode: "
            "weights."
        )
    resampled = replace(train, row=train.row[source], copy=copy.astype(xp.int32))
    positives = (resampled, *plan.positives[1:])
    shares, warnings = measure_shares(interactions, positives, config.split, backend)
    return replace(plan, positives=positives, shares=shares, warnings=warnings)
