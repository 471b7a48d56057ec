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
    before = keys.copy()
    order = NumpyBackend(n_threads).stable_argsort(keys, n_bits)
    assert order.dtype == np.int64
    assert np.array_equal(order, np.argsort(keys, kind="stable"))
    assert np.array_equal(keys, before)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100])
def test_few_keys_are_no_special_case(n, monkeypatch):
    monkeypatch.setattr(sorting, "_MIN_KEYS", 0)
    keys = np.random.default_rng(n).integers(0, 4096, n)
    assert np.array_equal(NumpyBackend(3).stable_argsort(keys, 12), np.argsort(keys, kind="stable"))


def test_more_bits_than_named_would_be_seen():
    keys = np.arange(1 << 17)[::-1].copy()
    assert not np.array_equal(
        NumpyBackend(1).stable_argsort(keys, 11), np.argsort(keys, kind="stable")
    )
