"""Kernels reach what lies beyond the 2^31st element: in files that are holes up to there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.kernels.arguments import Corpus, DrawTables, Log, Ownership
from gpu_dcgen.kernels.candidates import CandidateLists, copy_list
from gpu_dcgen.kernels.draws import PurchaseRows, count_eligible, hash_positives
from gpu_dcgen.kernels.gather import find_run_maxima, gather_values, mark_changes
from gpu_dcgen.kernels.rows import copy_lists
from gpu_dcgen.kernels.users import number_baskets

FAR = 1 << 31
Move = Callable[[Any], Any]
BACKEND = NumpyBackend(1)


@pytest.fixture
def far(tmp_path) -> Move:
    """Returns an array that has the values from its 2^31st element on, and zeros before."""

    def move(values: np.ndarray) -> np.ndarray:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        array = np.memmap(path, values.dtype, "w+", shape=(FAR + len(values),))
        array[FAR:] = values
        return np.asarray(array)

    return move


def near(values: np.ndarray) -> np.ndarray:
    return values


def test_values_are_gathered(far):
    values, index = np.arange(5, 25, dtype=np.int32), np.array([3, 0, 19, 7])
    gathered = np.zeros(4, np.int32)
    BACKEND.for_each(gather_values, 4, far(values), index + FAR, gathered)
    assert gathered.tolist() == [8, 5, 24, 12]


def test_runs_of_an_order_are_found(far):
    order, values = np.array([2, 0, 1, 3]), np.array([5, 5, 4, 9])
    moved, maxima, starts = far(values), np.zeros(2, np.int64), np.zeros(4, bool)
    BACKEND.for_each(mark_changes, 4, moved, order + FAR, starts)
    assert starts.tolist() == [True, True, False, True]
    BACKEND.for_each(find_run_maxima, 2, moved, order + FAR, np.array([0, 2]), maxima)
    assert maxima.tolist() == [5, 9]


def test_lists_are_copied(far):
    values, starts = np.arange(30, dtype=np.int32), np.array([4, 20])
    lengths, copied = np.array([3, 2], np.int32), np.zeros(10, np.int32)
    offsets = np.array([0, 6])
    BACKEND.for_each(copy_lists, 2, far(values), starts + FAR, lengths, 2, offsets, copied)
    assert copied.tolist() == [4, 5, 6, 4, 5, 6, 20, 21, 20, 21]


def test_baskets_are_numbered(far):
    tick = np.array([1, 1, 3, 3, 3, 4])
    start, number = far(np.zeros(6, np.int64)), far(np.zeros(6, np.int32))
    offsets = np.array([0, 3, 6]) + FAR
    BACKEND.for_each(number_baskets, 2, offsets, far(tick), start, number)
    assert (start[FAR:] - FAR).tolist() == [0, 0, 2, 3, 3, 5]
    assert number[FAR:].tolist() == [0, 0, 1, 0, 0, 1]


def test_candidates_are_laid_end_to_end(far):
    columns = {"item": np.int32, "source": np.int8, "score": np.int16, "rank": np.int16}
    rng, length = np.random.default_rng(1), np.array([2, 3], np.int32)
    block = {name: rng.integers(1, 99, (2, 4)).astype(dtype) for name, dtype in columns.items()}
    own = np.zeros(2, np.int16)
    lists = CandidateLists(length, own, own, **block)
    target = {name: far(np.zeros(5, dtype)) for name, dtype in columns.items()}
    copied = CandidateLists(length.copy(), own.copy(), own.copy(), **target)
    BACKEND.for_each(copy_list, 2, lists, np.array([0, 2, 5]) + FAR, copied)
    for name, values in block.items():
        assert target[name][FAR:].tolist() == [*values[0, :2], *values[1, :3]]


@pytest.mark.parametrize("shift", [0, FAR])
def test_items_that_may_be_drawn_are_counted(far, shift):
    """User 0 owns items 1 and 3, user 1 item 2; 2 and 4 are siblings; all five are on sale."""
    move = far if shift else near
    owned = move(np.array([1, 3, 2], np.int32)), move(np.zeros(3, np.int64))
    ownership = Ownership(np.array([0, 2, 3]) + shift, *owned)
    items = move(np.arange(5, dtype=np.int32))
    cells = np.zeros((1, 1), np.int32)
    corpus = Corpus(np.array([0, 5]) + shift, items, items, cells, 0)
    users, bought = np.array([0, 1], np.int32), np.array([4, 0], np.int32)
    rows = PurchaseRows(users, bought, np.zeros(2, np.int64), np.full(2, 9))
    product, found = np.array([0, 1, 2, 3, 2], np.int32), np.zeros((2, 2), np.int32)
    BACKEND.for_each(count_eligible, 2, rows, DrawTables(corpus, ownership, product), found)
    assert found.tolist() == [[3, 1], [4, 3]]


def test_positives_are_hashed(far):
    rng = np.random.default_rng(2)
    log = Log(np.array([0, 1], np.int32), np.array([1, 0], np.int32), np.array([7, 8]))
    keys = rng.integers(1, 1 << 40, (2, 2)).astype(np.uint64)
    row, copy, key = np.array([1, 0]), np.zeros(2, np.int32), np.uint64(5)
    hashed = [np.zeros(2, np.uint64) for _ in range(2)]
    BACKEND.for_each(hash_positives, 2, key, row, copy, log, *keys, hashed[0])
    moved = Log(*map(far, log))
    BACKEND.for_each(hash_positives, 2, key, row + FAR, copy, moved, *keys, hashed[1])
    assert hashed[0].tolist() == hashed[1].tolist() and hashed[0].all()
