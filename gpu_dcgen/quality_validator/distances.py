"""Distances between counted distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def total_variation(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Half the sum of differences of shares, 0..1; None where one is empty."""
    n_a, n_b = sum(a), sum(b)
    if not n_a or not n_b:
        return None
    return math.fsum(abs(x / n_a - y / n_b) for x, y in zip(a, b, strict=True)) / 2


def ks_p(a: Sequence[int], b: Sequence[int]) -> float | None:
    """p of the two-sample Kolmogorov-Smirnov test of values counted by rising code (its asymptotic form)."""
    n_a, n_b = sum(a), sum(b)
    if not n_a or not n_b:
        return None
    distance = below_a = below_b = 0
    for x, y in zip(a, b, strict=True):
        below_a, below_b = below_a + x, below_b + y
        distance = max(distance, abs(below_a / n_a - below_b / n_b))
    at = distance * math.sqrt(n_a * n_b / (n_a + n_b))
    if at < 0.2:  # the series does not converge there, and p is 1 to ten digits
        return 1.0
    return max(
        0.0,
        min(
            1.0,
            2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * (k * at) ** 2) for k in range(1, 101)),
        ),
    )
