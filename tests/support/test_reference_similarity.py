"""The oracle's matrix and neighbors against numbers worked out by hand from the decisions (D9,
D10).
"""

from __future__ import annotations

import math

import numpy as np

from tests.support.reference import samples, similarity
from tests.support.reference.world import read_log
from tests.support.shops import loose_config, sales

PLAIN = {
    "weight_by_price": False,
    "channel_weighting": False,
    "user_idf": False,
    "min_common_users": 1,
}


def weights_of(tables: dict, **settings) -> dict:
    config = loose_config(similarity={**PLAIN, **settings})
    return similarity.cell_weights(read_log(tables, config), config)


def neighbors_of(tables: dict, **settings) -> list:
    config = loose_config(similarity={**PLAIN, **settings})
    return similarity.find_neighbors(read_log(tables, config), config)


def test_cosine_of_plain_counts():
    """a: u, v, w; b: u, v; c: w. a-b: 2 / sqrt 6, a-c: 1 / sqrt 3. The last line is after cut1 and
    does not count.
    """
    tables = sales(
        ("u", "a", 0),
        ("v", "a", 0),
        ("w", "a", 1),
        ("u", "b", 1),
        ("v", "b", 0),
        ("w", "c", 0),
        ("v", "c", 9),
    )
    neighbors = neighbors_of(tables)
    assert [[(n.item, n.common) for n in ranked] for ranked in neighbors] == [
        [(1, 2), (2, 1)],
        [(0, 2)],
        [(0, 1)],
    ]
    assert neighbors[0][0].similarity == np.float32(2 / math.sqrt(6))
    assert neighbors[2][0].similarity == np.float32(1 / math.sqrt(3))
    assert [[n.item for n in ranked] for ranked in neighbors_of(tables, min_common_users=2)] == [
        [1],
        [0],
        [],
    ]
    assert [[n.item for n in ranked] for ranked in neighbors_of(tables, top_k=1)] == [[1], [0], [0]]


def test_equally_similar_items_come_by_rising_item_and_ranks_from_one():
    tables = sales(*(("u", item, 0) for item in "cab"), ("v", "a", 9))
    config = loose_config(similarity=PLAIN)
    log = read_log(tables, config)
    rows = samples.similarity_rows(log, similarity.find_neighbors(log, config))
    assert [(row["item_id"], row["similar_item_id"], row["rank"]) for row in rows] == [
        ("a", "b", 1), ("a", "c", 2), ("b", "a", 1), ("b", "c", 2), ("c", "a", 1), ("c", "b", 2),
    ]  # fmt: skip
    assert {row["similarity"] for row in rows} == {1.0} and {
        row["common_users"] for row in rows
    } == {1}


def test_a_cell_takes_the_largest_of_its_interactions():
    """Online at 1.0: 1.2 x log 2; offline at 3.0: log 4, the larger; the logarithms rounded to 24
    bits.
    """
    tables = sales(
        ("u", "a", 0, 3.0, 1),
        ("u", "a", 1, 1.0, 2),
        ("u", "b", 1, 1.0, 2),
        ("v", "c", 0, 1.0, None),
        ("v", "c", 9),
    )
    cells = weights_of(tables, weight_by_price=True, channel_weighting=True)
    log2 = float(np.float32(math.log(2)))
    assert cells == {(0, 0): float(np.float32(math.log(4))), (0, 1): 1.2 * log2, (1, 2): log2}


def test_user_idf_is_the_share_of_the_vocabulary_and_owners_of_all_weigh_nothing():
    tables = sales(
        ("u", "a", 0), ("u", "b", 0), ("u", "a", 1), ("v", "a", 0), ("v", "b", 0), ("w", "a", 9)
    )
    assert weights_of(tables, user_idf=True) == {(0, 0): 0.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 0.0}
    wider = sales(
        ("u", "a", 0), ("u", "b", 0), ("v", "c", 0), ("v", "d", 0), ("w", "a", 0), ("w", "d", 9)
    )
    log2, log4 = (float(np.float32(math.log(x))) for x in (2, 4))
    assert weights_of(wider, user_idf=True) == {
        (0, 0): log2,
        (0, 1): log2,
        (1, 2): log2,
        (1, 3): log2,
        (2, 0): log4,
    }


def test_views_count_a_fifth_of_the_median_and_only_where_no_purchase_weighs_more():
    """Price factors log 2, log 4, log 8, log 8: the lower median is log 4. The view after cut1 (day
    6 of 10) does not count.
    """
    views = ("u", "a", 1), ("v", "a", 2), ("v", "b", 6)
    tables = sales(
        ("u", "a", 0, 1.0),
        ("u", "b", 0, 3.0),
        ("v", "c", 0, 7.0),
        ("v", "c", 1, 7.0),
        ("v", "c", 10),
        views=views,
    )
    log2, log4, log8 = (float(np.float32(math.log(x))) for x in (2, 4, 8))
    cells = weights_of(tables, weight_by_price=True)
    assert cells == {(0, 0): log2, (0, 1): log4, (1, 2): log8, (1, 0): 0.2 * log4}
    degrees = weights_of(tables, weight_by_price=True, user_idf=True)
    assert degrees[1, 2] == log8 * float(
        np.float32(math.log(3 / 2))
    )  # a and c: the viewed item counts


def test_the_matrix_keeps_each_users_latest():
    tables = sales(("u", "a", 0), ("u", "b", 1), ("u", "c", 2), ("v", "a", 0), ("v", "a", 9))
    config = loose_config(similarity=PLAIN, filtering={"max_user_interactions": 2})
    assert set(similarity.cell_weights(read_log(tables, config), config)) == {
        (0, 1),
        (0, 2),
        (1, 0),
    }


def test_weights_fill_42_bits_or_62_when_that_is_too_coarse():
    """Three users of weight 1 in one item: 3 x 4^20 < 2^42 <= 3 x 4^21. With a median of 2^-12 the
    42 bits leave it at 2^8, less than 2^11, so the wide accumulator takes 4^30 x (1 + a little) <
    2^62.
    """
    cells = [(0, 0), (1, 0), (2, 0)]
    assert similarity.integer_weights(dict.fromkeys(cells, 1.0)) == (
        dict.fromkeys(cells, 2**20),
        20,
    )
    tiny = 2.0**-12
    scaled, b = similarity.integer_weights({(0, 0): 1.0, (1, 0): tiny, (2, 0): tiny})
    assert (scaled, b) == (dict(zip(cells, (2**30, 2**18, 2**18), strict=True)), 30)


def test_cells_of_weight_zero_count_as_common_users():
    """u owns all three items and weighs 0, but makes the second common user of a and b."""
    tables = sales(
        ("u", "a", 0), ("u", "b", 0), ("u", "c", 0), ("v", "a", 0), ("v", "b", 0), ("v", "b", 9)
    )
    config = loose_config(similarity={**PLAIN, "user_idf": True, "min_common_users": 2})
    neighbors = similarity.find_neighbors(read_log(tables, config), config)
    assert neighbors[0] == [(1, np.float32(1), 2)] and neighbors[2] == []
