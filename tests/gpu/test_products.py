"""The exact engine by sparse times dense products: value for value what the kernel of the CPU gives
(D10).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.errors import BackendError
from gpu_dcgen.inputs.shop import load_shop
from gpu_dcgen.preparation.interactions import build_interactions
from gpu_dcgen.preparation.windows import cut_windows
from gpu_dcgen.similarity_computer.matrix import build_matrix
from tests.gpu import products
from tests.support.shops import DatasetConfig, random_shop, tiny_config
from tests.support.stage_shops import Stages


def both(backend, matrix, first, last, **limits) -> list[list]:
    sides = matrix.by_item_and_user(backend)
    results = (
        backend.find_similar_items(first, last, sides, **limits),
        products.find_similar_items(backend, first, last, sides, **limits),
    )
    return [
        [(str(part.dtype), backend.to_host(part).tolist()) for part in result] for result in results
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_blocks_are_those_of_the_kernel(seed, top_k, backend, monkeypatch):
    tables = random_shop(seed, n_users=14, n_items=24, n_rows=260, views=seed % 2 == 0)
    stages = Stages(backend, tables, tiny_config())
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
    n_items = stages.log.n_items
    assert n_items > 10
    monkeypatch.setattr(products, "_DENSE_BYTES", 8 * n_items * 3)  # several dense blocks
    for first, last in ((0, n_items), (3, 4), (5, n_items - 1)):
        kernel, dense = both(
            backend, matrix, first, last, min_common_users=1 + seed % 3, top_k=top_k
        )
        assert dense == kernel
        assert len(kernel[1][1]) > 0 or last - first == 1


def test_a_real_shop_is_that_of_the_kernel(online_retail):
    backend, config = NumpyBackend(2), DatasetConfig()
    shop = load_shop(online_retail, config, backend)
    log = build_interactions(shop, config, backend)
    windows = cut_windows(shop.time, log.first_time, log.last_time, config.split, backend)
    matrix = build_matrix(log, windows.cut1, config, backend)
    kernel, dense = both(backend, matrix, 200, 700, min_common_users=5, top_k=100)
    assert dense == kernel
    assert len(kernel[1][1]) > 20_000


def test_weights_too_fine_for_float64_are_refused(backend):
    stages = Stages(backend, random_shop(1, n_users=14, n_items=24, n_rows=260), tiny_config())
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
    sides = matrix.by_item_and_user(backend)
    sides = dataclasses.replace(sides, norms=sides.norms + np.int64(1 << 53))
    with pytest.raises(BackendError, match="exact below 2\\^53.*\nPrices lie too far apart"):
        products.find_similar_items(backend, 0, 2, sides, min_common_users=1, top_k=3)
