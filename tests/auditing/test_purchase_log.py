"""A log of 32-bit codes answers by numbers of pairs that need 64 bits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from gpu_dcgen.auditing import purchase_log, similarity
from gpu_dcgen.auditing.item_snapshots import _LastDays
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


@pytest.mark.parametrize("largest_key", [END_OF_TIME, 0])  # one number a row, or three
def test_rows_are_sorted_by_user_time_and_item(monkeypatch, largest_key):
    """Also where one number needs more than 32 bits, of codes that have 32."""
    monkeypatch.setattr(purchase_log, "MAX_INT64", largest_key)
    rng, n = np.random.default_rng(1), 50_000
    ids = pa.array(map(str, range(N)))
    user, item = rng.integers(0, N, (2, n)).astype(np.int32)
    time = rng.integers(0, 40_000, n) * DAY
    user[:1000], time[:1000] = N - 1, DAY  # items alone tell these apart
    tables = SimpleNamespace(user=user, item=item, time=time, user_ids=ids, item_ids=ids)
    order = purchase_log._sort_rows(tables)
    rows = [column[order].tolist() for column in (user, time, item)]
    assert sorted(order.tolist()) == list(range(n))
    assert list(zip(*rows, strict=True)) == sorted(zip(*rows, strict=True))


def test_the_last_day_of_sale_is_that_before_each_midnight():
    rng, n_items, n = np.random.default_rng(2), 5, 200
    days, items = rng.integers(0, 30, n), rng.integers(0, n_items, n).astype(np.int32)
    times, units = days * DAY + rng.integers(0, DAY, n), rng.integers(1, 1 << 40, n)
    by_time, last_days = np.argsort(times), _LastDays(n_items)
    for midnight in (0, 3, 4, 11, 25, 30):
        last_days.add(times[by_time], by_time, midnight * DAY, items, units)
        for item in range(n_items):
            sold = days[(items == item) & (days < midnight)]
            is_last = (items == item) & (days == sold.max(initial=-1))
            assert last_days.counts[item] == is_last.sum()
            assert last_days.sums[item] == units[is_last].sum()


@pytest.mark.parametrize("size", [-30, 0, 20, 50])
def test_weights_have_as_many_bits_as_their_sums_allow(size):
    factor = np.random.default_rng(3).random(300) * 2.0**size
    item = np.arange(300) % 7
    fits = [bits for bits in range(-40, 41) if similarity._fits(factor, item, 7, bits, 42)]
    weight, bits = similarity._scale_to_integers(factor, item, 7)
    if np.median(np.rint(np.ldexp(factor, max(fits)))) > similarity.MIN_MEDIAN_WEIGHT:
        assert bits == max(fits)
    assert weight.tolist() == np.rint(np.ldexp(factor, bits)).tolist()
