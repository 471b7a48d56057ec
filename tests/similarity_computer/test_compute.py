"""Stage 5: the weighted matrix in fixed point, and each item's neighbors (D9, D10)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.similarity_computer import matrix as weighted_matrix
from gpu_dcgen.similarity_computer.matrix import build_matrix
from tests.support.reference.similarity import cell_weights, integer_weights
from tests.support.shops import Tables, loose_config, sales, tiny_config
from tests.support.stage_shops import Stages, list_expected_neighbors, list_neighbors, small_shop

SETTINGS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "plain": {
        "similarity": {"weight_by_price": False, "channel_weighting": False, "user_idf": False}
    },
    "heavy views": {"similarity": {"view_weight": 1.0, "min_common_users": 1}},
    "two neighbors": {"similarity": {"top_k": 2, "min_common_users": 1}},
    "a low cap": {"filtering": {"max_user_interactions": 3}},
    "no prices": {"inputs": {"price": "none"}},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_neighbors_are_the_oracles(setting, backend):
    stages = Stages(backend, small_shop(len(setting)), tiny_config(**SETTINGS[setting]))
    assert list_neighbors(stages) == list_expected_neighbors(stages)
    assert stages.neighbors.info["packed"]
    assert sum(map(len, list_neighbors(stages))) == stages.neighbors.info["pairs"] > 20


@pytest.mark.parametrize("setting", SETTINGS)
def test_matrix_holds_the_oracles_integers(setting, backend):
    stages = Stages(backend, small_shop(len(setting)), tiny_config(**SETTINGS[setting]))
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
    weights, bits = integer_weights(cell_weights(stages.oracle, stages.config))
    assert matrix.scale_bits == bits
    dense = backend.to_host(matrix.csr(backend).toarray())
    assert {(u, i): dense[u, i] for u, i in weights} == weights
    assert np.count_nonzero(dense) == sum(weight > 0 for weight in weights.values())
    assert stages.host(matrix.norms) == (dense.astype(np.int64) ** 2).sum(axis=0).tolist()
    item = np.repeat(range(stages.log.n_items), np.diff(stages.host(matrix.item_offsets)))
    assert dense[stages.host(matrix.item_user), item].tolist() == stages.host(matrix.item_weight)


def with_a_palace(seed: int = 2) -> Tables:
    """A shop of cents in which three customers bought one thing at a thousand million."""
    tables = small_shop(seed)
    for line in tables["transactions"]:
        line["price"] = 0.0033
    first = min(line["t_dat"] for line in tables["transactions"])
    buyers = sorted({line["customer_id"] for line in tables["transactions"]})[:3]
    palace = {
        "article_id": tables["transactions"][0]["article_id"],
        "price": 1e9,
        "t_dat": first,
        "sales_channel_id": 2,
    }
    tables["transactions"] += [{**palace, "customer_id": buyer} for buyer in buyers]
    return tables


def test_coarse_weights_get_an_accumulator_of_their_own(backend):
    """Prices five orders of magnitude apart leave the median too few bits beside the count."""
    config = tiny_config(
        similarity={"min_common_users": 1}, filtering={"max_user_interactions": 1000}
    )
    stages = Stages(backend, with_a_palace(), config)
    assert not stages.neighbors.info["packed"]
    assert (
        stages.neighbors.info["scale_bits"]
        == integer_weights(cell_weights(stages.oracle, stages.config))[1]
    )
    assert list_neighbors(stages) == list_expected_neighbors(stages)


def test_both_accumulators_find_the_same_neighbors(backend, monkeypatch):
    packed = Stages(backend, small_shop(1), tiny_config())
    ours = [[(item, common) for item, _, common in row] for row in list_neighbors(packed)]
    monkeypatch.setattr(weighted_matrix, "_MIN_MEDIAN", 1 << 40)
    wide = Stages(backend, small_shop(1), tiny_config())
    assert (packed.neighbors.info["packed"], wide.neighbors.info["packed"]) == (True, False)
    assert wide.neighbors.info["scale_bits"] > packed.neighbors.info["scale_bits"]
    assert [
        sorted((item, common) for item, _, common in row) for row in list_neighbors(wide)
    ] == list(map(sorted, ours))
    pairs = zip(stages_similarity(packed), stages_similarity(wide), strict=True)
    assert all(abs(a - b) < 1e-4 for a, b in pairs)


@pytest.mark.parametrize("factor", [[1, 2, 4, 8], [1, 2, 4], [0, 0, 2, 3, 9], [5]])
def test_the_lower_median_of_the_weights_decides_the_accumulator(factor, backend, monkeypatch):
    values = backend.from_host(np.array(factor, dtype=np.float64))
    item = backend.from_host(np.arange(len(factor), dtype=np.int32))

    def compute() -> tuple[list[int], bool]:
        weight, _, _, packed = weighted_matrix._to_fixed_point(
            values, item, item, len(factor), backend
        )
        return backend.to_host(weight).tolist(), packed

    positive = sorted(weight for weight in compute()[0] if weight)
    median = positive[(len(positive) - 1) // 2]
    monkeypatch.setattr(weighted_matrix, "_MIN_MEDIAN", median)
    assert compute()[1]
    monkeypatch.setattr(weighted_matrix, "_MIN_MEDIAN", median + 1)
    assert not compute()[1]


def stages_similarity(stages: Stages) -> list[float]:
    return [similarity for row in list_neighbors(stages) for _, similarity, _ in sorted(row)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunks_do_not_show(size, backend):
    def neighbors(chunk: int) -> list:
        return list_neighbors(
            Stages(backend, small_shop(1), tiny_config(resources={"chunk_size": chunk}))
        )

    assert neighbors(size) == neighbors(7)


@pytest.mark.parametrize("top_k", [1, 3])
def test_fewer_neighbors_are_the_first_of_more(top_k, backend):
    def neighbors(k: int) -> list:
        return list_neighbors(
            Stages(
                backend, small_shop(1), tiny_config(similarity={"top_k": k, "min_common_users": 1})
            )
        )

    assert neighbors(top_k) == [row[:top_k] for row in neighbors(1000)]
    assert max(map(len, neighbors(1000))) > 2 * top_k


FEW = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}


def two_buyers(**views: tuple) -> Tables:
    """Two users buy b, c, d and each something else; the last line only makes the log long."""
    lines = [
        (user, item, day)
        for user, own in (("u", "a"), ("v", "e"))
        for day, item in enumerate(("b", "c", "d", own))
    ]
    return sales(*lines, ("w", "z", 90), **views)


def little(**more: Any) -> DatasetConfig:
    return loose_config(negative_sampling=FEW, similarity={"min_common_users": 2, **more})


def test_ties_are_in_the_order_of_items(backend):
    stages = Stages(backend, two_buyers(), little())
    assert [[item for item, *_ in row] for row in list_neighbors(stages)] == [
        [],
        [2, 3],
        [1, 3],
        [1, 2],
        [],
        [],
    ]
    assert {similarity for row in list_neighbors(stages) for _, similarity, _ in row} == {1.0}
    nearest = list_neighbors(Stages(backend, two_buyers(), little(top_k=1)))
    assert [[item for item, *_ in row] for row in nearest] == [[], [2], [1], [1], [], []]


def test_a_view_before_the_cut_makes_a_user_common(backend):
    early, late = (
        Stages(backend, two_buyers(views=(("u", "e", day),)), little()) for day in (1, 80)
    )
    common = [
        [[item for item, *_ in row] for row in list_neighbors(stages)][4]
        for stages in (early, late)
    ]
    assert common == [[1, 2, 3], []]


def test_what_is_bought_from_the_cut_on_is_not_similar(backend):
    lines = [(user, item, day) for user in "uv" for item, day in (("a", 0), ("b", 6), ("c", 0))]
    stages = Stages(backend, sales(*lines, ("v", "d", 0), ("w", "z", 10)), little())
    assert stages.windows.cut1 == stages.log.first_time + 6 * 86_400 * 10**9
    assert [[item for item, *_ in row] for row in list_neighbors(stages)] == [[2], [], [0], [], []]


def test_an_item_that_is_first_sold_after_the_cut_changes_no_weight(backend):
    """The rarity of a user's taste is measured by the items that were sold before it."""
    pinned = loose_config(
        negative_sampling=FEW, split={"val_from": "2018-09-29", "test_from": "2018-10-01"}
    )
    lines = [
        (user, item, 0)
        for user, items in (("u", "ab"), ("v", "abc"), ("w", "bd"))
        for item in items
    ]
    lines.append(("u", "a", 10))

    def weights(*later: tuple) -> tuple[list[int], int]:
        stages = Stages(backend, sales(*lines, *later), pinned)
        matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
        return stages.host(matrix.user_weight), matrix.scale_bits

    assert weights() == weights(("w", "y", 9), ("x", "0", 9)) != weights(("w", "y", 2))
