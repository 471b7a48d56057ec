"""The ways to similarities are compared rightly: on the CPU's machine here."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_fallback import NumpyBackend
from tests.gpu.engines import compare_engines, recall, time_exact
from tests.support.shops import random_shop, write_shop


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    shop = random_shop(5, n_users=60, n_items=30, n_rows=2500)
    return write_shop(shop, tmp_path_factory.mktemp("engines") / "input")


def test_engines_agree_and_recall_is_measured(tables):
    answer = compare_engines(tables, NumpyBackend(1), nearest=("brute", "cuml"))
    assert answer["good"] and answer["exact"]["pairs"] > 0
    assert answer["brute"]["recall_at_100"] == 1.0  # twice top_k candidates cover this catalog
    assert "cuml" in answer["cuml"]["missing"].lower()


def test_recall_counts_what_was_missed():
    lengths, items = np.array([2, 1, 0], np.int32), np.array([1, 2, 0], np.int32)
    missed = (np.array([1, 1, 0], np.int32), np.array([1, 0], np.int32))
    assert recall(missed, (lengths, items), NumpyBackend(1)) == pytest.approx(2 / 3)
    assert recall(missed, (lengths, items), NumpyBackend(1), depth=1) == 1.0


def test_pairs_that_differ_from_the_cpus_are_not_good(tables):
    class Wrong(NumpyBackend):
        def find_similar_items(self, *arguments, **limits):
            lengths, items, similarities, common = super().find_similar_items(*arguments, **limits)
            return lengths, items[::-1], similarities, common

    assert time_exact(tables, NumpyBackend(1))["good"] is True
    assert time_exact(tables, Wrong(1))["good"] is False
