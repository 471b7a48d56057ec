"""Item-item cosine, the most similar items of each item: ours beside sparse_dot_topn, implicit and LensKit.

Ours starts from the interactions (weights, matrix, both directions), or, "of the matrix", where the peers start: with the
weighted matrix ready in memory. It counts the buyers that a pair has in common, and drops pairs with too few; none of the
peers counts them, so any pair with one is a neighbor. Ours without the minimum ("min 1") is what they do; its pairs and sum of
similarities must be sparse_dot_topn's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.similarity_computer import exact as exact_neighbors
from gpu_dcgen.similarity_computer.compute import compute_neighbors
from gpu_dcgen.similarity_computer.matrix import build_matrix

from .measure import Case, Log, Work
from .stages import facts, load, setting

_NO_COUNT = "no minimum of common buyers; starts from our weighted matrix"


def cases(threads: int) -> list[Case]:
    own = [
        Case(
            "similarity",
            name,
            "ours",
            "products",
            {"threads": threads, "top_k": top_k, "min_common": least},
            note=note,
        )
        for name, top_k, least, note in (
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
        Case("similarity", f"gpu-dcgen top-{top_k} of the matrix, min {least}", "ours_of_matrix", "products",
             {"threads": threads, "top_k": top_k, "min_common": least}, note="starts from our weighted matrix, as the others do")
        for top_k, least in ((1000, 5), (100, 5), (100, 1))
    ]  # fmt: skip
    of_peers = {"unit": "products", "peer": True}
    peers = [
        Case("similarity", f"sparse_dot_topn top-{top_k}", "sparse_dot_topn", arguments={"threads": threads, "top_k": top_k},
             needs=("sparse_dot_topn",), note=_NO_COUNT, **of_peers)
        for top_k in (1000, 100)
    ]  # fmt: skip
    arguments = {"threads": threads, "top_k": 100}
    peers += [
        Case("similarity", "implicit top-100", "implicit_cosine", arguments=arguments, needs=("implicit",), note=_NO_COUNT,
             environment={"OPENBLAS_NUM_THREADS": "1"}, **of_peers),
        Case("similarity", "LensKit top-100", "lenskit_item_knn", arguments=arguments, needs=("lenskit",),
             note="unweighted; no minimum of common buyers", environment={"LK_NUM_THREADS": str(threads)}, **of_peers),
    ]  # fmt: skip
    return own + peers


def ours(log: Log, *, threads: int, top_k: int, min_common: int) -> Work:
    interactions, plan = load(log, "log", "plan")
    config, backend = setting(threads, similarity={"top_k": top_k, "min_common_users": min_common})
    return Work(
        run=lambda: compute_neighbors(
            interactions, plan.windows.cut1, config, backend, ProgressTracker()
        ),
        amount=lambda found: found.info["products"],
        examine=lambda found: _figures(found.similarity),
    )


def ours_of_matrix(log: Log, *, threads: int, top_k: int, min_common: int) -> Work:
    interactions, plan = load(log, "log", "plan")
    config, backend = setting(threads, similarity={"top_k": top_k, "min_common_users": min_common})
    matrix = build_matrix(interactions, plan.windows.cut1, config, backend)
    return Work(
        run=lambda: exact_neighbors.find_neighbors(matrix, config, backend, ProgressTracker()),
        amount=lambda found: matrix.n_products,
        examine=lambda found: _figures(found[2]),
    )


def sparse_dot_topn(log: Log, *, threads: int, top_k: int) -> Work:
    from sparse_dot_topn import sp_matmul_topn

    (matrix,) = load(log, "matrix")

    def run() -> Any:
        columns = _unit_columns(matrix)
        return sp_matmul_topn(
            columns.T.tocsr(), columns, top_n=top_k + 1, sort=True, n_threads=threads
        )  # itself is one

    return Work(
        run, lambda found: facts(log)["matrix_products"], lambda found: _figures(_others(found))
    )


def implicit_cosine(log: Log, *, threads: int, top_k: int) -> Work:
    from implicit.nearest_neighbours import CosineRecommender

    (matrix,) = load(log, "matrix")
    doubles = matrix.astype(np.float64)  # what it computes in

    def run() -> Any:
        model = CosineRecommender(K=top_k + 1, num_threads=threads)
        model.fit(doubles, show_progress=False)
        return model.similarity

    return Work(
        run, lambda found: facts(log)["matrix_products"], lambda found: _figures(_others(found))
    )


def lenskit_item_knn(log: Log, *, threads: int, top_k: int) -> Work:
    import pandas as pd
    from lenskit.data import from_interactions_df
    from lenskit.knn import ItemKNNScorer

    (matrix,) = load(log, "matrix")
    cells = matrix.tocoo()
    dataset = from_interactions_df(pd.DataFrame({"user_id": cells.row, "item_id": cells.col}))
    dataset.interactions().matrix()

    def run() -> Any:
        model = ItemKNNScorer(feedback="implicit", save_nbrs=top_k)
        model.train(dataset)
        return model.sim_matrix

    return Work(
        run, lambda found: facts(log)["matrix_products"], lambda found: {"pairs": len(found.values)}
    )


def _unit_columns(matrix: Any) -> Any:
    norms = np.sqrt(
        np.bincount(matrix.indices, matrix.data.astype(np.float64) ** 2, matrix.shape[1])
    )
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
    data = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _others(similarities: Any) -> np.ndarray:
    """The similarities of an item x item matrix without those of items to themselves."""
    cells = similarities.tocoo()
    return cells.data[(cells.row != cells.col) & (cells.data > 0)]


def _figures(similarity: np.ndarray) -> dict[str, Any]:
    return {
        "pairs": int(similarity.shape[0]),
        "similarity_sum": float(similarity.sum(dtype=np.float64)),
    }
