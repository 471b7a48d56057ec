"""Item similarities by exact integer matrix products (D9, D10), from purchases before the first cut alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import sparse

from .log import Log

PACKED_BITS, WIDE_BITS = 42, 62  # of an item's greatest sum of squares
FINE_ENOUGH = 2**11  # a smaller median weight would be rounded by more than 2^-12 of itself
MOST_SCALE = 40
BLOCK_PRODUCTS = 4_000_000  # multiplications of one block of items: bounds the memory


@dataclass(frozen=True)
class Matrix:
    """Users x items with whole-number weights, and what an item's similarities need."""

    weights: sparse.csr_matrix  # int64
    cells: sparse.csr_matrix  # the same pattern, ones
    weights_by_item: sparse.csr_matrix  # items x users
    cells_by_item: sparse.csr_matrix
    norms: np.ndarray  # (I,) float64  square roots of sums of squared weights
    products: np.ndarray  # (I,) int64  multiplications for each item's row
    scale_bits: int


def weigh(log: Log, config: Any) -> Matrix:
    """The matrix of a log that ends before the first cut."""
    settings, inputs = config.similarity, config.inputs
    newest = log.user_offsets[log.user + 1] - np.arange(len(log.user))  # 1 for a user's latest row
    rows = np.flatnonzero(newest <= config.filtering.max_user_interactions)
    user, item = log.user[rows], log.item[rows]
    price = np.ones(len(rows))
    if settings.weight_by_price and log.price is not None:
        price = _to_24_bits(np.array([math.log1p(value) for value in log.price[rows].tolist()]))
    online = [channel for channel, kind in inputs.channels.items() if kind == "online"]
    channel = np.where(
        np.isin(log.channel[rows], online), settings.online_weight, settings.offline_weight
    )
    factor = (channel if settings.channel_weighting else 1.0) * price
    if log.views is not None:
        viewer, viewed, _ = log.views
        if config.filtering.counts == "window":
            known = np.isin(viewer, log.user) & np.isin(viewed, log.item)
            viewer, viewed = viewer[known], viewed[known]
        median = np.sort(price)[(len(price) - 1) // 2]
        user, item = np.append(user, viewer), np.append(item, viewed)
        factor = np.append(factor, np.full(len(viewer), settings.view_weight * median))
    cell, place = np.unique(user * log.n_items + item, return_inverse=True)
    largest = np.zeros(len(cell))
    np.maximum.at(largest, place, factor)
    user, item = cell // log.n_items, cell % log.n_items
    degree = np.bincount(user, minlength=log.n_users)
    if settings.user_idf:
        n_known = len(np.unique(item))
        idf = _to_24_bits(
            np.array([0.0, *(math.log(n_known / n) for n in range(1, int(degree.max()) + 1))])
        )
        largest = largest * idf[degree[user]]
    weight, bits = _whole_numbers(largest, item, log.n_items)
    shape = (log.n_users, log.n_items)
    squares = np.zeros(log.n_items, dtype=np.int64)
    np.add.at(squares, item, weight * weight)
    products = np.bincount(item, weights=degree[user], minlength=log.n_items).astype(np.int64)
    weights = sparse.csr_matrix((weight, (user, item)), shape=shape)
    cells = sparse.csr_matrix((np.ones(len(cell), dtype=np.int64), (user, item)), shape=shape)
    return Matrix(
        weights=weights,
        cells=cells,
        weights_by_item=weights.T.tocsr(),
        cells_by_item=cells.T.tocsr(),
        norms=np.sqrt(squares.astype(np.float64)),
        products=products,
        scale_bits=bits,
    )


def _to_24_bits(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def _whole_numbers(factor: np.ndarray, item: np.ndarray, n_items: int) -> tuple[np.ndarray, int]:
    """Weights x 2^bits, for the most bits whose sums of squares stay in bounds."""
    for limit in (PACKED_BITS, WIDE_BITS):
        bits = MOST_SCALE
        while not _fits(factor, item, n_items, bits, limit):
            bits -= 1
        weight = np.rint(np.ldexp(factor, bits)).astype(np.int64)
        positive = np.sort(weight[weight > 0])
        if not len(positive) or positive[(len(positive) - 1) // 2] >= FINE_ENOUGH:
            break
    return weight, bits


def _fits(factor: np.ndarray, item: np.ndarray, n_items: int, bits: int, limit: int) -> bool:
    weight = np.rint(np.ldexp(factor, bits))
    about = np.bincount(item, weights=weight * weight, minlength=n_items).max()
    if about >= 2.0 ** (
        limit + 1
    ):  # far beyond: no need to be exact, and whole numbers might overflow
        return False
    squares = np.zeros(n_items, dtype=np.int64)
    np.add.at(squares, item, weight.astype(np.int64) ** 2)
    return int(squares.max()) < 1 << limit


@dataclass(frozen=True)
class Neighbors:
    """Neighbors of some items: by item, then by falling similarity, then by neighbor."""

    item: np.ndarray  # (n,) int64
    other: np.ndarray  # (n,) int64
    similarity: np.ndarray  # (n,) float32
    common: np.ndarray  # (n,) int64
    rank: np.ndarray  # (n,) int64  from 1

    def take(self, rows: np.ndarray) -> Neighbors:
        return Neighbors(*(getattr(self, field.name)[rows] for field in fields(self)))


def neighbors_of(
    matrix: Matrix, items: np.ndarray, min_common: int, top_k: int | None
) -> Iterator[tuple[np.ndarray, Neighbors]]:
    """Blocks of `items` (rising) with their first `top_k` neighbors, or all; a block's products bound the memory."""
    block = (np.cumsum(matrix.products[items]) - 1).clip(0) // BLOCK_PRODUCTS
    for part in np.split(items, np.flatnonzero(np.diff(block)) + 1):
        if len(part):
            yield part, _block(matrix, part, min_common, top_k)


def _block(matrix: Matrix, items: np.ndarray, min_common: int, top_k: int | None) -> Neighbors:
    dots = matrix.weights_by_item[items] @ matrix.weights
    common = matrix.cells_by_item[items] @ matrix.cells
    if not np.array_equal(
        dots.indices, common.indices
    ):  # SciPy leaves sums of zero out, so the counts may have pairs more
        common = _of_the_pairs_of(dots, common)
    row, other = _places(dots)
    dot, common = dots.data, common.data
    enough = np.flatnonzero(common >= min_common)
    row, other, dot, common = row[enough], other[enough], dot[enough], common[enough]
    keep = (other != items[row]) & (matrix.norms[items[row]] > 0) & (matrix.norms[other] > 0)
    row, other, dot, common = row[keep], other[keep], dot[keep], common[keep]
    norms = matrix.norms[items[row]] * matrix.norms[other]
    similarity = np.minimum(1.0, dot / norms).astype(np.float32)
    positive = similarity > 0
    row, other, similarity, common = (
        row[positive],
        other[positive],
        similarity[positive],
        common[positive],
    )
    order = np.lexsort((other, -similarity, row))
    row, other, similarity, common = row[order], other[order], similarity[order], common[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row) + 1
    kept = slice(None) if top_k is None else rank <= top_k
    return Neighbors(items[row[kept]], other[kept], similarity[kept], common[kept], rank[kept])


def _of_the_pairs_of(dots: sparse.csr_matrix, common: sparse.csr_matrix) -> sparse.csr_matrix:
    """`common` without the pairs that `dots` does not have; both in order of row and column."""
    dots.sort_indices()
    common.sort_indices()
    n_items = dots.shape[1]
    keys, wanted = (row * n_items + other for row, other in (_places(common), _places(dots)))
    return sparse.csr_matrix(
        (common.data[np.searchsorted(keys, wanted)], dots.indices, dots.indptr), shape=dots.shape
    )


def _places(product: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each stored entry."""
    return np.repeat(np.arange(product.shape[0]), np.diff(product.indptr)), product.indices.astype(
        np.int64
    )
