"""Logarithms of ratios of integers agree with those of `math`, and are exact where they must be."""

from __future__ import annotations

import math
import random

import numpy as np

from gpu_dcgen.kernels.logarithms import log_ratio, make_table

TABLE = make_table()


def test_ratios_are_those_of_math():
    draw = random.Random(5)
    for _ in range(20_000):
        a, b = (draw.randrange(1, 2 ** draw.randrange(1, 33)) for _ in range(2))
        assert abs(float(log_ratio(a, b, TABLE)) - math.log(a / b)) < 3e-7 * (1 + math.log(2**32))


def test_equal_numbers_have_a_ratio_of_one_and_powers_of_two_add_up():
    for a in (1, 2, 3, 4095, 4096, 4097, 2**31, 2**32 - 1):
        assert log_ratio(a, a, TABLE) == 0
    for exponent in range(32):
        expected = np.float32(exponent * int(TABLE[4096]) / 2**24)
        assert log_ratio(2**exponent, 1, TABLE) == expected


def test_ratios_rise():
    values = [float(log_ratio(a, 1 << 20, TABLE)) for a in range(1 << 20, (1 << 20) + 5000, 7)]
    assert values == sorted(values)
