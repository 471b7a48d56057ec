"""Row kernel over pairs of items: the exact similarity of an item and a candidate (D10)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import row_kernel
from .draws import gallop


class ItemVectors(NamedTuple):
    """The weighted matrix by item (D9)."""

    offsets: Any  # (I+1,) int64  each item's run in the two arrays below
    user: Any  # (N,) int32  rising within an item
    weight: Any  # (N,) int32
    norm: Any  # (I,) float64  square root of the sum of squared weights


@row_kernel
def score_pairs(pair, items, candidates, vectors, min_common_users, similarity, common_users):
    """Score items[pair // width] and its candidate pair % width.

    candidates (items, width) int32, -1 for none. Written, of the same shape: similarity float32,
    0 where the two are not neighbors, and common_users int32. The buyers of the item with fewer
    are looked for among those of the other.
    """
    width = candidates.shape[1]
    row, column = pair // width, pair % width
    i, j = items[row], candidates[row, column]
    similarity[row, column] = 0.0
    common_users[row, column] = 0
    if j < 0 or i == j:
        return
    offsets, user, weight = vectors.offsets, vectors.user, vectors.weight
    if offsets[i + 1] - offsets[i] > offsets[j + 1] - offsets[j]:
        i, j = j, i
    at, stop = offsets[j], offsets[j + 1]
    dot, n_common = np.int64(0), 0
    for position in range(offsets[i], offsets[i + 1]):
        at = gallop(user, at, stop, user[position])
        if at == stop:
            break
        if user[at] == user[position]:
            dot += np.int64(weight[position]) * weight[at]
            n_common += 1
    if n_common >= min_common_users and dot > 0:
        cosine = np.float64(dot) / (vectors.norm[i] * vectors.norm[j])
        similarity[row, column] = np.float32(min(1.0, cosine))
        common_users[row, column] = n_common
