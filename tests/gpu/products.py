"""Most similar items by products of a sparse and a dense matrix: the exact engine without a kernel
of its own (D10).

It does far more additions than the kernel, one for every purchase and item of a block, but in a
library's routine, and is the other way to the same result. Sums are of whole numbers below 2^53, so
float64 holds them exactly in any order.
"""

from __future__ import annotations

from typing import Any

from gpu_dcgen.backend.protocol import Array, Backend, MatrixByItemAndUser
from gpu_dcgen.backend.runs import count_codes, offsets_from_lengths, repeat_index, sort_order
from gpu_dcgen.errors import BackendError

EXACT_SUM = 1 << 53  # float64 holds all whole numbers up to here
_DENSE_BYTES = 1 << 30  # of one dense matrix: users x items of a block, or items x items of a block
_ONE = 0x3F800000  # the bits of float32 1.0


def find_similar_items(
    backend: Backend,
    first: int,
    last: int,
    matrix: MatrixByItemAndUser,
    *,
    min_common_users: int,
    top_k: int,
) -> tuple[Array, ...]:
    """As `Backend.find_similar_items`, value for value.

    BackendError where sums of products may not fit float64 (the weights' scale was chosen for 62
    bits).
    """
    xp, norms = backend.xp, matrix.norms
    offsets, user, weight = matrix.item_offsets, matrix.item_user, matrix.item_weight
    n_items, n_users = int(norms.shape[0]), int(matrix.user_offsets.shape[0]) - 1
    if int(norms.max()) >= EXACT_SUM:
        raise BackendError(
            f"similarity: an item's squared weights sum to {int(norms.max()):,}, and products by "
            f"cuSPARSE are exact below 2^53.\n"
            "Prices lie too far apart: set similarity.weight_by_price to false, or build with "
            "--backend cpu."
        )
    shape = (n_items, n_users)
    weights = backend.sparse.csr_matrix((weight.astype(xp.float64), user, offsets), shape=shape)
    ones = backend.sparse.csr_matrix(
        (xp.ones(weight.shape, dtype=xp.float64), user, offsets), shape=shape
    )
    roots = xp.sqrt(norms.astype(xp.float64))
    width = max(1, _DENSE_BYTES // (8 * max(n_users, n_items)))
    parts = []
    for start in range(first, last, width):
        stop = min(last, start + width)
        bounds = offsets[start : stop + 1]
        cells = slice(int(bounds[0]), int(bounds[-1]))
        row = repeat_index(xp, xp.diff(bounds))
        dots = weights @ _dense(row, user[cells], weight[cells], stop - start, n_users, xp)
        commons = ones @ _dense(row, user[cells], 1, stop - start, n_users, xp)
        parts.append(_select(dots.T, commons.T, start, roots, min_common_users, top_k, backend))
    return tuple(xp.concatenate(columns) for columns in zip(*parts, strict=True))


def _dense(row: Array, user: Array, values: Any, n_rows: int, n_users: int, xp: Any) -> Array:
    """Users x items of the block, float64, its columns contiguous as cuSPARSE wants them."""
    dense = xp.zeros((n_rows, n_users), dtype=xp.float64)
    dense[row, user] = values
    return dense.T


def _select(
    dots: Array, commons: Array, start: int, roots: Array, min_common: int, top_k: int, backend: Any
) -> tuple[Array, ...]:
    """lengths, item, similarity and common users of the rows start, start + 1, ..., from dense rows
    x items.
    """
    xp = backend.xp
    n_rows, n_items = dots.shape
    row, item = xp.nonzero((commons >= min_common) & (dots > 0))
    others = xp.nonzero(item != row + start)[0]
    row, item = row[others], item[others]
    similarity = xp.minimum(1.0, dots[row, item] / (roots[row + start] * roots[item])).astype(
        xp.float32
    )
    order = sort_order(
        backend, [(row, n_rows), (_ONE - similarity.view(xp.int32), _ONE + 1)]
    )  # rows hold their items in order
    row = row[order]
    offsets = offsets_from_lengths(xp, count_codes(xp, row, n_rows))
    best = xp.nonzero(xp.arange(row.shape[0], dtype=xp.int64) - offsets[row] < top_k)[0]
    row, order = row[best], order[best]
    item = item[order]
    lengths = count_codes(xp, row, n_rows).astype(xp.int32)
    return lengths, item.astype(xp.int32), similarity[order], commons[row, item].astype(xp.int32)
