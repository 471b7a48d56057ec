"""Counter-based random numbers: a draw is a pure function of what it is for (D22).

No generator state exists, so a draw does not depend on block sizes, workers or order. The mixer is
the finalizer of SplitMix64 (Steele, Lea, Flood 2014); a key folds the seed, a purpose and up to
four integers:

    mix(x)               x += 0x9E3779B97F4A7C15;  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9
                         x = (x ^ x >> 27) * 0x94D049BB133111EB;  x ^ x >> 31         (all mod 2^64)
    key(seed, p, a, ...) h = mix(seed);  h = mix(h ^ v) for v in (p, a, ...) taken mod 2^64
    draw(key, counter)   mix(key + counter * 0x9E3779B97F4A7C15)
    below(x, n)          floor(x * n / 2^64), for 0 < n < 2^31: uniform to within n / 2^64
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernel_helper

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

# What a draw is for. The numbers are part of the format: changing one changes every dataset.
RANDOM_NEGATIVE = 1
FALLBACK_NEGATIVE = 2
CATEGORY_CROSSING = 3
USER_SPLIT = 4
SHUFFLE = 5
RESAMPLE = 6
ITEM_VECTORS = 7
FUNNEL_SAMPLE = 8  # which positives the report looks at: no dataset depends on it
HARD_NEGATIVE = 9
CALIBRATION_SAMPLE = 10


@kernel_helper
def mix(x):
    """SplitMix64's finalizer: a bijection of uint64."""
    x = np.uint64(x) + GOLDEN
    x = (x ^ (x >> _30)) * _MIX1
    x = (x ^ (x >> _27)) * _MIX2
    return x ^ (x >> _31)


@kernel_helper
def fold(h, value):
    """Return a key that depends on the key `h` and one more value."""
    return mix(h ^ np.uint64(value))


@kernel_helper
def draw(key, counter):
    """Return the random uint64 number `counter` of a key."""
    return mix(key + np.uint64(counter) * GOLDEN)


@kernel_helper
def below(x, n):
    """Map a random uint64 to 0..n-1, int64."""
    n = np.uint64(n)
    return np.int64(((x >> _32) * n + (((x & _LOW) * n) >> _32)) >> _32)


def mix_array(x: Any) -> Any:
    """Apply `mix` to a uint64 array of NumPy or CuPy; returns a new array."""
    x = x + GOLDEN
    x = (x ^ (x >> _30)) * _MIX1
    x = (x ^ (x >> _27)) * _MIX2
    return x ^ (x >> _31)


def fold_array(h: Any, values: Any) -> Any:
    """Apply `fold` to arrays: `h` a uint64 scalar or array, `values` an integer array."""
    return mix_array(h ^ values.astype(np.uint64))


def purpose_key(seed: int, purpose: int) -> np.uint64:
    """Return the key of a seed and a purpose, to which `fold` adds further values."""
    mask = (1 << 64) - 1

    def mix_int(x: int) -> int:
        x = (x + int(GOLDEN)) & mask
        x = ((x ^ (x >> 30)) * int(_MIX1)) & mask
        x = ((x ^ (x >> 27)) * int(_MIX2)) & mask
        return x ^ (x >> 31)

    return np.uint64(mix_int(mix_int(seed & mask) ^ purpose))
