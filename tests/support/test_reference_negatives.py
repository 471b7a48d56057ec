"""The oracle's negatives against numbers worked out by hand from the decisions (D12, D13)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import reference
from tests.support.reference import candidates, features, negatives, rng, splits
from tests.support.reference.candidates import Candidate
from tests.support.reference.world import read_log
from tests.support.shops import DAY, SUNDAY, loose_config, sales


def candidates_of(
    tables: dict, neighbors: list | None = None, **overrides
) -> candidates.Candidates:
    config = loose_config(**overrides)
    log = read_log(tables, config)
    snapshots = features.Snapshots(log, config)
    return candidates.Candidates(log, config, snapshots, neighbors or [[] for _ in log.items])


def positive(log: reference.Log, user: int, item: int, day: float, k: int) -> splits.Positive:
    return splits.Positive(user, item, SUNDAY + round(day * DAY), -1, 0, k)


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


# -- candidates of an item at a snapshot (D13)


def band_of(**sampling) -> list[int]:
    """Of item 0's neighbors at 0.9, 0.8, 0.5, 0.3 and 0.2."""
    similarities = enumerate((0.9, 0.8, 0.5, 0.3, 0.2), start=1)
    ranked = [reference.Neighbor(item, np.float32(s), 2) for item, s in similarities]
    tables = sales(("u", "a", 0), ("v", "a", 9))
    return candidates_of(tables, [ranked], negative_sampling=sampling).item_cf(0)


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
    """Buyers of a before snapshot 3, which is day 10, by their last purchase of it: x (9.5), w (8),
    y (5); the limit of two leaves out y. Each brings its last two interactions since day 5 and
    before day 10: x a twice, which is one item, w a and e. With three buyers y brings c and d. On
    day 10 itself nothing counts, so u and z, who buy a then, are no buyers.
    """
    tables = sales(
        ("u", "a", 10), ("w", "a", 8), ("w", "e", 8),
        ("x", "a", 9), ("x", "a", 9.5), ("x", "b", 7), ("x", "f", 10),
        ("y", "a", 5), ("y", "b", 6), ("y", "c", 8), ("y", "d", 9), ("y", "a", 4.5),
        ("z", "a", 10), ("z", "g", 9),
    )  # fmt: skip
    sampling = {"collaborative_buyers": 2, "collaborative_items": 2, "collaborative_days": 5}
    assert candidates_of(tables, negative_sampling=sampling).together(0, 3) == {0: 2, 4: 1}
    three = {**sampling, "collaborative_buyers": 3}
    together = candidates_of(tables, negative_sampling=three).together(0, 3)
    assert together == {0: 2, 4: 1, 2: 1, 3: 1}


def test_equally_late_buyers_are_asked_by_falling_user():
    tables = sales(("u", "a", 9), ("v", "a", 3), ("v", "b", 3), ("w", "a", 3), ("w", "c", 3))
    sampling = {"collaborative_buyers": 1, "collaborative_days": 9}
    assert candidates_of(tables, negative_sampling=sampling).together(0, 3) == {0: 1, 2: 1}


def test_interactions_as_old_as_the_days_allow_still_count():
    """Snapshot 7 is day 9."""
    tables = sales(("u", "a", 9), ("v", "a", 2), ("v", "b", 3.999), ("v", "c", 4))
    listed = candidates_of(
        tables, features={"snapshot_days": 1}, negative_sampling={"collaborative_days": 5}
    )
    assert listed.together(0, 7) == {2: 1}


def test_viewed_candidates_are_what_the_latest_buyers_viewed_and_had_not_bought():
    """Snapshot 3 is day 10. Of the latest buyers of a, x (9.5) and w (8), y (5) is left out. x
    viewed d, then b and e at one time; c before day 5, f after the snapshot, g on it. x buys h on
    day 11, and had bought i on day 9. With a limit of two, e and b are the latest. w viewed e
    twice, and z, who is off sale.
    """
    tables = sales(
        ("x", "a", 9.5), ("w", "a", 8), ("y", "a", 5), ("x", "i", 9), ("x", "h", 11),
        *(("v", item, 9) for item in "bcdefgh"), ("v", "z", 4),
        views=(
            ("x", "d", 6), ("x", "b", 7), ("x", "e", 7), ("x", "c", 4), ("x", "f", 11),
            ("x", "g", 10), ("x", "i", 9), ("w", "e", 5), ("w", "e", 6), ("w", "z", 9),
            ("y", "f", 9), ("w", "h", 5),
        ),
    )  # fmt: skip
    sampling = {"collaborative_buyers": 2, "collaborative_days": 5, "live_days": 5}
    two = candidates_of(tables, negative_sampling={**sampling, "viewed_items": 2})
    ids = {item: two.log.items.index(item) for item in "bdeh"}
    assert two.viewed(0, 3) == {ids["e"]: 2, ids["b"]: 1, ids["h"]: 1}
    three = candidates_of(tables, negative_sampling={**sampling, "viewed_items": 3})
    assert three.viewed(0, 3) == {ids["e"]: 2, ids["b"]: 1, ids["h"]: 1, ids["d"]: 1}
    none = candidates_of(tables, negative_sampling={**sampling, "viewed_items": 0})
    assert none.viewed(0, 3) == {}


def test_an_item_that_was_bought_and_viewed_is_collaborative_and_counts_both():
    """Snapshot 1 is day 11. x bought b, w viewed it: two of eight buyers. c was viewed only."""
    tables = sales(
        ("x", "a", 9), ("w", "a", 9), ("x", "b", 9), ("v", "c", 9), ("u", "a", 11),
        views=(("w", "b", 9), ("w", "c", 9)),
    )  # fmt: skip
    sampling = {"category_draws": 0, "score": {"price": 0, "popularity": 0}}
    listed = candidates_of(tables, negative_sampling=sampling).listed(0, 1)
    assert [(c.item, c.detail) for c in listed] == [(1, "collaborative"), (2, "viewed")]
    assert [c.score for c in listed] == [round(n * 0.3 * 2**14 / 8) for n in (2, 1)]


CROSSING = sales(
    *(("v", item, 1, 9.0 if item == "e" else 1.0) for item in "abcdef"),
    ("u", "a", 9),
    ("v", "a", 20),
    c={"product_group_name": None},
    d={"product_group_name": "Socks"},
    e={"product_group_name": "Socks"},
    f={"product_group_name": "Trousers"},
)


def test_category_crossing_stays_in_the_price_category_and_leaves_the_group(monkeypatch):
    """On sale at price 1 (Q1): a and b are shoes, c has no group, d socks; e is dear (Q4). In the
    order of groups, the null one first: c, d, then f (trousers); each group by item.
    """
    listed = candidates_of(CROSSING)
    drawn = []
    monkeypatch.setattr(rng, "below", lambda x, n: drawn.append(n) or (0, 2, 0, 2)[len(drawn) - 1])
    assert listed.crossing(0, 4) == {2, 5}
    assert drawn == [3, 3, 3, 3]


def test_category_crossing_is_drawn_by_item_and_snapshot(monkeypatch):
    listed = candidates_of(CROSSING)
    keys = []
    monkeypatch.setattr(rng, "key", lambda *parts: keys.append(parts) or 1)
    listed.crossing(0, 4)
    assert keys == [(listed.seed, 3, listed.log.item_key(0), 4)]


def test_score_is_the_weighted_sum_in_units_of_2_14():
    """sim 0.5, 4 of 8 buyers, equal prices, popularity 1: 0.5 x 0.5 + 0.3 x 0.5 + 0.2 - 0.1 =
    0.5. Before the first snapshot no price is known and nothing is popular: 0.25 + 0.3 + 0.1.
    """
    tables = sales(("v", "a", 1), ("v", "b", 1), ("u", "a", 9))
    neighbors = [[reference.Neighbor(1, np.float32(0.5), 2)], []]
    listed = candidates_of(tables, neighbors)
    assert listed.score(0, 4, 1, 4) == 8192
    assert listed.score(0, 0, 1, 9) == round(0.65 * 2**14)


def test_a_score_is_rounded_half_up_and_limited_to_16_bits():
    """With weights of 1, a similarity of 2^-15 is half a unit."""
    weights = {"similarity": 1, "collaborative": 1, "price": 0, "popularity": 0}
    tables = sales(("v", "a", 1), ("v", "b", 1), ("u", "a", 9))
    for similarity, co, score in ((2.0**-15, 0, 1), (2.0**-16, 0, 0), (1, 7, 30720), (1, 8, 32767)):
        neighbors = [[reference.Neighbor(1, np.float32(similarity), 2)], []]
        listed = candidates_of(tables, neighbors, negative_sampling={"score": weights})
        assert listed.score(0, 4, 1, co) == score


class Given(candidates.Candidates):
    """Candidates whose offers and scores are given: item -> score."""

    given: dict[int, int] = {}

    def item_cf(self, item):
        return [j for j in self.given if j % 2]

    def together(self, item, k):
        return {j: 1 for j in self.given if j % 4 < 3}

    def crossing(self, item, k):
        return set(self.given)

    def score(self, item, k, j, co):
        return self.given[j]


def test_the_best_candidates_by_score_are_stored_by_group_and_item():
    """Item 0's list: not itself, not its sibling 6 (the best), not 7, which is not on sale. Of the
    five others the four best: 5 ties with 4, whose item is smaller.
    """
    groups = {"b": "y", "c": None, "d": "y", "e": "x", "f": "x"}
    columns = {item: {"product_group_name": group} for item, group in groups.items()}
    columns |= {item: {**columns.get(item, {}), "product_code": "7"} for item in "ag"}
    tables = sales(*(("v", item, 1) for item in "abcdefg"), ("v", "h", 9), ("u", "a", 9), **columns)
    config = loose_config(negative_sampling={"candidates": 4})
    log = read_log(tables, config)
    listed = Given(log, config, features.Snapshots(log, config), [[] for _ in log.items])
    listed.given = {0: 99, 1: 5, 2: 9, 3: 8, 4: 4, 5: 4, 6: 99, 7: 99}
    assert listed.listed(0, 4) == [
        Candidate(2, "collaborative", 9),
        Candidate(4, "collaborative", 4),
        Candidate(1, "item_cf", 5),
        Candidate(3, "item_cf", 8),
    ]


def test_missing_hard_negatives_are_fallbacks_and_counted():
    """No neighbors, no other buyer of a, one group only: nothing is offered. e is a sibling: never
    hard, but random. Two fallbacks and two random ones of the five items that are on sale.
    """
    codes = {"a": {"product_code": "7"}, "e": {"product_code": "7"}}
    tables = sales(
        *(("v", item, 1) for item in "bcde"), ("u", "a", 1), ("u", "a", 9), ("v", "b", 20), **codes
    )
    config = loose_config(
        negative_sampling={"hard_negatives_per_positive": 2, "random_negatives_per_positive": 2},
    )
    log = read_log(tables, config)
    snapshots = features.Snapshots(log, config)
    p = positive(log, 0, 0, 9, 4)
    miner = negatives.Miner(log, config, snapshots, [[] for _ in log.items], [p])
    drawn = miner.negatives(p)
    hard, random = drawn[:2], drawn[2:]
    assert {n.item for n in hard} < {1, 2, 3} and {n.item for n in random} > {4}
    assert [(n.source, n.detail) for n in drawn] == [("hard", "fallback")] * 2 + [
        ("random", "random")
    ] * 2
    assert [float(n.log_q) for n in drawn] == pytest.approx([np.log(2 / 5)] * 4, abs=1e-6)
    assert miner.shortfall == 2 and miner.relaxed == 0
