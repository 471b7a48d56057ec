"""The approximate engine of stage 5: of items with many products, candidates by compressed item vectors, scored exactly (D10).

Counting an item's products gives its exact neighbors, and for most items of most shops that is less work than to score
candidates: they are counted as by the exact engine. The others are searched for. An item's vector is a short stand-in for its
column of the weighted matrix, so that inner products of vectors are about cosines of columns: the Nystrom approximation
(Gittens and Mahoney 2016) of the matrix of cosines after one step of subspace iteration (Halko, Martinsson and Tropp 2011).
The backend finds the largest inner products of each such item; each pair is then scored from the two items' buyers. So
similarities and common users are true and in the exact order, and only who is missing is approximate; `info` says how many
are, counted on a sample of items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import offsets_from_lengths, repeat_index
from ..config import DatasetConfig
from ..errors import BackendError
from ..kernels.pairs import score_pairs
from ..kernels.rng import ITEM_VECTORS, fold_array, purpose_key
from . import exact as exact_neighbors
from .exact import PAIR_BYTES, NeighborWorkers, nearest_by_buyers
from .matrix import MatrixByItemAndUser, WeightedMatrix

# vectors are whole numbers no longer than this: their products stay below 2^24, so float32 adds
# them exactly
VECTOR_NORM = 4064
# products that take as long as a step of scoring a pair: 2.7 to 5.3
# (tests/benchmarks/approximate.py),
STEP_PRODUCTS = 5
VECTOR_PRODUCTS = 2  # as to look at a vector of 64 numbers,
# and as a cell of the matrix takes, for each number of a vector, when the vectors are made
CELL_PRODUCTS = 4
_CANDIDATE_BYTES = 48  # of a candidate: ids, item, order, similarity, common users
_LEAST_EIGENVALUE = 1e-10  # of the largest: directions with less are rounding noise
_USERS_A_BLOCK = 1 << 17  # bounds the memory of users x dimension
_ONE = 0x3F800000  # the bits of float32 1.0; those of smaller similarities are smaller
_SAMPLED_ITEMS = 256  # items whose exact neighbors tell the recall
_RECALL_AT = 100  # the neighbors that hard negatives are taken from


def find_neighbors(
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: Any,
    workers: NeighborWorkers | None = None,
    searched: Array | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Neighbors by approximate search: (lengths, item, similarity, common_users) as the exact engine gives them, and info.

    lengths (I,) int32; laid end to end, item int32, similarity float32 and common_users int32 by falling similarity, then
    rising item. Every pair that is found has its exact values. `searched` (I,) bool: whose neighbors are searched for; all
    others' are counted, and so complete. Without it, those for whom that is less work; where there are none, `workers` help
    to count. BackendError where the machine lacks `similarity.nearest`.
    """
    xp = backend.xp
    if searched is None:
        searched, _ = less_work(matrix, config, backend)
    able = _able(matrix, config, backend)  # the others are nobody's neighbor
    searched = searched & able
    items = xp.nonzero(able)[0].astype(xp.int32)
    n_searched, width = int(searched.sum()), _n_candidates(config, int(items.shape[0]))
    info = {
        "searched_items": n_searched,
        "nearest": config.similarity.nearest,
        "dimension": 0,
        "candidates": width,
    }
    if n_searched and width:
        vectors = _item_vectors(matrix, able, config, backend)[items]
        info["nearest"], find = _nearest(vectors, width, config, backend)
        info["dimension"] = int(vectors.shape[1])
        blocks = _blocks(find, width, items, searched, matrix, config, backend, progress)
        parts = tuple(xp.concatenate(columns) for columns in zip(*blocks, strict=True))
    else:
        parts = exact_neighbors.find_neighbors(matrix, config, backend, progress, workers)
    return parts, info | _recall(items, searched, *parts[:2], matrix, config, backend)


def _blocks(
    find: Callable[[Array], Array],
    width: int,
    items: Array,
    searched: Array,
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: Any,
) -> Iterator[tuple[Array, ...]]:
    """lengths and columns, a block of items at a time: of those `searched` by what `find` finds, of the others by counting."""
    xp, n_items = backend.xp, int(searched.shape[0])
    sides = _without(searched, matrix.sides(backend), xp)
    size = backend.block_size(
        config.resources.chunk_size, PAIR_BYTES * config.similarity.top_k + _CANDIDATE_BYTES * width
    )
    for first in range(0, n_items, size):
        last = min(n_items, first + size)
        block = nearest_by_buyers(first, last, sides, config, backend)
        rows = first + xp.nonzero(searched[first:last])[0]
        if int(rows.shape[0]):
            ids = find(xp.searchsorted(items, rows.astype(xp.int32)))
            block = _merged(
                block, rows - first, _scored(ids, rows, items, matrix, config, backend), xp
            )
        yield block
        progress.advance(last - first)


def less_work(matrix: WeightedMatrix, config: DatasetConfig, backend: Backend) -> tuple[Array, int]:
    """Whose neighbors are less work to search for than to count (I,) bool, and the work if they are, in products.

    An item's products are the purchases of its buyers. To search for it, every vector is looked at and its candidates are
    scored; a pair takes as many steps as the one with fewer buyers has, at most as many as if the candidates were the best
    sold items. Nothing is searched for where all that this saves is no more than the work of making the vectors.
    """
    xp = backend.xp
    degree, able = xp.diff(matrix.item_offsets), _able(matrix, config, backend)
    n_able = int(able.sum())
    width = _n_candidates(config, n_able)
    before = xp.zeros(matrix.item_user.shape[0] + 1, dtype=xp.int64)
    before[1:] = xp.cumsum(xp.diff(matrix.user_offsets)[matrix.item_user])
    products = before[matrix.item_offsets[1:]] - before[matrix.item_offsets[:-1]]
    best_sold = xp.sort(xp.where(able, degree, 0), kind="stable")[int(degree.shape[0]) - width :]
    fewer = xp.searchsorted(best_sold, degree)  # of the best sold, those with fewer buyers
    steps = offsets_from_lengths(xp, best_sold)[fewer] + (width - fewer) * degree
    search = STEP_PRODUCTS * steps + VECTOR_PRODUCTS * n_able
    searched = able & (search < products)
    vectors = (
        CELL_PRODUCTS * int(matrix.user_item.shape[0]) * min(config.similarity.dimension, n_able)
    )
    work = vectors + int(xp.where(searched, search, products).sum())
    return (
        (searched, work)
        if work < matrix.n_products
        else (xp.zeros_like(searched), matrix.n_products)
    )


def _able(matrix: WeightedMatrix, config: DatasetConfig, backend: Backend) -> Array:
    return (matrix.norms > 0) & (
        backend.xp.diff(matrix.item_offsets) >= config.similarity.min_common_users
    )


def _without(searched: Array, sides: MatrixByItemAndUser, xp: Any) -> MatrixByItemAndUser:
    """The matrix for the exact engine, where those items that are searched for have no buyers, and so no products."""
    item_offsets, item_user, item_weight = sides.by_item
    lengths = xp.diff(item_offsets)
    kept = ~searched[repeat_index(xp, lengths)]
    return replace(
        sides,
        by_item=(
            offsets_from_lengths(xp, xp.where(searched, 0, lengths)),
            item_user[kept],
            item_weight[kept],
        ),
    )


def _merged(
    counted: tuple[Array, ...], rows: Array, scored: tuple[Array, ...], xp: Any
) -> tuple[Array, ...]:
    """Lengths and columns of a block whose items `rows`, empty in `counted`, have what is in `scored`."""
    lengths = counted[0]
    begins = offsets_from_lengths(xp, lengths)[:-1]
    begins[rows] = int(counted[1].shape[0]) + offsets_from_lengths(xp, scored[0])[:-1]
    lengths[rows] = scored[0]
    run = repeat_index(xp, lengths)
    source = (
        begins[run]
        + xp.arange(int(run.shape[0]), dtype=xp.int64)
        - offsets_from_lengths(xp, lengths)[run]
    )
    return lengths, *(
        xp.concatenate(columns)[source] for columns in zip(counted[1:], scored[1:], strict=True)
    )


def _n_candidates(config: DatasetConfig, n_items: int) -> int:
    """Candidates an item among `n_items`: `similarity.candidates` times `top_k`, at most all others."""
    return min(
        math.ceil(config.similarity.candidates * config.similarity.top_k), max(0, n_items - 1)
    )


def _item_vectors(
    matrix: WeightedMatrix, able: Array, config: DatasetConfig, backend: Backend
) -> Array:
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
    basis = _orthonormal(
        _times_cosines(matrix, scale, signs.reshape(n_items, dimension), backend), xp
    )
    image = _times_cosines(matrix, scale, basis, backend)
    values, directions = _eigenpairs(basis.T @ image, xp)
    return xp.rint((image @ directions) * (VECTOR_NORM / xp.sqrt(values))).astype(xp.float32)


def _times_cosines(matrix: WeightedMatrix, scale: Array, dense: Array, backend: Backend) -> Array:
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
            (values, item, (matrix.user_offsets[first : last + 1] - start).astype(xp.int32)),
            shape=(last - first, n_items),
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


def _nearest(
    vectors: Array, width: int, config: DatasetConfig, backend: Backend
) -> tuple[str, Callable[[Array], Array]]:
    try:
        return backend.nearest(vectors, width, config.similarity.nearest)
    except ImportError as error:
        raise BackendError(f"similarity.nearest {config.similarity.nearest}: {error}") from error


def _scored(
    ids: Array,
    rows: Array,
    items: Array,
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
) -> tuple[Array, Array, Array, Array]:
    """lengths, item, similarity, common_users of the items `rows`: their candidates' true values, filtered and in order."""
    xp, settings = backend.xp, config.similarity
    by_item = (matrix.item_offsets, matrix.item_user, matrix.item_weight)
    roots = xp.sqrt(matrix.norms.astype(xp.float64))
    n, width = ids.shape
    candidates = xp.where(ids >= 0, items[xp.maximum(ids, 0)], -1).astype(xp.int32)
    candidates = xp.sort(
        candidates, axis=1, kind="stable"
    )  # so that ties stay in the order of items
    similarity = xp.empty((n, width), dtype=xp.float32)
    common_users = xp.empty((n, width), dtype=xp.int32)
    pairs = (
        rows.astype(xp.int32),
        candidates,
        *by_item,
        roots,
        settings.min_common_users,
        similarity,
        common_users,
    )
    backend.for_each(score_pairs, n * width, *pairs)
    order = xp.argsort(_ONE - similarity.view(xp.int32), axis=1, kind="stable")[:, : settings.top_k]
    similarity = xp.take_along_axis(similarity, order, axis=1)
    kept = similarity > 0
    return (
        kept.sum(axis=1).astype(xp.int32),
        xp.take_along_axis(candidates, order, axis=1)[kept],
        similarity[kept],
        xp.take_along_axis(common_users, order, axis=1)[kept],
    )


def _recall(
    items: Array,
    searched: Array,
    lengths: Array,
    item: Array,
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
) -> dict[str, Any]:
    """The share of exact neighbors that were found, all and the first 100, over items spread evenly; null where none has any."""
    xp = backend.xp
    n_items = int(items.shape[0])
    n_sampled = min(_SAMPLED_ITEMS, n_items)
    sampled = backend.to_host(items)[
        [(2 * k + 1) * n_items // (2 * n_sampled) for k in range(n_sampled)]
    ].tolist()
    sides = matrix.sides(backend) if bool(searched.any()) else None
    bounds, missing = (
        backend.to_host(offsets_from_lengths(xp, lengths)).tolist(),
        backend.to_host(searched),
    )
    n_exact, n_found = [0, 0], [0, 0]
    for i in sampled:
        found = item[bounds[i] : bounds[i + 1]]
        exact = nearest_by_buyers(i, i + 1, sides, config, backend)[1] if missing[i] else found
        hits = xp.isin(exact, found)
        for at, first in enumerate((hits, hits[:_RECALL_AT])):
            n_exact[at] += int(first.shape[0])
            n_found[at] += int(first.sum())
    shares = [
        round(found / exact, 4) if exact else None
        for found, exact in zip(n_found, n_exact, strict=True)
    ]
    return {
        "recall": shares[0],
        f"recall_at_{_RECALL_AT}": shares[1],
        "recall_sampled_items": n_sampled,
    }
