"""What samples look up of an item at a snapshot, in one word of 64 bits.

Rows of a split meet items in no order: with an array for each value, each item of a row would miss
the cache once for each array. Popularity and normalized price are float32 of 0..1, so that their
two highest bits are zero. From the lowest bit: 30 of the popularity, 30 of the price, 3 of the
price category plus 1, and 1 where the item is on sale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernel_helper

_PRICE_SHIFT, _CATEGORY_SHIFT, _ON_SALE_SHIFT = np.uint64(30), np.uint64(60), np.uint64(63)
_SHARE_MASK, _CATEGORY_MASK = np.uint64((1 << 30) - 1), np.uint64(7)
_NAN_BITS = np.uint32(0x7FC00000)


def pack_states(xp: Any, popularity: Any, price: Any, price_category: Any, on_sale: Any) -> Any:
    """Return the states (I,) uint64 of a snapshot's items.

    popularity and price (I,) float32 of 0..1, NaN where price_category (I,) int8 is -1; on_sale
    (I,) bool.
    """
    category = (price_category.astype(xp.int64) + 1).astype(xp.uint64)
    priced = xp.where(category > 0, price, xp.float32(0))
    state = popularity.view(xp.uint32).astype(xp.uint64)
    state |= priced.view(xp.uint32).astype(xp.uint64) << _PRICE_SHIFT
    return state | (category << _CATEGORY_SHIFT) | (on_sale.astype(xp.uint64) << _ON_SALE_SHIFT)


@kernel_helper
def popularity_bits(state):
    """Return the popularity as the bits of a float32, uint32."""
    return np.uint32(state & _SHARE_MASK)


@kernel_helper
def price_bits(state):
    """Return the normalized price as the bits of a float32, uint32; NaN unknown."""
    return np.uint32((state >> _PRICE_SHIFT) & _SHARE_MASK) if is_priced(state) else _NAN_BITS


@kernel_helper
def price_category(state):
    """Return the price category 0..3 for Q1..Q4, -1 unknown."""
    return np.int64((state >> _CATEGORY_SHIFT) & _CATEGORY_MASK) - 1


@kernel_helper
def is_priced(state):
    """Return whether a price is known."""
    return (state >> _CATEGORY_SHIFT) & _CATEGORY_MASK != 0


@kernel_helper
def is_on_sale(state):
    """Return whether the item is on sale."""
    return state >> _ON_SALE_SHIFT != 0
