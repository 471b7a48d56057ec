"""Nearest vectors on the GPU: CuPy, cuML or FAISS over arrays that stay on the device (D10).

Read against cuML 26.10, CuPy 14.2 and faiss-gpu 1.15. FAISS takes device pointers of float32 and int64 (`add_c`, `search_c`: its
wrappers without the NumPy ones), and runs on the default stream, so that it sees what CuPy did before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from ..protocol import Array

EXACT_SCORE = 1 << 24  # whole numbers up to this are exact in float32
BRUTE_VECTORS = 500_000  # `auto` asks FAISS beyond this many, where it is installed
FAISS_MOST = 2048  # neighbors that FAISS selects on a GPU
_FLAT_VECTORS = 1_000_000  # beyond this many FAISS looks into lists
_LISTS_SEARCHED = 0.1  # share of an inverted file's lists that a query looks into
_KEYS_BYTES = 1 << 28  # of one block of sort keys


def nearest(vectors: Array, k: int, engine: str) -> tuple[str, Callable[[Array], Array]]:
    """As `cpu_fallback.nearest.nearest_vectors`, with `cuml` for cuML's brute force; `brute` gives the same ids as on the CPU.

    ImportError for an engine that is not there, or that cannot return k neighbors.
    """
    import cupy

    has_faiss = importlib.util.find_spec("faiss") is not None
    if engine == "auto":
        engine = (
            "faiss" if len(vectors) > BRUTE_VECTORS and has_faiss and k < FAISS_MOST else "brute"
        )
    if engine == "brute":
        return engine, lambda rows: brute(vectors, k, rows, cupy)
    if engine == "cuml":
        if importlib.util.find_spec("cuml") is None:
            raise ImportError(
                "cuML is not installed.\nInstall cuml-cu12 or cuml-cu13, or set it to brute or auto."
            )
        return engine, _cuml(vectors, k)
    return engine, _faiss(vectors, k, import_faiss(k))


def import_faiss(k: int) -> Any:
    """The module faiss with a GPU; ImportError, with a remedy, where there is none or it cannot return k neighbors."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "FAISS is not installed.\nInstall faiss-gpu, or set it to brute, cuml or auto."
        ) from error
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ImportError(
            "this FAISS sees no GPU (faiss-cpu?).\nInstall faiss-gpu in its place, or set it to brute, cuml or auto."
        )
    if k >= FAISS_MOST:
        raise ImportError(
            f"FAISS returns fewer than {FAISS_MOST} neighbors on a GPU, and {k} candidates were asked for.\n"
            "Lower similarity.candidates or top_k, or set it to brute, cuml or auto."
        )
    return faiss


def brute(vectors: Array, k: int, rows: Array, xp: Any) -> Array:
    """Products, and one sort of keys (falling product | id) a block. Exact, and so the same everywhere, without TF32."""
    n_rows = max(1, _KEYS_BYTES // (8 * int(vectors.shape[0])))
    column = xp.arange(int(vectors.shape[0]), dtype=xp.int64)
    blocks = [xp.zeros((0, k), dtype=xp.int32)]
    for start in range(0, int(rows.shape[0]), n_rows):
        asked = rows[start : start + n_rows]
        scores = (vectors[asked] @ vectors.T).astype(xp.int64)
        keys = ((EXACT_SCORE - scores) << 32) | column
        keys = xp.where(asked[:, None] == column, xp.iinfo(xp.int64).max, keys)  # itself comes last
        blocks.append((xp.sort(keys, axis=1, kind="stable")[:, :k] & 0xFFFFFFFF).astype(xp.int32))
    return xp.concatenate(blocks)


def _cuml(vectors: Array, k: int) -> Callable[[Array], Array]:
    from cuml.neighbors import NearestNeighbors

    index = NearestNeighbors(
        n_neighbors=k, algorithm="brute", metric="inner_product", output_type="cupy"
    ).fit(vectors)
    return lambda rows: index.kneighbors(
        vectors[rows], n_neighbors=k, return_distance=False
    ).astype("int32")


def _faiss(vectors: Array, k: int, faiss: Any) -> Callable[[Array], Array]:
    import cupy

    n, dimension = vectors.shape
    vectors = cupy.ascontiguousarray(vectors, dtype=cupy.float32)
    resources = faiss.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()
    if n <= _FLAT_VECTORS:
        config = faiss.GpuIndexFlatConfig()
        config.device = vectors.device.id
        index = faiss.GpuIndexFlatIP(resources, dimension, config)
    else:
        config = faiss.GpuIndexIVFFlatConfig()
        config.device = vectors.device.id
        n_lists = int(4 * n**0.5)
        index = faiss.GpuIndexIVFFlat(
            resources, dimension, n_lists, faiss.METRIC_INNER_PRODUCT, config
        )
        index.train_c(n, _floats(faiss, vectors))
        index.nprobe = min(FAISS_MOST, max(1, round(n_lists * _LISTS_SEARCHED)))
    index.add_c(n, _floats(faiss, vectors))

    def find(
        rows: Array, resources: Any = resources
    ) -> Array:  # which the index needs as long as it lives
        queries = vectors[rows]
        scores = cupy.empty((len(queries), k), dtype=cupy.float32)
        ids = cupy.empty((len(queries), k), dtype=cupy.int64)
        into = _floats(faiss, scores), faiss.cast_integer_to_idx_t_ptr(ids.data.ptr)
        index.search_c(len(queries), _floats(faiss, queries), k, *into)
        return ids.astype(cupy.int32)

    return find


def _floats(faiss: Any, array: Array) -> Any:
    return faiss.cast_integer_to_float_ptr(array.data.ptr)
