"""Stage 2: what an interaction is, the filters, and the orders of the rows (D4, D5)."""

from __future__ import annotations

import pytest

from gpu_dcgen.errors import InputError
from gpu_dcgen.preparation.interactions import build_interactions
from tests.support.shops import DAY, loose_config, random_shop, tiny_config
from tests.support.stage_shops import Stages, make_shop

FEW = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}


def little(backend, lines, **shop):
    """Interactions of lines, nothing filtered."""
    return build_interactions(
        make_shop(backend, lines, **shop), loose_config(negative_sampling=FEW), backend
    )


@pytest.mark.parametrize("seed", range(3))
def test_interactions_are_the_oracles(backend, seed):
    """Lines, prices, channels, ids and losses, in the order (user, time, item)."""
    tables = random_shop(seed, n_users=20, n_items=24, n_rows=260, minutes=seed == 1)
    config = tiny_config(filtering={"min_user_interactions": 8, "min_item_interactions": 6})
    stages = Stages(backend, tables, config)
    log, expected = stages.log, stages.expected_log
    assert stages.oracle.dropped["cold_user"] > 0 < stages.oracle.dropped["collapsed"]
    assert log.dropped == stages.oracle.dropped
    assert log.user_ids.to_pylist() == stages.oracle.users
    assert log.item_ids.to_pylist() == stages.oracle.items
    prices = [log.prices[code] for code in stages.host(log.price)]
    got = list(
        zip(
            *map(stages.host, (log.user, log.time, log.item)),
            prices,
            stages.host(log.channel),
            strict=True,
        )
    )
    assert got == [(e.user, e.time, e.item, e.price, e.channel) for e in expected]
    times = [line["t_dat"] for line in tables["transactions"]]
    assert (log.first_time, log.last_time, log.n_accepted) == (min(times), max(times), len(times))


@pytest.mark.parametrize("seed", range(2))
def test_runs_and_orders_are_as_documented(backend, seed):
    stages = Stages(
        backend, random_shop(seed, n_users=12, n_items=20, n_rows=200, minutes=True), tiny_config()
    )
    log, rows = stages.log, stages.expected_log
    baskets = [
        sorted({other.time for other in rows if other.user == e.user and other.time < e.time})
        for e in rows
    ]
    assert stages.host(log.basket) == list(map(len, baskets))
    firsts = [
        next(r for r, other in enumerate(rows) if (other.user, other.time) == (e.user, e.time))
        for e in rows
    ]
    assert stages.host(log.basket_start) == firsts
    assert stages.host(log.user_offsets) == [
        sum(e.user < user for e in rows) for user in range(log.n_users + 1)
    ]
    assert stages.host(log.item_offsets) == [
        sum(e.item < item for e in rows) for item in range(log.n_items + 1)
    ]
    assert stages.host(log.by_item) == sorted(
        range(len(rows)), key=lambda r: (rows[r].item, rows[r].time, rows[r].user)
    )
    assert stages.host(log.by_time) == sorted(
        range(len(rows)), key=lambda r: (rows[r].time, rows[r].user, rows[r].item)
    )


def test_views_and_columns_follow_their_users_and_items(backend):
    tables = random_shop(5, n_users=14, n_items=20, n_rows=160, views=True)
    stages = Stages(
        backend,
        tables,
        tiny_config(filtering={"min_user_interactions": 8, "min_item_interactions": 6}),
    )
    log, oracle = stages.log, stages.oracle
    time, user, item = map(stages.host, log.views)
    assert 0 < len(time) < len(tables["views"])
    assert sorted(zip(user, item, time, strict=True)) == sorted(oracle.views)
    group, club = log.item_columns["product_group"], log.user_columns["club_status"]
    names = [None if code < 0 else group.values[code] for code in stages.host(group.codes)]
    assert names == [article["product_group_name"] for article in oracle.articles]
    names = [None if code < 0 else club.values[code] for code in stages.host(club.codes)]
    assert names == [customer["club_member_status"] for customer in oracle.customers]


def test_lines_of_one_purchase_are_one_interaction(backend):
    """The largest price and the smallest known channel, whatever line they are on."""
    lines = [
        (0, 0, 3, 2.0, 2),
        (0, 0, 3, 7.0, -1),
        (0, 0, 3, 7.0, 1),
        (0, 1, 3, 1.0, -1),
        (0, 0, 4, 1.0, -1),
    ]
    for order in (lines, lines[::-1]):
        log = little(backend, order)
        assert backend.to_host(log.item).tolist() == [0, 1, 0]
        assert [log.prices[code] for code in backend.to_host(log.price).tolist()] == [7.0, 1.0, 1.0]
        assert backend.to_host(log.channel).tolist() == [1, -1, -1]
        assert log.dropped == {"collapsed": 2, "cold_user": 0, "cold_item": 0}


@pytest.mark.parametrize("step", [1, 1_000, 10**6, 10**9, 60 * 10**9, DAY])
def test_times_of_any_resolution_stay_apart(backend, step):
    log = little(backend, [(0, 0, 1), (0, 1, 1 + step / DAY), (1, 1, 2), (0, 0, 300)])
    first, second, last, _ = backend.to_host(log.time).tolist()
    assert (first, last) == (DAY, 300 * DAY)
    assert second == DAY + step
    assert backend.to_host(log.basket).tolist() == [0, 1, 2, 0]


def test_filters_unravel_to_the_fixed_point(backend):
    """User 3 has too few; then item 3; then user 2; all others have enough."""
    core = [(user, item, day) for user in (0, 1) for item in (0, 1) for day in (1, 2)]
    lines = [*core, (2, 0, 1), (2, 3, 1), (2, 3, 2), (2, 1, 2), (3, 3, 5)]
    config = loose_config(
        filtering={"min_user_interactions": 3, "min_item_interactions": 3}, negative_sampling=FEW
    )
    log = build_interactions(make_shop(backend, lines), config, backend)
    assert log.user_ids.to_pylist() == ["u000", "u001"]
    assert log.item_ids.to_pylist() == ["i000", "i001"]
    assert log.dropped == {"collapsed": 0, "cold_user": 3, "cold_item": 2}


@pytest.mark.parametrize(
    ("lines", "least", "words"),
    [
        ([(0, 0, 1), (1, 1, 1)], 1, "have the same time"),
        ([(0, 0, 1), (1, 1, 2)], 2, "no interaction is left of 2 rows"),
        ([(0, 0, 1), (0, 0, 2)], 1, "too few for a positive"),
    ],
)
def test_a_log_without_a_dataset_is_refused(backend, lines, least, words):
    config = loose_config(filtering={"min_user_interactions": least}, negative_sampling=FEW)
    with pytest.raises(InputError, match=words):
        build_interactions(make_shop(backend, lines), config, backend)
