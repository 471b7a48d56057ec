"""The oracle against numbers worked out by hand from the decisions: random numbers, log, features,
splits.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support import reference
from tests.support.reference import features, splits, world
from tests.support.reference.world import DAY, HOUR, read_log
from tests.support.shops import SUNDAY, loose_config, random_shop, sales, tiny_config

# -- random numbers and digests


def test_draws_are_the_published_splitmix64_stream_of_seed_0():
    first = [reference.rng.draw(0, counter) for counter in range(3)]
    assert first == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_below_scales_the_whole_range():
    assert [reference.rng.below(x, 10) for x in (0, 2**63, 2**64 - 1)] == [0, 5, 9]


def test_a_key_folds_negative_times_modulo_2_64():
    assert (
        reference.rng.key(7, 1, -1)
        == reference.rng.key(7, 1, 2**64 - 1)
        != reference.rng.key(7, 1, 1)
    )


def test_fnv1a_has_its_published_values():
    assert reference.content.fnv1a("") == 0xCBF29CE484222325
    assert reference.content.fnv1a("a") == 0xAF63DC4C8601EC8C
    assert reference.content.fnv1a("foobar") == 0x85944171F73967E8


@pytest.mark.parametrize("kind", ["int", "timestamp"])
def test_a_value_can_cancel_its_row_only_if_it_is_the_row_mixed_with_the_position(kind):
    """mix(mix(0 ^ POSITION) ^ mix(POSITION)) = mix(0), SplitMix64's first output for the seed 0."""
    assert reference.digest([reference.content.POSITION], kind) == "e220a8397b1dcdaf"
    assert reference.digest([0], kind) != "e220a8397b1dcdaf"


def test_digest_adds_rows_modulo_2_64():
    """Values that cancel their rows contribute mix(0) each: twice 0xE220A8397B1DCDAF, less 2^64."""
    position = reference.content.POSITION
    assert reference.digest([position, 1 ^ position], "int") == "c4415072f63b9b5e"
    assert reference.digest([1 ^ position, position], "int") != "c4415072f63b9b5e"


def test_row_numbers_and_lengths_stand_for_no_value():
    assert reference.digest([1, 2, 0], "int") != reference.digest([2, 0, 1], "int")
    assert reference.digest([[1]], "list<int>") != reference.digest([[]], "list<int>")


def test_digest_tells_values_apart():
    columns = [["a"], ["b"], [""], [None]]
    assert len({reference.digest(column, "string") for column in columns}) == 4
    lists = [[[1, 2]], [[2, 1]], [[3]], [[]], [None], [[None]]]
    assert len({reference.digest(column, "list<int>") for column in lists}) == 6
    assert reference.digest([0.0], "float32") != reference.digest([-0.0], "float32")


# -- interactions (D4, D5) and windows (D7)


def test_duplicate_lines_become_one_interaction_with_the_largest_price_and_smallest_known_channel():
    log = read_log(
        sales(
            ("u", "a", 0, 0.1, None),
            ("u", "a", 0, 0.3, 2),
            ("u", "a", 0, 0.2, 1),
            ("u", "a", 1, 0.2, 7),
        ),
        loose_config(),
    )
    assert log.interactions == [(0, 0, SUNDAY, 0.3, 1, 3), (0, 0, SUNDAY + DAY, 0.2, -1, 1)]
    assert log.dropped["collapsed"] == 2


def test_a_log_without_prices_has_none():
    assert (
        read_log(sales(("u", "a", 0)), loose_config(inputs={"price": "none"})).interactions[0].price
        is None
    )


def test_the_core_unravels_round_by_round():
    """u3 has one line; without it b and c have one each; without them u1 and u2 have one each."""
    tables = sales(("u1", "a", 0), ("u1", "b", 0), ("u2", "a", 0), ("u2", "c", 0), ("u3", "c", 0))
    log = read_log(tables, tiny_config())
    assert log.interactions == [] and log.users == []
    assert log.dropped == {"cold_user": 3, "cold_item": 2, "collapsed": 0}


def test_the_core_keeps_what_holds_itself_up():
    """Repeat purchases count; codes are given again to the sorted ids that are left."""
    log = read_log(
        sales(("u9", "z", 0), ("u9", "z", 1), ("u1", "a", 0), ("u5", "q", 0), ("u5", "q", 3)),
        tiny_config(),
    )
    assert (log.users, log.items) == (["u5", "u9"], ["q", "z"])
    assert [(e.user, e.item) for e in log.interactions] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    assert log.dropped == {"cold_user": 1, "cold_item": 0, "collapsed": 0}


def test_calendar_cuts_are_exact_and_rounded_up():
    contract = tiny_config(split={"train_share": 0.8, "val_share": 0.1}).split
    assert world.find_cuts([3, 10], contract) == (3, 9, 10, 10)  # 3 + 5.6, 3 + 6.3
    assert world.find_cuts([0, 10**18 + 1], contract) == (
        0,
        8 * 10**17 + 1,
        9 * 10**17 + 1,
        10**18 + 1,
    )


def test_row_cuts_are_times_of_rows():
    split = tiny_config(split={"train_share": 0.8, "val_share": 0.1, "windows": "rows"}).split
    assert world.find_cuts([0, 0, 0, 0, 1, 1, 2, 2, 5, 9][::-1], split) == (0, 5, 9, 9)


def test_windows_begin_at_their_cut():
    cuts = world.Cuts(0, 10, 20, 30)
    assert [cuts.window(t) for t in (9, 10, 19, 20, 30)] == [0, 1, 1, 2, 2]
    assert [cuts.end(window) for window in range(3)] == [10, 20, 31]


# -- features (D6)


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (None, None),
        (15, None),
        (16, "16-24"),
        (24, "16-24"),
        (25, "25-34"),
        (35, "35-44"),
        (45, "45-54"),
        (55, "55+"),
    ],
)
def test_age_groups(age, group):
    assert features.age_group(age) == group


def test_bad_ages_are_null_and_fractions_floored():
    assert [features.clean_age(age) for age in (-1, 0, 34.9, 120, 120.5, 121, math.nan, None)] == [
        None,
        0,
        34,
        120,
    ] + [None] * 4


def test_history_never_sees_its_own_basket():
    tables = sales(
        ("u", "a", 0, 1, 2),
        ("u", "b", 0, 1, 1),
        ("u", "c", 2.5, 1, 1),
        ("u", "d", 2.5),
        ("u", "e", 3),
    )
    log = read_log(tables, loose_config())
    assert [e.item for e in log.history(0, SUNDAY + 2.5 * DAY)] == [0, 1]
    assert features.user_features(
        log.history(0, SUNDAY + 2 * DAY + 12 * HOUR), SUNDAY + 2 * DAY + 12 * HOUR
    ) == {
        "user_lifetime_days": 2,
        "user_total_purchases": 2,
        "user_avg_basket_size": 2.0,
        "user_preferred_channel": 1,  # one each: the lower id
    }
    assert features.user_features(log.history(0, SUNDAY + 3 * DAY), SUNDAY + 3 * DAY) == {
        "user_lifetime_days": 3,
        "user_total_purchases": 4,
        "user_avg_basket_size": 2.0,
        "user_preferred_channel": 1,
    }


def test_calendar_of_a_leap_day_and_of_both_hemispheres():
    leap_day = 18_321 * DAY  # 2020-02-29, a Saturday
    assert features.calendar(leap_day + DAY - 1, "northern") == {
        "day_of_week": 5,
        "month": 2,
        "season": "Winter",
    }
    assert features.calendar(leap_day, "southern")["season"] == "Summer"
    assert [features.calendar(SUNDAY, side)["season"] for side in ("northern", "southern")] == [
        "Fall",
        "Spring",
    ]
    assert features.calendar(SUNDAY, "northern")["day_of_week"] == 6
    assert features.calendar(-1, "northern") == {
        "day_of_week": 2,
        "month": 12,
        "season": "Winter",
    }  # Wednesday 1969-12-31


def snapshots_of(tables: dict, **overrides) -> features.Snapshots:
    config = loose_config(**overrides)
    return features.Snapshots(read_log(tables, config), config)


def test_snapshots_start_at_midnight_of_the_first_day():
    snapshots = snapshots_of(sales(("u", "a", 0.4), ("u", "a", 9)))
    times = [SUNDAY + round(day * DAY) for day in (0.4, 1.99, 2, 9)]
    assert [snapshots.at(time) for time in times] == [0, 0, 1, 4]  # every 2 days


def test_popularity_counts_its_days_up_to_the_snapshot():
    """S_5 is day 10; its 9 days begin at day 1. a: 3 interactions inside; b: 1 inside, at the very
    start of day 1; c: one just before and one at the snapshot itself, neither counts. log 2 / log 4
    = 1/2.
    """
    inside = ("u", "a", 2), ("u", "a", 3), ("v", "a", 9.99), ("u", "b", 1)
    snapshots = snapshots_of(sales(("u", "c", 0.99), *inside, ("u", "c", 10), ("v", "c", 30)))
    assert [snapshots.popularity(5, item) for item in range(3)] == [1.0, 0.5, 0.0]
    assert [snapshots.popularity(0, item) for item in range(3)] == [0.0, 0.0, 0.0]
    assert isinstance(snapshots.popularity(5, 0), np.float32)


def test_corpus_is_what_sold_in_the_live_days():
    tables = sales(("u", "a", 0), ("u", "b", 1), ("u", "c", 4), ("u", "c", 30))
    assert snapshots_of(tables, negative_sampling={"live_days": 3}).on_sale(2) == [
        1
    ]  # days 1, 2 and 3
    assert snapshots_of(tables, negative_sampling={"corpus": "all"}).on_sale(0) == [0, 1, 2]


def test_price_is_the_mean_of_the_days_or_of_the_last_known_day():
    """a: 1 and 2 within the 9 days before day 20, and 9 before them; b: last sold on day 3, at 4
    and 6, and on day 2.
    """
    tables = sales(
        ("u", "a", 0, 9.0), ("u", "a", 12, 1.0), ("v", "a", 13, 2.0),
        ("u", "b", 2, 1.0), ("u", "b", 3, 4.0), ("v", "b", 3.5, 6.0),
        ("u", "c", 20, 5.0), ("v", "c", 40, 5.0),
    )  # fmt: skip
    snapshots = snapshots_of(tables)
    assert [snapshots.price(10, item) for item in range(3)] == [1.5 * 2**20, 5.0 * 2**20, None]
    assert snapshots.category(10, 2) is None and snapshots.normalized(10, 2) is None


def test_price_edges_are_nearest_ranks_and_belong_below():
    """Train prices 1..8: p1 = 1, q25 = 2, q50 = 4, q75 = 6, p99 = 8. cut1 is day 24 of 40: y is
    after it.
    """
    lines = [("u", f"i{price}", 0, float(price)) for price in range(1, 9)]
    snapshots = snapshots_of(sales(*lines, ("u", "y", 24, 99.0), ("v", "z", 40, 99.0)))
    mega = 2**20
    assert (snapshots.p1, snapshots.p99, snapshots.quartiles) == (
        mega,
        8 * mega,
        [2 * mega, 4 * mega, 6 * mega],
    )
    assert [snapshots.category(1, item) for item in range(8)] == [
        "Q1",
        "Q1",
        "Q2",
        "Q2",
        "Q3",
        "Q3",
        "Q4",
        "Q4",
    ]
    assert snapshots.normalized(1, 3) == np.float32(3 / 7)
    assert snapshots.normalized(13, 8) == 1.0  # 99 is clipped


def test_equal_train_prices_normalize_to_zero():
    assert snapshots_of(sales(("u", "a", 0), ("u", "a", 9))).normalized(1, 0) == 0.0


# -- splits (D7)


def test_multipliers_move_a_user_just_far_enough():
    """User 1 would add 2 to val: 2 of 13 or 14 never reach a fifth, so val's multiplier goes to its
    end. User 2 adds 3 to test, 3 of 13, as soon as 3 x multiplier > 4 x 2^14 (jitter: below 0.1
    %).
    """
    config = tiny_config()
    counts = {0: [8, 0, 0], 1: [3, 2, 0], 2: [4, 0, 3], 3: [0, 0, 0]}
    multipliers = splits.find_multipliers(counts, config)
    assert multipliers[:2] == (2**14, 2**24)
    assert multipliers[2] == pytest.approx(2**14 * 4 / 3, rel=0.001)
    assert [splits.best_split(user, n, multipliers, config.seed) for user, n in counts.items()] == [
        0,
        1,
        2,
        None,
    ]


def test_only_interactions_with_enough_strictly_earlier_ones_count():
    """Windows of 10 days: train 0-5, val 6-7, test 8-10. Of day 1's basket of two, neither has two
    earlier ones.
    """
    tables = sales(
        ("u", "a", 0),
        ("u", "b", 1),
        ("u", "c", 1),
        ("u", "a", 2),
        ("u", "a", 6),
        ("u", "b", 7),
        ("v", "a", 10),
    )
    config = loose_config(sequence_processing={"min_sequence_length": 2})
    log = read_log(tables, config)
    assert [splits.count_long_enough(log, config, 0, window) for window in range(3)] == [1, 2, 0]
    capped = loose_config(
        sequence_processing={"min_sequence_length": 2}, filtering={"max_user_interactions": 1}
    )
    assert splits.count_long_enough(log, capped, 0, 1) == 1


def emission(tables: dict, assignment: dict, **overrides):
    config = loose_config(**overrides)
    log = read_log(tables, config)
    return splits.emit(log, config, features.Snapshots(log, config), assignment)


def test_every_interaction_is_in_one_bucket():
    """u is in val (days 12-15 of 0..20). Its two days before are history, day 17 is later. Inside:
    n is new on day 12; b is a repurchase; of C = {c, d, e} (a and b are owned, n is new) two
    negatives can be had. v has no split.
    """
    negatives = {
        "random_negatives_per_positive": 1,
        "hard_negatives_per_positive": 1,
        "live_days": 20,
    }
    tables = sales(
        ("u", "a", 0), ("u", "b", 1), ("u", "n", 12), ("u", "b", 13), ("u", "c", 14),
        ("u", "a", 17),
        ("v", "a", 3), ("v", "c", 3), ("v", "d", 3), ("v", "e", 3), ("v", "e", 20),
    )  # fmt: skip
    positives, ledger = emission(tables, {0: 1, 1: None}, negative_sampling=negatives)
    assert [p.item for p in positives[1]] == [1, 2] and positives[0] == positives[2] == []
    expected = {"history": 2, "later_unused": 1, "not_on_sale": 1, "emitted_val": 2, "no_split": 5}
    assert {bucket: n for bucket, n in ledger.items() if n} == expected
    _, dropped = emission(
        tables, {0: 1, 1: None}, negative_sampling={**negatives, "repurchases": "drop"}
    )
    assert (dropped["repurchase"], dropped["emitted_val"]) == (1, 1)
    _, capped = emission(
        tables, {0: 1, 1: None}, negative_sampling=negatives, filtering={"max_user_interactions": 2}
    )
    assert (capped["over_cap"], capped["not_on_sale"], capped["emitted_val"]) == (1, 0, 2)
    _, short = emission(
        tables,
        {0: 1, 1: None},
        negative_sampling=negatives,
        sequence_processing={"min_sequence_length": 3},
    )
    assert (short["short_history"], short["emitted_val"]) == (1, 2)


@pytest.mark.parametrize(
    ("hard", "random", "siblings", "emitted"),
    [
        (2, 0, 0, 1),
        (1, 1, 0, 1),
        (3, 0, 0, 0),
        (1, 2, 0, 0),
        (2, 0, 1, 0),
        (1, 1, 1, 1),
        (1, 1, 2, 0),
    ],
)
def test_a_corpus_must_hold_the_hard_ones_without_siblings_and_all_of_them_with(
    hard, random, siblings, emitted
):
    """u buys a (day 0) and b (day 9); free are c and d, of which the first `siblings` share b's
    product code.
    """
    codes = {item: {"product_code": "7"} for item in ("b", *("c", "d")[:siblings])}
    tables = sales(
        ("u", "a", 0),
        ("u", "b", 9),
        ("v", "b", 1),
        ("v", "c", 1),
        ("v", "d", 1),
        ("v", "d", 20),
        **codes,
    )
    sampling = {"hard_negatives_per_positive": hard, "random_negatives_per_positive": random}
    _, ledger = emission(tables, {0: 0, 1: None}, negative_sampling=sampling)
    assert (ledger["emitted_train"], ledger["corpus_too_small"]) == (emitted, 1 - emitted)


def test_owned_counts_to_the_end_of_the_window_but_not_beyond():
    """u buys c later: on day 11 (train until day 12), or on day 12, when it is no longer train's
    business.
    """
    for day, emitted in ((11, 0), (12, 1)):
        tables = sales(
            ("u", "a", 0),
            ("u", "b", 9),
            ("v", "b", 1),
            ("v", "c", 1),
            ("v", "d", 1),
            ("v", "d", 20),
            ("u", "c", day),
        )
        sampling = {"hard_negatives_per_positive": 1, "random_negatives_per_positive": 1}
        positives, _ = emission(tables, {0: 0, 1: None}, negative_sampling=sampling)
        assert sum(p.item == 1 for p in positives[0]) == emitted


def test_temporal_strategy_puts_each_interaction_in_its_own_window():
    result = reference.build(random_shop(1), tiny_config(split={"strategy": "temporal"}))
    assert set(result.assignment.values()) == {None}
    assert all(result.ledger[bucket] == 0 for bucket in ("history", "later_unused", "no_split"))
    cuts = result.cuts
    assert all(cuts.window(p.time) == split for split in range(3) for p in result.positives[split])
