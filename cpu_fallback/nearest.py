"""Nearest vectors on the host: blocked matrix products, or FAISS where it is installed (D10)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np

from .vectors import _select

# `auto` asks FAISS beyond this many: the brute force grows with their square
BRUTE_VECTORS = 200_000
EXACT_SCORE = 1 << 24  # whole numbers up to this are exact in float32
_SCORES_BYTES = 1 << 28  # of one block of products
_LISTS_SEARCHED = 0.1  # share of an inverted file's lists that a query looks into
_TRAINING_ROUNDS = 10  # of k-means


def nearest_vectors(
    backend: Any, vectors: np.ndarray, k: int, engine: str
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Who finds the k vectors of largest inner product with rows of `vectors`.

    vectors (n, d) float32, 0 < k < n. Returns the engine that is used and a function of rows (r,) int64 that returns ids (r, k)
    int32, in no order within a row; an id may be the row itself, or -1 where fewer were found. `brute` finds the true ones (ties:
    smaller id) if the vectors are whole numbers no longer than 2^12; `faiss` (IVF-Flat) nearly so; `auto` takes `brute` up to
    BRUTE_VECTORS, and beyond it if there is no FAISS. ImportError for an engine that this machine lacks.
    """
    has_faiss = importlib.util.find_spec("faiss") is not None
    if engine == "auto":
        engine = "faiss" if len(vectors) > BRUTE_VECTORS and has_faiss else "brute"
    if engine == "brute":
        return engine, partial(_brute, backend, vectors, k)
    if engine != "faiss":
        raise ImportError(
            f"{engine} runs on a GPU, and this build runs on the CPU.\nSet it to brute, faiss or auto."
        )
    if not has_faiss:
        raise ImportError("FAISS is not installed.\nInstall faiss-cpu, or set it to brute or auto.")
    index = _index(vectors, backend.n_threads)
    return engine, lambda rows: index.search(vectors[rows], k)[1].astype(np.int32)


def _brute(backend: Any, vectors: np.ndarray, k: int, rows: np.ndarray) -> np.ndarray:
    n_rows = max(1, _SCORES_BYTES // (4 * len(vectors)))
    keys = np.empty((backend.n_threads, 4 * k), np.uint64)
    ids = np.empty((len(rows), k), np.int32)
    for start in range(0, len(ids), n_rows):
        asked, block = rows[start : start + n_rows], ids[start : start + n_rows]
        scores = vectors[asked] @ vectors.T

        def work(low: int, high: int, lane: int, scores=scores, block=block, asked=asked) -> None:
            _largest(scores[low:high], asked[low:high], k, keys[lane], block[low:high])

        backend.in_chunks(work, len(block), least=16)
    return ids


@numba.njit(nogil=True, cache=True)
def _largest(scores, rows, k, keys, ids):
    """ids[r]: the k columns but rows[r] of largest scores[r], ties to the smaller. Scratch: keys (more than k,) uint64."""
    for r in range(len(scores)):
        n = 0
        least = np.float32(-np.inf)  # a score must be larger than this
        for j in range(scores.shape[1]):
            if not scores[r, j] > least or j == rows[r]:
                continue
            if n == len(keys):
                _select(keys, n, k)
                n = k
                least = np.float32(EXACT_SCORE - np.int64(np.max(keys[:k]) >> np.uint64(32)))
                if not scores[r, j] > least:
                    continue
            keys[n] = (
                np.uint64(EXACT_SCORE - np.int64(scores[r, j])) << np.uint64(32)
            ) | np.uint64(j)
            n += 1
        if n > k:
            _select(keys, n, k)
        for position in range(k):
            ids[r, position] = (
                np.int64(keys[position] & np.uint64(0xFFFFFFFF)) if position < n else -1
            )


def _index(vectors: np.ndarray, n_threads: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(n_threads)
    n, dimension = vectors.shape
    n_lists = max(1, min(n // 39, int(4 * n**0.5)))  # k-means wants 39 points a list
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFFlat(quantizer, dimension, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _TRAINING_ROUNDS
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, round(n_lists * _LISTS_SEARCHED))
    return index
