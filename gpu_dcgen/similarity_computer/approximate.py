"""Approximate engine of stage 5: candidates by short item vectors, scored exactly (D10).

Counting an item's products gives its exact neighbors, and for most items of most shops that is less
work than scoring candidates: they are counted as by the exact engine. The neighbors of the others
are searched for. An item's vector is a short stand-in for its column of the weighted matrix, so
that inner products of vectors approximate cosines of columns: the Nystrom approximation (Gittens
and Mahoney 2016) of the matrix of cosines after one step of subspace iteration (Halko, Martinsson
and Tropp 2011). The backend finds the vectors with the largest inner products with each such item's
vector; each pair is then scored from the two items' buyers. So similarities and common users are
exact and in the exact order; only the set of neighbors is approximate. `info` has its recall,
measured on a sample of items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..backend.protocol import Array, Backend, MatrixByItemAndUser
from ..backend.runs import offsets_from_lengths, repeat_index
from ..config import DatasetConfig, SimilarityConfig
from ..errors import BackendError
from ..kernels.pairs import ItemVectors, score_pairs
from ..kernels.rng import ITEM_VECTORS, fold_array, purpose_key
from ..monitoring.progress import ProgressTracker
from . import exact
from .exact import PAIR_BYTES, NeighborRuns, NeighborWorkers, concatenate_runs
from .matrix import WeightedMatrix

# Vectors are whole numbers no longer than this: their products stay below 2^24, so float32 adds
# them exactly.
VECTOR_NORM = 4064
# Work in products of the exact engine (measured by tests/benchmarks/approximate.py):
STEP_PRODUCTS = 5  # of a step of scoring a pair: 2.7 to 5.3
VECTOR_PRODUCTS = 2  # of comparing two vectors of 64 numbers
CELL_PRODUCTS = 4  # of computing the vectors, for each cell of the matrix and number of a vector
_CANDIDATE_BYTES = 48  # of a candidate: ids, item, order, similarity, common users
_MIN_EIGENVALUE = 1e-10  # of the largest: directions with less are rounding noise
_USERS_PER_BLOCK = 1 << 17  # bounds the memory of users x dimension
_ONE = 0x3F800000  # the bits of float32 1.0; those of smaller similarities are smaller
_N_SAMPLED = 256  # items on which the recall is measured
_RECALL_AT = 100  # the neighbors that hard negatives are taken from


@dataclass(frozen=True)
class _Search:
    """The items to search, and a function that finds candidates for them."""

    items: Array  # (n,) int32  items that can be neighbors, rising; ids of vectors number them
    use_search: Array  # (I,) bool  whether an item's neighbors are searched for, or counted
    n_candidates: int
    find: Callable[[Array], Array]  # ids (r,) -> ids of candidates (r, n_candidates), -1 for none


def find_neighbors(
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: ProgressTracker,
    workers: NeighborWorkers | None = None,
    use_search: Array | None = None,
) -> tuple[NeighborRuns, dict[str, Any]]:
    """Return neighbors as the exact engine does, some of them missing, and `info`.

    Every pair that is found has its exact values. `use_search` (I,) bool selects the items to
    search for; the neighbors of the others are counted, and so complete. By default those are
    searched for which it is less work; where there are none, `workers` help to count. Raises
    BackendError where `similarity.nearest` is not available.
    """
    xp, settings = backend.xp, config.similarity
    if use_search is None:
        use_search, _ = choose_searched_items(matrix, settings, backend)
    is_eligible = _find_eligible(matrix, settings, backend)  # the others have no neighbors
    use_search = use_search & is_eligible
    items = xp.nonzero(is_eligible)[0].astype(xp.int32)
    n_searched = int(use_search.sum())
    n_candidates = _count_candidates(settings, int(items.shape[0]))
    info: dict[str, Any] = {
        "searched_items": n_searched,
        "nearest": settings.nearest,
        "dimension": 0,
        "candidates": n_candidates,
    }
    if n_searched and n_candidates:
        vectors = _compute_vectors(matrix, is_eligible, config, backend)[items]
        info["nearest"], find = _open_index(vectors, n_candidates, settings, backend)
        info["dimension"] = int(vectors.shape[1])
        search = _Search(items, use_search, n_candidates, find)
        runs = concatenate_runs(_find_blocks(search, matrix, config, backend, progress), xp)
    else:
        runs = exact.find_neighbors(matrix, config, backend, progress, workers)
    return runs, info | _measure_recall(runs, items, use_search, matrix, settings, backend)


def choose_searched_items(
    matrix: WeightedMatrix, settings: SimilarityConfig, backend: Backend
) -> tuple[Array, int]:
    """Return whether to search for each item's neighbors (I,) bool, and the work in products.

    An item's products are the purchases of its buyers. Searching for it compares its vector with
    every other and scores its candidates; a pair takes as many steps as the item with fewer buyers
    has, at most as many as if the candidates were the best-selling items. No item is searched for
    where all that this saves is no more than the work of computing the vectors.
    """
    xp = backend.xp
    degree, is_eligible = xp.diff(matrix.item_offsets), _find_eligible(matrix, settings, backend)
    n_eligible = int(is_eligible.sum())
    n_candidates = _count_candidates(settings, n_eligible)
    before = xp.zeros(matrix.item_user.shape[0] + 1, dtype=xp.int64)
    before[1:] = xp.cumsum(xp.diff(matrix.user_offsets)[matrix.item_user])
    counting = before[matrix.item_offsets[1:]] - before[matrix.item_offsets[:-1]]
    rising = xp.sort(xp.where(is_eligible, degree, 0), kind="stable")
    best_sellers = rising[int(degree.shape[0]) - n_candidates :]
    n_fewer = xp.searchsorted(best_sellers, degree)  # best sellers with fewer buyers than the item
    steps = offsets_from_lengths(xp, best_sellers)[n_fewer] + (n_candidates - n_fewer) * degree
    searching = STEP_PRODUCTS * steps + VECTOR_PRODUCTS * n_eligible
    use_search = is_eligible & (searching < counting)
    n_cells = int(matrix.user_item.shape[0])
    work = CELL_PRODUCTS * n_cells * min(settings.dimension, n_eligible)
    work += int(xp.where(use_search, searching, counting).sum())
    if work >= matrix.n_products:
        return xp.zeros_like(use_search), matrix.n_products
    return use_search, work


def _find_eligible(matrix: WeightedMatrix, settings: SimilarityConfig, backend: Backend) -> Array:
    """Return whether each item has enough buyers for a neighbor (I,) bool."""
    n_buyers = backend.xp.diff(matrix.item_offsets)
    return (matrix.norms > 0) & (n_buyers >= settings.min_common_users)


def _count_candidates(settings: SimilarityConfig, n_items: int) -> int:
    """Return the candidates of each of `n_items`: `candidates` x `top_k`, at most all others."""
    return min(math.ceil(settings.candidates * settings.top_k), max(0, n_items - 1))


def _find_blocks(
    search: _Search,
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: ProgressTracker,
) -> Iterator[NeighborRuns]:
    """Yield the neighbors of a block of items at a time, some counted and some searched for."""
    xp, n_items = backend.xp, int(search.use_search.shape[0])
    counted_matrix = _remove_buyers(search.use_search, matrix.by_item_and_user(backend), xp)
    item_bytes = PAIR_BYTES * config.similarity.top_k + _CANDIDATE_BYTES * search.n_candidates
    size = backend.choose_block_size(config.resources.chunk_size, item_bytes)
    for first in range(0, n_items, size):
        last = min(n_items, first + size)
        runs = exact.find_neighbors_of_block(
            first, last, counted_matrix, config.similarity, backend
        )
        rows = first + xp.nonzero(search.use_search[first:last])[0]
        if int(rows.shape[0]):
            scored = _score_candidates(rows, search, matrix, config.similarity, backend)
            runs = _insert_runs(runs, rows - first, scored, xp)
        yield runs
        progress.advance(last - first)


def _remove_buyers(is_removed: Array, matrix: MatrixByItemAndUser, xp: Any) -> MatrixByItemAndUser:
    """Remove the buyers of some items (I,) bool, so that the exact engine counts no products."""
    lengths = xp.diff(matrix.item_offsets)
    cells = ~is_removed[repeat_index(xp, lengths)]
    offsets = offsets_from_lengths(xp, xp.where(is_removed, 0, lengths))
    return replace(
        matrix,
        item_offsets=offsets,
        item_user=matrix.item_user[cells],
        item_weight=matrix.item_weight[cells],
    )


def _insert_runs(counted: NeighborRuns, rows: Array, scored: NeighborRuns, xp: Any) -> NeighborRuns:
    """Insert `scored`, the runs of a block's items `rows`, where `counted` has empty runs."""
    lengths = counted[0]
    starts = offsets_from_lengths(xp, lengths)[:-1]
    starts[rows] = int(counted[1].shape[0]) + offsets_from_lengths(xp, scored[0])[:-1]
    lengths[rows] = scored[0]
    run = repeat_index(xp, lengths)
    position = xp.arange(int(run.shape[0]), dtype=xp.int64) - offsets_from_lengths(xp, lengths)[run]
    source = starts[run] + position
    item, similarity, common_users = (
        xp.concatenate(columns)[source] for columns in zip(counted[1:], scored[1:], strict=True)
    )
    return lengths, item, similarity, common_users


def _compute_vectors(
    matrix: WeightedMatrix, is_eligible: Array, config: DatasetConfig, backend: Backend
) -> Array:
    """Return vectors (I, d) float32 of whole numbers, zero for items that are not eligible.

    With C the cosines of the eligible items' columns and Q an orthonormal basis of C @ signs: C is
    approximately C Q (Q'C Q)^-1 Q'C. The remainder of C is positive semidefinite, so no vector is
    longer than 1 before it is scaled by VECTOR_NORM.
    """
    xp = backend.xp
    n_items = int(is_eligible.shape[0])
    dimension = min(config.similarity.dimension, n_items)
    norms = xp.sqrt(xp.maximum(matrix.norms, 1).astype(xp.float64))
    scale = xp.where(is_eligible, 1.0 / norms, 0.0)
    cell = xp.arange(n_items * dimension, dtype=xp.int64)
    key = purpose_key(config.seed, ITEM_VECTORS)
    signs = (fold_array(key, cell) >> 63).astype(xp.float64) * 2.0 - 1.0
    signs = signs.reshape(n_items, dimension)
    basis = _compute_basis(_multiply_cosines(matrix, scale, signs, backend), xp)
    image = _multiply_cosines(matrix, scale, basis, backend)
    values, directions = _compute_eigenpairs(basis.T @ image, xp)
    return xp.rint((image @ directions) * (VECTOR_NORM / xp.sqrt(values))).astype(xp.float32)


def _multiply_cosines(
    matrix: WeightedMatrix, scale: Array, dense: Array, backend: Backend
) -> Array:
    """Return C @ dense, float64, by blocks of users.

    C = S A'A S with A the matrix of whole weights and S the diagonal of `scale`.
    """
    xp, n_items = backend.xp, int(scale.shape[0])
    offsets = backend.to_host(matrix.user_offsets)
    n_users = int(offsets.shape[0]) - 1
    result = xp.zeros(dense.shape, dtype=xp.float64)
    for first in range(0, n_users, _USERS_PER_BLOCK):
        last = min(n_users, first + _USERS_PER_BLOCK)
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


def _compute_basis(columns: Array, xp: Any) -> Array:
    """Return an orthonormal basis of the columns' span."""
    values, directions = _compute_eigenpairs(columns.T @ columns, xp)
    return columns @ (directions / xp.sqrt(values))


def _compute_eigenpairs(symmetric: Array, xp: Any) -> tuple[Array, Array]:
    """Return the eigenvalues that are not noise, falling, and their vectors as columns."""
    values, vectors = xp.linalg.eigh((symmetric + symmetric.T) * 0.5)
    n_noise = int((values <= _MIN_EIGENVALUE * values[-1]).sum())
    return xp.flip(values[n_noise:], axis=0), xp.flip(vectors[:, n_noise:], axis=1)


def _open_index(
    vectors: Array, n_candidates: int, settings: SimilarityConfig, backend: Backend
) -> tuple[str, Callable[[Array], Array]]:
    """Return the name of the index that `similarity.nearest` selects, and its search function."""
    try:
        return backend.build_nearest_search(vectors, n_candidates, settings.nearest)
    except ImportError as error:
        raise BackendError(f"similarity.nearest {settings.nearest}: {error}") from error


def _score_candidates(
    rows: Array,
    search: _Search,
    matrix: WeightedMatrix,
    settings: SimilarityConfig,
    backend: Backend,
) -> NeighborRuns:
    """Return the neighbors of the items `rows` among their candidates, with exact values."""
    xp, items = backend.xp, search.items
    ids = search.find(xp.searchsorted(items, rows.astype(xp.int32)))
    norm = xp.sqrt(matrix.norms.astype(xp.float64))
    vectors = ItemVectors(matrix.item_offsets, matrix.item_user, matrix.item_weight, norm)
    candidates = xp.where(ids >= 0, items[xp.maximum(ids, 0)], -1).astype(xp.int32)
    # The order by similarity below is stable: ties stay in the order of items.
    candidates = xp.sort(candidates, axis=1, kind="stable")
    similarity = xp.empty(ids.shape, dtype=xp.float32)
    common_users = xp.empty(ids.shape, dtype=xp.int32)
    backend.for_each(
        score_pairs,
        ids.shape[0] * ids.shape[1],
        rows.astype(xp.int32),
        candidates,
        vectors,
        settings.min_common_users,
        similarity,
        common_users,
    )
    order = xp.argsort(_ONE - similarity.view(xp.int32), axis=1, kind="stable")[:, : settings.top_k]
    similarity = xp.take_along_axis(similarity, order, axis=1)
    is_neighbor = similarity > 0
    return (
        is_neighbor.sum(axis=1).astype(xp.int32),
        xp.take_along_axis(candidates, order, axis=1)[is_neighbor],
        similarity[is_neighbor],
        xp.take_along_axis(common_users, order, axis=1)[is_neighbor],
    )


def _measure_recall(
    runs: NeighborRuns,
    items: Array,
    use_search: Array,
    matrix: WeightedMatrix,
    settings: SimilarityConfig,
    backend: Backend,
) -> dict[str, Any]:
    """Return the share of the exact neighbors that are in `runs`, all and the first 100.

    Over at most _N_SAMPLED of `items`, spread evenly; null where none has any.
    """
    xp = backend.xp
    n_items = int(items.shape[0])
    n_sampled = min(_N_SAMPLED, n_items)
    sampled = backend.to_host(items)[
        [(2 * k + 1) * n_items // (2 * n_sampled) for k in range(n_sampled)]
    ].tolist()
    lengths, item, *_ = runs
    offsets = backend.to_host(offsets_from_lengths(xp, lengths)).tolist()
    by_both = matrix.by_item_and_user(backend) if bool(use_search.any()) else None
    is_searched = backend.to_host(use_search)
    n_exact, n_hits = [0, 0], [0, 0]
    for i in sampled:
        ours = exact_item = item[offsets[i] : offsets[i + 1]]
        if by_both is not None and is_searched[i]:
            _, exact_item, *_ = exact.find_neighbors_of_block(i, i + 1, by_both, settings, backend)
        is_hit = xp.isin(exact_item, ours)
        for k, part in enumerate((is_hit, is_hit[:_RECALL_AT])):
            n_exact[k] += int(part.shape[0])
            n_hits[k] += int(part.sum())
    recall, recall_at = (
        round(hits / n, 4) if n else None for hits, n in zip(n_hits, n_exact, strict=True)
    )
    return {
        "recall": recall,
        f"recall_at_{_RECALL_AT}": recall_at,
        "recall_sampled_items": n_sampled,
    }
