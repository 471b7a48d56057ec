"""A log of 32-bit codes answers by numbers of pairs that need 64 bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpu_dcgen.auditing.purchase_log import DAY, END_OF_TIME, PurchaseLog

N = 60_000  # users, items and times: their pairs need 32 bits and more


@pytest.fixture(scope="module")
def log() -> PurchaseLog:
    """Each user buys one item on a day of the user's own, over one of two channels."""
    ids = pa.array([f"{number:05d}" for number in range(N)])
    number = np.arange(N, dtype=np.int32)
    return PurchaseLog(
        user=number,
        item=number[::-1].copy(),
        time=number.astype(np.int64) * DAY,
        price=None,
        channel=(number % 2).astype(np.int8),
        user_ids=ids,
        item_ids=ids,
        item_index=number + 1,
        age=number,
        user_columns={},
        item_columns={},
        views=None,
        dropped={},
        first_time=0,
    )


def test_purchases_and_owners_are_found_beyond_32_bits(log):
    assert log.find_rows(log.user, log.time, log.item).tolist() == [*range(N)]
    assert log.find_rows(log.user[1:], log.time[1:], log.item[:-1]).tolist() == [-1] * (N - 1)
    assert (log.owned_since(log.user, log.item) == log.time).all()
    assert (log.owned_since(log.user[1:], log.item[:-1]) == END_OF_TIME).all()


def test_a_log_that_is_cut_nowhere_is_itself(log):
    assert log.before(N * DAY) is log
    cut = log.before(10 * DAY)
    assert cut.user.tolist() == [*range(10)] and cut.user.dtype == np.int32
    assert cut.channel.dtype == np.int8 and cut.n_users == N
    assert cut.preferred_channel(np.arange(10)).tolist() == [-1] * 10  # nothing was before
