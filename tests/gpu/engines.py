"""The ways to similarities side by side on one machine: our kernel, products of sparse matrices,
approximate engines.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.runs import offsets_from_lengths
from gpu_dcgen.config import DatasetConfig, count_usable_cores
from gpu_dcgen.errors import BackendError
from gpu_dcgen.inputs.shop import load_shop
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.preparation.interactions import build_interactions
from gpu_dcgen.preparation.windows import cut_windows
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from gpu_dcgen.similarity_computer.matrix import WeightedMatrix, build_matrix
from tests.gpu import products

NEAREST = ("brute", "cuml", "faiss")
DEPTH = 100  # of recall
COMPARED_BLOCK = 2_000  # items for which products of sparse matrices are checked


def time_exact(tables: Path, backend: Any) -> dict[str, Any]:
    """Seconds of the exact similarities of a shop; `good` unless they differ from the CPU's."""
    search = ExactSearch(tables, backend)
    neighbors, first_s = _timed(search.run, backend)
    neighbors, seconds = _timed(search.run, backend)  # again, with the kernel compiled
    matrix = search.sides
    lowered = {field.name: getattr(matrix, field.name) for field in dataclasses.fields(matrix)}
    lowered = {
        name: value if isinstance(value, bool) else backend.to_host(value)
        for name, value in lowered.items()
    }
    host = NumpyBackend(count_usable_cores())
    expected = host.find_similar_items(
        0, search.n_items, dataclasses.replace(matrix, **lowered), **search.limits
    )
    same = all(
        np.array_equal(backend.to_host(a), b) for a, b in zip(neighbors, expected, strict=True)
    )
    return {"good": same, "first_s": first_s, **search.describe(neighbors, seconds)}


class ExactSearch:
    """The exact similarities of a shop, block by block, as a build computes them."""

    def __init__(self, tables: Path, backend: Any) -> None:
        config = DatasetConfig()
        self.backend = backend
        self.matrix = _matrix(tables, config, backend)
        self.sides = self.matrix.by_item_and_user(backend)
        self.n_items = int(self.matrix.norms.shape[0])
        self.limits = {
            "min_common_users": config.similarity.min_common_users,
            "top_k": config.similarity.top_k,
        }
        self._size = backend.choose_block_size(self.n_items, 24 * config.similarity.top_k)

    def run(self) -> tuple[Any, ...]:
        """Return lengths, items, similarities and common users."""
        blocks = [
            self.backend.find_similar_items(
                first, min(self.n_items, first + self._size), self.sides, **self.limits
            )
            for first in range(0, self.n_items, self._size)
        ]
        return tuple(self.backend.xp.concatenate(parts) for parts in zip(*blocks, strict=True))

    def describe(self, neighbors: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        return {
            "items": self.n_items,
            "products": self.matrix.n_products,
            "seconds": seconds,
            "pairs": int(neighbors[1].shape[0]),
            "products_per_s": round(self.matrix.n_products / seconds),
        }


def compare_engines(
    tables: Path, backend: Any, nearest: tuple[str, ...] = NEAREST
) -> dict[str, Any]:
    """Seconds, pairs and recall@100 of each way over the matrix of a shop; `good` unless exact ways
    differ.
    """
    search = ExactSearch(tables, backend)
    sides, limits = search.sides, search.limits
    expected, seconds = _timed(search.run, backend)
    expected, seconds = _timed(search.run, backend)  # again, with the kernel compiled
    answer: dict[str, Any] = {"exact": search.describe(expected, seconds)}
    last = min(search.n_items, COMPARED_BLOCK)
    block, seconds = _timed(
        functools.partial(products.find_similar_items, backend, 0, last, sides, **limits),
        backend,
    )
    ours = backend.find_similar_items(0, last, sides, **limits)
    same = all(bool((a == b).all()) for a, b in zip(block, ours, strict=True))
    answer["products of sparse matrices"] = {"seconds": seconds, "items": last, "same": same}
    for name in nearest:
        try:
            answer[name] = _approximate(name, search.matrix, expected, backend)
        except BackendError as error:
            answer[name] = {"missing": str(error)}
    return {"good": same, **answer}


def _matrix(tables: Path, config: DatasetConfig, backend: Any) -> WeightedMatrix:
    shop = load_shop(tables, config, backend)
    log = build_interactions(shop, config, backend)
    return build_matrix(
        log,
        cut_windows(shop.time, log.first_time, log.last_time, config.split, backend).cut1,
        config,
        backend,
    )


def _timed(question: Any, backend: Any) -> tuple[Any, float]:
    backend.synchronize()
    began = time.perf_counter()
    answer = question()
    backend.synchronize()
    return answer, round(time.perf_counter() - began, 4)


def _approximate(
    name: str, matrix: WeightedMatrix, expected: tuple[Any, ...], backend: Any
) -> dict[str, Any]:
    config = DatasetConfig(similarity={"engine": "approximate", "nearest": name})
    every = matrix.norms > 0  # also those that are less work to count
    question = functools.partial(
        approximate_neighbors.find_neighbors,
        matrix,
        config,
        backend,
        ProgressTracker(),
        use_search=every,
    )
    _timed(question, backend)
    (result, info), seconds = _timed(question, backend)
    return {"seconds": seconds, "recall_at_100": recall(result, expected, backend), **info}


def recall(
    result: tuple[Any, ...], expected: tuple[Any, ...], backend: Any, depth: int = DEPTH
) -> float:
    """Share of each item's first `depth` exact neighbors that were found among its neighbors."""
    xp, n_items = backend.xp, int(expected[0].shape[0])

    def pairs(lengths: Any, item: Any, most: int) -> Any:
        offsets = offsets_from_lengths(xp, lengths)
        place = xp.arange(item.shape[0], dtype=xp.int64)
        row = xp.searchsorted(offsets, place, side="right") - 1
        first = place - offsets[row] < most
        return row[first] * n_items + item[first]

    wanted = pairs(expected[0], expected[1], depth)
    return float(xp.isin(wanted, pairs(result[0], result[1], n_items)).sum()) / max(
        1, int(wanted.shape[0])
    )
