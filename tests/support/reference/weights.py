"""Sample weights (D18): category x segment x recency of the train positives, written or resampled.

Readings where the decisions leave room: sums are exact before they are rounded to float64; where
the non-empty segments' targets are all 0 every segment weighs 1; resampling rounds the float64
product, and a positive that it leaves out still counts as emitted in the ledger (the ledger is the
plan's).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from . import rng
from .splits import Positive
from .world import DAY, Log

SEGMENTS = ("new", "active", "churned")


def segment_of(log: Log, config: Any, user: int) -> str:
    """By the user's first and last interaction before cut1."""
    times = [e.time for e in log.history(user, log.cuts.cut1)]
    recent = log.cuts.cut1 - config.category_balancing.segment_days * DAY
    if min(times) >= recent:
        return "new"
    return "churned" if max(times) < recent else "active"


def recency_of(log: Log, config: Any, time: int) -> float:
    age = (log.cuts.cut1 - time) // DAY
    return float(np.exp2(np.float64(-age / config.category_balancing.recency_half_life_days)))


def category_weights(log: Log, config: Any, train: list[Positive]) -> dict[str | None, float]:
    settings = config.category_balancing
    groups = [log.group(p.item) for p in train]
    shares = {group: groups.count(group) / len(groups) for group in set(groups)}
    e = settings.smoothing_factor
    total = math.fsum(np.power(np.float64(s), 1 - e) for s in shares.values())
    return {
        group: min(
            max(float(np.power(np.float64(s), -e)) / total, settings.min_weight),
            settings.max_weight,
        )
        for group, s in shares.items()
    }


def segment_weights(
    log: Log, config: Any, train: list[Positive], by_category: dict[str | None, float]
) -> dict[str, float]:
    """Weights of the segments that have train positives; the others are absent."""
    masses: dict[str, list[float]] = {}
    for p in train:
        mass = by_category[log.group(p.item)] * recency_of(log, config, p.time)
        masses.setdefault(segment_of(log, config, p.user), []).append(mass)
    total = math.fsum(mass for group in masses.values() for mass in group)
    targets = dict(zip(SEGMENTS, config.category_balancing.target_distribution, strict=True))
    wanted = math.fsum(targets[segment] for segment in masses)
    if wanted == 0:
        return dict.fromkeys(masses, 1.0)
    return {
        segment: (targets[segment] / wanted) / (math.fsum(group) / total)
        for segment, group in masses.items()
    }


def weigh(
    log: Log,
    config: Any,
    train: list[Positive],
    by_category: dict[str | None, float],
    by_segment: dict[str, float],
) -> list[Positive]:
    """The train positives with their weights, or as often as `resample` repeats them."""
    if config.category_balancing.mode == "off":
        return train
    weighted = []
    for p in train:
        weight = by_category[log.group(p.item)] * by_segment[segment_of(log, config, p.user)]
        weight *= recency_of(log, config, p.time)
        if config.category_balancing.mode == "weights":
            weighted.append(replace(p, weight=weight))
            continue
        h = (
            rng.key(config.seed, rng.RESAMPLE, log.user_key(p.user), log.item_key(p.item), p.time)
            >> 11
        ) / 2**53
        weighted.extend(replace(p, copy=copy) for copy in range(math.floor(weight + h)))
    return weighted
