"""Codes count the same whenever they are counted, and in whatever order they come."""

from __future__ import annotations

import copy

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_dcgen.tallies import Tallies

N_CODES = 7
BLOCKS = st.lists(st.lists(st.integers(0, N_CODES - 1), max_size=5), max_size=12)


@given(BLOCKS, st.permutations(range(12)), st.integers(0, 12))
def test_codes_count_as_vectors_do(blocks, order, n_merged):
    whole = np.bincount(np.array(sum(blocks, []), dtype=int), minlength=N_CODES)
    tallies, other = Tallies(), Tallies()
    for number in order[: len(blocks)] if len(blocks) == 12 else range(len(blocks)):
        part = tallies if number < n_merged else other
        part.add_codes("train", "items", np.array(blocks[number], dtype=np.int64), N_CODES)
        part.add("train", {"n": np.ones(1, np.int64)})
        if number % 3 == 0:
            copy.deepcopy(part).get_vectors("train")  # what is read does not change what follows
    tallies.merge(other)
    if blocks:
        found = tallies.get_vectors("train")
        assert found["items"].tolist() == whole.tolist()
        assert found["n"].tolist() == [len(blocks)]
    assert tallies.get_vectors("val") == {}


def test_codes_that_wait_are_fewer_than_items():
    tallies = Tallies()
    for _ in range(100):
        tallies.add_codes("train", "items", np.zeros(3, np.int64), N_CODES)
        waiting = tallies.waiting.get(("train", "items", N_CODES), [])
        assert sum(map(len, waiting)) < N_CODES
    assert tallies.get_vectors("train")["items"].tolist() == [300, *[0] * (N_CODES - 1)]


def test_blocks_without_codes_do_not_wait():
    tallies = Tallies()
    for _ in range(3):
        tallies.add_codes("train", "items", np.zeros(0, np.int64), N_CODES)
    assert not any(tallies.waiting.values())
    assert tallies.get_vectors("train")["items"].tolist() == [0] * N_CODES


def test_vectors_and_codes_add_up():
    vector, tallies = np.arange(N_CODES), Tallies()
    tallies.add("val", {"items": vector})
    tallies.add_codes("val", "items", np.array([2, 2]), N_CODES)
    assert tallies.get_vectors("val")["items"].tolist() == [0, 1, 4, 3, 4, 5, 6]
    assert vector.tolist() == list(range(N_CODES)), "a vector belongs to the one who gave it"
