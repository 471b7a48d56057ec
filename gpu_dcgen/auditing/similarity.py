"""Compute item similarities by exact integer products (D9, D10)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy import sparse

from ..config import DatasetConfig
from .purchase_log import PurchaseLog

# Bits of an item's greatest sum of squares: products of two weights stay below 2^42, or 2^62.
PACKED_BITS, WIDE_BITS = 42, 62
# Below this median, rounding would change a weight by more than 2^-12 of itself.
MIN_MEDIAN_WEIGHT = 2**11
MAX_SCALE_BITS = 40
BLOCK_PRODUCTS = 4_000_000  # multiplications of one block of items: bounds the memory


@dataclass(frozen=True)
class CosineInputs:
    """Users x items with whole-number weights, and what the cosines of items need of it."""

    weights: sparse.csr_matrix  # int64
    cells: sparse.csr_matrix  # int32  the same pattern, ones
    norms: np.ndarray  # (I,) float64  square roots of sums of squared weights
    n_products: np.ndarray  # (I,) int64  multiplications for each item's similarities
    scale_bits: int


def weigh_purchases(log: PurchaseLog, config: DatasetConfig) -> CosineInputs:
    """Weigh the purchases and views of a log that ends before the first cut."""
    settings = config.similarity
    user, item, factor = _collect_factors(log, config)
    # A cell of the matrix has the largest factor of its purchases and views.
    cell, place = np.unique(log.make_pair_keys(user, item), return_inverse=True)
    largest = np.zeros(len(cell))
    np.maximum.at(largest, place, factor)
    user, item = cell // log.n_items, cell % log.n_items
    degree = np.bincount(user, minlength=log.n_users)
    if settings.user_idf:
        n_known = len(np.unique(item))
        idf = [0.0, *(math.log(n_known / n) for n in range(1, int(degree.max()) + 1))]
        largest = largest * _round_to_float32(np.array(idf))[degree[user]]
    weight, bits = _scale_to_integers(largest, item, log.n_items)
    shape = (log.n_users, log.n_items)
    squares = np.zeros(log.n_items, dtype=np.int64)
    np.add.at(squares, item, weight * weight)
    n_products = np.bincount(item, weights=degree[user], minlength=log.n_items).astype(np.int64)
    del cell, place, largest  # each takes as much as the matrix
    weights = sparse.csr_matrix((weight, (user, item)), shape=shape)
    ones = np.ones(weights.nnz, dtype=np.int32)
    return CosineInputs(
        weights=weights,
        cells=sparse.csr_matrix((ones, weights.indices, weights.indptr), shape=shape),
        norms=np.sqrt(squares.astype(np.float64)),
        n_products=n_products,
        scale_bits=bits,
    )


def _collect_factors(
    log: PurchaseLog, config: DatasetConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return user, item and factor of each capped purchase and of each view."""
    settings = config.similarity
    recency = log.user_offsets[log.user + 1] - np.arange(len(log.user))  # 1 for a user's latest
    rows = np.flatnonzero(recency <= config.filtering.max_user_interactions)
    user, item = log.user[rows], log.item[rows]
    price = np.ones(len(rows))
    if settings.weight_by_price and log.price is not None:
        values, place = np.unique(log.price[rows], return_inverse=True)
        price = _round_to_float32(np.array([math.log1p(value) for value in values.tolist()]))[place]
    online = [channel for channel, kind in config.inputs.channels.items() if kind == "online"]
    channel = np.where(
        np.isin(log.channel[rows], online), settings.online_weight, settings.offline_weight
    )
    factor = (channel if settings.channel_weighting else 1.0) * price
    if log.views is not None:
        viewer, viewed, _ = log.views
        if config.filtering.counts == "window":
            is_known = np.isin(viewer, log.user) & np.isin(viewed, log.item)
            viewer, viewed = viewer[is_known], viewed[is_known]
        median = np.sort(price)[(len(price) - 1) // 2]
        user, item = np.append(user, viewer), np.append(item, viewed)
        factor = np.append(factor, np.full(len(viewer), settings.view_weight * median))
    return user, item, factor


def _round_to_float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def _scale_to_integers(
    factor: np.ndarray, item: np.ndarray, n_items: int
) -> tuple[np.ndarray, int]:
    """Return round(factor x 2^bits) with as many bits as the bounds of sums of squares allow."""
    for limit in (PACKED_BITS, WIDE_BITS):
        bits, too_many = -MAX_SCALE_BITS, MAX_SCALE_BITS + 1  # more bits, greater sums
        while too_many - bits > 1:
            middle = (bits + too_many) // 2
            if _fits(factor, item, n_items, middle, limit):
                bits = middle
            else:
                too_many = middle
        weight = np.rint(np.ldexp(factor, bits)).astype(np.int64)
        positive = np.sort(weight[weight > 0])
        if not len(positive) or positive[(len(positive) - 1) // 2] >= MIN_MEDIAN_WEIGHT:
            break
    return weight, bits


def _fits(factor: np.ndarray, item: np.ndarray, n_items: int, bits: int, limit: int) -> bool:
    """Whether every item's sum of squares is below 2^limit."""
    weight = np.rint(np.ldexp(factor, bits))
    # A rough sum first: far beyond the limit, the exact sum might overflow.
    estimate = np.bincount(item, weights=weight * weight, minlength=n_items).max()
    if estimate >= 2.0 ** (limit + 1):
        return False
    squares = np.zeros(n_items, dtype=np.int64)
    np.add.at(squares, item, weight.astype(np.int64) ** 2)
    return int(squares.max()) < 1 << limit


@dataclass(frozen=True)
class SimilarityRows:
    """Rows of the similarity matrix: by item, then by falling similarity, then by neighbor."""

    item: np.ndarray  # (n,) integers
    neighbor: np.ndarray  # (n,) integers
    similarity: np.ndarray  # (n,) float32
    common: np.ndarray  # (n,) integers  users of both
    rank: np.ndarray  # (n,) integers  from 1

    def make_keys(self, n_items: int) -> np.ndarray:
        """Return one number for each pair, item x n_items + neighbor: (n,) int64."""
        return self.item.astype(np.int64) * n_items + self.neighbor

    def take(self, rows: np.ndarray) -> SimilarityRows:
        """Return some of the rows."""
        return SimilarityRows(*(getattr(self, field.name)[rows] for field in fields(self)))


def compute_similarities(
    inputs: CosineInputs, items: np.ndarray, min_common: int, top_k: int | None
) -> Iterator[tuple[np.ndarray, SimilarityRows]]:
    """Yield blocks of `items` (rising) with the rows of their first `top_k` neighbors, or all."""
    is_all = len(items) == len(inputs.n_products)
    by_item = [
        (matrix if is_all else matrix[:, items]).T.tocsr()
        for matrix in (inputs.weights, inputs.cells)
    ]
    block = (np.cumsum(inputs.n_products[items]) - 1).clip(0) // BLOCK_PRODUCTS
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(items)]
    for first, stop in itertools.pairwise(bounds):
        if stop > first:
            weights, cells = (matrix[first:stop] for matrix in by_item)
            part = items[first:stop]
            yield part, _compute_block(inputs, weights, cells, part, min_common, top_k)


def _compute_block(
    inputs: CosineInputs,
    weights: sparse.csr_matrix,
    cells: sparse.csr_matrix,
    items: np.ndarray,
    min_common: int,
    top_k: int | None,
) -> SimilarityRows:
    """Return the rows of `items`, of which weights and cells are items x users."""
    dots, common = weights @ inputs.weights, cells @ inputs.cells
    # SciPy leaves out sums that are zero, so the counts may have more pairs than the products.
    if not np.array_equal(dots.indices, common.indices):
        common = _select_entries(common, dots)
    row, other = _list_entries(dots)
    dot, common = dots.data, common.data
    is_common = np.flatnonzero(common >= min_common)
    row, other, dot, common = row[is_common], other[is_common], dot[is_common], common[is_common]
    is_pair = (other != items[row]) & (inputs.norms[items[row]] > 0) & (inputs.norms[other] > 0)
    row, other, dot, common = row[is_pair], other[is_pair], dot[is_pair], common[is_pair]
    norms = inputs.norms[items[row]] * inputs.norms[other]
    similarity = np.minimum(1.0, dot / norms).astype(np.float32)
    order = np.flatnonzero(similarity > 0)
    order = order[np.lexsort((other[order], -similarity[order], row[order]))]
    row = row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row) + 1
    if top_k is not None:
        is_near = rank <= top_k
        row, order, rank = row[is_near], order[is_near], rank[is_near]
    return SimilarityRows(items[row], other[order], similarity[order], common[order], rank)


def _select_entries(matrix: sparse.csr_matrix, pattern: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the entries of `matrix` that `pattern` has, too; both are sorted in place."""
    pattern.sort_indices()
    matrix.sort_indices()
    n_items = pattern.shape[1]
    keys, wanted = (row * n_items + column for row, column in map(_list_entries, (matrix, pattern)))
    data = matrix.data[np.searchsorted(keys, wanted)]
    return sparse.csr_matrix((data, pattern.indices, pattern.indptr), shape=pattern.shape)


def _list_entries(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each stored entry."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return row, matrix.indices.astype(np.int64)


class SimilarityPairs:
    """The similarity matrix of a dataset: pairs by item and rank, found by item or by pair."""

    def __init__(self, rows: SimilarityRows, n_items: int) -> None:
        """Take rows in the file's order."""
        self._neighbor, self._similarity, self._n_items = rows.neighbor, rows.similarity, n_items
        self._offsets = np.searchsorted(rows.item, np.arange(n_items + 1, dtype=rows.item.dtype))
        key = rows.make_keys(n_items)
        self._order = np.argsort(key, kind="stable")
        self._keys = key[self._order]

    @property
    def n_pairs(self) -> int:
        """Rows of the matrix."""
        return len(self._keys)

    @property
    def n_items_with_neighbors(self) -> int:
        """Items that have a row."""
        return int((np.diff(self._offsets) > 0).sum())

    def neighbors_of(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an item's neighbors and their similarities, the most similar first."""
        rows = slice(self._offsets[item], self._offsets[item + 1])
        return self._neighbor[rows], self._similarity[rows]

    def find(self, item: int, neighbor: int) -> np.float32 | None:
        """Return the similarity of a pair, None where the matrix has none."""
        neighbors, similarity = self.neighbors_of(item)
        place = np.flatnonzero(neighbors == neighbor)
        return similarity[place[0]] if len(place) else None

    def find_all(self, item: np.ndarray, neighbor: np.ndarray) -> np.ndarray:
        """Return the similarity of each pair, NaN where the matrix has none: (n,) float32."""
        if not len(self._keys):
            return np.full(len(item), np.nan, dtype=np.float32)
        wanted = item * self._n_items + neighbor
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        similarity = self._similarity[self._order[place]]
        return np.where(self._keys[place] == wanted, similarity, np.float32(np.nan))
