"""Draw with known probabilities: by weights (D13), greedily (D13), and uniformly (D12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .hashes import draw_below

MAX_TRIES = 32
LOG_BITS = 24  # logarithms are whole multiples of 2^-24
TABLE_BITS = 12  # a table of 2^12 logarithms, interpolated
INTERPOLATED_BITS = 31 - TABLE_BITS
LOGARITHMS = np.rint(np.log1p(np.arange(2**TABLE_BITS + 1) / 2**TABLE_BITS) * 2**LOG_BITS)
LOGARITHMS = LOGARITHMS.astype(np.int64)


def log_ratio(numerator: np.ndarray | int, denominator: np.ndarray | int) -> np.ndarray:
    """Return the logarithm of ratios of whole numbers in 1 .. 2^32 - 1: (n,) float32."""
    difference = _take_logarithm(numerator) - _take_logarithm(denominator)
    return (difference / 2**LOG_BITS).astype(np.float32)


def _take_logarithm(x: np.ndarray | int) -> np.ndarray:
    x = np.atleast_1d(np.asarray(x, dtype=np.int64))
    exponent = np.frexp(x.astype(np.float64))[1].astype(np.int64) - 1
    scaled = x << (31 - exponent)
    place = (scaled >> INTERPOLATED_BITS) - 2**TABLE_BITS
    rest = scaled & (2**INTERPOLATED_BITS - 1)
    slope = LOGARITHMS[place + 1] - LOGARITHMS[place]
    return exponent * LOGARITHMS[-1] + LOGARITHMS[place] + (slope * rest >> INTERPOLATED_BITS)


class DrawLimits(NamedTuple):
    """How many candidates are drawn, and how many of them of the positive's product group."""

    n: int
    n_own: int


@dataclass(frozen=True)
class DrawPlan:
    """How some of m candidates are drawn, and how probable each is."""

    parts: list[tuple[np.ndarray, int]]  # places of candidates, and how many of them are drawn
    numerator: np.ndarray  # (m,) int64  of each candidate's probability
    denominator: np.ndarray  # (m,) int64
    n_relaxed: int  # beyond the limit on the positive's product group

    def draw(self, weight: np.ndarray, key: int) -> list[int]:
        """Draw places of candidates of `weight` (m,) by systematic sampling (Madow 1949)."""
        drawn: list[int] = []
        for counter, (places, n) in enumerate(self.parts):
            drawn += places[_draw_part(weight[places], n, key, counter)].tolist()
        return drawn


def plan_draw(weight: np.ndarray, is_own: np.ndarray, limits: DrawLimits) -> DrawPlan:
    """Plan the draw of `limits.n` candidates, each as probable as it is heavy.

    Args:
        weight: (m,) int64, positive, of the candidates in stored order.
        is_own: (m,) bool, whether a candidate is of the positive's product group.
        limits: If the draw would exceed `n_own` on average, the two sides are drawn apart.
    """
    m, n_own, n_relaxed = len(weight), limits.n_own, 0
    parts = [(np.arange(m), min(m, limits.n))]
    if m > limits.n:
        is_certain = mark_certain(weight, limits.n)
        n_left, total = limits.n - int(is_certain.sum()), int(weight[~is_certain].sum())
        mean = int((is_certain & is_own).sum()) * total + n_left * int(
            weight[is_own & ~is_certain].sum()
        )
        if mean > n_own * total:
            n_drawn = max(n_own, limits.n - int((~is_own).sum()))
            n_relaxed = n_drawn - n_own
            own, other = np.flatnonzero(is_own), np.flatnonzero(~is_own)
            parts = [(own, n_drawn), (other, limits.n - n_drawn)]
    numerator, denominator = np.ones(m, dtype=np.int64), np.ones(m, dtype=np.int64)
    for places, n in parts:
        is_certain = mark_certain(weight[places], n)
        uncertain = places[~is_certain]
        numerator[uncertain] = (n - int(is_certain.sum())) * weight[uncertain]
        denominator[uncertain] = weight[uncertain].sum()
    return DrawPlan(parts, numerator, denominator, n_relaxed)


def mark_certain(weight: np.ndarray, n: int) -> np.ndarray:
    """Mark those that a draw of `n` would draw once or more on average: (m,) bool."""
    is_certain = np.zeros(len(weight), dtype=bool)
    while True:
        n_left, total = n - int(is_certain.sum()), weight[~is_certain].sum()
        is_more = ~is_certain & (n_left * weight >= total)
        if not is_more.any():
            return is_certain
        is_certain |= is_more


def _draw_part(weight: np.ndarray, n: int, key: int, counter: int) -> np.ndarray:
    """Return the places drawn: the certain ones, then those at evenly spaced points."""
    is_certain = mark_certain(weight, n)
    n_left = n - int(is_certain.sum())
    remaining = np.where(is_certain, 0, weight)
    total = int(remaining.sum())
    points = draw_below(key, counter, total) + total * np.arange(n_left)
    drawn = np.searchsorted(n_left * np.cumsum(remaining), points, side="right")
    return np.append(np.flatnonzero(is_certain), drawn)


def choose_greedily(
    score: np.ndarray, group: np.ndarray, own_group: int, limits: DrawLimits, penalty: int
) -> tuple[list[int], int]:
    """Choose places of candidates one by one: the highest score less the diversity penalty.

    At most `limits.n_own` are of `own_group`, unless nothing else remains. Candidates are in
    rising order of items, so that ties go to the smaller item.

    Returns:
        The places in order of choice, and how many are beyond the limit.
    """
    chosen: list[int] = []
    n_relaxed = 0
    is_left = np.ones(len(score), dtype=bool)
    while is_left.any() and len(chosen) < limits.n:
        is_allowed = is_left
        if int((group[chosen] == own_group).sum()) >= limits.n_own:
            is_allowed = is_left & (group != own_group)
            if not is_allowed.any():
                is_allowed, n_relaxed = is_left, n_relaxed + 1
        n_of_group = (group[:, None] == group[chosen][None, :]).sum(axis=1)
        value = score - penalty * n_of_group
        places = np.flatnonzero(is_allowed)
        best = int(places[np.argmax(value[places])])
        chosen.append(best)
        is_left[best] = False
    return chosen, n_relaxed


class RejectionSampler:
    """Draws allowed items of a corpus with a counter that runs on (procedure P of D12).

    A draw tries the whole corpus up to MAX_TRIES times, then draws among the allowed items.
    """

    def __init__(self, key: int, corpus: np.ndarray) -> None:
        self._key, self._corpus, self._counter = key, corpus, 0

    def _draw_below(self, n: int) -> int:
        self._counter += 1
        return draw_below(self._key, self._counter - 1, n)

    def draw(self, is_allowed: np.ndarray) -> int:
        """Draw an allowed item, and mark it as no longer allowed."""
        for _ in range(MAX_TRIES):
            j = int(self._corpus[self._draw_below(len(self._corpus))])
            if is_allowed[j]:
                break
        else:
            allowed = self._corpus[is_allowed[self._corpus]]
            j = int(allowed[self._draw_below(len(allowed))])
        is_allowed[j] = False
        return j
