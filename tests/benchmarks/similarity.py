"""Item-item cosine: ours beside sparse_dot_topn, implicit and LensKit.

Ours starts from the interactions (weights, matrix, both directions), or, "of the matrix", where the
others start: with the weighted matrix in memory. It counts the common buyers of each pair and drops
pairs with too few. The others do not count them: a pair with one common buyer is a neighbor. Ours
without the minimum ("min 1") does the same; its pairs and its sum of similarities must be those of
sparse_dot_topn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.similarity_computer import exact as exact_neighbors
from gpu_dcgen.similarity_computer.compute import compute_neighbors
from gpu_dcgen.similarity_computer.matrix import build_matrix

from .measure import Case, Log, Work
from .stages import load_results, make_setting, read_facts

_NO_COUNT = "no minimum of common buyers; starts from our weighted matrix"


def cases(threads: int) -> list[Case]:
    own = [
        Case(
            "similarity",
            name,
            "ours",
            "products",
            {"threads": threads, "top_k": top_k, "min_common": min_common},
            note=note,
        )
        for name, top_k, min_common, note in (
            (
                "gpu-dcgen top-1000",
                1000,
                5,
                "at least 5 common buyers; starts from the interactions",
            ),
            ("gpu-dcgen top-1000, min 1", 1000, 1, "starts from the interactions"),
            ("gpu-dcgen top-100, min 1", 100, 1, "starts from the interactions"),
        )
    ]
    own += [
        Case("similarity", f"gpu-dcgen top-{top_k} of the matrix, min {min_common}",
             "ours_of_matrix", "products",
             {"threads": threads, "top_k": top_k, "min_common": min_common},
             note="starts from our weighted matrix, as the others do")
        for top_k, min_common in ((1000, 5), (100, 5), (100, 1))
    ]  # fmt: skip
    peer = {"unit": "products", "peer": True}
    peers = [
        Case("similarity", f"sparse_dot_topn top-{top_k}", "sparse_dot_topn",
             arguments={"threads": threads, "top_k": top_k}, needs=("sparse_dot_topn",),
             note=_NO_COUNT, **peer)
        for top_k in (1000, 100)
    ]  # fmt: skip
    arguments = {"threads": threads, "top_k": 100}
    peers += [
        Case("similarity", "implicit top-100", "implicit_cosine", arguments=arguments,
             needs=("implicit",), note=_NO_COUNT, environment={"OPENBLAS_NUM_THREADS": "1"},
             **peer),
        Case("similarity", "LensKit top-100", "lenskit_item_knn", arguments=arguments,
             needs=("lenskit",), note="unweighted; no minimum of common buyers",
             environment={"LK_NUM_THREADS": str(threads)}, **peer),
    ]  # fmt: skip
    return own + peers


def ours(log: Log, *, threads: int, top_k: int, min_common: int) -> Work:
    interactions, plan = load_results(log, "log", "plan")
    config, backend = make_setting(
        threads, similarity={"top_k": top_k, "min_common_users": min_common}
    )
    return Work(
        run=lambda: compute_neighbors(
            interactions, plan.windows.cut1, config, backend, ProgressTracker()
        ),
        amount=lambda neighbors: neighbors.info["products"],
        examine=lambda neighbors: _measure_pairs(neighbors.similarity),
    )


def ours_of_matrix(log: Log, *, threads: int, top_k: int, min_common: int) -> Work:
    interactions, plan = load_results(log, "log", "plan")
    config, backend = make_setting(
        threads, similarity={"top_k": top_k, "min_common_users": min_common}
    )
    matrix = build_matrix(interactions, plan.windows.cut1, config, backend)
    return Work(
        run=lambda: exact_neighbors.find_neighbors(matrix, config, backend, ProgressTracker()),
        amount=lambda columns: matrix.n_products,
        examine=lambda columns: _measure_pairs(columns[2]),
    )


def sparse_dot_topn(log: Log, *, threads: int, top_k: int) -> Work:
    from sparse_dot_topn import sp_matmul_topn

    (matrix,) = load_results(log, "matrix")

    def run() -> Any:
        columns = _scale_columns(matrix)
        # An item is its own nearest neighbor.
        return sp_matmul_topn(
            columns.T.tocsr(), columns, top_n=top_k + 1, sort=True, n_threads=threads
        )

    return Work(run, _amount_of(log), lambda matrix: _measure_pairs(_drop_diagonal(matrix)))


def implicit_cosine(log: Log, *, threads: int, top_k: int) -> Work:
    from implicit.nearest_neighbours import CosineRecommender

    (matrix,) = load_results(log, "matrix")
    doubles = matrix.astype(np.float64)  # the type it computes with

    def run() -> Any:
        model = CosineRecommender(K=top_k + 1, num_threads=threads)
        model.fit(doubles, show_progress=False)
        return model.similarity

    return Work(run, _amount_of(log), lambda matrix: _measure_pairs(_drop_diagonal(matrix)))


def lenskit_item_knn(log: Log, *, threads: int, top_k: int) -> Work:
    import pandas as pd
    from lenskit.data import from_interactions_df
    from lenskit.knn import ItemKNNScorer

    (matrix,) = load_results(log, "matrix")
    cells = matrix.tocoo()
    dataset = from_interactions_df(pd.DataFrame({"user_id": cells.row, "item_id": cells.col}))
    dataset.interactions().matrix()

    def run() -> Any:
        model = ItemKNNScorer(feedback="implicit", save_nbrs=top_k)
        model.train(dataset)
        return model.sim_matrix

    return Work(run, _amount_of(log), lambda matrix: {"pairs": len(matrix.values)})


def _amount_of(log: Log) -> Callable[[Any], int]:
    n_products = read_facts(log)["matrix_products"]
    return lambda result: n_products


def _scale_columns(matrix: Any) -> Any:
    norms = np.sqrt(
        np.bincount(matrix.indices, matrix.data.astype(np.float64) ** 2, matrix.shape[1])
    )
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
    data = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _drop_diagonal(similarities: Any) -> np.ndarray:
    """Return the similarities of items to other items."""
    cells = similarities.tocoo()
    return cells.data[(cells.row != cells.col) & (cells.data > 0)]


def _measure_pairs(similarity: np.ndarray) -> dict[str, Any]:
    return {
        "pairs": int(similarity.shape[0]),
        "similarity_sum": float(similarity.sum(dtype=np.float64)),
    }
