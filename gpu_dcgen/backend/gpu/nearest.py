"""Find nearest vectors on the GPU with CuPy, cuML or FAISS (D10).

Read against cuML 26.10, CuPy 14.2 and faiss-gpu 1.15. FAISS takes device pointers of float32 and
int64 (`add_c`, `search_c`: its methods below the NumPy wrappers) and runs on the default stream,
so that its work follows CuPy's. Not yet run on a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from cpu_fallback.nearest import EXACT_SCORE, PROBED_SHARE

from ..protocol import Array

MAX_BRUTE_VECTORS = 500_000  # `auto` prefers FAISS beyond this many vectors
MAX_FAISS_NEIGHBORS = 2048  # neighbors that FAISS selects on a GPU
_MAX_FLAT_VECTORS = 1_000_000  # beyond this many vectors FAISS searches inverted lists
_MAX_KEYS_BYTES = 1 << 28  # of one block of sort keys


def build_nearest_search(
    vectors: Array, k: int, engine: str
) -> tuple[str, Callable[[Array], Array]]:
    """Return the engine that is used and a function that finds nearest vectors.

    As `cpu_fallback.nearest.build_nearest_search`, with `cuml` for cuML's brute force; `brute`
    gives the same ids as on the CPU. ImportError for an engine that is missing, or that cannot
    return k neighbors.
    """
    import cupy

    has_faiss = importlib.util.find_spec("faiss") is not None
    if engine == "auto":
        can_use_faiss = has_faiss and k < MAX_FAISS_NEIGHBORS
        engine = "faiss" if len(vectors) > MAX_BRUTE_VECTORS and can_use_faiss else "brute"
    if engine == "brute":
        return engine, lambda rows: search_brute(vectors, k, rows, cupy)
    if engine == "cuml":
        if importlib.util.find_spec("cuml") is None:
            raise ImportError(
                "cuML is not installed.\n"
                "Install cuml-cu12 or cuml-cu13, or set it to brute or auto."
            )
        return engine, _build_cuml_search(vectors, k)
    return engine, _build_faiss_search(vectors, k, import_faiss(k))


def import_faiss(k: int) -> Any:
    """Import faiss with a GPU; ImportError, with a remedy, where it cannot return k neighbors."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "FAISS is not installed.\nInstall faiss-gpu, or set it to brute, cuml or auto."
        ) from error
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ImportError(
            "this FAISS finds no GPU (faiss-cpu?).\n"
            "Install faiss-gpu in its place, or set it to brute, cuml or auto."
        )
    if k >= MAX_FAISS_NEIGHBORS:
        raise ImportError(
            f"FAISS returns fewer than {MAX_FAISS_NEIGHBORS} neighbors on a GPU, "
            f"and {k} candidates are needed.\n"
            "Lower similarity.candidates or top_k, or set it to brute, cuml or auto."
        )
    return faiss


def search_brute(vectors: Array, k: int, rows: Array, xp: Any) -> Array:
    """Return ids (r, k) int32 by products and one sort of keys (falling product | id) a block.

    Products of whole numbers are exact, so the ids are the same on every device; without TF32.
    """
    n_rows = max(1, _MAX_KEYS_BYTES // (8 * int(vectors.shape[0])))
    column = xp.arange(int(vectors.shape[0]), dtype=xp.int64)
    blocks = [xp.zeros((0, k), dtype=xp.int32)]
    for start in range(0, int(rows.shape[0]), n_rows):
        queries = rows[start : start + n_rows]
        scores = (vectors[queries] @ vectors.T).astype(xp.int64)
        keys = ((EXACT_SCORE - scores) << 32) | column
        # A vector is not its own neighbor: it sorts last.
        keys = xp.where(queries[:, None] == column, xp.iinfo(xp.int64).max, keys)
        blocks.append((xp.sort(keys, axis=1, kind="stable")[:, :k] & 0xFFFFFFFF).astype(xp.int32))
    return xp.concatenate(blocks)


def _build_cuml_search(vectors: Array, k: int) -> Callable[[Array], Array]:
    from cuml.neighbors import NearestNeighbors

    index = NearestNeighbors(
        n_neighbors=k, algorithm="brute", metric="inner_product", output_type="cupy"
    ).fit(vectors)
    return lambda rows: index.kneighbors(
        vectors[rows], n_neighbors=k, return_distance=False
    ).astype("int32")


def _build_faiss_search(vectors: Array, k: int, faiss: Any) -> Callable[[Array], Array]:
    import cupy

    vectors = cupy.ascontiguousarray(vectors, dtype=cupy.float32)
    resources = faiss.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()
    index = _build_faiss_index(vectors, resources, faiss)

    # The default argument keeps `resources` alive, which the index needs.
    def search(rows: Array, resources: Any = resources) -> Array:
        queries = vectors[rows]
        scores = cupy.empty((len(queries), k), dtype=cupy.float32)
        ids = cupy.empty((len(queries), k), dtype=cupy.int64)
        outputs = _float_pointer(faiss, scores), faiss.cast_integer_to_idx_t_ptr(ids.data.ptr)
        index.search_c(len(queries), _float_pointer(faiss, queries), k, *outputs)
        return ids.astype(cupy.int32)

    return search


def _build_faiss_index(vectors: Array, resources: Any, faiss: Any) -> Any:
    """Return a flat index, or inverted lists for many vectors."""
    n, dimension = vectors.shape
    is_flat = n <= _MAX_FLAT_VECTORS
    config = faiss.GpuIndexFlatConfig() if is_flat else faiss.GpuIndexIVFFlatConfig()
    config.device = vectors.device.id
    if is_flat:
        index = faiss.GpuIndexFlatIP(resources, dimension, config)
    else:
        n_lists = int(4 * n**0.5)
        index = faiss.GpuIndexIVFFlat(
            resources, dimension, n_lists, faiss.METRIC_INNER_PRODUCT, config
        )
        index.train_c(n, _float_pointer(faiss, vectors))
        index.nprobe = min(MAX_FAISS_NEIGHBORS, max(1, round(n_lists * PROBED_SHARE)))
    index.add_c(n, _float_pointer(faiss, vectors))
    return index


def _float_pointer(faiss: Any, array: Array) -> Any:
    return faiss.cast_integer_to_float_ptr(array.data.ptr)
