"""The stable order of integers, digit by digit, is NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_fallback import NumpyBackend, sorting


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_bits", [1, 11, 12, 40, 63])
@pytest.mark.parametrize("n", [sorting._MIN_KEYS, sorting._MIN_KEYS + 4321])
def test_the_order_is_numpys(n, n_bits, n_threads):
    keys = np.random.default_rng(n_bits).integers(0, (1 << n_bits) - 1, n, endpoint=True)
    keys[::7] = keys[0]  # ties, in every part
    expected = np.argsort(keys, kind="stable")
    order = NumpyBackend(n_threads).stable_argsort(keys, n_bits)  # overwrites the keys
    assert order.dtype == np.int32
    assert np.array_equal(order, expected)


@pytest.mark.parametrize("n", [10, sorting._MIN_KEYS])
def test_positions_have_64_bits_where_32_do_not_hold_them(n, monkeypatch):
    monkeypatch.setattr(sorting, "MAX_NARROW", n)
    keys = np.random.default_rng(n).integers(0, 1 << 30, n)
    expected = np.argsort(keys, kind="stable")
    order = NumpyBackend(2).stable_argsort(keys, 30)
    assert order.dtype == np.int64 and np.array_equal(order, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100])
def test_few_keys_are_no_special_case(n, monkeypatch):
    monkeypatch.setattr(sorting, "_MIN_KEYS", 0)
    keys = np.random.default_rng(n).integers(0, 4096, n)
    expected = np.argsort(keys, kind="stable")
    assert np.array_equal(NumpyBackend(3).stable_argsort(keys, 12), expected)


def test_more_bits_than_named_would_be_seen():
    keys = np.arange(1 << 17)[::-1].copy()
    expected = np.argsort(keys, kind="stable")
    assert not np.array_equal(NumpyBackend(1).stable_argsort(keys, 11), expected)
