"""Counter-based random numbers (D22) in plain Python integers: SplitMix64's finalizer, folded over
what a draw is for.
"""

from __future__ import annotations

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

RANDOM_NEGATIVE = 1
FALLBACK_NEGATIVE = 2
CATEGORY_CROSSING = 3
USER_SPLIT = 4
SHUFFLE = 5
RESAMPLE = 6
HARD_NEGATIVE = 9
CALIBRATION_SAMPLE = 10


def mix(x: int) -> int:
    x = (x + GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def key(seed: int, purpose: int, *parts: int) -> int:
    """The key of a draw: seed, purpose and what the draw belongs to, negative values taken mod
    2^64.
    """
    h = mix(seed & MASK)
    for part in (purpose, *parts):
        h = mix(h ^ (part & MASK))
    return h


def draw(key: int, counter: int) -> int:
    return mix((key + counter * GOLDEN) & MASK)


def below(x: int, n: int) -> int:
    """floor(x * n / 2^64): 0..n-1."""
    return (x * n) >> 64
