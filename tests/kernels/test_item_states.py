"""Packed states of items give back what was packed, bit by bit."""

from __future__ import annotations

import itertools

import numpy as np

from cpu_fallback import NumpyBackend
from gpu_dcgen.kernels.item_states import is_on_sale, pack_states
from gpu_dcgen.kernels.rows import ItemColumns, ItemTables, describe_items


def test_states_give_back_what_was_packed():
    """Shares at both ends, the least and greatest between, and any; all states of an item."""
    one, zero = np.float32(1), np.float32(0)
    ends = [0.0, 1.0, np.nextafter(zero, one), np.nextafter(one, zero), 2.0**-126, 1 / 3]
    shares = np.concatenate([ends, np.random.default_rng(1).random(50)]).astype(np.float32)
    rows = list(itertools.product(range(len(shares)), range(-1, 4), (False, True)))
    number, category, on_sale = (np.array(column) for column in zip(*rows, strict=True))
    category, popularity = category.astype(np.int8), shares[number]
    price = np.where(category < 0, np.float32(np.nan), np.roll(popularity, 7))
    states = pack_states(np, popularity, price, category, on_sale)

    n = len(rows)
    columns = ItemColumns(
        np.zeros((1, n, 1), np.int32),
        *(np.zeros((n, 1), dtype) for dtype in (np.uint32, np.uint32, bool, np.int8)),
    )
    tables = ItemTables(np.arange(n, dtype=np.int32)[:, None], states[None])
    items = np.arange(n, dtype=np.int32)[:, None]
    backend = NumpyBackend(1)
    backend.for_each(describe_items, n, items, np.zeros(n, np.int64), tables, columns)
    np.testing.assert_array_equal(columns.popularity[:, 0], popularity.view(np.uint32))
    np.testing.assert_array_equal(columns.price[:, 0].view(np.float32), price)
    np.testing.assert_array_equal(columns.has_price[:, 0], category >= 0)
    np.testing.assert_array_equal(columns.price_category[:, 0], category)
    assert [bool(is_on_sale(state)) for state in states] == on_sale.tolist()
