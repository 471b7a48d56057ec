"""Users get splits at the wanted shares wherever possible, whatever single users do (D7)."""

from __future__ import annotations

import itertools
import random
from datetime import datetime

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend
from gpu_dcgen.auditing.assignment import _list_assignments, _measure_faults
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import InputError
from gpu_dcgen.preparation.assignment import UserCounts, assign_users
from tests.support.shops import DAY, Tables, sales, tiny_config
from tests.support.stage_shops import Stages

WANTED = (0.8, 0.1, 0.1)
CONFIG = DatasetConfig()


def assign(counts: list[list[int]]) -> list[int]:
    """Assign users by their positives in each window, a row a user."""
    backend = NumpyBackend()
    by_window = np.array(counts, dtype=np.int64).T.copy()
    keys = np.arange(len(counts), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return assign_users(UserCounts(by_window, by_window, keys), CONFIG, backend).tolist()


def sum_up(counts: list[list[int]], assignment: tuple[int, ...] | list[int]) -> list[int]:
    return [
        sum(n[k] for n, split in zip(counts, assignment, strict=True) if split == k)
        for k in range(3)
    ]


def is_right(sums: list[int]) -> bool:
    total = sum(sums)
    return all(sums) and all(abs(n / total - w) <= 0.02 for n, w in zip(sums, WANTED, strict=True))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 120), st.integers(0, 30), st.integers(0, 30)).map(list),
        min_size=3,
        max_size=7,
    )
)
@example([[80, 90, 90], [1, 10, 1], [1, 1, 10]])
@example(
    [[1, 0, 0], [8, 900, 900], [0, 1, 0], [0, 0, 1], [71, 0, 0], [0, 4, 0], [0, 5, 0], [0, 0, 9]]
)
def test_the_shares_are_reached_wherever_an_assignment_exists(counts):
    """By all 3 ^ users assignments."""
    every = itertools.product(range(3), repeat=len(counts))
    if any(is_right(sum_up(counts, assignment)) for assignment in every):
        assert is_right(sum_up(counts, assign(counts)))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 45))
def test_the_audit_comes_to_the_same_assignment(seed, n_users):
    """More users than are searched for, few of them with very much."""
    chance = random.Random(seed)
    counts = [
        [int(chance.paretovariate(0.8) * scale) * (chance.random() < 0.7) for scale in (8, 1, 1)]
        for _ in range(n_users)
    ]
    by_window = np.array(counts).T
    keys = np.array([chance.getrandbits(64) for _ in counts], dtype=np.uint64)
    ours = assign_users(UserCounts(by_window, by_window, keys), CONFIG, NumpyBackend()).tolist()
    theirs = min(
        _list_assignments(by_window, by_window, keys, CONFIG),
        key=lambda candidate: _measure_faults(*candidate, by_window, CONFIG),
    )
    assert ours == theirs[0].tolist()


def test_nobody_has_most_of_a_split_where_others_can_fill_it():
    """The first would be all of test, at the wanted share."""
    crowd = [[100, 0, 0]] * 8 + [[5, 10, 0]] * 10 + [[5, 0, 10]] * 10
    counts = [[0, 0, 110], *crowd]
    assignment = assign(counts)
    assert is_right(sum_up(counts, assignment)) and assignment[0] == -1


def shop_with_owner(days: range) -> Tables:
    """Sixty users of eighty items, and an account that buys all items on each of `days`."""
    chance = random.Random(1)
    start = (datetime(2019, 1, 1) - datetime(1970, 1, 1)).days * DAY
    lines = []
    for k in range(2400):
        user = chance.randrange(60)
        if chance.random() < 0.5:
            item = min(int(chance.expovariate(1 / 25)), 79)
        else:
            item = (user * 7 + chance.randrange(15)) % 80
        lines.append((start + 330 * DAY * k // 2400, f"c{user:05d}", f"{item:010d}"))
    lines += [(start + day * DAY, "owner", f"{item:010d}") for day in days for item in range(80)]
    return {
        "articles": [
            {"article_id": f"{item:010d}", "product_group_name": f"G{item % 6}"}
            for item in range(80)
        ],
        "customers": [{"customer_id": user} for user in sorted({user for _, user, _ in lines})],
        "transactions": [
            {"t_dat": time, "customer_id": user, "article_id": item, "price": 1.0}
            for time, user, item in lines
        ],
    }


@pytest.mark.parametrize("days", [range(0, 330, 3), range(0, 330, 40), range(200, 330, 2)])
def test_who_owns_the_catalog_moves_nobody(days, backend):
    """None of that account's purchases can become a positive."""
    with_owner = Stages(backend, shop_with_owner(days), CONFIG)
    without = Stages(backend, shop_with_owner(range(0)), CONFIG)
    splits = with_owner.host(with_owner.plan.user_split)
    assert with_owner.log.user_ids[-1].as_py() == "owner"
    if days.start == 0:
        assert splits[:-1] == without.host(without.plan.user_split)
    assert is_right([len(positives) for positives in with_owner.plan.positives])


def test_customers_for_whom_no_split_has_room_are_named(backend):
    """One has more in each window than all others together."""
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0, "corpus": "all"}
    config = tiny_config(
        negative_sampling={**few, "live_days": 90},
        split={"train_share": 0.6, "val_share": 0.2},
        filtering={"max_user_interactions": 1000, "min_item_interactions": 1},
        features={"snapshot_days": 1},
    )
    days = (0.1, 1.1, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19.9)
    crowd = [
        (f"u{user}", f"i{(3 * user + k) % 30}", day)
        for user in range(12)
        for k, day in enumerate(days)
    ]
    much = [("much", f"j{k}", first + 0.01 * k) for first in (2, 12.5, 16.5) for k in range(300)]
    plan = Stages(backend, sales(*crowd, *much), config).plan
    assert [text for text in plan.warnings if "in no split, 'much' with" in text]


def test_an_empty_window_is_named_with_its_times(backend):
    shop = sales(
        *((user, item, day) for user in "ab" for item, day in (("x", 0), ("y", 1), ("x", 2))),
        ("c", "x", 19),
    )
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}
    config = tiny_config(
        filtering={"min_user_interactions": 1, "min_item_interactions": 1}, negative_sampling=few
    )
    with pytest.raises(InputError) as caught:
        _ = Stages(backend, shop, config).plan
    for time in ("2018-09-23T00:00", "2018-10-04T09:36", "2018-10-08T04:48", "2018-10-12T00:00"):
        assert time in str(caught.value)
