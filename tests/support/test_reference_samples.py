"""The oracle against numbers worked out by hand from the decisions: weights, rows, sequences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.support import reference
from tests.support.reference import samples, splits, weights
from tests.support.reference.world import DAY, read_log
from tests.support.shops import SUNDAY, loose_config, random_shop, sales, tiny_config

LOG2, LOG3 = (float(np.float32(math.log(x))) for x in (2, 3))


# -- weights (D18)


def weighted(**balancing):
    """A log, and 16 positives of u and a (shoes), 9 of v and b (socks), all a day before cut1."""
    socks = {"product_group_name": "Socks"}
    tables = sales(
        ("u", "a", 0), ("u", "a", 7), ("v", "b", 7), ("w", "c", 6.9), ("v", "b", 20), b=socks
    )
    config = loose_config(category_balancing={"segment_days": 5, **balancing})
    log = read_log(tables, config)
    train = [
        splits.Positive(user, user, log.cuts.cut1 - DAY, -1, 0, 5) for user in [0] * 16 + [1] * 9
    ]
    return log, config, train


def test_category_weights_are_inverse_roots_of_shares_with_mean_one():
    """Shares 0.64 and 0.36: roots 0.8 and 0.6, so 1 / 0.8 / 1.4 and 1 / 0.6 / 1.4."""
    log, config, train = weighted()
    by_category = weights.category_weights(log, config, train)
    assert by_category == pytest.approx({"Shoes": 1 / 1.12, "Socks": 1 / 0.84})
    assert 0.64 * by_category["Shoes"] + 0.36 * by_category["Socks"] == pytest.approx(1)
    log, config, train = weighted(min_weight=0.9, max_weight=1.1)
    assert weights.category_weights(log, config, train) == {"Shoes": 0.9, "Socks": 1.1}


def test_segments_as_of_the_first_cut():
    """cut1 is day 12, recent is day 7 and later. u has bought before and since, v only since, w
    only before.
    """
    log, config, _ = weighted()
    assert [weights.segment_of(log, config, user) for user in range(3)] == [
        "active",
        "new",
        "churned",
    ]


def test_segment_weights_bring_the_shares_to_their_targets_without_the_empty_one():
    """Active holds 16 / 1.12 = 100/7 of the mass and new 9 / 0.84 = 75/7: shares 4/7 and 3/7.
    Targets 0.6 and 0.2 of 0.8: 3/4 and 1/4. So 21/16 and 7/12.
    """
    log, config, train = weighted()
    by_category = weights.category_weights(log, config, train)
    by_segment = weights.segment_weights(log, config, train, by_category)
    assert by_segment == pytest.approx({"active": 21 / 16, "new": 7 / 12})


def test_the_weight_is_the_product_and_recency_halves():
    log, config, train = weighted(recency_half_life_days=1)
    positives = weights.weigh(
        log, config, train, {"Shoes": 2.0, "Socks": 3.0}, {"active": 5.0, "new": 7.0}
    )
    assert {p.weight for p in positives} == {2.0 * 5.0 / 2, 3.0 * 7.0 / 2}
    assert weights.recency_of(log, config, log.cuts.cut1 - 1) == 1.0
    assert weights.recency_of(log, config, log.cuts.cut1 - 3 * DAY) == 0.125


def test_resampling_repeats_by_the_whole_part_and_by_chance_once_more():
    log, config, train = weighted(mode="resample", recency_half_life_days=1)
    positives = weights.weigh(
        log, config, train, {"Shoes": 2.0, "Socks": 3.0}, {"active": 2.0, "new": 1.0}
    )
    assert sum(p.user == 0 for p in positives) == 32  # weight 2 exactly
    assert sum(p.user == 1 for p in positives) in (
        9,
        18,
    )  # weight 1.5: the nine are the same positive, so the same chance
    assert {p.weight for p in positives} == {1.0}
    assert {p.copy for p in positives if p.user == 0} == {0, 1}


# -- rows (D16, D17) and sequences (D15)


def test_a_whole_group_by_hand():
    """Days 0..20, cut1 on day 12, snapshots every 2 days. u buys b on day 9 (snapshot 4 is day 8)
    after a on day 0 and day 1. On sale: a, b, c, d. c and d are free: v bought b and c, so c is b's
    neighbor (1 of sqrt 2 x 1 buyers); d is left. Train prices 1, 1, 2, 4, 4, 4: quartiles 1, 2, 4,
    p1 is 1, p99 is 4. Popularity: a twice, the others once.
    """
    tables = sales(
        ("u", "a", 0, 1.0, 2), ("u", "a", 1, 1.0, 1), ("u", "b", 9, 4.0, 2),
        ("v", "b", 5, 4.0, 1), ("v", "c", 6, 2.0, 1), ("w", "d", 1, 4.0, 1), ("w", "d", 20, 4.0, 1),
        c={"product_group_name": None, "colour_group_name": "Red"}, d={"department_name": "Socks"},
    )  # fmt: skip
    tables["customers"][0].update(age=40.5, club_member_status="ACTIVE")
    sampling = {
        "hard_negatives_per_positive": 1,
        "random_negatives_per_positive": 1,
        "category_draws": 0,
    }
    plain = {
        "weight_by_price": False,
        "channel_weighting": False,
        "user_idf": False,
        "min_common_users": 1,
    }
    config = loose_config(
        negative_sampling=sampling, sequence_processing={"min_sequence_length": 2}, similarity=plain
    )
    result = reference.build(tables, config, partly=True)
    assert [len(rows) for rows in result.rows] == [3, 0, 0]
    row, hard, random = result.rows[0]
    assert row == {
        "user_id": "u",
        "user_age": 40,
        "user_age_group": "35-44",
        "user_club_status": "ACTIVE",
        "user_news_frequency": None,
        "user_lifetime_days": 9,
        "user_total_purchases": 2,
        "user_avg_basket_size": 1.0,
        "user_preferred_channel": 1,
        "user_interaction_sequence": [1, 1],
        "user_sequence_lengths": 2,
        "item_id": "b",
        "item_product_group": "Shoes",
        "item_color_group": None,
        "item_garment_group": None,
        "item_department": None,
        "item_index_group": None,
        "item_popularity_score": np.float32(LOG2 / LOG3),
        "item_price_category": "Q3",  # the edge belongs below
        "item_price_normalized": 1.0,
        "label": 1.0,
        "timestamp": SUNDAY + 9 * DAY,
        "sales_channel": 2,
        "day_of_week": 1,
        "month": 10,
        "season": "Fall",
        "negative_source": None,
        "similarity_score": None,
        "sample_id": "train-0000000000-00",
        "generation_timestamp": None,
        "sample_weight": np.float32(
            np.exp2(np.float64(-3 / 10))
        ),  # one category, one segment; 3 days before the cut
        "negative_detail": None,
        "negative_log_q": None,
        "is_repurchase": False,
    }
    names = ("item_id", "label", "negative_source", "negative_detail", "sample_id")
    assert [hard[name] for name in names] == [
        "c", 0.0, "hard", "item_cf", "train-0000000000-01",
    ]  # fmt: skip
    assert hard["similarity_score"] == np.float32(1 / math.sqrt(2))
    assert (random["item_id"], random["negative_source"], random["negative_detail"]) == (
        "d",
        "random",
        "random",
    )
    assert random["similarity_score"] is None
    # c is the only candidate; the random one is drawn from four items on sale
    assert hard["negative_log_q"] == 0
    assert float(random["negative_log_q"]) == pytest.approx(math.log(1 / 4), abs=1e-6)
    assert (hard["item_product_group"], hard["item_color_group"], random["item_department"]) == (
        None,
        "Red",
        "Socks",
    )
    assert hard["item_price_normalized"] == np.float32(1 / 3)
    item_columns = {"label", "similarity_score", "sample_id"}
    item_columns |= {"negative_source", "negative_detail", "negative_log_q"}
    shared = [name for name in row if not name.startswith("item_") and name not in item_columns]
    assert all(row[name] == hard[name] == random[name] for name in shared)


def test_sessions_break_after_more_than_the_gap():
    days = [0, 3, 4, 7.001, 7.001, 20]
    assert samples.session_ids([round(day * DAY) for day in days], 72) == [0, 0, 0, 1, 1, 2]


def test_user_sequences_end_with_the_window_and_keep_the_latest():
    """u is in train, which ends before day 6 of 10: of its four interactions until then the last
    three stay.
    """
    tables = sales(
        *(("u", item, day) for item, day in (("b", 0), ("c", 2), ("a", 2), ("b", 5), ("c", 6))),
        ("v", "a", 10),
    )
    config = loose_config(sequence_processing={"max_sequence_length": 3, "temporal_gap_hours": 48})
    log = read_log(tables, config)
    (row,) = samples.user_sequence_rows(log, config, {0: 0, 1: None})
    assert (row["user_id"], row["split"], row["sequence_length"]) == ("u", "train", 3)
    assert row["item_indices"] == [1, 3, 2]  # a and c share a basket: by item
    assert row["timestamps"] == [SUNDAY + day * DAY for day in (2, 2, 5)]
    assert row["session_ids"] == [0, 0, 1]
    assert row["recency"] == [
        np.float32(2**-0.4),
        np.float32(2**-0.4),
        np.float32(2**-0.1),
    ]  # half-life 10 days; cut1 is day 6
    tuesday, friday = 2 * math.pi / 7, 8 * math.pi / 7
    assert row["day_of_week_sin"] == pytest.approx(
        [math.sin(x) for x in (tuesday, tuesday, friday)]
    )
    assert row["day_of_week_cos"] == pytest.approx(
        [math.cos(x) for x in (tuesday, tuesday, friday)]
    )
    autumn = 2 * math.pi * 267 / 365.25  # 25 September is day 268
    assert (row["season_sin"][0], row["season_cos"][0]) == pytest.approx(
        (math.sin(autumn), math.cos(autumn))
    )


def test_the_test_windows_sequences_include_the_last_instant():
    tables = sales(("u", "a", 0), ("u", "b", 10), ("u", "b", 9))
    log = read_log(tables, loose_config())
    (row,) = samples.user_sequence_rows(log, loose_config(), {0: 2})
    assert row["timestamps"][-1] == log.cuts.t1 and row["recency"][-1] == 1.0
    assert (
        samples.user_sequence_rows(
            log, loose_config(sequence_processing={"min_sequence_length": 4}), {0: 2}
        )
        == []
    )


def test_shuffling_permutes_groups_and_numbers_them_anew():
    tables = random_shop(1)
    plain, shuffled = (
        reference.build(tables, tiny_config(output={"order": order}))
        for order in ("chronological", "shuffled")
    )
    for split in range(3):
        assert (
            sorted(shuffled.positives[split], key=lambda p: (p.time, p.user, p.item))
            == plain.positives[split]
        )
        assert [row["sample_id"] for row in shuffled.rows[split]] == [
            row["sample_id"] for row in plain.rows[split]
        ]
    assert shuffled.positives[0] != plain.positives[0]


VARIANTS = {
    "contract": {},
    "hash": {"split": {"strategy": "hash"}},
    "temporal": {"split": {"strategy": "temporal"}},
    "rows": {"split": {"windows": "rows"}},
    "all items": {"negative_sampling": {"corpus": "all"}},
    "drop": {"negative_sampling": {"repurchases": "drop"}},
    "percentile": {"negative_sampling": {"hard_band": "percentile"}},
    "no hard": {"negative_sampling": {"hard_negatives_per_positive": 0}},
    "no prices": {"inputs": {"price": "none"}},
    "resample": {"category_balancing": {"mode": "resample"}},
    "off": {"category_balancing": {"enable_balancing": False}},
    "no history needed": {"sequence_processing": {"min_sequence_length": 0}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_groups_hold_one_positive_and_distinct_items_that_the_user_does_not_own(name):
    for seed in range(4):
        config = tiny_config(**VARIANTS[name])
        tables = random_shop(seed, minutes=seed % 2 == 1, heavy_owner=seed == 2, views=seed == 3)
        result = reference.build(tables, config, partly=True)
        assert any(result.positives) and sum(result.ledger.values()) == len(result.interactions)
        for split in range(3):
            rows, size = result.rows[split], config.rows_per_positive
            assert len(rows) == size * len(result.positives[split])
            for group, p in enumerate(result.positives[split]):
                items = [
                    result.items.index(row["item_id"])
                    for row in rows[group * size : (group + 1) * size]
                ]
                owned = {
                    e.item
                    for e in result.interactions
                    if e.user == p.user and e.time < result.cuts.end(split)
                }
                assert items[0] == p.item and len(set(items)) == size and not owned & set(items[1:])
                assert set(items) <= set(result.snapshots.on_sale(p.snapshot))


@pytest.mark.parametrize(
    ("strategy", "seed"),
    [("temporal", 0), ("temporal", 1), ("temporal", 3)]
    + [("temporal_user_disjoint", seed) for seed in (2, 4, 5)],
)
def test_who_bought_what_after_the_cut_changes_no_train_row(strategy, seed):
    """Swap the items of pairs of later purchases made at the same time: counts by user, item,
    window and time stay (D8).

    Rare items stay out of it: whose purchases the filter drops may decide who goes where. So may
    what is on sale, where the times of purchases alone miss the wanted shares (D7): there the
    strategy is one that asks for no shares.
    """
    config = tiny_config(split={"strategy": strategy})
    tables = random_shop(seed, dates=(10, 40))
    lines = list({key_of(row): dict(row) for row in tables["transactions"]}.values())
    before = reference.build({**tables, "transactions": [dict(row) for row in lines]}, config)
    keys = {key_of(row) for row in lines}
    later = [
        row
        for row in lines
        if row["t_dat"] >= before.cuts.cut1 and row["article_id"] in before.items
    ]
    swaps = 0
    for one, two in itertools.combinations(later, 2):
        swapped = {
            key_of({**one, "article_id": two["article_id"]}),
            key_of({**two, "article_id": one["article_id"]}),
        }
        if (
            one["t_dat"] == two["t_dat"]
            and one["customer_id"] != two["customer_id"]
            and not swapped & keys
        ):
            keys = keys - {key_of(one), key_of(two)} | swapped
            one["article_id"], two["article_id"] = two["article_id"], one["article_id"]
            swaps += 1
    after = reference.build({**tables, "transactions": lines}, config)
    assert swaps > 3 and after.rows[1:] != before.rows[1:]
    assert after.rows[0] == before.rows[0] and after.similarity_rows == before.similarity_rows


def key_of(row: dict) -> tuple:
    return row["customer_id"], row["article_id"], row["t_dat"]
