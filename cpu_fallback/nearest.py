"""Find nearest vectors on the host by blocked matrix products, or by FAISS (D10)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from .vectors import select_smallest

if TYPE_CHECKING:
    from .backend import NumpyBackend

# `auto` prefers FAISS beyond this many vectors: the work of `brute` grows with their square.
MAX_BRUTE_VECTORS = 200_000
EXACT_SCORE = 1 << 24  # whole numbers up to this are exact in float32
_MAX_SCORES_BYTES = 1 << 28  # of one block of scores
PROBED_SHARE = 0.1  # share of an inverted file's lists that a query searches
_TRAINING_ROUNDS = 10  # of k-means


def build_nearest_search(
    backend: NumpyBackend, vectors: np.ndarray, k: int, engine: str
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the engine that is used and a function that finds nearest vectors.

    vectors (n, d) float32, 0 < k < n. The function takes rows (r,) int64 and returns ids (r, k)
    int32 of the k largest inner products, unordered within a row; an id may be the row itself, or
    -1 where fewer were found. `brute` finds the true ones (ties: smaller id) if the vectors are
    whole numbers no longer than 2^12; `faiss` (IVF-Flat) nearly so. `auto` is `brute` up to
    MAX_BRUTE_VECTORS, and beyond it if FAISS is missing. ImportError for a missing engine.
    """
    has_faiss = importlib.util.find_spec("faiss") is not None
    if engine == "auto":
        engine = "faiss" if len(vectors) > MAX_BRUTE_VECTORS and has_faiss else "brute"
    if engine == "brute":
        return engine, partial(_search_brute, backend, vectors, k)
    if engine != "faiss":
        raise ImportError(
            f"{engine} runs on a GPU, and this build runs on the CPU.\n"
            "Set it to brute, faiss or auto."
        )
    if not has_faiss:
        raise ImportError("FAISS is not installed.\nInstall faiss-cpu, or set it to brute or auto.")
    index = _build_index(vectors, backend.n_threads)
    return engine, lambda rows: index.search(vectors[rows], k)[1].astype(np.int32)


def _search_brute(
    backend: NumpyBackend, vectors: np.ndarray, k: int, rows: np.ndarray
) -> np.ndarray:
    n_rows = max(1, _MAX_SCORES_BYTES // (4 * len(vectors)))
    keys = np.empty((backend.n_threads, 4 * k), np.uint64)
    ids = np.empty((len(rows), k), np.int32)
    for start in range(0, len(ids), n_rows):
        queries, block = rows[start : start + n_rows], ids[start : start + n_rows]
        scores = vectors[queries] @ vectors.T

        def work(
            low: int,
            high: int,
            lane: int,
            scores: np.ndarray = scores,
            block: np.ndarray = block,
            queries: np.ndarray = queries,
        ) -> None:
            _find_largest(scores[low:high], queries[low:high], k, keys[lane], block[low:high])

        backend.in_chunks(work, len(block), min_rows=16)
    return ids


@numba.njit(nogil=True, cache=True)
def _find_largest(scores, rows, k, keys, ids):
    """Write to ids[r] the k columns, except rows[r], of the largest scores[r].

    Ties: smaller column. `keys` (more than k,) uint64 is scratch.
    """
    for r in range(len(scores)):
        n = 0
        bound = np.float32(-np.inf)  # k columns have a score of at least this
        for j in range(scores.shape[1]):
            if not scores[r, j] > bound or j == rows[r]:
                continue
            if n == len(keys):
                select_smallest(keys, n, k)
                n = k
                bound = np.float32(EXACT_SCORE - np.int64(np.max(keys[:k]) >> np.uint64(32)))
                if not scores[r, j] > bound:
                    continue
            keys[n] = (
                np.uint64(EXACT_SCORE - np.int64(scores[r, j])) << np.uint64(32)
            ) | np.uint64(j)
            n += 1
        if n > k:
            select_smallest(keys, n, k)
        for position in range(k):
            ids[r, position] = (
                np.int64(keys[position] & np.uint64(0xFFFFFFFF)) if position < n else -1
            )


def _build_index(vectors: np.ndarray, n_threads: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(n_threads)
    n, dimension = vectors.shape
    n_lists = max(1, min(n // 39, int(4 * n**0.5)))  # k-means wants 39 points a list
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFFlat(quantizer, dimension, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _TRAINING_ROUNDS
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, round(n_lists * PROBED_SHARE))
    return index
