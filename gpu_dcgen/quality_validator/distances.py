"""Distances between counted distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import kolmogorov


def total_variation(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Compute half the sum of differences of shares, 0..1; None where one is empty."""
    n_a, n_b = sum(a), sum(b)
    if not n_a or not n_b:
        return None
    return math.fsum(abs(x / n_a - y / n_b) for x, y in zip(a, b, strict=True)) / 2


def separability(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Compute how well its item alone tells a row of `a` from one of `b`: an AUC, 0.5..1.

    The counts are by item. Items are ranked by log(count in a / count in b), in equal numbers of
    rows and with one row added to both, as a model could learn it; None where one is empty.
    """
    n_a, n_b = sum(a), sum(b)
    if not n_a or not n_b:
        return None
    ratios: dict[float, list[int]] = {}
    for x, y in zip(a, b, strict=True):
        pair = ratios.setdefault((x + 1) / (y * n_a / n_b + 1), [0, 0])
        pair[0] += x
        pair[1] += y
    won, below = 0.0, 0
    for ratio in sorted(ratios):
        x, y = ratios[ratio]
        won += x * (below + y / 2)
        below += y
    return won / (n_a * n_b)


def ks_p(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Compute p of the two-sample Kolmogorov-Smirnov test, of values counted by rising code.

    The asymptotic form; None where one is empty.
    """
    n_a, n_b = sum(a), sum(b)
    if not n_a or not n_b:
        return None
    distance, below_a, below_b = 0.0, 0, 0
    for x, y in zip(a, b, strict=True):
        below_a, below_b = below_a + x, below_b + y
        distance = max(distance, abs(below_a / n_a - below_b / n_b))
    return float(kolmogorov(distance * math.sqrt(n_a * n_b / (n_a + n_b))))
