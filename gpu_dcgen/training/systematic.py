"""Draw by weights from many lists at a time, with known probabilities (D13).

Systematic sampling (Madow 1949), as a build does it: candidates lie on a line, each as long as its
weight times the number to draw, and points at the distance of the total weight, from a random
start, hit them. All lengths are whole numbers, so that the law is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .order import mix

_LOW = np.uint64((1 << 32) - 1)


class DrawLimits(NamedTuple):
    """How many are drawn from a list."""

    n: int
    n_own: int  # of the own product group at most, as long as the others suffice


class DrawPart(NamedTuple):
    """Candidates of n lists of which some are drawn by one random number for each list."""

    weight: np.ndarray  # (n, width) int64  0 for all other candidates
    n_left: np.ndarray  # (n,) int64  how many are drawn
    total: np.ndarray  # (n,) int64  of the weights; at least 1


class DrawPlan(NamedTuple):
    """What is drawn from n lists."""

    is_certain: np.ndarray  # (n, width) bool  drawn in any case
    parts: tuple[DrawPart, DrawPart]  # the own group, or all; the others, or none

    def compute_log_q(self) -> np.ndarray:
        """Return log-probabilities: (n, width) float64, -inf for what is never drawn."""
        lengths = sum(
            part.n_left[:, None] * part.weight / part.total[:, None] for part in self.parts
        )
        with np.errstate(divide="ignore"):
            return np.log(np.where(self.is_certain, 1.0, lengths))

    def draw(self, keys: np.ndarray) -> np.ndarray:
        """Draw from each list by its key, (n,) uint64: (n, width) bool."""
        is_drawn = self.is_certain.copy()
        for number, (weight, n_left, total) in enumerate(self.parts):
            start = _draw_below(mix(keys ^ np.uint64(number)), total)[:, None]
            end = np.cumsum(n_left[:, None] * weight, axis=1)
            # Points before the end of each candidate: start, start + total, ...
            n_points = -((start - end) // total[:, None])
            is_drawn |= np.diff(n_points, prepend=0) > 0
        return is_drawn


def plan_draws(weight: np.ndarray, is_own: np.ndarray, limits: DrawLimits) -> DrawPlan:
    """Plan the draws from n lists, each with at least `limits.n` candidates that may be drawn.

    All candidates are one part unless the own product group would get more than `limits.n_own` on
    average.

    Args:
        weight: (n, width) int64, 0 for what may not be drawn.
        is_own: (n, width) bool, which candidates are of the own product group.
        limits: How many are drawn.
    """
    own, other = np.where(is_own, weight, 0), np.where(is_own, 0, weight)
    is_certain, n_left, total = _settle(weight, np.full(len(weight), limits.n))
    own_left = np.where(is_certain, 0, own).sum(axis=1)
    n_certain = (is_certain & is_own).sum(axis=1)
    is_split = n_certain * total + n_left * own_left > limits.n_own * total
    n_own = np.maximum(limits.n_own, limits.n - (other > 0).sum(axis=1))
    own_certain, n_first, first_total = _settle(own, n_own)
    other_certain, n_second, second_total = _settle(other, limits.n - n_own)

    split = is_split[:, None]
    is_certain = np.where(split, own_certain | other_certain, is_certain)
    first = np.where(is_certain, 0, np.where(split, own, weight))
    second = np.where(is_certain | ~split, 0, other)
    return DrawPlan(
        is_certain,
        (
            DrawPart(
                first,
                np.where(is_split, n_first, n_left),
                np.where(is_split, first_total, total).clip(1),
            ),
            DrawPart(second, np.where(is_split, n_second, 0), second_total.clip(1)),
        ),
    )


def _settle(weight: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mark what is certain, (n, width) bool; how many are left to draw, and the weight.

    A candidate is certain if its share of the weight is that of a whole draw or more. Once some are
    taken out, others may be.
    """
    is_certain, n_left, total = np.zeros(weight.shape, dtype=bool), n.copy(), weight.sum(axis=1)
    while True:
        is_more = (weight > 0) & ~is_certain & (n_left[:, None] * weight >= total[:, None])
        if not is_more.any():
            return is_certain, n_left, total
        is_certain |= is_more
        n_left -= is_more.sum(axis=1)
        total -= np.where(is_more, weight, 0).sum(axis=1)


def _draw_below(random: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the high words of random * n, uniform in 0..n-1: int64, for n below 2^31."""
    count = n.astype(np.uint64)
    high, low = (random >> np.uint64(32)) * count, ((random & _LOW) * count) >> np.uint64(32)
    return ((high + low) >> np.uint64(32)).astype(np.int64)
