"""Stage 3: features as of a time: channels, ownership, item snapshots, items on sale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpu_dcgen.preparation.features import compute_features
from gpu_dcgen.preparation.interactions import build_interactions
from tests.support.reference.features import user_features
from tests.support.shops import loose_config, random_shop, sales, tiny_config
from tests.support.stage_shops import Stages, make_shop

ONE = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}
CASES = {
    "as usual": tiny_config(),
    "short memory": tiny_config(
        features={"snapshot_days": 1, "popularity_days": 1}, negative_sampling={"live_days": 2}
    ),
    "no prices": tiny_config(inputs={"price": "none"}),
    "whole corpus": tiny_config(negative_sampling={"corpus": "all"}),
}


@pytest.fixture(params=CASES)
def stages(request, backend) -> Stages:
    shop = random_shop(len(request.param), n_users=12, n_items=20, n_rows=220, minutes=True)
    return Stages(backend, shop, CASES[request.param])


def test_snapshots_are_the_oracles(stages):
    """Popularity, price, category and sale of each item at each snapshot, to the last bit."""
    ours, theirs, items = (
        stages.features.snapshots,
        stages.oracle_snapshots,
        range(stages.log.n_items),
    )
    assert (ours.origin, ours.step) == (theirs.first, theirs.step)
    n_snapshots = theirs.at(stages.log.last_time) + 1
    tables = [
        stages.host(table)
        for table in (ours.popularity, ours.price, ours.price_category, ours.on_sale)
    ]
    assert {len(table) for table in tables} == {n_snapshots}
    for k in range(n_snapshots):
        popularity, price, category, on_sale = (table[k] for table in tables)
        assert popularity == [float(theirs.popularity(k, item)) for item in items]
        known = [None if math.isnan(value) else np.float32(value) for value in price]
        assert known == [theirs.normalized(k, item) for item in items]
        names = [None if code < 0 else f"Q{code + 1}" for code in category]
        assert names == [theirs.category(k, item) for item in items]
        assert [item for item in items if on_sale[item]] == theirs.on_sale(k)


def test_corpora_and_cells_hold_what_is_on_sale(stages):
    """Cells are runs of the corpus by (price category, product group, item), unknown first."""
    snapshots, oracle = stages.features.snapshots, stages.oracle_snapshots
    *arrays, n_groups = snapshots.corpus
    offsets, corpus, cells, cell_offsets = map(stages.host, arrays)
    group = stages.host(snapshots.group)
    category = stages.host(snapshots.price_category)
    assert offsets[0] == 0
    for k, (first, last) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        assert corpus[first:last] == oracle.on_sale(k)
        assert cells[first:last] == sorted(
            corpus[first:last], key=lambda j: (category[k][j], group[j], j)
        )
        runs = zip(cell_offsets[k][:-1], cell_offsets[k][1:], strict=True)
        for number, (start, stop) in enumerate(runs):
            where = (number // (n_groups + 1) - 1, number % (n_groups + 1) - 1)
            assert all(
                (category[k][j], group[j]) == where for j in cells[first + start : first + stop]
            )
        assert (cell_offsets[k][0], cell_offsets[k][-1]) == (0, last - first)


def test_price_edges_are_the_oracles(stages):
    theirs = stages.oracle_snapshots
    expected = () if theirs.p1 is None else (theirs.p1, *theirs.quartiles, theirs.p99)
    assert stages.features.price_edges == expected


def test_users_are_known_as_of_each_row(stages):
    """Preferred channel and repurchase are of rows strictly before, not of the same basket."""
    log, oracle = stages.expected_log, stages.oracle
    history = [oracle.history(e.user, e.time) for e in log]
    channels = [
        user_features(before, e.time)["user_preferred_channel"]
        for e, before in zip(log, history, strict=True)
    ]
    assert [
        None if c < 0 else c for c in stages.host(stages.features.preferred_channel)
    ] == channels
    again = [any(h.item == e.item for h in before) for e, before in zip(log, history, strict=True)]
    assert stages.host(stages.features.is_repurchase) == again
    assert len(set(channels)) == 3
    assert set(again) == {True, False}


def test_ownership_begins_with_the_first_purchase(stages):
    offsets, item, since = map(stages.host, stages.features.ownership)
    for user in range(stages.log.n_users):
        own = stages.oracle.of_user(user)
        expected = {e.item: min(other.time for other in own if other.item == e.item) for e in own}
        run = slice(offsets[user], offsets[user + 1])
        assert list(zip(item[run], since[run], strict=True)) == sorted(expected.items())


def test_a_tie_of_channels_goes_to_the_lower_id(backend):
    lines = [(0, 0, 1, 1.0, 2), (0, 1, 2, 1.0, 1), (0, 0, 3, 1.0, 2), (0, 1, 4, 1.0, -1), (0, 0, 5)]
    log = build_interactions(
        make_shop(backend, lines), loose_config(negative_sampling=ONE), backend
    )
    features = compute_features(log, log.last_time, loose_config(), backend)
    assert backend.to_host(features.preferred_channel).tolist() == [-1, 2, 1, 2, 2]


def test_a_sale_counts_from_the_next_snapshot_on(backend):
    """Sold at midnight of S_1: unknown at S_1, known at S_2.

    The fourth day back counts as live, the fifth does not.
    """
    shop = sales(("u", "a", 0), ("v", "b", 2), ("u", "b", 8.5))
    config = loose_config(
        features={"snapshot_days": 2, "popularity_days": 2},
        negative_sampling={**ONE, "live_days": 4},
    )
    stages = Stages(backend, shop, config)
    on_sale = [row[1] for row in stages.host(stages.features.snapshots.on_sale)]
    assert on_sale == [False, False, True, True, False]
    assert [row[1] for row in stages.host(stages.features.snapshots.popularity)] == [0, 0, 1, 0, 0]
    price = stages.features.snapshots.price_category
    assert [row[1] for row in stages.host(price)] == [-1, -1, 0, 0, 0]


def test_prefix_sums_of_prices_may_wrap(backend):
    """12,000 sales at up to 1e9: their sum in units of 2^-20 exceeds int64, no month's does."""
    prices = (1e9, 9e8, 9.5e8)
    lines = [
        (user, item, day, prices[item])
        for user in range(8)
        for item in range(3)
        for day in range(500)
    ]
    assert sum(line[3] for line in lines) * 2**20 > 2**63
    config = loose_config(negative_sampling={**ONE, "live_days": 9})
    log = build_interactions(make_shop(backend, lines), config, backend)
    price = backend.to_host(compute_features(log, log.last_time, config, backend).snapshots.price)
    assert price[1:].tolist() == [[1.0, 0.0, 0.5]] * (len(price) - 1)
    assert np.isnan(price[0]).all()
