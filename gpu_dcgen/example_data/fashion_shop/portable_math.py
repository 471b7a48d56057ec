"""Compute elementary functions alike with and without the processor's vector instructions.

On arrays, `np.exp`, `np.log`, `np.power` and `np.cos` have one algorithm per set of vector
instructions, and the last bits of their results differ; so do the orders of addition in `@` and
`np.einsum`. One last bit can change which article is drawn for a line, and with it the lines of the
same customer that follow. The other modules of this package call none of these functions.

What is guaranteed: each function here calls the C library's function for one number at a time, as
NumPy's random generators do, so that the same C library gives the same results with and without
vector instructions. Numba is not used: it calls Intel's vector functions where these are installed.

What is not: another C library, or another version of it, may differ in last bits. glibc itself has
two variants of `exp`, `log`, `pow` and `cos`: x86-64 processors from before 2013, without the fused
multiply-add, use the other one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def exp(x: np.ndarray) -> np.ndarray:
    """Return e**x, float64 in the shape of `x`; OverflowError above 709.78."""
    return apply_to_each(math.exp, x)


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm, float64 in the shape of `x`; ValueError at 0 and below."""
    return apply_to_each(math.log, x)


def cos(x: np.ndarray) -> np.ndarray:
    """Return the cosine of angles in radians, float64 in the shape of `x`."""
    return apply_to_each(math.cos, x)


def power(x: np.ndarray, exponent: float) -> np.ndarray:
    """Return x**exponent for x >= 0 and a positive exponent, in the shape of `x`.

    float32 for float32 (the C library's `powf`), float64 for float64 (`pow`).
    """
    if x.dtype == np.float32:
        # NumPy's scalars call `powf` itself; Python has no function of single precision.
        single = np.float32(exponent)
        powers = (value**single for value in x.ravel())
        return np.fromiter(powers, np.float32, x.size).reshape(x.shape)
    return apply_to_each(lambda value: math.pow(value, exponent), x)


def apply_to_each(function: Callable[[float], float], x: np.ndarray) -> np.ndarray:
    """Return `function` of each number of `x`, float64 in the shape of `x`."""
    values = np.fromiter(map(function, x.ravel().tolist()), np.float64, x.size)
    return values.reshape(x.shape)
