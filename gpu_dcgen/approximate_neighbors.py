"""The approximate engine of stage 5: candidates by compressed item vectors, scored exactly (D10).

An item's vector is a short stand-in for its column of the weighted matrix, so that inner products of vectors are about
cosines of columns: the Nystrom approximation (Gittens and Mahoney 2016) of the matrix of cosines after one step of subspace
iteration (Halko, Martinsson and Tropp 2011). The backend finds the largest inner products of each item; each such pair is
then scored from the two items' buyers. So similarities and common users are true and in the exact order, and only who is
missing is approximate; `info` says how many are, counted on a sample of items.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Iterator

from .backend import Backend
from .config import DatasetConfig
from .errors import BackendError
from .kernels.pairs import score_pairs
from .rng import ITEM_VECTORS, fold_array, purpose_key
from .segments import offsets_of

if TYPE_CHECKING:
    from .similarity_computer import WeightedMatrix

Array = Any
VECTOR_NORM = 4064  # vectors are whole numbers no longer than this: their products stay below 2^24, so float32 adds them exactly
_LEAST_EIGENVALUE = 1e-10  # of the largest: directions with less are rounding noise
_USERS_A_BLOCK = 1 << 17  # bounds the memory of users x dimension
_ONE = 0x3F800000  # the bits of float32 1.0; those of smaller similarities are smaller
_SAMPLED_ITEMS = 256  # items whose exact neighbors tell the recall
_RECALL_AT = 100  # the neighbors that hard negatives are taken from


def find_neighbors(
    matrix: "WeightedMatrix", config: DatasetConfig, backend: Backend, progress: Any
) -> tuple[Any, dict[str, Any]]:
    """Neighbors by approximate search: (lengths, item, similarity, common_users) as the exact engine gives them, and info.

    lengths (I,) int32; laid end to end, item int32, similarity float32 and common_users int32 by falling similarity, then
    rising item. Every pair that is found has its exact values. BackendError where the machine lacks `similarity.nearest`.
    """
    xp, settings = backend.xp, config.similarity
    n_items = int(matrix.norms.shape[0])
    able = (matrix.norms > 0) & (xp.diff(matrix.item_offsets) >= settings.min_common_users)
    items = xp.nonzero(able)[0].astype(xp.int32)  # the others are nobody's neighbor
    width = _n_candidates(config, int(items.shape[0]))
    progress.advance(n_items - int(items.shape[0]))
    lengths = xp.zeros(n_items, dtype=xp.int32)
    found = [[xp.zeros(0, dtype=dtype)] for dtype in (xp.int32, xp.int32, xp.float32, xp.int32)]
    used, dimension = settings.nearest, 0
    if width > 0:
        vectors = _item_vectors(matrix, able, config, backend)[items]
        dimension = int(vectors.shape[1])
        used, blocks = _nearest(vectors, width, config, backend)
        for part in _score_blocks(blocks, items, matrix, config, backend):
            for column, values in zip(found, part, strict=True):
                column.append(values)
            progress.advance(int(part[0].shape[0]))
    lengths_found, item, similarity, common_users = (xp.concatenate(column) for column in found)
    lengths[items] = lengths_found
    info = {"nearest": used, "dimension": dimension, "candidates": width}
    info |= _recall(items, offsets_of(xp, lengths), item, matrix, config, backend)
    return (lengths, item, similarity, common_users), info


def _n_candidates(config: DatasetConfig, n_items: int) -> int:
    """Candidates an item among `n_items`: `similarity.candidates` times `top_k`, at most all others."""
    return min(math.ceil(config.similarity.candidates * config.similarity.top_k), max(0, n_items - 1))


def _item_vectors(matrix: "WeightedMatrix", able: Array, config: DatasetConfig, backend: Backend) -> Array:
    """Vectors (I, d) float32 of whole numbers, zero for items that are not `able`.

    With C the cosines of the able items' columns and Q an orthonormal basis of C @ signs: C is about C Q (Q'C Q)^-1 Q'C.
    What is left of C is positive semidefinite, so no vector is longer than 1 before it is scaled by VECTOR_NORM.
    """
    xp = backend.xp
    n_items = int(able.shape[0])
    dimension = min(config.similarity.dimension, n_items)
    scale = xp.where(able, 1.0 / xp.sqrt(xp.maximum(matrix.norms, 1).astype(xp.float64)), 0.0)
    cell = xp.arange(n_items * dimension, dtype=xp.int64)
    key = purpose_key(config.seed, ITEM_VECTORS)
    signs = (fold_array(key, cell) >> 63).astype(xp.float64) * 2.0 - 1.0
    basis = _orthonormal(_times_cosines(matrix, scale, signs.reshape(n_items, dimension), backend), xp)
    image = _times_cosines(matrix, scale, basis, backend)
    values, directions = _eigenpairs(basis.T @ image, xp)
    return xp.rint((image @ directions) * (VECTOR_NORM / xp.sqrt(values))).astype(xp.float32)


def _times_cosines(matrix: "WeightedMatrix", scale: Array, dense: Array, backend: Backend) -> Array:
    """C @ dense, float64, where C = S A'A S: A the matrix of whole weights and S the diagonal of `scale`, by blocks of users."""
    xp, n_items = backend.xp, int(scale.shape[0])
    offsets = backend.to_host(matrix.user_offsets)
    n_users = int(offsets.shape[0]) - 1
    result = xp.zeros(dense.shape, dtype=xp.float64)
    for first in range(0, n_users, _USERS_A_BLOCK):
        last = min(n_users, first + _USERS_A_BLOCK)
        start, stop = int(offsets[first]), int(offsets[last])
        if start == stop:
            continue
        item = matrix.user_item[start:stop]
        values = matrix.user_weight[start:stop].astype(xp.float64) * scale[item]
        block = backend.sparse.csr_matrix(
            (values, item, (matrix.user_offsets[first : last + 1] - start).astype(xp.int32)), shape=(last - first, n_items)
        )
        result += block.T @ (block @ dense)
    return result


def _orthonormal(columns: Array, xp: Any) -> Array:
    """An orthonormal basis of the columns' span."""
    values, directions = _eigenpairs(columns.T @ columns, xp)
    return columns @ (directions / xp.sqrt(values))


def _eigenpairs(symmetric: Array, xp: Any) -> tuple[Array, Array]:
    """Eigenvalues that are not noise, falling, and their vectors as columns."""
    values, vectors = xp.linalg.eigh((symmetric + symmetric.T) * 0.5)
    n_noise = int((values <= _LEAST_EIGENVALUE * values[-1]).sum())
    return xp.flip(values[n_noise:], axis=0), xp.flip(vectors[:, n_noise:], axis=1)


def _nearest(vectors: Array, width: int, config: DatasetConfig, backend: Backend) -> tuple[str, Iterator[Array]]:
    try:
        return backend.nearest(vectors, width, config.similarity.nearest, config.resources.chunk_size)
    except ImportError as error:
        raise BackendError(f"similarity.nearest {config.similarity.nearest}: {error}") from error


def _score_blocks(
    blocks: Iterator[Array], items: Array, matrix: "WeightedMatrix", config: DatasetConfig, backend: Backend
) -> Iterator[tuple[Array, Array, Array, Array]]:
    """lengths, item, similarity, common_users of each block of items: the candidates' true values, filtered and in order."""
    xp, settings = backend.xp, config.similarity
    by_item = (matrix.item_offsets, matrix.item_user, matrix.item_weight)
    roots = xp.sqrt(matrix.norms.astype(xp.float64))
    first = 0
    for ids in blocks:
        n, width = ids.shape
        candidates = xp.where(ids >= 0, items[xp.maximum(ids, 0)], -1).astype(xp.int32)
        candidates = xp.sort(candidates, axis=1, kind="stable")  # so that ties stay in the order of items
        similarity = xp.empty((n, width), dtype=xp.float32)
        common_users = xp.empty((n, width), dtype=xp.int32)
        block = items[first : first + n]
        pairs = (block, candidates, *by_item, roots, settings.min_common_users, similarity, common_users)
        backend.for_each(score_pairs, n * width, *pairs)
        order = xp.argsort(_ONE - similarity.view(xp.int32), axis=1, kind="stable")[:, : settings.top_k]
        similarity = xp.take_along_axis(similarity, order, axis=1)
        kept = similarity > 0
        yield (
            kept.sum(axis=1).astype(xp.int32),
            xp.take_along_axis(candidates, order, axis=1)[kept],
            similarity[kept],
            xp.take_along_axis(common_users, order, axis=1)[kept],
        )
        first += n


def _recall(
    items: Array, offsets: Array, item: Array, matrix: "WeightedMatrix", config: DatasetConfig, backend: Backend
) -> dict[str, Any]:
    """The share of exact neighbors that were found, all and the first 100, over items spread evenly; null where none has any."""
    xp = backend.xp
    n_items = int(items.shape[0])
    n_sampled = min(_SAMPLED_ITEMS, n_items)
    sampled = backend.to_host(items)[[(2 * k + 1) * n_items // (2 * n_sampled) for k in range(n_sampled)]].tolist()
    bounds = backend.to_host(offsets)
    sides = matrix.sides(backend)
    limits = {"min_common": config.similarity.min_common_users, "top_k": config.similarity.top_k, "packed": matrix.packed}
    n_exact, n_found = [0, 0], [0, 0]
    for i in sampled:
        _, exact, _, _ = backend.similarity_block(i, i + 1, sides.by_item, sides.by_user, sides.norms, **limits)
        hits = xp.isin(exact, item[int(bounds[i]) : int(bounds[i + 1])])
        for at, first in enumerate((hits, hits[:_RECALL_AT])):
            n_exact[at] += int(first.shape[0])
            n_found[at] += int(first.sum())
    shares = [round(found / exact, 4) if exact else None for found, exact in zip(n_found, n_exact, strict=True)]
    return {"recall": shares[0], f"recall_at_{_RECALL_AT}": shares[1], "recall_sampled_items": n_sampled}
