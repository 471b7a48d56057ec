"""The oracle's draw of hard negatives against numbers worked out by hand (D13)."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from tests.support import reference
from tests.support.reference import candidates, draw, features, negatives, rng, splits
from tests.support.reference.candidates import Candidate
from tests.support.reference.draw import CERTAIN, Part
from tests.support.reference.world import read_log
from tests.support.shops import DAY, SUNDAY, loose_config, random_shop, sales, tiny_config

# -- probabilities and draws


def test_what_would_be_drawn_more_than_once_is_certain():
    """Two of 8, 1, 1 and 2: 8 would be drawn 2 x 8 / 12 times; then one of 1, 1 and 2."""
    part = Part({5: 8, 2: 1, 9: 1, 4: 2}, 2)
    assert draw.settle(part.weights, 2) == ({5}, 1, 4)
    assert draw.inclusion(part) == {5: CERTAIN, 2: (1, 4), 9: (1, 4), 4: (2, 4)}


def test_a_certain_item_may_make_another_certain():
    """Two of 10, 5, 2 and 2 are drawn by 3: 10 is certain, so that 2 x 5 exceeds 9."""
    part = Part({1: 10, 2: 5, 3: 2, 4: 2}, 3)
    assert draw.settle(part.weights, 3) == ({1, 2}, 1, 4)


def test_all_of_a_part_are_certain_where_all_are_drawn():
    assert draw.settle({1: 1, 2: 9, 3: 4}, 3) == ({1, 2, 3}, 0, 0)
    assert draw.settle({}, 0) == (set(), 0, 0)


def test_nothing_of_a_part_is_drawn_where_none_is_wanted():
    assert draw.inclusion(Part({1: 3, 2: 1}, 0)) == {1: (0, 4), 2: (0, 4)}
    assert draw.systematic(Part({1: 3, 2: 1}, 0), 2**63) == []


def test_points_are_as_far_apart_as_the_weight_that_is_left():
    """Two of 3, 2, 2 and 1: on a line of 6, 4, 4 and 2 the points are 8 apart."""
    part = Part({7: 3, 3: 2, 5: 2, 1: 1}, 2)
    drawn = [draw.systematic(part, point << 61) for point in range(8)]
    assert drawn == [[7, 3]] * 2 + [[7, 5]] * 4 + [[3, 1]] * 2


@pytest.mark.parametrize("seed", range(30))
def test_every_item_is_drawn_as_often_as_its_probability_says(seed):
    """Exactly, over all first points, and always as many as wanted."""
    chance = random.Random(seed)
    weights = {j: chance.choice((1, 2, 3, 5, 40)) for j in chance.sample(range(99), 9)}
    part = Part(weights, chance.randrange(1, 9))
    _, _, total = draw.settle(weights, part.n)
    drawn = [draw.systematic(part, -(-point * 2**64 // total)) for point in range(total)]
    for j, (a, b) in draw.inclusion(part).items():
        assert sum(j in items for items in drawn) * b == a * total
    assert {len(items) for items in drawn} <= {part.n}
    assert all(len(set(items)) == part.n for items in drawn)


# -- the limit on the positive's own group


def test_the_limit_holds_on_average():
    """Two of four with a limit of one: 2 x 2 / 4 of the own group are drawn on average, and one
    item more makes it 2 x 3 / 5.
    """
    weights = {1: 1, 2: 1, 3: 1, 4: 1}
    assert draw.divide(weights, 2, {1, 2}, 1) == ([Part(weights, 2)], 0)
    parts, relaxed = draw.divide({**weights, 5: 1}, 2, {1, 2, 5}, 1)
    assert parts == [Part({1: 1, 2: 1, 5: 1}, 1), Part({3: 1, 4: 1}, 1)] and relaxed == 0


def test_certain_items_of_the_own_group_count_in_full():
    """1 is certain and of the own group: with 2, one of four, that is 1.25."""
    weights = {1: 20, 2: 1, 3: 1, 4: 1, 5: 1}
    assert draw.divide(weights, 2, {1, 2}, 1)[0] == [
        Part({1: 20, 2: 1}, 1),
        Part({3: 1, 4: 1, 5: 1}, 1),
    ]
    assert draw.divide(weights, 2, {1}, 1) == ([Part(weights, 2)], 0)


def test_the_limit_is_relaxed_where_the_others_are_too_few():
    weights = {1: 1, 2: 1, 3: 1, 4: 1}
    parts, relaxed = draw.divide(weights, 3, {1, 2, 3}, 1)
    assert parts == [Part({1: 1, 2: 1, 3: 1}, 2), Part({4: 1}, 1)] and relaxed == 1
    assert draw.divide(weights, 3, set(weights), 1)[1] == 2


def test_no_more_candidates_than_wanted_are_all_taken():
    weights = {4: 1, 2: 7}
    assert draw.divide(weights, 2, {2, 4}, 0) == ([Part(weights, 2)], 0)
    assert draw.divide(weights, 5, {2, 4}, 0) == ([Part(weights, 2)], 0)


# -- the draw of a positive


def listing(*given: tuple[str, int, str], hard: int = 5, **sampling) -> draw.HardDraw:
    """Candidates 1, 2, ... by detail, score and one-letter product group; item 0 is of group x."""
    items = "abcdefghij"[: len(given) + 1]
    groups = ["x", *(group for _, _, group in given)]
    columns = {
        item: {"product_group_name": group} for item, group in zip(items, groups, strict=True)
    }
    tables = sales(*(("v", item, 1) for item in items), ("u", "a", 9), **columns)
    config = loose_config(negative_sampling={"hard_negatives_per_positive": hard, **sampling})
    log = read_log(tables, config)
    snapshots = features.Snapshots(log, config)
    listed = candidates.Candidates(log, config, snapshots, [[] for _ in log.items])
    stored = [Candidate(j, detail, score) for j, (detail, score, _) in enumerate(given, 1)]
    listed.listed = lambda item, k: stored
    return draw.HardDraw(log, config, listed)


POSITIVE = splits.Positive(0, 0, SUNDAY + 9 * DAY, -1, 0, 4)


def test_a_candidate_weighs_its_sources_weight_times_its_own():
    sources = {"item_cf": 4, "collaborative": 3, "category_crossing": 2}
    hard = listing(
        ("item_cf", 1, "y"), ("collaborative", 2, "y"), ("category_crossing", 3, "y"),
        hard=1, source_weights=sources,
    )  # fmt: skip
    hard.mining_weights = [1, 10, 100, 1000]
    (part,), _ = hard.parts(POSITIVE, hard.allowed(POSITIVE))
    assert part == Part({1: 40, 2: 300, 3: 2000}, 1)


def test_what_the_user_buys_before_the_windows_end_is_no_candidate():
    hard = listing(("item_cf", 1, "y"), ("item_cf", 2, "y"))
    assert [c.item for c in hard.allowed(POSITIVE)] == [1, 2]
    assert hard.allowed(replace(POSITIVE, user=1)) == []  # v buys all


def test_drawn_negatives_are_written_by_falling_score_then_item(monkeypatch):
    """All of weight 4, three of five: points 20 apart on a line of 12 each, the first at 0."""
    hard = listing(*(("item_cf", score, "y") for score in (7, 9, 9, 9, 8)), hard=3)
    hard.mining_weights = [1] * 6
    monkeypatch.setattr(rng, "draw", lambda key, counter: 0)
    drawn, relaxed = hard.draw(POSITIVE)
    assert [(c.item, probability) for c, probability in drawn] == [
        (2, (12, 20)),
        (4, (12, 20)),
        (1, (12, 20)),
    ]
    assert relaxed == 0


def test_each_part_has_its_own_counter_of_the_positives_key(monkeypatch):
    """Four of six are of the own group, and one of two may be: it is drawn by counter 0."""
    hard = listing(*(("item_cf", 1, group) for group in "xxxxyy"), hard=2)
    keys, counters = [], []
    monkeypatch.setattr(rng, "key", lambda *parts: keys.append(parts) or 5)
    monkeypatch.setattr(rng, "draw", lambda key, c: counters.append((key, c)) or (0, 2**64 - 1)[c])
    drawn, _ = hard.draw(POSITIVE)
    assert [(c.item, q) for c, q in drawn] == [(1, (1024, 4096)), (6, (1024, 2048))]
    log = hard.log
    seed = hard.config.seed
    assert keys == [(seed, 9, log.user_key(0), log.item_key(0), SUNDAY + 9 * DAY, 0)]
    assert counters == [(5, 0), (5, 1)]


# -- the greedy choice


def test_the_choice_is_greedy_and_caps_the_positives_own_group():
    """Own group x: 0.9; then 0.85 - 0.1, 0.8 - 0.2: three of five are the cap. Then y at 0.2; then
    nothing but x.
    """
    scores = (0.9, 0.85, 0.8, 0.75, 0.2)
    hard = listing(
        *(("item_cf", round(s * 2**14), g) for s, g in zip(scores, "xxxxy", strict=True))
    )
    chosen, relaxed = hard.choose(POSITIVE)
    assert [c.item for c, _ in chosen] == [1, 2, 3, 5, 4] and relaxed == 1
    assert {probability for _, probability in chosen} == {CERTAIN}


def test_a_penalty_of_a_tenth_for_each_of_the_same_group():
    """Group y: 0.5, 0.45, 0.44; z: 0.38. After the first y: 0.35 and 0.34 against 0.38."""
    scores = (0.5, 0.45, 0.44, 0.38)
    hard = listing(
        *(("item_cf", round(s * 2**14), g) for s, g in zip(scores, "yyyz", strict=True)), hard=3
    )
    assert [c.item for c, _ in hard.choose(POSITIVE)[0]] == [1, 4, 2]


def test_equal_scores_go_to_the_smaller_item():
    hard = listing(("item_cf", 4, "w"), ("item_cf", 8, "y"), ("item_cf", 8, "z"), hard=2)
    assert [c.item for c, _ in hard.choose(POSITIVE)[0]] == [2, 3]


# -- calibration and logarithms


def test_one_round_of_calibration_by_hand(monkeypatch):
    """Item 0 is bought twice and offers 1 and 2, item 1 is bought once and offers 0 and 2; one of
    two is drawn. In units of 2^-16 the items are drawn 2^15, 2 x 2^15 and 3 x 2^15 times, and
    bought 2, 1 and 0 times, which is 2^16 each: ratios of 3 / 1.5, 2 / 2 and 1 / 2.5 with 2^16
    added to both. To the power of 3/4, times 256: 430.5, 256 and 128.8.
    """
    hard = listing(("item_cf", 1, "y"), ("item_cf", 1, "y"), hard=1)
    offers = {0: [1, 2], 1: [0, 2]}
    monkeypatch.setattr(draw, "ROUNDS", 1)
    monkeypatch.setattr(
        hard, "allowed", lambda p: [Candidate(j, "item_cf", 1) for j in offers[p.item]]
    )
    train = [POSITIVE, POSITIVE, replace(POSITIVE, item=1)]
    hard.cap = 1
    hard.calibrate(train)
    assert hard.mining_weights == [431, 256, 129]


def test_calibration_brings_draws_closer_to_purchases():
    """Relative to its purchases, how often an item is drawn differs less than without weights."""
    tables = random_shop(3, n_users=20, n_items=16, n_rows=400)
    world = reference.build(tables, tiny_config())
    log, train = world.snapshots.log, world.positives[0]

    def spread(weights: list[int]) -> float:
        listed = candidates.Candidates(log, tiny_config(), world.snapshots, world.neighbors)
        hard = draw.HardDraw(log, tiny_config(), listed)
        hard.mining_weights = weights
        mass = [0.0] * len(log.items)
        for p in train:
            for part in hard.parts(p, hard.allowed(p))[0]:
                for j, (a, b) in draw.inclusion(part).items():
                    mass[j] += a / b
        bought = [sum(p.item == j for p in train) for j in range(len(mass))]
        ratios = [math.log((m + 1) / (b + 1)) for m, b in zip(mass, bought, strict=True)]
        mean = sum(ratios) / len(ratios)
        return sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios)

    assert set(world.mining_weights) != {draw.NEUTRAL}
    assert spread(world.mining_weights) < 0.5 * spread([draw.NEUTRAL] * len(log.items))


def test_large_logs_calibrate_on_positives_of_the_smallest_hashes(monkeypatch):
    """One of three positives may calibrate: those whose hash begins with a zero."""
    hard = listing(("item_cf", 1, "y"), ("item_cf", 1, "z"), hard=1)
    hashes = {0: 2**63, 1: 2**63 - 1, 2: 2**64 - 1}
    asked = []
    monkeypatch.setattr(draw, "MOST_SAMPLED", 1)
    monkeypatch.setattr(draw, "positive_key", lambda seed, purpose, log, p: hashes[p.copy])
    monkeypatch.setattr(hard, "allowed", lambda p: asked.append(p.copy) or [])
    hard.calibrate([replace(POSITIVE, copy=copy) for copy in range(3)])
    assert asked == [1]


@pytest.mark.parametrize(
    "sampling", [{"selection": "greedy"}, {"hard_negatives_per_positive": 0}], ids=str
)
def test_without_a_draw_all_weights_are_neutral(sampling):
    tables = random_shop(3, n_users=20, n_items=16, n_rows=400)
    world = reference.build(tables, tiny_config(negative_sampling=sampling))
    assert set(world.mining_weights) == {256}


@pytest.mark.parametrize("x", [1, 2, 3, 5, 64, 1000, 4095, 2**20 + 1, 2**31 - 1, 2**32 - 1])
def test_logarithms_are_close_to_the_true_ones(x):
    """In 2^-24: half a unit for each of at most 31 halvings, and one for the table."""
    assert abs(draw.log2_24(x) - math.log(x) * 2**24) <= 31 / 2 + 1
    assert draw.log2_24(2**20) == 20 * round(math.log(2) * 2**24)


def test_the_logarithm_of_a_certain_draw_is_zero():
    assert negatives.log_q(*CERTAIN) == 0 and negatives.log_q(7, 7) == 0
    assert float(negatives.log_q(5, 64)) == pytest.approx(math.log(5 / 64), abs=1e-6)
