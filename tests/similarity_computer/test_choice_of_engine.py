"""Which items are searched for, and when the approximate engine is chosen (D10)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gpu_dcgen.config.loading import load_config
from gpu_dcgen.errors import ConfigError
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from gpu_dcgen.similarity_computer.compute import choose_engine
from gpu_dcgen.similarity_computer.matrix import build_matrix
from tests.support.shops import tiny_config
from tests.support.stage_shops import Stages, small_shop

pytestmark = pytest.mark.usefixtures("search_all_items")


def bought(stages: Stages) -> tuple[list[set[int]], list[set[int]]]:
    """Each item's buyers, and what each of them has bought, as the weighted matrix has them."""
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, stages.backend)
    sides = ((matrix.item_user, matrix.item_offsets), (matrix.user_item, matrix.user_offsets))
    return tuple(
        [set(values[a:b]) for a, b in pairwise(offsets)]
        for values, offsets in (map(stages.host, s) for s in sides)
    )


@pytest.mark.parametrize(
    ("step", "vector", "candidates"),
    [(0, 2, 1), (1, 1, 6), (2, 0, 4), (3, 0, 3), (3, 1, 2), (2, 1, 40)],
)
def test_items_are_searched_for_where_that_is_less_work(
    step, vector, candidates, backend, monkeypatch
):
    """The work as D10 defines it, counted pair by pair."""
    monkeypatch.setattr(approximate_neighbors, "STEP_PRODUCTS", step)
    monkeypatch.setattr(approximate_neighbors, "VECTOR_PRODUCTS", vector)
    config = tiny_config(
        similarity={
            "engine": "approximate",
            "min_common_users": 3,
            "top_k": 1,
            "candidates": candidates,
        }
    )
    stages = Stages(backend, small_shop(2), config)
    buyers, baskets = bought(stages)
    eligible = [item for item, users in enumerate(buyers) if len(users) >= 3]
    best_sold = sorted((len(buyers[item]) for item in eligible), reverse=True)[
        : min(candidates, len(eligible) - 1)
    ]
    products = {
        item: sum(len(baskets[user]) for user in users) for item, users in enumerate(buyers)
    }
    search = {
        item: step * sum(min(len(buyers[item]), n) for n in best_sold) + vector * len(eligible)
        for item in eligible
    }
    expected = {item for item in eligible if search[item] < products[item]}
    matrix = build_matrix(stages.log, stages.windows.cut1, config, backend)
    use_search, work = approximate_neighbors.choose_searched_items(
        matrix, config.similarity, backend
    )
    assert set(np.nonzero(stages.host(use_search))[0]) == expected
    assert work == sum(search[item] if item in expected else n for item, n in products.items())
    assert stages.neighbors.info["searched_items"] == len(expected)
    n_numbers = sum(map(len, baskets)) * min(
        len(eligible), config.similarity.dimension
    )  # numbers of vectors times cells
    saved = sum(products.values()) - work
    for share, chosen, left in (
        (0.9, expected, work + 0.9 * saved),
        (1.1, set(), matrix.n_products),
    ):
        monkeypatch.setattr(approximate_neighbors, "CELL_PRODUCTS", share * saved / n_numbers)
        use_search, work = approximate_neighbors.choose_searched_items(
            matrix, config.similarity, backend
        )
        assert set(np.nonzero(stages.host(use_search))[0]) == chosen and work == pytest.approx(left)
    # With 40, all others are candidates: too much work for any item.
    assert 0 < len(expected) < len(eligible) or candidates == 40


def test_auto_is_approximate_only_where_that_halves_the_work(backend, monkeypatch):
    """The cost of comparing vectors decides."""
    stages = Stages(backend, small_shop(1), tiny_config(similarity={"min_common_users": 1}))
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
    n = sum(len(basket) ** 2 for basket in bought(stages)[1])
    beyond = (
        f"{n:,} products exceed similarity.exact_products; the approximate engine takes the work of"
    )

    def chosen(exact_products: int, vector: float, engine: str = "auto") -> tuple[str, str]:
        monkeypatch.setattr(approximate_neighbors, "VECTOR_PRODUCTS", vector)
        settings = {"engine": engine, "exact_products": exact_products, "min_common_users": 1}
        return choose_engine(matrix, tiny_config(similarity=settings).similarity, backend)

    assert chosen(n, 0) == ("exact", f"{n:,} products are within similarity.exact_products")
    assert chosen(n - 1, 0) == ("approximate", f"{beyond} 0")
    assert chosen(n - 1, n) == ("exact", f"{beyond} {n:,}")
    assert chosen(1, 0, engine="exact") == ("exact", "configured")
    choices = [chosen(n - 1, k / 32) for k in range(64)]
    work = [int(reason.rpartition(" ")[2].replace(",", "")) for _, reason in choices]
    assert [engine for engine, _ in choices] == [
        "exact" if 2 * left > n else "approximate" for left in work
    ]
    assert len({engine for engine, _ in choices}) == 2


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("engine=annoy", "'exact', 'approximate' or 'auto'"),
        ("candidates=0.5", "greater than or equal to 1"),
        ("dimension=0", "greater than or equal to 1"),
        ("exact_products=0", "greater than or equal to 1"),
        ("nearest=scann", "'auto', 'brute', 'faiss' or 'cuml'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(setting, fault):
    with pytest.raises(ConfigError, match=fault):
        load_config(None, [f"similarity.{setting}"])
