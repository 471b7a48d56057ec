"""Compare exact and approximate neighbors on synthetic catalogs (D10).

    python -m tests.benchmarks.approximate                             10,000 items
    python -m tests.benchmarks.approximate --items 100000 --top-k 100  another catalog
    python -m tests.benchmarks.approximate --engines exact faiss       faiss needs faiss-cpu

Catalogs are sparse matrices with purchases drawn from Zipf popularities within clusters of taste:

- light baskets, as H&M's: 12 users an item, 22 purchases a user;
- market baskets: 2 users an item;
- heavy baskets, as a grocer's regulars: 4,000 users of 1,000 purchases each;
- whole baskets, as resellers: 4,000 users of 3,000 purchases each;
- stocks of 500 wholesalers with 20,000 purchases each.

The engine `approximate` searches where that is less work; `brute` and `faiss` search for all
items. Each engine runs in a process of its own, so its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpu_fallback import NumpyBackend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from gpu_dcgen.similarity_computer import exact as exact_neighbors
from gpu_dcgen.similarity_computer.matrix import WeightedMatrix

from . import machine

# Users (below 100: an item), median purchases a user, sigma of their logarithm.
BASKETS = {
    "light": (12.0, 22, 1.2),
    "market": (2.0, 22, 1.2),
    "heavy": (4_000, 1000, 0.6),
    "whole": (4_000, 3000, 0.6),
    "stocks": (500, 20_000, 0.6),
}
N_CLUSTERS = 100
N_TASTES, TASTE_SHARE = 3, 0.7  # clusters of a user, and share of purchases in them
ENGINES = ("exact", "approximate", "brute", "faiss")


def make_catalog(n_items: int, baskets: str, seed: int = 1) -> WeightedMatrix:
    """Make a weighted matrix of `n_items`; weights between 2^11 and 2^13."""
    random = np.random.default_rng(seed)
    users, median, sigma = BASKETS[baskets]
    n_users = round(users if users >= 100 else users * n_items)
    degree = np.minimum(
        n_items // 3, np.exp(random.normal(np.log(median), sigma, n_users)).astype(np.int64) + 1
    )
    user = np.repeat(np.arange(n_users), degree)
    taste = random.integers(0, N_CLUSTERS, (n_users, N_TASTES))
    cluster = taste[user, random.integers(0, N_TASTES, len(user))]
    rank = (n_items + 1) ** random.random(len(user)) - 1  # Zipf: log-uniform
    rank = np.minimum(rank.astype(np.int64), n_items - 1)
    in_cluster = np.minimum(rank // N_CLUSTERS * N_CLUSTERS + cluster, n_items - 1)
    item = np.where(random.random(len(user)) < TASTE_SHARE, in_cluster, rank)
    cells = np.unique(user * n_items + item)
    user, item = (cells // n_items).astype(np.int32), (cells % n_items).astype(np.int32)
    weight = random.integers(1 << 11, 1 << 13, len(cells)).astype(np.int32)
    order = np.argsort(item, kind="stable")
    user_offsets, item_offsets = (
        np.searchsorted(a, np.arange(n + 1)) for a, n in ((user, n_users), (item[order], n_items))
    )
    squares = np.concatenate(([0], np.cumsum(weight[order].astype(np.int64) ** 2)))
    norms = squares[item_offsets[1:]] - squares[item_offsets[:-1]]
    products = int((np.diff(user_offsets) ** 2).sum())
    by_item = (item_offsets, user[order], weight[order])
    return WeightedMatrix(
        user_offsets, item, weight, *by_item, norms, 0, bool(norms.max() < 1 << 42), products, 0
    )


def measure(
    n_items: int, baskets: str, top_k: int, candidates: float, engine: str, n_threads: int
) -> dict[str, Any]:
    """Measure one engine, after a run on a small catalog that compiles its kernels."""
    backend, progress = NumpyBackend(n_threads), ProgressTracker()
    settings = {"top_k": top_k}
    if engine != "exact":
        nearest = "auto" if engine == "approximate" else engine
        settings |= {"engine": "approximate", "nearest": nearest, "candidates": candidates}
    config = DatasetConfig(similarity=settings)

    def run(matrix: WeightedMatrix) -> tuple[Any, dict[str, Any]]:
        if engine == "exact":
            return exact_neighbors.find_neighbors(matrix, config, backend, progress), {}
        use_search = None if engine == "approximate" else matrix.norms > 0
        return approximate_neighbors.find_neighbors(
            matrix, config, backend, progress, use_search=use_search
        )

    run(make_catalog(1_000, "light"))
    matrix = make_catalog(n_items, baskets)
    before = backend.memory_usage()["peak_bytes"]
    started = time.perf_counter()
    (lengths, *_), info = run(matrix)
    seconds = time.perf_counter() - started
    result = {
        "items": n_items,
        "baskets": baskets,
        "top_k": top_k,
        "engine": engine,
        "threads": n_threads,
    }
    result |= {
        "cells": len(matrix.user_item),
        "products": matrix.n_products,
        "seconds": round(seconds, 2),
    }
    result |= {"pairs": int(lengths.sum()), "matrix_gb": round(before / 1e9, 2)}
    return result | {"peak_gb": round(backend.memory_usage()["peak_bytes"] / 1e9, 2), **info}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000])
    parser.add_argument("--baskets", nargs="+", choices=BASKETS, default=["light", "heavy"])
    parser.add_argument("--top-k", type=int, nargs="+", default=[1000, 100])
    parser.add_argument(
        "--candidates",
        type=float,
        default=2.0,
        help="scored candidates, as a multiple of top-k",
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["exact", "brute"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file, rewritten after each measurement")
    options = parser.parse_args()
    facts = machine.describe()
    results = []
    for n_items in options.items:
        for baskets in options.baskets:
            for top_k in options.top_k:
                for engine in options.engines:
                    case = (n_items, baskets, top_k, options.candidates, engine, options.threads)
                    with multiprocessing.get_context("spawn").Pool(1) as alone:
                        results.append(alone.apply(measure, case))
                    print(json.dumps(results[-1]), flush=True)
                    if options.output:
                        options.output.write_text(
                            json.dumps({"machine": facts, "measurements": results}, indent=1) + "\n"
                        )


if __name__ == "__main__":
    main()
