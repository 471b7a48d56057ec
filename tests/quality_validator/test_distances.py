"""How well items tell rows apart, against all pairs of rows."""

from __future__ import annotations

import itertools
import random

import pytest

from gpu_dcgen.quality_validator.distances import separability


def count_pairs(a, b):
    """Compute the AUC over all pairs of rows, one of each kind."""
    score = [(x + 1) / (y * sum(a) / sum(b) + 1) for x, y in zip(a, b, strict=True)]
    rows_a, rows_b = (
        [score[i] for i, n in enumerate(counts) for _ in range(n)] for counts in (a, b)
    )
    won = sum((x > y) + (x == y) / 2 for x, y in itertools.product(rows_a, rows_b))
    return won / (len(rows_a) * len(rows_b))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_share_of_pairs_in_order(seed):
    draw = random.Random(seed)
    a, b = ([draw.randrange(6) for _ in range(20)] for _ in range(2))
    assert separability(a, b) == pytest.approx(count_pairs(a, b))


def test_equal_counts_tell_nothing_and_other_items_all():
    assert separability([3, 1, 2], [6, 2, 4]) == pytest.approx(0.5)
    assert separability([5, 0], [0, 5]) == 1
    assert separability([], []) is None
    assert separability([1], [0]) is None
