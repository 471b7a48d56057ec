"""The oracle's negatives against numbers worked out by hand from the decisions (D12, D13)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import reference
from tests.support.reference import features, negatives, rng, splits
from tests.support.reference.world import read_log
from tests.support.shops import DAY, SUNDAY, loose_config, sales

ONE = 2**16


def miner_of(tables: dict, neighbors: list | None = None, **overrides) -> negatives.Miner:
    config = loose_config(**overrides)
    log = read_log(tables, config)
    return negatives.Miner(
        log, config, features.Snapshots(log, config), neighbors or [[] for _ in log.items]
    )


def positive(
    miner: negatives.Miner, user: int, item: int, day: float, split: int = 0
) -> splits.Positive:
    time = SUNDAY + round(day * DAY)
    return splits.Positive(user, item, time, -1, split, miner.snapshots.at(time))


# -- drawing (D12)


def test_after_32_refusals_the_draw_is_made_among_the_allowed(monkeypatch):
    monkeypatch.setattr(rng, "draw", lambda key, counter: 0 if counter < 32 else 2**63)
    draws = negatives.Draws(5)
    assert (
        draws.take([10, 20, 30, 40], {20, 40}) == 40
    )  # the first 32 all hit 10; then half of two allowed
    assert draws.counter == 33


def test_an_allowed_draw_is_taken_at_once_and_the_counter_runs_on(monkeypatch):
    monkeypatch.setattr(rng, "draw", lambda key, counter: (0, 2**62, 2**63)[counter])
    draws = negatives.Draws(5)
    assert draws.take([10, 20, 30, 40], {10, 20, 30}) == 10
    assert draws.take([10, 20, 30, 40], {30}) == 30  # counter 1 hits 20, counter 2 hits 30
    assert draws.counter == 3


# -- hard negatives (D13)


def band_of(**sampling) -> list[int]:
    """Of item 0's neighbors at 0.9, 0.8, 0.5, 0.3 and 0.2."""
    similarities = enumerate((0.9, 0.8, 0.5, 0.3, 0.2), start=1)
    ranked = [reference.Neighbor(item, np.float32(s), 2) for item, s in similarities]
    miner = miner_of(sales(("u", "a", 0), ("v", "a", 9)), [ranked], negative_sampling=sampling)
    return miner.item_cf(0)


def test_item_cf_takes_its_band():
    assert band_of(similarity_threshold=0.3, similarity_ceiling=0.8) == [2, 3]
    assert band_of(similarity_threshold=0.3, similarity_ceiling=0.8, item_cf_top_k=1) == [2]
    assert band_of(hard_band="percentile", percentile_range=(0.2, 0.7)) == [
        2,
        3,
    ]  # ranks 1 and 2: floor 1, floor 3.5
    assert band_of(hard_band="percentile", percentile_range=(0.0, 1.0), item_cf_top_k=3) == [
        1,
        2,
        3,
    ]


def test_collaborative_candidates_come_from_the_latest_buyers_latest_interactions():
    """Buyers of a before day 10, but u, by their last purchase of it: x (9.5), w (8), y (5); the
    limit of two leaves out y. Each brings its last two interactions since day 5 and before day 10:
    x a twice, which is one item, w a and e. With three buyers y brings c and d. On day 10 itself
    nothing counts, so z, who buys a then, is no buyer.
    """
    tables = sales(
        ("u", "a", 9), ("u", "a", 10), ("w", "a", 8), ("w", "e", 8),
        ("x", "a", 9), ("x", "a", 9.5), ("x", "b", 7), ("x", "f", 10),
        ("y", "a", 5), ("y", "b", 6), ("y", "c", 8), ("y", "d", 9), ("y", "a", 4.5),
        ("z", "a", 10), ("z", "g", 9),
    )  # fmt: skip
    sampling = {"collaborative_buyers": 2, "collaborative_items": 2, "collaborative_days": 5}
    miner = miner_of(tables, negative_sampling=sampling)
    assert miner.together(positive(miner, 0, 0, 10)) == {0: 2, 4: 1}
    all_buyers = miner_of(tables, negative_sampling={**sampling, "collaborative_buyers": 3})
    assert all_buyers.together(positive(all_buyers, 0, 0, 10)) == {0: 2, 4: 1, 2: 1, 3: 1}


def test_equally_late_buyers_are_asked_by_falling_user():
    tables = sales(("u", "a", 9), ("v", "a", 3), ("v", "b", 3), ("w", "a", 3), ("w", "c", 3))
    miner = miner_of(tables, negative_sampling={"collaborative_buyers": 1, "collaborative_days": 9})
    assert miner.together(positive(miner, 0, 0, 9)) == {0: 1, 2: 1}


def test_interactions_as_old_as_the_days_allow_still_count():
    tables = sales(("u", "a", 9), ("v", "a", 2), ("v", "b", 3.999), ("v", "c", 4))
    miner = miner_of(tables, negative_sampling={"collaborative_days": 5})
    assert miner.together(positive(miner, 0, 0, 9)) == {2: 1}


def test_category_crossing_stays_in_the_price_category_and_leaves_the_group(monkeypatch):
    """On sale at price 1 (Q1): a and b are shoes, c has no group, d socks; e is dear (Q4). In the
    order of groups, the null one first: c, d, then f (trousers); each group by item.
    """
    groups = {"c": None, "d": "Socks", "e": "Socks", "f": "Trousers"}
    tables = sales(
        *(("v", item, 1, 9.0 if item == "e" else 1.0) for item in "abcdef"), ("u", "a", 9),
        ("v", "a", 20),
        **{item: {"product_group_name": group} for item, group in groups.items()},
    )  # fmt: skip
    miner = miner_of(tables)
    drawn = []
    monkeypatch.setattr(rng, "below", lambda x, n: drawn.append(n) or (0, 2, 0, 2)[len(drawn) - 1])
    assert miner.crossing(positive(miner, 0, 0, 9)) == {2, 5}
    assert drawn == [3, 3, 3, 3]


def test_score_is_the_weighted_sum_in_fixed_point():
    """sim 0.5, 4 of 8 buyers, equal prices, popularity 1: 0.5 x 0.5 + 0.3 x 0.5 + 0.2 - 0.1 =
    0.5.
    """
    tables = sales(("v", "a", 1), ("v", "b", 1), ("u", "a", 9))
    miner = miner_of(tables, [[reference.Neighbor(1, np.float32(0.5), 2)], []])
    score = miner.score(positive(miner, 0, 0, 9), 1, 4)
    assert score == 32768 * 32768 + 19661 * 32768 + 13107 * 65536 - 6554 * 65536
    assert score / ONE**2 == pytest.approx(0.5, abs=1e-4)
    unknown = positive(
        miner, 0, 0, 0
    )  # before the first snapshot no price is known and nothing is popular
    assert miner.score(unknown, 1, 9) == 32768 * 32768 + 19661 * 65536 + 13107 * 32768


class Scored(negatives.Miner):
    """A miner whose candidates and scores are given: item -> score in 0..1."""

    given: dict[int, float] = {}

    def item_cf(self, item):
        return [j for j in self.given if j % 2]

    def together(self, p):
        return dict.fromkeys(self.given, 1)

    def crossing(self, p):
        return set(self.given)

    def score(self, p, j, co):
        return round(self.given[j] * ONE) * ONE


def scored(given: dict[int, float], groups: str, hard: int = 5) -> Scored:
    """Items a, b, ... of one-letter product groups, item 0 the positive's."""
    items = "abcdefghij"[: len(groups)]
    columns = {
        item: {"product_group_name": group} for item, group in zip(items, groups, strict=True)
    }
    tables = sales(*(("v", item, 1) for item in items), ("u", "a", 9), **columns)
    config = loose_config(negative_sampling={"hard_negatives_per_positive": hard})
    log = read_log(tables, config)
    miner = Scored(log, config, features.Snapshots(log, config), [[] for _ in log.items])
    miner.given = given
    return miner


def test_the_choice_is_greedy_and_caps_the_positives_own_group():
    """Own group x: 0.9; then 0.85 - 0.1, 0.8 - 0.2: three of five are the cap. Then y at 0.2; then
    nothing but x.
    """
    miner = scored({1: 0.9, 2: 0.85, 3: 0.8, 4: 0.75, 5: 0.2}, "xxxxxy")
    chosen = miner.choose(positive(miner, 0, 0, 9), {1, 2, 3, 4, 5})
    assert [j for j, _ in chosen] == [1, 2, 3, 5, 4]
    assert [detail for _, detail in chosen] == [
        "item_cf",
        "collaborative",
        "item_cf",
        "item_cf",
        "collaborative",
    ]
    assert miner.relaxed == 1


def test_a_penalty_of_a_tenth_for_each_of_the_same_group():
    """Group y: 0.5, 0.45, 0.44; z: 0.38. After the first y: 0.35 and 0.34 against 0.38."""
    miner = scored({1: 0.5, 2: 0.45, 3: 0.44, 4: 0.38}, "xyyyz", hard=3)
    assert [j for j, _ in miner.choose(positive(miner, 0, 0, 9), {1, 2, 3, 4})] == [1, 4, 2]


def test_equal_scores_go_to_the_smaller_item():
    miner = scored({3: 0.5, 2: 0.5, 1: 0.25}, "xyzw", hard=2)
    assert [j for j, _ in miner.choose(positive(miner, 0, 0, 9), {1, 2, 3})] == [2, 3]


def test_missing_hard_negatives_are_fallbacks_and_counted():
    """No neighbors, no other buyer of a, one group only: nothing is offered. e is a sibling: never
    hard, but random.
    """
    codes = {"a": {"product_code": "7"}, "e": {"product_code": "7"}}
    tables = sales(
        *(("v", item, 1) for item in "bcde"), ("u", "a", 0), ("u", "a", 9), ("v", "b", 20), **codes
    )
    miner = miner_of(
        tables,
        negative_sampling={"hard_negatives_per_positive": 3, "random_negatives_per_positive": 1},
    )
    *hard, random = miner.negatives(positive(miner, 0, 0, 9))
    assert {n.item for n in hard} == {1, 2, 3} and {n.detail for n in hard} == {"fallback"}
    assert random == (4, "random", "random", None)
    assert miner.shortfall == 3
