"""Stage 4b: what each train positive weighs: category x segment x recency (D18), or which copies of it are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, offsets_from_lengths, repeat_index, run_starts
from ..config.dataset_config import DatasetConfig
from ..errors import InputError
from ..kernels import rng
from .interactions import Interactions
from .splits import SplitPlan, measure_shares
from .windows import DAY

SEGMENTS = ("new_users", "active_users", "churned_users")


@dataclass(frozen=True)
class Balance:
    """Weight tables; a train positive's weight is (category x segment) x recency, rounded once to float32."""

    category: tuple[
        float, ...
    ]  # by product group code + 1 (the first is the null group's); 0.0 where absent
    segment: tuple[float, float, float]  # new, active, churned; 0.0 where empty
    recency: tuple[float, ...]  # by whole days before cut1
    user_segment: Array  # (U,) int8
    info: dict[str, Any]  # samples and shares per segment, before and after
    warnings: tuple[str, ...]


def compute_balance(
    interactions: Interactions, plan: SplitPlan, config: DatasetConfig, backend: Backend
) -> Balance:
    """Weights from the train positives and from interactions before cut1 alone (D8, D18)."""
    xp, settings = backend.xp, config.category_balancing
    cut1 = plan.windows.cut1
    rows = plan.positives[0].row
    segment = _user_segments(interactions, cut1, settings.segment_days, backend)
    group = interactions.item_columns["product_group"]
    n_groups = len(group.values) + 1
    age = (cut1 - interactions.time[rows]) // DAY
    n_ages = (cut1 - interactions.first_time) // DAY + 1
    cell = (
        (group.codes[interactions.item[rows]].astype(xp.int64) + 1) * 3
        + segment[interactions.user[rows]]
    ) * n_ages + age
    cell = xp.sort(cell, kind="stable")
    first = xp.nonzero(run_starts(xp, cell))[0]
    n_cell = xp.diff(xp.concatenate([first, xp.full(1, cell.shape[0], dtype=first.dtype)]))
    entries = [
        (code // (3 * n_ages), code // n_ages % 3, code % n_ages, n)
        for code, n in zip(
            backend.to_host(cell[first]).tolist(), backend.to_host(n_cell).tolist(), strict=True
        )
    ]
    recency = tuple(2.0 ** (-days / settings.recency_half_life_days) for days in range(n_ages))
    category = _category_weights(entries, n_groups, config)
    segment_weights, info, warnings = _segment_weights(entries, category, recency, config)
    return Balance(category, segment_weights, recency, segment, info, warnings)


def _user_segments(interactions: Interactions, cut1: int, days: int, backend: Backend) -> Array:
    """0 new, 1 active, 2 churned, as of cut1 (U,) int8; a user first seen later is new."""
    xp = backend.xp
    edge = cut1 - days * DAY
    start = interactions.user_offsets[:-1]
    n_before = count_codes(xp, interactions.user[interactions.time < cut1], interactions.n_users)
    first = interactions.time[start]
    last = interactions.time[start + xp.maximum(n_before - 1, 0)]
    return xp.where(first >= edge, 0, xp.where(last < edge, 2, 1)).astype(xp.int8)


def _category_weights(
    entries: list[tuple[int, int, int, int]], n_groups: int, config: DatasetConfig
) -> tuple[float, ...]:
    """Inverse share to the smoothing power, with mean 1 over the positives, clipped last."""
    settings = config.category_balancing
    samples = [0] * n_groups
    for group, _, _, n in entries:
        samples[group] += n
    n_all = sum(samples)
    power = settings.smoothing_factor
    mean = math.fsum((n / n_all) ** (1 - power) for n in samples if n)
    return tuple(
        min(settings.max_weight, max(settings.min_weight, (n / n_all) ** -power / mean))
        if n
        else 0.0
        for n in samples
    )


def _segment_weights(
    entries, category: tuple[float, ...], recency: tuple[float, ...], config: DatasetConfig
):
    """Weights that bring the segments' shares of category x recency weight to the targets; an empty one's goes to the others."""
    settings = config.category_balancing
    samples = [0, 0, 0]
    mass: list[list[float]] = [[], [], []]
    for group, segment, age, n in entries:
        samples[segment] += n
        mass[segment].append(n * (category[group] * recency[age]))
    masses = [math.fsum(part) for part in mass]
    total = math.fsum(masses)
    reachable = math.fsum(
        target for target, n in zip(settings.target_distribution, samples, strict=True) if n
    )
    weights, segments, warnings = [], {}, []
    for name, target, n, part in zip(
        SEGMENTS, settings.target_distribution, samples, masses, strict=True
    ):
        wanted = target / reachable if n and reachable else 0.0
        weights.append((wanted / (part / total) if reachable else 1.0) if part else 0.0)
        segments[name] = {
            "samples": n,
            "share_before": part / total,
            "share_after": wanted,
            "target": target,
            "weight": weights[-1],
        }
        if n < settings.min_samples_per_segment:
            warnings.append(
                f"balancing: {name} has {n} train positives, fewer than {settings.min_samples_per_segment}"
            )
        if abs(wanted - target) > settings.balance_threshold * target:
            warnings.append(
                f"balancing: {name} has a weighted share of {wanted:.1%}, target {target:.1%}"
            )
    return tuple(weights), {"segments": segments}, tuple(warnings)


def positive_weights(
    balance: Balance, interactions: Interactions, rows: Array, cut1: int, backend: Backend
) -> Array:
    """The weight (n,) float64 of train positives at `rows`: (category x segment) x recency."""
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
    """Replace train positives by floor(weight + h) copies, h a seeded uniform number: the weights' effect without weights."""
    xp = backend.xp
    train = plan.positives[0]
    weight = positive_weights(balance, interactions, train.row, plan.windows.cut1, backend)
    key = rng.purpose_key(config.seed, rng.RESAMPLE)
    row = train.row
    for values in (
        interactions.user_key[interactions.user[row]],
        interactions.item_key[interactions.item[row]],
        interactions.time[row],
    ):
        key = rng.fold_array(key, values)
    uniform = (key >> xp.uint64(11)).astype(xp.float64) / 2.0**53
    copies = xp.floor(weight + uniform).astype(xp.int64)
    source = repeat_index(xp, copies)
    copy = xp.arange(source.shape[0], dtype=xp.int64) - offsets_from_lengths(xp, copies)[source]
    if not source.shape[0]:
        raise InputError(
            f"balancing: resampling leaves none of {len(train)} train positives: their weights are all near 0.\n"
            "Raise category_balancing.recency_half_life_days, or use category_balancing.mode: weights."
        )
    resampled = replace(train, row=train.row[source], copy=copy.astype(xp.int32))
    positives = (resampled, *plan.positives[1:])
    shares, warnings = measure_shares(interactions, positives, config, backend)
    return replace(plan, positives=positives, shares=shares, warnings=warnings)
