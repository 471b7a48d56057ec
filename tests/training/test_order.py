"""The order of an epoch: everything once, decided by (seed, epoch, position) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.kernels import rng
from gpu_dcgen.training.order import (
    count_rounds,
    make_epoch_order,
    make_key,
    mix,
    permute,
    slice_round,
)

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def test_its_random_numbers_are_those_of_the_build():
    values = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert mix(values).tolist() == rng.mix_array(values).tolist()
    for seed, purpose in ((0, 1), (42, 3), (2**63 - 1, 2)):
        assert make_key(seed, purpose)[0] == rng.purpose_key(seed, purpose)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 2**62))
def test_a_permutation_has_every_number_once(n, seed):
    assert sorted(permute(n, seed).tolist()) == list(range(n))


def test_permutations_of_other_seeds_and_epochs_differ():
    values = [
        (seed, purpose, epoch) for seed in range(3) for purpose in (1, 2) for epoch in range(3)
    ]
    ordered = {tuple(permute(50, *numbers).tolist()) for numbers in values}
    assert len(ordered) == 18


def test_a_permutation_is_uniform():
    places = np.array([permute(5, seed) for seed in range(4000)])
    for column in places.T:
        assert np.bincount(column).tolist() == pytest.approx([800] * 5, abs=110)


def groups(order, sizes):
    """The epoch's groups as pairs of row group and place in it."""
    ordered = []
    for window, members in enumerate(order.windows):
        laid = [(number, place) for number in members for place in range(sizes[number])]
        places = order.order_window(window)
        ordered += laid if places is None else [laid[place] for place in places]
    return ordered


@settings(deadline=None)
@given(SIZES, st.integers(0, 99), st.integers(1, 5), st.booleans())
def test_an_epoch_has_every_group_once(sizes, seed, window, shuffle):
    order = make_epoch_order(sizes, seed, 0, shuffle=shuffle, window=window)
    everything = [(number, place) for number, size in enumerate(sizes) for place in range(size)]
    ordered = groups(order, sizes)
    assert sorted(ordered) == everything
    assert shuffle or ordered == everything
    assert order.n_groups == len(everything)
    assert all(
        order.starts[order.find_window(p)] <= p < order.starts[order.find_window(p) + 1]
        for p in range(order.n_groups)
    )


@settings(deadline=None)
@given(SIZES, st.integers(1, 4))
def test_a_window_holds_so_many_row_groups_at_most(sizes, window):
    order = make_epoch_order(sizes, 1, 2, shuffle=True, window=window)
    assert (
        all(len(members) == window for members in order.windows[:-1])
        and 1 <= len(order.windows[-1]) <= window
    )


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 8), st.data())
def test_equal_items_are_dealt_to_different_batches_as_far_as_these_suffice(first, batch, data):
    n = data.draw(st.integers(1, 80))
    item = np.array(data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n)))
    order = make_epoch_order(
        [first, n] if first else [n], 3, 0, shuffle=False, window=1, batch_size=batch
    )
    object.__setattr__(order, "is_shuffled", True)
    dealt = order.order_window(len(order.windows) - 1, item)
    assert sorted(dealt.tolist()) == list(range(n))
    number = (first + np.arange(n)) // batch
    full = sum(count == batch for count in Counter(number.tolist()).values())
    for value, times in Counter(item.tolist()).items():
        batches = number[np.isin(dealt, np.flatnonzero(item == value))]
        if times <= full:
            assert len(set(batches.tolist())) == times, (value, dealt)


def test_no_rank_has_an_empty_batch_when_an_epoch_goes_on_with_more_ranks_than_positives_are_left():
    assert count_rounds(2, 5, 4, drop_last=False) == 1
    assert [slice_round(98, 100, 5, rank, 4, drop_last=False) for rank in range(4)] == [
        (slice(98, 100), 100)
    ] * 4


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 7), st.booleans())
def test_ranks_share_every_group_in_equally_many_batches(n_groups, batch, n_ranks, drop_last):
    if n_groups < n_ranks:
        return
    places_read, position = [], 0
    rounds = count_rounds(n_groups, batch, n_ranks, drop_last=drop_last)
    for _ in range(rounds):
        slices = [
            slice_round(position, n_groups, batch, rank, n_ranks, drop_last=drop_last)
            for rank in range(n_ranks)
        ]
        assert all(rows.stop > rows.start for rows, _ in slices)
        places_read += [place for rows, _ in slices for place in range(rows.start, rows.stop)]
        (position,) = {after for _, after in slices}
    wanted = n_groups // (batch * n_ranks) * batch * n_ranks if drop_last else n_groups
    assert places_read == list(range(wanted))
