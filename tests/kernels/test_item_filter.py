"""The filter that tells most items apart from those that a user owns, without a search."""

from __future__ import annotations

import numpy as np

from gpu_dcgen.kernels.arguments import Ownership
from gpu_dcgen.kernels.draws import (
    N_PLACES,
    N_STATES,
    ROW_STAMP,
    ItemFilter,
    mark_owned,
    may_be_owned,
)

N_USERS, N_ITEMS, N_ROWS = 5, 3 * N_PLACES, 1200  # so that places are shared, stamps used up


def test_no_owned_item_is_ever_missed_and_few_others_are_suspected():
    """However often users and stamps change, and whatever rows have marked in between."""
    numbers = np.random.default_rng(3)
    owned = [np.sort(numbers.permutation(N_ITEMS)[:40]).astype(np.int32) for _ in range(N_USERS)]
    offsets = np.arange(N_USERS + 1) * 40
    ownership = Ownership(offsets, np.concatenate(owned), np.zeros(offsets[-1], np.int64))
    items = ItemFilter(np.zeros(N_PLACES, np.uint8), np.zeros(N_STATES, np.int32))
    suspected = 0
    for _ in range(N_ROWS):
        user = int(numbers.integers(N_USERS) * numbers.integers(2))  # user 0 in long runs
        mark_owned(user, ownership, items)
        assert all(may_be_owned(item, items) for item in owned[user])
        row_stamp = items.state[ROW_STAMP]
        assert not (items.stamps == row_stamp).any(), "an earlier row's marks would count for this"
        for item in numbers.integers(N_ITEMS, size=8):  # drawn for the row
            if not may_be_owned(item, items):
                items.stamps[item % N_PLACES] = row_stamp
        suspected += sum(may_be_owned(item, items) for item in numbers.integers(N_ITEMS, size=8))
    assert suspected < 0.03 * 8 * N_ROWS
