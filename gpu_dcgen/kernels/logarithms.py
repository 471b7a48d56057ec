"""Logarithms of ratios of integers, with the same bits on every machine (D13).

Libraries of mathematics differ in the last bit. Here a table of ln(1 + p / 4096) and integer
interpolation give ln x = e ln 2 + ln(x / 2^e) to within 2^-23.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from . import kernel_helper

_N_STEPS = 4096
_UNIT = 1 << 24  # 1.0 in the table's fixed point
_TOP, _FRACTION_BITS = 31, 19  # bits of a normalized number: 1 leading, 12 of steps, then these


@functools.cache
def make_table() -> npt.NDArray[np.int64]:
    """Return rint(ln(1 + p / 4096) * 2^24) for p = 0..4096: (4097,) int64."""
    steps = range(_N_STEPS + 1)
    return np.array([round(math.log1p(p / _N_STEPS) * _UNIT) for p in steps], dtype=np.int64)


@kernel_helper
def _log(x, table):
    """Return ln x of an integer 0 < x < 2^32 in units of 2^-24."""
    exponent = np.int64(0)
    step = np.int64(16)
    while step > 0:
        if x >> (exponent + step) > 0:
            exponent += step
        step >>= 1
    normalized = x << (_TOP - exponent)
    place = (normalized >> _FRACTION_BITS) - _N_STEPS
    fraction = normalized & ((1 << _FRACTION_BITS) - 1)
    rise = (table[place + 1] - table[place]) * fraction >> _FRACTION_BITS
    return exponent * table[_N_STEPS] + table[place] + rise


@kernel_helper
def log_ratio(a, b, table):
    """Return ln(a / b), float32, of integers 0 < a, b < 2^32."""
    return np.float32(np.float64(_log(np.int64(a), table) - _log(np.int64(b), table)) / _UNIT)
